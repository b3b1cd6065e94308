"""Client cancels by the thousand against a server process, and the slope of its memory.

Guarantee: every cancel of the kinds in KINDS meets a handler that runs: it is sent only after the server answered a later
call; reads are held in the store for that. The slope is a least-squares fit of resident memory over cancelled calls, after
a warm-up, and measured when the server has given back what it does not use (collector run, heap trimmed); a planted handler that swallows the cancellation must show a slope above the limit.
Limit: a call that is cancelled before its handler began never reaches our code, and grpc.aio itself keeps some memory of it
(about 150 bytes a call with grpcio 1.85.1, measured with a bare server too); the kind `early` shows both, and judges nothing.
Resident memory moves in pages and arenas; fewer than some thousand calls tell nothing.
"""

from __future__ import annotations

import argparse
import asyncio
import ctypes
import gc
import logging
import os
import signal
import sys
import tempfile
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any, NamedTuple

import grpc
import psutil
import structlog

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from purveyor_server.rpc import RpcSettings
from purveyor_server.rpc.broker import BrokerService
from purveyor_server.rpc.settings import transport_options
from tests.rpc.whole import whole_broker

TENANT = "t"
INSTANCE = "orders"
HELD = "held"  # an instance whose reads never end
AT_ONCE = 100
START_SECONDS = 30.0
STOP_SECONDS = 10.0
CALL_SECONDS = 30.0
LIMIT = 16.0  # bytes per call
KINDS = ("read", "wait", "stream", "events")


class Server:
    """A broker in a process of its own."""

    def __init__(self, process: asyncio.subprocess.Process, address: str) -> None:
        self.address = address
        self._process = process
        self._memory = psutil.Process(process.pid)

    async def resident(self) -> float:
        """Resident bytes, once the server has given back what it does not use."""
        assert self._process.stdout is not None
        self._process.send_signal(signal.SIGUSR1)
        async with asyncio.timeout(START_SECONDS):
            assert await self._process.stdout.readline() == b"tidy\n"
        return float(self._memory.memory_info().rss)


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
async def server_process(*, mode: str) -> AsyncIterator[Server]:
    """A broker in a process of its own."""
    with tempfile.TemporaryDirectory(prefix="pv-") as folder:
        command = [sys.executable, "-m", "tests.rpc.cancelling", folder, f"--mode={mode}"]
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
            yield Server(process, address)
        finally:
            if process.returncode is None:
                process.terminate()
            async with asyncio.timeout(STOP_SECONDS):
                await process.wait()


async def measure(
    kind: str, calls: int, *, chunks: int = 10, mode: str = "", tell: Callable[[str], None] = lambda _: None
) -> Result:
    """Cancel `calls` calls of `kind` in `chunks`, after half as many for warm-up."""
    async with server_process(mode=mode) as server, grpc.aio.insecure_channel(server.address) as channel:
        stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
        operation_id = await _provision(stub)
        one = CANCELS[kind]
        await _chunk(one, stub, operation_id, calls // 2)
        points = [(0.0, await server.resident())]
        for number in range(1, chunks + 1):
            await _chunk(one, stub, operation_id, calls // chunks)
            points.append((number * (calls // chunks), await server.resident()))
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
    request = pb.GetInstanceRequest(tenant=TENANT, instance_id=HELD)
    calls = [stub.GetInstance(request, timeout=CALL_SECONDS) for _ in range(count)]
    await _barrier(stub)
    for call in calls:
        call.cancel()
    await asyncio.gather(*(call.code() for call in calls))


async def _cancel_early(stub: Any, operation_id: str, count: int) -> None:
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
    await _cancel_open([stub.WatchOperation(request, timeout=CALL_SECONDS) for _ in range(count)])


async def _cancel_events(stub: Any, _operation_id: str, count: int) -> None:
    request = pb.WatchEventsRequest(tenant=TENANT)
    await _cancel_open([stub.WatchEvents(request, timeout=CALL_SECONDS) for _ in range(count)])


async def _cancel_open(streams: list[Any]) -> None:
    await asyncio.gather(*(stream.read() for stream in streams))
    for stream in streams:
        stream.cancel()
    await asyncio.gather(*(stream.code() for stream in streams))


CANCELS = {
    "early": _cancel_early,
    "read": _cancel_reads,
    "wait": _cancel_waits,
    "stream": _cancel_streams,
    "events": _cancel_events,
}


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


def _tidy() -> None:
    gc.collect()
    with suppress(OSError, AttributeError):  # glibc only; elsewhere the numbers are noisier
        ctypes.CDLL(None).malloc_trim(0)
    print("tidy", flush=True)


async def _serve(folder: Path) -> None:
    async with whole_broker(folder, RpcSettings(level="debug"), work=False) as broker:
        read = broker.store.instance

        async def held(scope: Any, tenant: str, instance_id: str) -> Any:
            if instance_id == HELD:
                await asyncio.Event().wait()
            return await read(scope, tenant, instance_id)

        broker.store.instance = held  # type: ignore[method-assign] # so that a cancel meets a read that runs
        await _ready(broker.address)


class Bare(broker_service_pb2_grpc.BrokerServiceServicer):
    """grpc.aio alone, for comparison."""

    async def GetInstance(self, request: Any, context: Any) -> pb.GetInstanceResponse:
        return pb.GetInstanceResponse()

    async def Provision(self, request: Any, context: Any) -> pb.ProvisionResponse:
        return pb.ProvisionResponse()


async def _serve_bare(folder: Path) -> None:
    server = grpc.aio.server(options=transport_options(RpcSettings()))
    broker_service_pb2_grpc.add_BrokerServiceServicer_to_server(Bare(), server)  # type: ignore[abstract] # two will do
    address = f"unix:{folder / 's'}"
    server.add_insecure_port(address)
    await server.start()
    await _ready(address)


async def _ready(address: str) -> None:
    asyncio.get_running_loop().add_signal_handler(signal.SIGUSR1, _tidy)
    print(address, flush=True)
    await asyncio.Event().wait()


def main() -> None:
    """The server process."""
    parser = argparse.ArgumentParser()
    parser.add_argument("folder", type=Path)
    parser.add_argument("--mode", choices=["", "leaky", "bare"], default="")
    options = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    if options.mode == "leaky":
        plant_leak()
    asyncio.run(_serve_bare(options.folder) if options.mode == "bare" else _serve(options.folder))


if __name__ == "__main__":
    main()
