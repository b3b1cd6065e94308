"""The face over the real store, lifecycle and engine: the whole life of an instance and its bindings."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc
import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.message import Message

from purveyor.v1 import binding_pb2, broker_service_pb2_grpc, instance_pb2, operation_pb2
from purveyor.v1 import broker_service_pb2 as pb
from tests.rpc.conftest import Stub
from tests.rpc.failures import failure_of
from tests.rpc.whole import Whole

SUCCEEDED = operation_pb2.Operation.STATE_SUCCEEDED


@pytest.fixture
async def stub(broker: Whole) -> AsyncIterator[Stub]:
    async with grpc.aio.insecure_channel(broker.address) as channel:
        yield broker_service_pb2_grpc.BrokerServiceStub(channel)


def provision(**changes: Any) -> pb.ProvisionRequest:
    request = pb.ProvisionRequest(tenant="t", instance_id="orders", service_id="svc", plan_id="big", **changes)
    request.wait.FromSeconds(20)
    return request


def bind(**changes: Any) -> pb.BindRequest:
    values: dict[str, Any] = {"tenant": "t", "instance_id": "orders", "binding_id": "app"}
    request = pb.BindRequest(**values | changes)
    request.wait.FromSeconds(20)
    return request


def sized(size: Any, **changes: Any) -> pb.ProvisionRequest:
    request = provision(**changes)
    request.parameters.update({"size": size})
    return request


async def test_from_nothing_to_nothing(stub: Stub, broker: Whole) -> None:
    async with asyncio.timeout(60):
        catalog = (await stub.GetCatalog(pb.GetCatalogRequest(tenant="t"))).catalog
        assert [plan.id for plan in catalog.services[0].plans] == ["small", "big"]

        made = await stub.Provision(sized(3))
        assert (made.operation.state, made.operation.percent) == (SUCCEEDED, 100)
        assert made.instance.state == instance_pb2.Instance.STATE_READY
        assert MessageToDict(made.instance.applied.parameters) == {"size": 3}

        bound = await stub.Bind(bind())
        assert bound.binding.state == binding_pb2.Binding.STATE_ACTIVE
        assert bound.credentials.values["password"]
        again = await stub.GetCredentials(pb.GetCredentialsRequest(tenant="t", instance_id="orders", binding_id="app"))
        assert again.credentials == bound.credentials
        assert again.binding.binding_id == "app"
        (listed,) = (await stub.ListInstances(pb.ListInstancesRequest(tenant="t"))).instances
        assert listed.last_operation == made.instance.last_operation
        (shown,) = (await stub.ListBindings(pb.ListBindingsRequest(tenant="t"))).bindings
        assert shown.last_operation.verb == operation_pb2.Operation.VERB_BIND

        unbind = pb.UnbindRequest(tenant="t", instance_id="orders", binding_id="app")
        unbind.wait.FromSeconds(20)
        assert (await stub.Unbind(unbind)).binding.state == binding_pb2.Binding.STATE_DELETED
        gone = pb.DeprovisionRequest(tenant="t", instance_id="orders")
        gone.wait.FromSeconds(20)
        assert (await stub.Deprovision(gone)).instance.state == instance_pb2.Instance.STATE_DELETED

        assert not broker.world.things
        assert (await failure_of(stub.GetInstance(get()))).reason == "INSTANCE_NOT_FOUND"
        tombstone = (await stub.GetInstance(get(show_deleted=True))).instance
        assert tombstone.last_operation.verb == operation_pb2.Operation.VERB_DEPROVISION


async def test_the_catalog_is_sent_once_while_it_does_not_change(stub: Stub) -> None:
    request = pb.WatchCatalogRequest(tenant="t")
    request.heartbeat_interval.FromSeconds(1)
    stream = stub.WatchCatalog(request)
    first, second = await stream.read(), await stream.read()
    assert first.catalog == (await stub.GetCatalog(pb.GetCatalogRequest(tenant="t"))).catalog
    assert not second.HasField("catalog")
    stream.cancel()
    refused = await failure_of(stub.WatchCatalog(pb.WatchCatalogRequest(tenant="T")).read())
    assert (refused.reason, refused.details["BadRequest"].field_violations[0].field) == ("INVALID_REQUEST", "tenant")


def get(**changes: Any) -> pb.GetInstanceRequest:
    return pb.GetInstanceRequest(tenant="t", instance_id="orders", **changes)


async def test_a_watch_sees_the_end_and_ends(stub: Stub, broker: Whole) -> None:
    gate = asyncio.Event()
    broker.world.plant("space.ensure", gate)
    request = provision()
    request.ClearField("wait")
    operation = (await stub.Provision(request)).operation
    stream = stub.WatchOperation(
        pb.WatchOperationRequest(
            tenant="t", operation_id=operation.operation_id, view=operation_pb2.OPERATION_VIEW_FULL
        )
    )

    messages = aiter(stream)
    first = await anext(messages)
    async with asyncio.timeout(10):
        await broker.world.entered["space.ensure"].wait()
    gate.set()
    seen = [first.operation] + [message.operation async for message in messages]

    assert not seen[0].done
    assert seen[-1].state == SUCCEEDED
    assert [step.name for step in seen[-1].steps] == ["role", "space", "grant"]
    assert await stream.code() is grpc.StatusCode.OK


async def test_replay_conflict_and_reuse(stub: Stub) -> None:
    first = await stub.Provision(sized(3, request_id="r-1"))
    replay = await stub.Provision(sized(3, request_id="r-1"))
    twin = await stub.Provision(sized(3))

    assert (first.replayed, replay.replayed, twin.replayed) == (False, True, True)
    assert replay.operation.operation_id == first.operation.operation_id
    assert replay.operation.request_id == "r-1"
    other = await failure_of(stub.Provision(sized(4)))
    assert (other.code, other.reason) == (grpc.StatusCode.ALREADY_EXISTS, "INSTANCE_ALREADY_EXISTS")
    reused = await failure_of(stub.Provision(sized(4, request_id="r-1")))
    assert (reused.code, reused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")


async def test_update_with_etag(stub: Stub) -> None:
    made = await stub.Provision(sized(3))
    request = pb.UpdateInstanceRequest(tenant="t", instance_id="orders", etag=made.instance.etag)
    request.wait.FromSeconds(20)
    request.parameters.update({"size": 5})

    changed = await stub.UpdateInstance(request)
    stale = await failure_of(stub.UpdateInstance(request))

    assert changed.operation.state == SUCCEEDED
    assert MessageToDict(changed.instance.parameters) == {"size": 5}
    assert (stale.code, stale.reason) == (grpc.StatusCode.ABORTED, "ETAG_MISMATCH")


async def test_validate_only_changes_nothing(stub: Stub) -> None:
    answer = await stub.Provision(sized(3, validate_only=True))

    assert (answer.operation.operation_id, answer.operation.done) == ("", False)
    assert [step.name for step in answer.operation.steps] == ["role", "space", "grant"]
    assert (await failure_of(stub.GetInstance(get()))).reason == "INSTANCE_NOT_FOUND"


async def test_cancel_undoes(stub: Stub, broker: Whole) -> None:
    gate = asyncio.Event()
    broker.world.plant("space.ensure", gate)
    request = provision()
    request.ClearField("wait")
    operation = (await stub.Provision(request)).operation
    async with asyncio.timeout(10):
        await broker.world.entered["space.ensure"].wait()
    cancel = pb.CancelOperationRequest(tenant="t", operation_id=operation.operation_id)

    await stub.CancelOperation(cancel)
    gate.set()
    wait = pb.WaitOperationRequest(tenant="t", operation_id=operation.operation_id)
    ended = (await stub.WaitOperation(wait)).operation

    assert ended.state == operation_pb2.Operation.STATE_CANCELLED
    assert ended.failure.reason
    assert not broker.world.things


async def test_pages_and_filters(stub: Stub) -> None:
    for name in ("a", "b", "c"):
        request = provision()
        request.instance_id = name
        await stub.Provision(request)

    first = await stub.ListInstances(pb.ListInstancesRequest(tenant="t", page_size=2))
    rest = await stub.ListInstances(pb.ListInstancesRequest(tenant="t", page_size=2, page_token=first.next_page_token))
    chosen = await stub.ListInstances(pb.ListInstancesRequest(tenant="t", filter="instance_id = b"))
    operations = await stub.ListOperations(pb.ListOperationsRequest(tenant="t", filter="instance_id = c"))

    assert [i.instance_id for i in (*first.instances, *rest.instances)] == ["a", "b", "c"]
    assert not rest.next_page_token
    assert [i.instance_id for i in chosen.instances] == ["b"]
    assert [o.instance_id for o in operations.operations] == ["c"]
    assert not (await stub.ListInstances(pb.ListInstancesRequest(tenant="other"))).instances


NO_TENANT = provision()
NO_TENANT.tenant = ""
BAD: list[tuple[str, Message, str, str]] = [
    ("Provision", NO_TENANT, "INVALID_REQUEST", "tenant"),
    ("Provision", sized(0), "INVALID_PARAMETERS", "parameters.size"),
    ("Provision", sized(float("nan")), "INVALID_REQUEST", "parameters.size"),
    ("GetInstance", pb.GetInstanceRequest(tenant="t", instance_id="a b"), "INVALID_REQUEST", "instance_id"),
    ("ListInstances", pb.ListInstancesRequest(tenant="t", page_size=-1), "INVALID_REQUEST", "page_size"),
    ("ListInstances", pb.ListInstancesRequest(tenant="t", filter="colour = b"), "INVALID_FILTER", "filter"),
    ("ListInstances", pb.ListInstancesRequest(tenant="t", page_token="x"), "INVALID_PAGE_TOKEN", "page_token"),
    ("GetOperation", pb.GetOperationRequest(tenant="T", operation_id="x"), "INVALID_REQUEST", "tenant"),
]


@pytest.mark.parametrize(("method", "request_", "reason", "field"), BAD)
async def test_bad_input_is_named(stub: Stub, method: str, request_: Message, reason: str, field: str) -> None:
    failure = await failure_of(getattr(stub, method)(request_))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)
    assert failure.details["BadRequest"].field_violations[0].field == field


async def test_an_operation_of_another_tenant_is_not_found(stub: Stub) -> None:
    operation_id = (await stub.Provision(provision())).operation.operation_id

    failure = await failure_of(stub.GetOperation(pb.GetOperationRequest(tenant="other", operation_id=operation_id)))

    assert (failure.code, failure.reason) == (grpc.StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND")
