"""Calls of the client library against a scripted broker: what is sent, what comes back, what is sent again."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from google.rpc import error_details_pb2

import purveyor
from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1.binding_pb2 import Credentials
from tests.clients.scripted import Refusal, ScriptedBroker, binding, instance, operation, retry_after

if TYPE_CHECKING:
    from pathlib import Path

    from purveyor import Client

DOWN = Refusal(grpc.StatusCode.UNAVAILABLE, "OUTCOME_UNKNOWN", details=(retry_after(0.01),))


def struct(values: dict[str, Any]) -> Struct:
    made = Struct()
    made.update(values)
    return made


def provisioned(state: str = "RUNNING") -> messages.ProvisionResponse:
    return messages.ProvisionResponse(operation=operation(state), instance=instance("PROVISIONING"))


async def test_names_are_resolved_through_the_catalog(client: Client, broker: ScriptedBroker) -> None:
    broker.script["Provision"] = [provisioned()]

    handle = await client.provision("postgresql", "shared", instance_id="orders", parameters={"n": 3, "s": ["x", None]})

    (sent,) = broker.seen["Provision"]
    assert (sent.service_id, sent.plan_id, sent.tenant) == ("svc-pg", "plan-shared", "t")
    assert sent.parameters == struct({"n": 3, "s": ["x", None]})
    assert (handle.id, handle.status.state, handle.done) == ("op-1", "RUNNING", False)


async def test_an_unknown_name_is_sent_as_it_is_after_a_second_look(client: Client, broker: ScriptedBroker) -> None:
    broker.script["Provision"] = [Refusal(grpc.StatusCode.NOT_FOUND, "UNKNOWN_PLAN", "service has no plan huge")]

    with pytest.raises(purveyor.NotFoundError) as refused:
        await client.provision("postgresql", "huge")

    assert refused.value.reason == "UNKNOWN_PLAN"
    assert len(broker.seen["GetCatalog"]) == 2
    assert broker.seen["Provision"][0].plan_id == "huge"


async def test_every_change_carries_a_fresh_request_id(client: Client, broker: ScriptedBroker) -> None:
    broker.script |= {
        "Provision": [provisioned()],
        "UpdateInstance": [messages.UpdateInstanceResponse(operation=operation())],
        "Deprovision": [messages.DeprovisionResponse(operation=operation())],
        "Bind": [messages.BindResponse(operation=operation())],
        "Unbind": [messages.UnbindResponse(operation=operation())],
        "CancelOperation": [messages.CancelOperationResponse(operation=operation())],
    }
    await client.provision("svc-pg", "plan-shared")
    await client.update("orders", deletion_protected=True)
    await client.deprovision("orders")
    await client.bind("orders")
    await client.unbind("orders", "app")
    await client.cancel("op-1")

    methods = ("Provision", "UpdateInstance", "Deprovision", "Bind", "Unbind", "CancelOperation")
    ids = {UUID(broker.seen[method][0].request_id) for method in methods}
    assert len(ids) == 6
    UUID(broker.seen["Provision"][0].instance_id)
    UUID(broker.seen["Bind"][0].binding_id)


async def test_a_repeated_change_keeps_its_bytes(client: Client, broker: ScriptedBroker) -> None:
    broker.script["Provision"] = [*[DOWN] * 6, provisioned()]

    await client.provision("postgresql", "shared", instance_id="orders")

    sent = broker.seen["Provision"]
    assert len(sent) == 7  # four by the channel, the rest by the library
    assert len({request.SerializeToString(deterministic=True) for request in sent}) == 1


async def test_repetition_has_an_end_and_tells_the_request_id(broker: ScriptedBroker, folder: Path) -> None:
    broker.script["Deprovision"] = [DOWN]
    async with purveyor.Client(f"unix:{folder / 's'}", retry_for=0.2) as client:
        with pytest.raises(purveyor.OutcomeUnknownError) as lost:
            await client.deprovision("orders", request_id="mine")

    assert lost.value.request_id == "mine"
    assert {request.request_id for request in broker.seen["Deprovision"]} == {"mine"}


@pytest.mark.parametrize(
    ("code", "reason", "kind"),
    [
        ("INVALID_ARGUMENT", "INVALID_PARAMETERS", purveyor.InvalidRequestError),
        ("NOT_FOUND", "INSTANCE_NOT_FOUND", purveyor.NotFoundError),
        ("ALREADY_EXISTS", "INSTANCE_ALREADY_EXISTS", purveyor.AlreadyExistsError),
        ("ABORTED", "OPERATION_IN_PROGRESS", purveyor.AbortedError),
        ("FAILED_PRECONDITION", "BINDINGS_EXIST", purveyor.FailedPreconditionError),
        ("PERMISSION_DENIED", "PERMISSION_DENIED", purveyor.PermissionDeniedError),
        ("RESOURCE_EXHAUSTED", "STORE_FULL", purveyor.ResourceExhaustedError),
        ("DEADLINE_EXCEEDED", "DEADLINE_EXCEEDED", purveyor.DeadlineExceededError),
        ("UNIMPLEMENTED", "UNKNOWN_METHOD", purveyor.UnimplementedError),
        ("INTERNAL", "INTERNAL", purveyor.InternalError),
        ("DATA_LOSS", "OF_A_NEWER_SERVER", purveyor.PurveyorError),
    ],
)
async def test_each_family_has_its_class(
    client: Client, broker: ScriptedBroker, code: str, reason: str, kind: type[purveyor.PurveyorError]
) -> None:
    broker.script["GetInstance"] = [Refusal(grpc.StatusCode[code], reason, "told so", {"instance_id": "orders"})]

    with pytest.raises(purveyor.PurveyorError) as refused:
        await client.instance("orders")

    found = refused.value
    assert type(found) is kind
    assert (found.code, found.reason, found.message) == (code, reason, "told so")
    assert found.metadata == {"instance_id": "orders"}
    assert len(broker.seen["GetInstance"]) == 1


async def test_details_become_violations_and_seconds(client: Client, broker: ScriptedBroker) -> None:
    bad = error_details_pb2.BadRequest()
    bad.field_violations.add(field="parameters.n", description="too small")
    rules = error_details_pb2.PreconditionFailure()
    rules.violations.add(type="STATE", subject="orders", description="is leaving")
    broker.script["GetInstance"] = [
        Refusal(grpc.StatusCode.FAILED_PRECONDITION, "WRONG_STATE", details=(bad, rules, retry_after(1.5)))
    ]

    with pytest.raises(purveyor.FailedPreconditionError) as refused:
        await client.instance("orders")

    assert refused.value.retry_after == 1.5
    assert refused.value.violations == (
        purveyor.Violation("parameters.n", "too small"),
        purveyor.Violation("orders", "is leaving"),
    )


async def test_a_broker_that_is_not_there_is_unavailable(folder: Path) -> None:
    async with purveyor.Client(f"unix:{folder / 'nobody'}", retry_for=0.2) as client:
        with pytest.raises(purveyor.UnavailableError, match="cannot be reached") as failed:
            await client.catalog()

    assert failed.value.reason == ""


async def test_pages_are_walked_to_the_end(client: Client, broker: ScriptedBroker) -> None:
    broker.script["ListInstances"] = [
        messages.ListInstancesResponse(instances=[instance(instance_id="a")], next_page_token="p2"),
        messages.ListInstancesResponse(instances=[instance(instance_id="b")]),
    ]

    found = [item.instance_id async for item in client.instances("state = READY", page_size=1)]

    assert found == ["a", "b"]
    assert [(sent.page_token, sent.filter) for sent in broker.seen["ListInstances"]] == [
        ("", "state = READY"),
        ("p2", "state = READY"),
    ]


async def test_values_are_decoded_whole(client: Client, broker: ScriptedBroker) -> None:
    made = Timestamp(seconds=1_700_000_000)
    message = instance(parameters=struct({"port": 5432, "ratio": 0.5}), create_time=made, labels={"a": "b"})
    message.state = 99  # type: ignore[assignment] # a state of a newer server
    broker.script["GetInstance"] = [messages.GetInstanceResponse(instance=message)]

    found = await client.instance("orders")

    assert found.parameters == {"port": 5432, "ratio": 0.5}
    assert isinstance(found.parameters["port"], int)
    assert (found.state, found.labels) == ("UNKNOWN_99", {"a": "b"})
    assert found.create_time == datetime.fromtimestamp(1_700_000_000, UTC)
    assert (found.delete_time, found.applied) == (None, None)


async def test_a_time_beyond_all_years_is_no_error(client: Client, broker: ScriptedBroker) -> None:
    message = instance(create_time=Timestamp(seconds=2**40), update_time=Timestamp(seconds=-(2**40)))
    broker.script["GetInstance"] = [messages.GetInstanceResponse(instance=message)]

    found = await client.instance("orders")

    assert (found.create_time, found.update_time) == (
        datetime.max.replace(tzinfo=UTC),
        datetime.min.replace(tzinfo=UTC),
    )


async def test_update_clears_labels_by_mask(client: Client, broker: ScriptedBroker) -> None:
    broker.script |= {
        "GetInstance": [messages.GetInstanceResponse(instance=instance())],
        "UpdateInstance": [messages.UpdateInstanceResponse(operation=operation())],
    }

    await client.update("orders", plan="big", labels={})
    await client.update("orders", parameters={"n": None})

    cleared, merged = broker.seen["UpdateInstance"]
    assert (cleared.plan_id, list(cleared.update_mask.paths)) == ("plan-big", ["plan_id", "labels"])
    assert not merged.HasField("update_mask")
    assert not merged.HasField("plan_id")
    assert merged.parameters == struct({"n": None})


async def test_credentials_hide_themselves(client: Client, broker: ScriptedBroker) -> None:
    secret = Credentials(values=struct({"password": "hunter2", "port": 5432}))
    broker.script["Bind"] = [
        messages.BindResponse(operation=operation("SUCCEEDED"), binding=binding(), credentials=secret)
    ]

    handle = await client.bind("orders", parameters={"token": "hunter2"}, wait=1)
    bound = await handle.result()

    assert bound.credentials["password"] == "hunter2"
    assert bound.credentials.text("port") == "5432"
    for shown in (
        repr(bound),
        str(bound.credentials),
        f"{bound.credentials}",
        f"{bound.credentials!r:>9}",
        repr(handle),
    ):
        assert "hunter2" not in shown
    assert "password=***" in repr(bound)


@pytest.mark.parametrize(
    ("value", "path"),
    [
        ({"n": 2**60}, "parameters.n"),
        ({"n": float("nan")}, "parameters.n"),
        ({"list": [1, {"when": datetime.now(UTC)}]}, "parameters.list[1].when"),
        ({"map": {1: "x"}}, "parameters.map"),
    ],
)
async def test_what_json_cannot_carry_is_refused_here(
    client: Client, broker: ScriptedBroker, value: dict[str, Any], path: str
) -> None:
    with pytest.raises(purveyor.InvalidRequestError) as refused:
        await client.provision("postgresql", "shared", parameters=value)

    assert refused.value.violations[0].field == path
    assert not broker.seen["Provision"]


@pytest.mark.parametrize("address", ["nowhere", "host:", "host:99999", "unix:", "unix:" + "x" * 200])
def test_a_malformed_address_is_refused(address: str) -> None:
    with pytest.raises(purveyor.InvalidRequestError, match="address"):
        purveyor.Client(address)


@pytest.mark.parametrize(
    ("address", "target"),
    [("/run/x", "unix:/run/x"), ("unix:///run/x", "unix:/run/x"), ("127.0.0.1:7070", "127.0.0.1:7070")],
)
def test_addresses_are_understood(address: str, target: str) -> None:
    assert purveyor.Client(address).address == target


def test_the_public_names_are_all_there() -> None:
    for name in purveyor.__all__:
        assert getattr(purveyor, name).__name__ == name
    assert set(purveyor.__all__) <= set(dir(purveyor))
