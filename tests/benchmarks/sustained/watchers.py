"""`python -m tests.benchmarks.sustained.watchers ADDRESS COUNT CHURN`: watches of events until SIGTERM.

One of each tenant sees all of it, the others one instance each, as a consumer would. CHURN of them per second are closed and
opened again where they were. Prints one line of JSON per interval.

Guarantee: a revision that does not rise is counted as `repeated`; how late an event is, is taken from its own time.
"""

from __future__ import annotations

import asyncio
import json
import random
import signal
import sys
import time
from typing import Any

import grpc

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from tests.benchmarks.house import TENANTS

CHANNELS = 20
INTERVAL = 10.0  # seconds
BACK_OFF = 1.0


class Counts:
    """Of one interval."""

    def __init__(self) -> None:
        self.events = self.heartbeats = self.repeated = self.reopened = 0
        self.errors: dict[str, int] = {}
        self.late_ms: list[float] = []

    def line(self, seconds: float) -> dict[str, Any]:
        """As it is printed."""
        shown: dict[str, Any] = {
            "at": round(seconds, 1), "events": self.events, "heartbeats": self.heartbeats, "repeated": self.repeated,
            "reopened": self.reopened, **self.errors,
        }  # fmt: skip
        values = sorted(self.late_ms)
        if values:
            shown["late_ms"] = [round(values[int(len(values) * share)], 1) for share in (0.5, 0.99)]
        return shown


class Watcher:
    """One watch that keeps its place."""

    def __init__(self, stub: Any, number: int, crowd: Crowd) -> None:
        self._stub, self._crowd = stub, crowd
        self._tenant = TENANTS[number % len(TENANTS)]
        self._instance_id = "" if number < len(TENANTS) else f"watched-{number}"
        self._token, self._revision = "", 0
        self.stream: Any = None

    async def run(self) -> None:
        """Watch, and open again whenever the stream ends."""
        while True:
            start = pb.WatchEventsRequest.START_AFTER if self._token else pb.WatchEventsRequest.START_NOW
            request = pb.WatchEventsRequest(
                tenant=self._tenant, instance_id=self._instance_id, start=start, resume_token=self._token
            )
            self.stream = self._stub.WatchEvents(request)
            try:
                async for message in self.stream:
                    self._take(message)
            except grpc.aio.AioRpcError as error:
                if error.code() is not grpc.StatusCode.CANCELLED:
                    errors = self._crowd.counts.errors
                    errors[error.code().name] = errors.get(error.code().name, 0) + 1
                    await asyncio.sleep(BACK_OFF)
            except asyncio.CancelledError:
                if not self.stream.cancelled():
                    raise
            self._crowd.counts.reopened += 1

    def _take(self, message: Any) -> None:
        counts, now = self._crowd.counts, time.time()
        counts.heartbeats += not message.events
        for event in message.events:
            counts.events += 1
            counts.repeated += event.revision <= self._revision
            self._revision = max(self._revision, event.revision)
        if message.events:
            counts.late_ms.append((now - message.events[0].time.ToNanoseconds() / 1e9) * 1000)
        self._token = message.resume_token


class Crowd:
    """All watchers of this process."""

    def __init__(self) -> None:
        self.counts = Counts()
        self.watchers: list[Watcher] = []

    async def tell(self) -> None:
        """Print every interval."""
        started = time.perf_counter()
        while True:
            await asyncio.sleep(INTERVAL)
            counts, self.counts = self.counts, Counts()
            print(json.dumps(counts.line(time.perf_counter() - started)), flush=True)

    async def churn(self, per_second: float) -> None:
        """Close one after the other; each opens again by itself."""
        chance = random.Random(1)
        while per_second:
            await asyncio.sleep(1 / per_second)
            stream = chance.choice(self.watchers).stream
            if stream is not None:
                stream.cancel()


async def run(address: str, count: int, churn: float) -> None:
    """See the module."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options) for _ in range(CHANNELS)]
    stubs = [broker_service_pb2_grpc.BrokerServiceStub(channel) for channel in channels]
    crowd = Crowd()
    crowd.watchers = [Watcher(stubs[number % CHANNELS], number, crowd) for number in range(count)]
    work = [watcher.run() for watcher in crowd.watchers]
    tasks = [asyncio.create_task(part) for part in (*work, crowd.tell(), crowd.churn(churn))]
    ended = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, ended.set)
    await ended.wait()
    for task in tasks:
        task.cancel()
    await asyncio.wait(tasks, timeout=5)
    for channel in channels:
        await channel.close()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], int(sys.argv[2]), float(sys.argv[3])))
