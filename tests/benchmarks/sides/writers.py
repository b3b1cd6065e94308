"""`python -m tests.benchmarks.sides.writers SIDE ADDRESS SIZE`: durable changes, told by lines.

`at-once CALLERS FIRST COUNT` keeps that many calls in flight, `even RATE FIRST COUNT` sends at even distances whatever has
become of those before. The answer says when each change was sent (monotonic seconds), in the order of their numbers. It ends
with its input, and badly when a change is refused.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time

import grpc

from tests.benchmarks.sides.wire import OPTIONS, PROTOCOLS

CHANNELS = 4


class Writers:
    """The changes of one process."""

    def __init__(self, side: str, address: str, size: int) -> None:
        self._protocol = PROTOCOLS[side]()
        self._channels = [grpc.aio.insecure_channel(address, OPTIONS) for _ in range(CHANNELS)]
        self._size = size
        self.sent: dict[int, float] = {}

    async def _write(self, number: int) -> None:
        self.sent[number] = time.monotonic()
        await self._protocol.write(self._channels[number % CHANNELS], number, self._size)

    async def at_once(self, callers: int, first: int, count: int) -> None:
        """A closed loop."""
        left = iter(range(first, first + count))

        async def caller() -> None:
            for number in left:
                await self._write(number)

        await asyncio.gather(*(caller() for _ in range(callers)))

    async def even(self, rate: float, first: int, count: int) -> None:
        """An open loop."""
        loop = asyncio.get_running_loop()
        began = loop.time()
        async with asyncio.TaskGroup() as group:
            for turn in range(count):
                await asyncio.sleep(max(0.0, began + turn / rate - loop.time()))
                group.create_task(self._write(first + turn))


async def serve(side: str, address: str, size: int) -> None:
    """Serve standard input."""
    writers = Writers(side, address, size)
    while line := await asyncio.to_thread(sys.stdin.readline):
        word, how, first, count = line.split()
        writers.sent.clear()
        if word == "even":
            await writers.even(float(how), int(first), int(count))
        else:
            await writers.at_once(int(how), int(first), int(count))
        print(json.dumps({"sent": [writers.sent[number] for number in sorted(writers.sent)]}), flush=True)


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2], int(sys.argv[3])))
