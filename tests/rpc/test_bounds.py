"""Deadlines, limits, slow readers and drain."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from purveyor_server.kit.signals import Signals
from purveyor_server.lifecycle.contract import OperationDetails, Outcome
from purveyor_server.rpc import ListenError, RpcServer, RpcSettings, broker_service
from tests.rpc.conftest import Store
from tests.rpc.failures import failure_of
from tests.rpc.scripted import ScriptedDoor, instance, operation

GET = pb.GetInstanceRequest(tenant="t", instance_id="orders")
WAIT = pb.WaitOperationRequest(tenant="t", operation_id="o")
WATCH = pb.WatchOperationRequest(tenant="t", operation_id="o")


@pytest.fixture
def settings() -> RpcSettings:
    return RpcSettings(
        call_seconds=0.3, wait_seconds=30, calls=2, waits=2, waits_per_caller=1, streams=2, write_seconds=0.3,
        health_interval_seconds=0.05, abort_seconds=0.5,
    )  # fmt: skip


async def test_a_call_without_a_deadline_ends_at_its_cap(stub: Any, door: ScriptedDoor) -> None:
    door.script["get_instance"] = door.hang

    failure = await failure_of(stub.GetInstance(GET))

    assert (failure.code, failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert failure.metadata == {"limit_seconds": "0.3"}
    await door.signals.wait("ended")


async def test_the_deadline_of_the_client_reaches_the_use_case(stub: Any, door: ScriptedDoor) -> None:
    door.script["get_instance"] = instance()

    await stub.GetInstance(GET, timeout=0.2)
    await stub.GetInstance(GET)

    first, second = (seen[0].deadline for seen in door.seen["get_instance"])
    # The core rounds the time-out of a client up.
    assert timedelta(0) < first <= timedelta(seconds=0.25)
    assert timedelta(seconds=0.25) < second <= timedelta(seconds=0.3)


async def test_a_write_that_waits_may_take_longer(stub: Any, door: ScriptedDoor) -> None:
    door.script["provision"] = Outcome(operation())
    request = pb.ProvisionRequest(tenant="t", instance_id="orders")
    request.wait.FromSeconds(20)

    await stub.Provision(request)

    assert door.seen["provision"][0][0].deadline > timedelta(seconds=20)


async def test_a_client_that_cancels_ends_its_handler(stub: Any, door: ScriptedDoor, server: RpcServer) -> None:
    door.script["wait_operation"] = door.hang
    call = stub.WaitOperation(WAIT)
    await door.signals.wait("wait_operation")

    call.cancel()

    await door.signals.wait("ended")
    assert await server.calls.idle(5, infra=True)


async def test_calls_above_the_limit_are_refused_and_others_served(stub: Any, door: ScriptedDoor) -> None:
    door.script["get_instance"] = door.hang
    held = [stub.GetInstance(GET) for _ in range(2)]
    await door.signals.wait("get_instance", 2)

    failure = await failure_of(stub.GetInstance(GET))

    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_CALLS")
    assert failure.metadata["scope"] == "process"
    assert failure.details["QuotaFailure"].violations[0].subject == "process"
    assert failure.details["RetryInfo"].retry_delay.ToMilliseconds() > 0
    for call in held:
        await failure_of(call)
    door.script["get_instance"] = instance()
    assert (await stub.GetInstance(GET)).instance.instance_id == "orders"


async def test_removals_have_places_of_their_own(stub: Any, door: ScriptedDoor) -> None:
    door.script |= {"get_instance": door.hang, "deprovision": Outcome(operation())}
    held = [stub.GetInstance(GET) for _ in range(2)]
    await door.signals.wait("get_instance", 2)

    assert (await failure_of(stub.Provision(pb.ProvisionRequest(tenant="t")))).reason == "TOO_MANY_CALLS"
    assert (await stub.Deprovision(pb.DeprovisionRequest(tenant="t", instance_id="orders"))).operation.operation_id

    for call in held:
        await failure_of(call)


async def test_waiting_calls_have_a_limit_of_their_own(stub: Any, door: ScriptedDoor) -> None:
    door.script |= {"wait_operation": door.hang, "get_instance": instance(), "provision": Outcome(operation())}
    held = stub.WaitOperation(WAIT)
    await door.signals.wait("wait_operation")
    waiting = pb.ProvisionRequest(tenant="t", instance_id="orders")
    waiting.wait.FromSeconds(1)

    assert (await failure_of(stub.Provision(waiting))).metadata["scope"] == "caller"
    assert (await stub.Provision(pb.ProvisionRequest(tenant="t"))).operation.done is False
    assert (await stub.GetInstance(GET)).instance.instance_id == "orders"
    held.cancel()


async def test_streams_above_the_limit_are_refused(stub: Any, door: ScriptedDoor) -> None:
    held = [stub.WatchOperation(WATCH) for _ in range(2)]
    await door.signals.wait("watch_operation", 2)

    failure = await failure_of(stub.WatchOperation(WATCH).read())

    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    for stream in held:
        stream.cancel()
    await door.signals.wait("watch closed", 2)


# A window as small as the core allows, so that a few messages fill it.
SMALL_WINDOW = [("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0), ("grpc.max_receive_message_length", -1)]


def fill(door: ScriptedDoor) -> None:
    """More than what the transport takes for a client that does not read."""
    big = OperationDetails(operation(sentence="x" * 1_000_000))
    for _ in range(20):
        door.watched.put_nowait((big, False))


async def test_a_reader_that_stops_reading_is_refused_when_it_reads_again(
    server: RpcServer, door: ScriptedDoor, watch_logs: Signals
) -> None:
    async with grpc.aio.insecure_channel(server.addresses[0], options=SMALL_WINDOW) as channel:
        stream = broker_service_pb2_grpc.BrokerServiceStub(channel).WatchOperation(WATCH)
        fill(door)
        await watch_logs.wait("client does not read")

        async def read_on() -> None:
            while await stream.read() is not grpc.aio.EOF:
                pass

        failure = await failure_of(read_on())

    assert (failure.code, failure.reason) == (grpc.StatusCode.DEADLINE_EXCEEDED, "DEADLINE_EXCEEDED")
    assert door.closed_watches == 1


async def test_drain_does_not_wait_for_a_reader_that_stopped(
    server: RpcServer, door: ScriptedDoor, watch_logs: Signals
) -> None:
    async with grpc.aio.insecure_channel(server.addresses[0], options=SMALL_WINDOW) as channel:
        stream = broker_service_pb2_grpc.BrokerServiceStub(channel).WatchOperation(WATCH)
        fill(door)
        await watch_logs.wait("client does not read")

        async with asyncio.timeout(5):
            await server.drain(30)

        assert (door.closed_watches, len(server.calls)) == (1, 0)
        stream.cancel()


async def test_drain_ends_streams_and_waits_at_once_and_lets_calls_finish(
    stub: Any, door: ScriptedDoor, server: RpcServer
) -> None:
    gate = asyncio.Event()

    async def slow(*_: Any) -> Any:
        await gate.wait()
        return instance()

    door.script |= {"get_instance": slow, "wait_operation": door.hang}
    stream, waiting, call = stub.WatchOperation(WATCH), stub.WaitOperation(WAIT), stub.GetInstance(GET)
    for name in ("watch_operation", "wait_operation", "get_instance"):
        await door.signals.wait(name)

    draining = asyncio.create_task(server.drain(5))
    for ended in (stream.read(), waiting):
        failure = await failure_of(ended)
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert "RetryInfo" in failure.details
    late = await failure_of(stub.GetInstance(GET))
    gate.set()
    answer = await call
    await draining

    assert (late.code, late.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
    assert answer.instance.instance_id == "orders"
    assert (door.closed_watches, len(server.calls)) == (1, 0)


async def test_drain_ends_what_does_not_finish(
    door: ScriptedDoor, store: Store, folder: Path, settings: RpcSettings
) -> None:
    patient = RpcServer([broker_service(door)], store.ping, [f"unix:{folder / 'p'}"], RpcSettings(call_seconds=60))  # type: ignore[arg-type]
    (address,) = await patient.start()
    door.script["get_instance"] = door.hang
    async with grpc.aio.insecure_channel(address) as channel:
        call = broker_service_pb2_grpc.BrokerServiceStub(channel).GetInstance(GET)
        await door.signals.wait("get_instance")

        await patient.drain(0.1)

        assert (await failure_of(call)).reason == "DRAINING"
        assert door.signals.count("ended") == 1
        assert not (folder / "p").exists()


async def test_a_second_server_is_refused_by_name(server: RpcServer, door: ScriptedDoor, store: Store) -> None:
    again = RpcServer([broker_service(door)], store.ping, [server.addresses[0]])  # type: ignore[arg-type] # by script

    with pytest.raises(ListenError, match="a living server uses this socket"):
        await again.start()


async def test_a_port_in_use_is_refused_by_name(door: ScriptedDoor, store: Store) -> None:
    first = RpcServer([broker_service(door)], store.ping, ["127.0.0.1:0"])  # type: ignore[arg-type] # by script
    (address,) = await first.start()
    second = RpcServer([broker_service(door)], store.ping, ["127.0.0.1:0", address])  # type: ignore[arg-type] # by script

    with pytest.raises(ListenError, match=f"{address}: the port is in use"):
        await second.start()

    await first.drain(1)
