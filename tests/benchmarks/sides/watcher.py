"""A client that opens streams and keeps them open, told by lines on standard input.

Each line is a number of streams to open; the answer is `open` once each of them got its first message. It ends with its
input. Both sides are watched by this same client.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Sequence
from typing import Any

import grpc
from google.protobuf import duration_pb2
from google.protobuf.wrappers_pb2 import BytesValue

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from tests.benchmarks.sides.bare import SERVICE

CHANNELS = 8
OPEN_SECONDS = 120.0
AT_ONCE = 64
QUIET = duration_pb2.Duration(seconds=60)  # the longest heartbeat: an idle stream stays idle while it is measured
EVENTS = "events"  # instead of names of operations: watches of all events of the tenant
Opened = Callable[[grpc.aio.Channel, int], Any]


def bare(channel: grpc.aio.Channel, number: int) -> Any:
    """A stream of the yardstick."""
    method = channel.unary_stream(
        f"/{SERVICE}/Stream",
        request_serializer=BytesValue.SerializeToString,
        response_deserializer=BytesValue.FromString,
    )
    return method(BytesValue(value=b"x" * 60))


def watches(tenant: str, operations: Sequence[str]) -> Opened:
    """Watches of `operations` in turn."""

    def opened(channel: grpc.aio.Channel, number: int) -> Any:
        stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
        operation = operations[number % len(operations)]
        return stub.WatchOperation(
            pb.WatchOperationRequest(tenant=tenant, operation_id=operation, heartbeat_interval=QUIET)
        )

    return opened


def events(tenant: str) -> Opened:
    """Watches of everything in the tenant; the first message says that there is nothing to tell."""

    def opened(channel: grpc.aio.Channel, number: int) -> Any:
        stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
        return stub.WatchEvents(pb.WatchEventsRequest(tenant=tenant, heartbeat_interval=QUIET))

    return opened


def chosen(tenant: str, names: Sequence[str]) -> Opened:
    """What the command line asks for."""
    if names == [EVENTS]:
        return events(tenant)
    return watches(tenant, names) if names else bare


async def hold(address: str, opened: Opened) -> None:
    """Serve standard input."""
    options = [("grpc.use_local_subchannel_pool", 1)]
    channels = [grpc.aio.insecure_channel(address, options=options) for _ in range(CHANNELS)]
    calls: list[Any] = []
    turn = asyncio.Semaphore(AT_ONCE)

    async def one(number: int) -> None:
        async with turn:
            call = opened(channels[number % CHANNELS], number)
            calls.append(call)
            if await call.read() is grpc.aio.EOF:
                raise RuntimeError(f"stream {number} ended at once: {await call.details()}")

    while line := await asyncio.to_thread(sys.stdin.readline):
        async with asyncio.timeout(OPEN_SECONDS):
            await asyncio.gather(*(one(len(calls) + number) for number in range(int(line))))
        print("open", flush=True)
    for call in calls:
        call.cancel()
    for channel in channels:
        await channel.close(None)


if __name__ == "__main__":
    target, tenant, *names = sys.argv[1:]
    asyncio.run(hold(target, chosen(tenant, names)))
