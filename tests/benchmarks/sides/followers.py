"""`python -m tests.benchmarks.sides.followers SIDE ADDRESS`: many watches of one stream of changes, told by lines.

`open COUNT` opens watches, all at once, and answers with how many stand. `take FIRST COUNT` waits until each of them has been
given that many changes more and answers with when the last one came (monotonic seconds), what was wrong with them, and, for
each change, when each watch got it. It ends with its input.

Guarantee: every watch must get every change of FIRST to FIRST + COUNT - 1 exactly once, with revisions that rise; whatever
else it got, or did not get in TAKE_SECONDS, is counted.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections.abc import Iterable, Sequence
from itertools import pairwise
from typing import Any

import grpc

from tests.benchmarks.sides.wire import CHANNELS, OPTIONS, PROTOCOLS, Given

OPEN_SECONDS = 60.0
TAKE_SECONDS = 45.0


def judge(given: Iterable[Sequence[Given]], first: int, count: int) -> dict[str, int]:
    """How many deliveries are missing, came twice, are of something else, or are out of order, over all watches."""
    wanted = set(range(first, first + count))
    missing = repeated = strange = disordered = 0
    for changes in given:
        numbers = [change.number for change in changes]
        seen = set(numbers)
        missing += len(wanted - seen)
        strange += len(seen - wanted)
        repeated += len(numbers) - len(seen)
        disordered += sum(later.revision <= earlier.revision for earlier, later in pairwise(changes))
    return {"missing": missing, "repeated": repeated, "strange": strange, "disordered": disordered}


class Crowd:
    """All watches of this process."""

    def __init__(self, side: str, address: str) -> None:
        self._protocol = PROTOCOLS[side]()
        self._channels = [grpc.aio.insecure_channel(address, OPTIONS) for _ in range(CHANNELS)]
        self._given: list[list[Given]] = []
        self._came: list[list[float]] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._failures: list[str] = []
        self._left = self._messages = 0
        self._all = asyncio.Event()

    async def open(self, count: int) -> dict[str, Any]:
        """Open `count` watches; those that do not stand in OPEN_SECONDS count as refused."""
        standing = asyncio.Event()
        opened = 0

        def stands() -> None:
            nonlocal opened
            opened += 1
            if opened == count:
                standing.set()

        for number in range(count):
            channel = self._channels[number % CHANNELS]
            self._given.append([])
            self._came.append([])
            self._tasks.append(asyncio.create_task(self._follow(channel, len(self._given) - 1, stands)))
        try:
            async with asyncio.timeout(OPEN_SECONDS):
                await standing.wait()
        except TimeoutError:
            pass
        return {"opened": opened, "failures": self._failures[:3]}

    async def _follow(self, channel: grpc.aio.Channel, place: int, stands: Any) -> None:
        given, came = self._given[place], self._came[place]
        try:
            async for changes in self._protocol.follow(channel):
                if changes is None:
                    stands()
                    continue
                now = time.monotonic()
                self._messages += 1
                given.extend(changes)
                came.extend([now] * len(changes))
                self._left -= len(changes)
                if self._left <= 0:
                    self._all.set()
            self._failures.append("a watch ended")
        except Exception as error:  # noqa: BLE001 - whatever ends a watch is told, with what is missing then
            self._failures.append(f"{type(error).__name__}: {error}"[:300])

    async def take(self, first: int, count: int) -> dict[str, Any]:
        """See the module."""
        try:
            async with asyncio.timeout(TAKE_SECONDS):
                await self._all.wait()
        except TimeoutError:
            pass
        times: dict[int, list[float]] = {number: [] for number in range(first, first + count)}
        for changes, came in zip(self._given, self._came, strict=True):
            for change, at in zip(changes, came, strict=True):
                times.setdefault(change.number, []).append(at)
        answer = {
            "last": max((max(at) for at in times.values() if at), default=0.0),
            "deliveries": sum(map(len, self._given)),
            "wrong": judge(self._given, first, count),
            "times": times,
            "messages": self._messages,
            "failures": self._failures[:3],
        }
        for changes, came in zip(self._given, self._came, strict=True):
            changes.clear()
            came.clear()
        return answer

    def expect(self, count: int) -> None:
        """`count` changes for each watch come from now on."""
        self._left, self._messages = count * len(self._given), 0
        self._all.clear()

    async def close(self) -> None:
        """End every watch."""
        for task in self._tasks:
            task.cancel()
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=10)
        for channel in self._channels:
            await channel.close(None)


def say(answer: dict[str, Any]) -> None:
    """One line."""
    print(json.dumps(answer), flush=True)


async def serve(side: str, address: str) -> None:
    """Serve standard input. Before a `take` waits, it answers that it is ready: nothing may be written before that."""
    crowd = Crowd(side, address)
    while line := await asyncio.to_thread(sys.stdin.readline):
        word, *numbers = line.split()
        if word == "open":
            say(await crowd.open(int(numbers[0])))
        else:
            crowd.expect(int(numbers[1]))
            say({"ready": True})
            say(await crowd.take(int(numbers[0]), int(numbers[1])))
    await crowd.close()


if __name__ == "__main__":
    asyncio.run(serve(sys.argv[1], sys.argv[2]))
