"""Crowds at the entrance: calls are taken in several at a time, refusals are paced, and the core's own bounds hold."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined] # published nowhere else
from structlog.testing import capture_logs

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from purveyor_server.kit.clock import ManualClock
from purveyor_server.rpc import RpcServer, RpcSettings, broker_service
from purveyor_server.rpc.acceptors import FIRST, Acceptors, known
from purveyor_server.rpc.interceptors.limits import Limits, Pace
from tests.rpc.conftest import Store
from tests.rpc.failures import failure_of
from tests.rpc.scripted import ScriptedDoor, instance

GET = pb.GetInstanceRequest(tenant="t", instance_id="orders")
METHOD = "/purveyor.v1.BrokerService/GetInstance"
MOST = 6


@pytest.fixture
def settings() -> RpcSettings:
    return RpcSettings(acceptors=MOST, health_interval_seconds=0.05)


def test_this_grpcio_is_known() -> None:
    assert known()


async def test_a_crowd_brings_more_hands_up_to_the_bound(stub: Any, server: RpcServer, door: ScriptedDoor) -> None:
    door.script["get_instance"] = instance()
    assert server._acceptors.hands[METHOD] == FIRST

    answers = await asyncio.gather(*(stub.GetInstance(GET) for _ in range(300)))

    assert {answer.instance.instance_id for answer in answers} == {"orders"}
    assert FIRST < server._acceptors.hands[METHOD] <= MOST


async def test_a_grpcio_that_is_not_known_serves_as_it_does_by_itself(
    monkeypatch: pytest.MonkeyPatch, store: Store, door: ScriptedDoor, folder: Any
) -> None:
    monkeypatch.delattr(cygrpc, "_MethodResolver")
    door.script["get_instance"] = instance()
    use_cases: Any = door
    server = RpcServer([broker_service(use_cases)], store.ping, [f"unix:{folder / 'other'}"], RpcSettings())
    with capture_logs() as lines:
        (address,) = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        answer = await broker_service_pb2_grpc.BrokerServiceStub(channel).GetInstance(GET)
    await server.drain(1.0)

    assert answer.instance.instance_id == "orders"
    assert [line["event"] for line in lines if line["log_level"] == "warning"] == [
        "grpcio is not as expected: calls are taken in one at a time"
    ]


async def test_none_are_wanted_and_none_are_there(server: RpcServer) -> None:
    none = Acceptors(0)
    none.start(grpc.aio.server())
    await none.close()
    assert not none.hands


async def test_refusals_of_one_caller_are_told_one_after_the_other_and_those_of_another_at_once() -> None:
    pace = Pace(RpcSettings(refusals_per_second=10, hold_seconds=0.3, held=5))
    loop, ended = asyncio.get_running_loop(), dict[str, float]()
    began = loop.time()

    async def hold(name: str, caller: str = "flood") -> None:
        await pace.hold(caller)
        ended[name] = loop.time() - began

    await asyncio.gather(*(hold(f"f{number}") for number in range(5)), hold("beyond"))
    await hold("other", "other")

    order = sorted(ended, key=lambda name: ended[name])
    assert set(order[:2]) == {"f0", "beyond"}  # the first, and the one that comes when too many wait already
    assert [name for name in order if name in {"f1", "f2"}] == ["f1", "f2"]
    assert ended["f1"] >= 0.1
    assert ended["f4"] >= 0.3


async def test_what_may_be_remembered_of_refusals_is_bounded() -> None:
    limits = Limits(RpcSettings(held=3), ManualClock())
    waiting = [asyncio.create_task(limits.pace.hold("flood")) for _ in range(50)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert sum(not task.done() for task in waiting) <= 3
    await asyncio.gather(*waiting)


@pytest.mark.parametrize("size", [20_000, 200_000])
async def test_metadata_above_the_bound_is_refused_by_the_core(stub: Any, door: ScriptedDoor, size: int) -> None:
    door.script["get_instance"] = instance()

    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await stub.GetInstance(GET, metadata=(("x-large", "y" * size),))

    assert refused.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not refused.value.trailing_metadata()
    assert "get_instance" not in door.seen


async def test_metadata_below_the_bound_is_served(stub: Any, door: ScriptedDoor) -> None:
    door.script["get_instance"] = instance()

    await stub.GetInstance(GET, metadata=(("x-large", "y" * 7_000),))


async def test_messages_above_the_bounds_are_refused(stub: Any, door: ScriptedDoor) -> None:
    readable = await failure_of(stub.GetInstance(pb.GetInstanceRequest(tenant="t", instance_id="x" * 1_100_000)))
    with pytest.raises(grpc.aio.AioRpcError) as unread:
        await stub.GetInstance(pb.GetInstanceRequest(tenant="t", instance_id="x" * 4_300_000))

    assert (readable.code, readable.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert unread.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
