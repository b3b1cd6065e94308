"""`python -m tests.benchmarks.sides.opener ADDRESS COUNT`: watches of events that are all opened at once.

Says how many got their first message, then, for each `change ID` on standard input, how many were given the instance ID
within TAKE_SECONDS. Ends with its input.

Guarantee: every call is made before the first answer is looked at; no call is tried again.
"""

from __future__ import annotations

import asyncio
import json
import sys
import time
from collections import Counter
from typing import Any

import grpc

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from tests.benchmarks.house import TENANTS
from tests.benchmarks.sides.wire import OPTIONS

CHANNELS = (
    50  # connections, as many clients would have them: a hundred streams each, what servers commonly allow on one
)
OPEN_SECONDS = TAKE_SECONDS = 60.0


class Opener:
    """The watches."""

    def __init__(self) -> None:
        self._changed = asyncio.Condition()
        self.failures: Counter[str] = Counter()
        self.opened = 0
        self.given: Counter[str] = Counter()

    async def follow(self, stub: Any) -> None:
        """One watch, once."""
        try:
            stream = stub.WatchEvents(pb.WatchEventsRequest(tenant=TENANTS[0]))
            first, known = True, set[str]()
            while (message := await stream.read()) is not grpc.aio.EOF:
                ids = {event.instance_id for event in message.events} - known
                known |= ids
                async with self._changed:
                    self.opened += first
                    self.given.update(ids)
                    self._changed.notify_all()
                first = False
            self.failures["a watch ended"] += 1
        except grpc.aio.AioRpcError as error:
            self.failures[f"{error.code().name}: {error.details()}"[:100]] += 1

    async def until(self, enough: Any, seconds: float) -> None:
        """Wait until `enough()`, at most so long."""
        try:
            async with asyncio.timeout(seconds), self._changed:
                await self._changed.wait_for(enough)
        except TimeoutError:
            pass


async def run(address: str, count: int) -> None:
    """See the module."""
    channels = [grpc.aio.insecure_channel(address, OPTIONS) for _ in range(CHANNELS)]
    stubs = [broker_service_pb2_grpc.BrokerServiceStub(channel) for channel in channels]
    opener, began = Opener(), time.monotonic()
    tasks = [asyncio.create_task(opener.follow(stubs[number % CHANNELS])) for number in range(count)]
    await opener.until(lambda: opener.opened + opener.failures.total() >= count, OPEN_SECONDS)
    seconds = time.monotonic() - began
    print(json.dumps({"opened": opener.opened, "seconds": seconds, "failures": opener.failures}), flush=True)
    while line := await asyncio.to_thread(sys.stdin.readline):
        wanted = line.split()[1]
        await opener.until(lambda wanted=wanted: opener.given[wanted] >= count, TAKE_SECONDS)
        print(json.dumps({"given": opener.given[wanted], "failures": opener.failures}), flush=True)
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=10)
    for channel in channels:
        await channel.close(None)


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2])))
