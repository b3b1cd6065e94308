"""Client cancels by the thousand against a server process, and the slope of its memory.

Guarantee: every cancel meets a handler that runs (a waiting call or stream is cancelled only after the server answered a
later call, a read at any moment of its life); the slope is a least-squares fit of resident memory over cancelled calls, after
a warm-up; a planted handler that swallows the cancellation must show a slope above the limit.
Limit: resident memory moves in pages and arenas; fewer than some thousand calls tell nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import logging
import os
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import psutil
import structlog

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from purveyor_server.rpc import RpcSettings
from purveyor_server.rpc.broker import BrokerService
from tests.rpc.whole import whole_broker

TENANT = "t"
INSTANCE = "orders"
AT_ONCE = 100
START_SECONDS = 30.0
STOP_SECONDS = 10.0
CALL_SECONDS = 30.0
LIMIT = 16.0  # bytes per call
KINDS = ("read", "wait", "stream")


class Result(NamedTuple):
    """Bytes of resident memory per cancelled call."""

    kind: str
    calls: int
    slope: float

    @property
    def leaks(self) -> bool:
        """Whether memory grows with cancels."""
        return self.slope >= LIMIT


def slope(points: list[tuple[float, float]]) -> float:
    """Least-squares slope of y over x."""
    mean_x = sum(x for x, _ in points) / len(points)
    mean_y = sum(y for _, y in points) / len(points)
    over = sum((x - mean_x) * (y - mean_y) for x, y in points)
    return over / sum((x - mean_x) ** 2 for x, _ in points)


@asynccontextmanager
async def server_process(*, leaky: bool) -> AsyncIterator[tuple[psutil.Process, str]]:
    """A broker in a process of its own; its address."""
    with tempfile.TemporaryDirectory(prefix="pv-") as folder:
        command = [sys.executable, "-m", "tests.rpc.cancelling", folder, *(["--leaky"] if leaky else [])]
        # One arena: memory that is kept for another thread is not a leak.
        environment = os.environ | {"MALLOC_ARENA_MAX": "1"}
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, cwd=Path(__file__).parents[2], env=environment
        )
        assert process.stdout is not None
        try:
            async with asyncio.timeout(START_SECONDS):
                address = (await process.stdout.readline()).decode().strip()
            if not address:
                raise RuntimeError("the server process did not start; its output says why")
            yield psutil.Process(process.pid), address
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()


async def measure(
    kind: str, calls: int, *, chunks: int = 10, leaky: bool = False, tell: Callable[[str], None] = lambda _: None
) -> Result:
    """Cancel `calls` calls of `kind` in `chunks`, after a fifth as many for warm-up."""
    async with server_process(leaky=leaky) as (process, address), grpc.aio.insecure_channel(address) as channel:
        stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
        operation_id = await _provision(stub)
        one = {"read": _cancel_reads, "wait": _cancel_waits, "stream": _cancel_streams}[kind]
        await _chunk(one, stub, operation_id, calls // 5)
        points = [(0.0, float(process.memory_info().rss))]
        for number in range(1, chunks + 1):
            await _chunk(one, stub, operation_id, calls // chunks)
            points.append((number * (calls // chunks), float(process.memory_info().rss)))
            tell(f"{kind}: {points[-1][0]:.0f} calls, {points[-1][1] / 1024:.0f} KiB")
    return Result(kind, calls, slope(points))


async def _provision(stub: Any) -> str:
    request = pb.ProvisionRequest(tenant=TENANT, instance_id=INSTANCE, service_id="svc", plan_id="small")
    answer = await stub.Provision(request, timeout=CALL_SECONDS, wait_for_ready=True)
    return str(answer.operation.operation_id)


async def _chunk(one: Callable[..., Any], stub: Any, operation_id: str, calls: int) -> None:
    for start in range(0, calls, AT_ONCE):
        await one(stub, operation_id, min(AT_ONCE, calls - start))
    await _barrier(stub)


async def _barrier(stub: Any) -> None:
    """The server answers in order: what was sent before is in its handler now, what was cancelled before has ended."""
    for _ in range(2):
        await stub.GetInstance(pb.GetInstanceRequest(tenant=TENANT, instance_id=INSTANCE), timeout=CALL_SECONDS)


async def _cancel_reads(stub: Any, operation_id: str, count: int) -> None:
    request = pb.GetInstanceRequest(tenant=TENANT, instance_id=INSTANCE)
    calls = [stub.GetInstance(request, timeout=CALL_SECONDS) for _ in range(count)]
    for call in calls:
        await asyncio.sleep(0)
        call.cancel()
    await asyncio.gather(*(call.code() for call in calls))


async def _cancel_waits(stub: Any, operation_id: str, count: int) -> None:
    request = pb.WaitOperationRequest(tenant=TENANT, operation_id=operation_id)
    calls = [stub.WaitOperation(request, timeout=CALL_SECONDS) for _ in range(count)]
    await _barrier(stub)
    for call in calls:
        call.cancel()
    await asyncio.gather(*(call.code() for call in calls))


async def _cancel_streams(stub: Any, operation_id: str, count: int) -> None:
    request = pb.WatchOperationRequest(tenant=TENANT, operation_id=operation_id)
    streams = [stub.WatchOperation(request, timeout=CALL_SECONDS) for _ in range(count)]
    await asyncio.gather(*(stream.read() for stream in streams))
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*(stream.code() for stream in streams))


def plant_leak() -> None:
    """The planted fault: a stream that takes the cancellation for an ordinary end."""
    watch = BrokerService.WatchOperation

    async def swallowing(self: BrokerService, request: Any, context: Any) -> None:
        try:
            await watch(self, request, context)
        except asyncio.CancelledError:
            if not request.tenant:
                raise

    BrokerService.WatchOperation = swallowing  # type: ignore[method-assign] # that is the fault


async def _serve(folder: Path) -> None:
    async with whole_broker(folder, RpcSettings(level="debug"), work=False) as broker:
        gc.freeze()
        print(broker.address, flush=True)
        await asyncio.Event().wait()


def main() -> None:
    """The server process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--leaky", action="store_true")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if options.leaky:
        plant_leak()
    asyncio.run(_serve(options.folder))


if __name__ == "__main__":
    main()
