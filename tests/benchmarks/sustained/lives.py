"""`python -m tests.benchmarks.sustained.lives ADDRESS RATE SECONDS`: instances that are ordered, waited for and given back.

RATE is lives per second, begun at even distances whatever has become of those before (an open loop), or `max`: WORKERS at a
time, each begins its next life when its last has ended. Prints one line of JSON per interval and one at the end.

Guarantee: every life that was accepted is followed to its end, at most PATIENCE seconds after the last was begun; an end that
is not SUCCEEDED, or later than its operation's own deadline, is counted as such.
"""

from __future__ import annotations

import asyncio
import json
import random
import sys
import time
from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from purveyor.v1.operation_pb2 import Operation
from tests.benchmarks.house import CALL_SECONDS, TENANTS, provision_request

WORKERS = 64
CHANNELS = 8
INTERVAL = 10.0  # seconds
PATIENCE = 300.0
WAIT_SECONDS = 30
MOST_OPEN = 60_000  # lives at once; above it the generator, not the broker, is the limit, and says so


class Counts:
    """What happened in one interval."""

    def __init__(self) -> None:
        self.accept_ms: list[float] = []
        self.end_ms: list[float] = []
        self.refusal_ms: list[float] = []
        self.counts: dict[str, int] = {}

    def add(self, name: str) -> None:
        """One more of `name`."""
        self.counts[name] = self.counts.get(name, 0) + 1

    def line(self, seconds: float, open_lives: int) -> dict[str, Any]:
        """As it is printed: counts, and p50 and p99 in milliseconds."""
        shown: dict[str, Any] = {"at": round(seconds, 1), "open": open_lives, **self.counts}
        for name in ("accept_ms", "end_ms", "refusal_ms"):
            values = sorted(getattr(self, name))
            if values:
                shown[name] = [round(values[int(len(values) * share)], 1) for share in (0.5, 0.99)]
        return shown


class Lives:
    """The generator."""

    def __init__(self, stubs: list[Any]) -> None:
        self._stubs = stubs
        self._requests = {tenant: provision_request(tenant) for tenant in TENANTS}
        self._tasks: set[asyncio.Task[None]] = set()
        self._chance = random.Random(1)
        self.counts = Counts()

    def begin(self) -> None:
        """Begin a life and let it run."""
        if len(self._tasks) >= MOST_OPEN:
            self.counts.add("not_sent")
            return
        task = asyncio.create_task(self.live())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    def __len__(self) -> int:
        return len(self._tasks)

    async def ended(self, seconds: float) -> None:
        """Wait until every life has ended, at most so long."""
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=seconds)

    async def live(self) -> None:
        """Order an instance, wait for it, give it back, wait for that."""
        tenant, stub = self._chance.choice(TENANTS), self._chance.choice(self._stubs)
        made = await self._ask("provision", stub.Provision, self._requests[tenant])
        if made is None or not await self._ended(stub, tenant, made.operation):
            return
        request = pb.DeprovisionRequest(tenant=tenant, instance_id=made.instance.instance_id)
        gone = await self._ask("deprovision", stub.Deprovision, request)
        if gone is not None and await self._ended(stub, tenant, gone.operation):
            self.counts.add("lives")

    async def _ask(self, name: str, method: Any, request: Any) -> Any:
        """Send one change; None when it was refused."""
        started = time.perf_counter()
        try:
            answer = await method(request, timeout=CALL_SECONDS)
        except grpc.aio.AioRpcError as error:
            self.counts.refusal_ms.append((time.perf_counter() - started) * 1000)
            self.counts.add(f"{name}_refused")
            if error.code() is not grpc.StatusCode.RESOURCE_EXHAUSTED or not _has_retry(error):
                self.counts.add(f"{name}_{error.code().name}_without_retry")
            return None
        self.counts.accept_ms.append((time.perf_counter() - started) * 1000)
        self.counts.add(f"{name}_accepted")
        return answer

    async def _ended(self, stub: Any, tenant: str, operation: Operation) -> bool:
        """Follow an operation to its end."""
        started = time.perf_counter()
        request = pb.WaitOperationRequest(tenant=tenant, operation_id=operation.operation_id)
        request.timeout.FromSeconds(WAIT_SECONDS)
        while not operation.done:
            try:
                operation = (await stub.WaitOperation(request, timeout=WAIT_SECONDS + CALL_SECONDS)).operation
            except grpc.aio.AioRpcError as error:
                self.counts.add(f"wait_{error.code().name}")
                await asyncio.sleep(1)
        self.counts.end_ms.append((time.perf_counter() - started) * 1000)
        if operation.end_time.ToDatetime() > operation.deadline.ToDatetime():
            self.counts.add("late")
        if operation.state != Operation.STATE_SUCCEEDED:
            self.counts.add("failed")
        return bool(operation.state == Operation.STATE_SUCCEEDED)


def _has_retry(error: grpc.aio.AioRpcError) -> bool:
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin" and isinstance(value, bytes):
            details = status_pb2.Status.FromString(value).details
            return any(detail.Is(error_details_pb2.RetryInfo.DESCRIPTOR) for detail in details)
    return False


async def _tell(lives: Lives, started: float) -> None:
    while True:
        await asyncio.sleep(INTERVAL)
        _print(lives, started)


def _print(lives: Lives, started: float) -> None:
    counts, lives.counts = lives.counts, Counts()
    print(json.dumps(counts.line(time.perf_counter() - started, len(lives))), flush=True)


async def _open_loop(lives: Lives, rate: float, seconds: float) -> None:
    loop = asyncio.get_running_loop()
    began, count = loop.time(), 0
    while (now := loop.time() - began) < seconds:
        while count < now * rate:
            lives.begin()
            count += 1
        await asyncio.sleep(max(0.0, count / rate - (loop.time() - began)))


async def _closed_loop(lives: Lives, seconds: float) -> None:
    async def work() -> None:
        end = asyncio.get_running_loop().time() + seconds
        while asyncio.get_running_loop().time() < end:
            await lives.live()

    await asyncio.gather(*(work() for _ in range(WORKERS)))


async def run(address: str, rate: str, seconds: float) -> None:
    """See the module."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options) for _ in range(CHANNELS)]
    lives = Lives([broker_service_pb2_grpc.BrokerServiceStub(channel) for channel in channels])
    started = time.perf_counter()
    telling = asyncio.create_task(_tell(lives, started))
    if rate == "max":
        await _closed_loop(lives, seconds)
    else:
        await _open_loop(lives, float(rate), seconds)
    await lives.ended(PATIENCE)
    telling.cancel()
    _print(lives, started)
    for channel in channels:
        await channel.close()


if __name__ == "__main__":
    asyncio.run(run(sys.argv[1], sys.argv[2], float(sys.argv[3])))
