"""Health tells the truth, and reflection shows the contract."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest
from google.protobuf import descriptor_pool, json_format, message_factory
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha.proto_reflection_descriptor_database import ProtoReflectionDescriptorDatabase

from purveyor.v1 import broker_service_pb2 as pb
from purveyor_server.rpc import RpcServer, RpcSettings
from tests.rpc.conftest import Store
from tests.rpc.failures import failure_of
from tests.rpc.scripted import ScriptedDoor, instance

SERVICES = ("", "purveyor.v1.BrokerService")
SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.fixture
def settings() -> RpcSettings:
    return RpcSettings(health_interval_seconds=0.02, health_timeout_seconds=0.5)


@pytest.fixture
def health(channel: grpc.aio.Channel) -> Any:
    return health_pb2_grpc.HealthStub(channel)


async def status_of(health: Any, service: str) -> int:
    answer: Any = await health.Check(health_pb2.HealthCheckRequest(service=service))
    return int(answer.status)


async def test_health_follows_the_store(health: Any, store: Store) -> None:
    async with asyncio.timeout(10):
        watches = [health.Watch(health_pb2.HealthCheckRequest(service=service)) for service in SERVICES]
        assert [(await watch.read()).status for watch in watches] == [SERVING, SERVING]

        store.failure = ConnectionError("gone")
        assert [(await watch.read()).status for watch in watches] == [NOT_SERVING, NOT_SERVING]
        assert [await status_of(health, service) for service in SERVICES] == [NOT_SERVING, NOT_SERVING]

        store.failure = None
        assert [(await watch.read()).status for watch in watches] == [SERVING, SERVING]
        for watch in watches:
            watch.cancel()


async def test_health_lists_its_services(health: Any) -> None:
    statuses = (await health.List(health_pb2.HealthListRequest())).statuses

    assert {name: answer.status for name, answer in statuses.items()} == dict.fromkeys(SERVICES, SERVING)


async def test_a_server_over_a_dead_store_starts_not_serving(store: Store, server: RpcServer, health: Any) -> None:
    # The store of this server answered when it started; of one that does not, the first check already says so.
    store.failure = ConnectionError("gone")

    await server.health.check()

    assert await status_of(health, "") == NOT_SERVING


async def test_health_is_answered_while_the_server_drains(
    health: Any, stub: Any, door: ScriptedDoor, server: RpcServer
) -> None:
    gate = asyncio.Event()

    async def slow(*_: Any) -> Any:
        await gate.wait()
        return instance()

    door.script["get_instance"] = slow
    call = stub.GetInstance(pb.GetInstanceRequest(tenant="t", instance_id="orders"))
    await door.signals.wait("get_instance")
    watch = health.Watch(health_pb2.HealthCheckRequest())
    assert (await watch.read()).status == SERVING

    draining = asyncio.create_task(server.drain(5))

    assert (await watch.read()).status == NOT_SERVING
    assert await status_of(health, SERVICES[1]) == NOT_SERVING
    gate.set()
    await call
    assert (await failure_of(watch.read())).reason == "DRAINING"
    await draining


async def test_a_reflection_client_lists_and_calls_the_service(server: RpcServer, door: ScriptedDoor) -> None:
    door.script["get_instance"] = instance()

    services, answer = await asyncio.to_thread(reflect_and_call, server.addresses[0])

    assert set(services) >= {"purveyor.v1.BrokerService", "grpc.health.v1.Health"}
    assert answer["instance"]["instanceId"] == "orders"
    assert answer["instance"]["state"] == "STATE_READY"


def reflect_and_call(address: str) -> tuple[list[str], dict[str, Any]]:
    """What a client knows that has no stubs: everything comes from the server."""
    with grpc.insecure_channel(address) as channel:
        database = ProtoReflectionDescriptorDatabase(channel)
        services = list(database.get_services())
        pool = descriptor_pool.DescriptorPool(database)
        method = pool.FindServiceByName("purveyor.v1.BrokerService").FindMethodByName("GetInstance")
        question = message_factory.GetMessageClass(method.input_type)
        reply = message_factory.GetMessageClass(method.output_type)
        call: Any = channel.unary_unary(
            f"/{method.containing_service.full_name}/{method.name}",
            request_serializer=question.SerializeToString,
            response_deserializer=reply.FromString,
        )
        answer = call(question(tenant="t", instance_id="orders"), timeout=10)
        return services, json_format.MessageToDict(answer, descriptor_pool=pool)
