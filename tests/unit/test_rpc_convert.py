"""Messages and values of the domain say the same."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from google.protobuf.json_format import MessageToDict
from google.protobuf.struct_pb2 import Struct
from google.rpc import error_details_pb2, status_pb2
from hypothesis import given
from hypothesis import strategies as st

from purveyor.v1 import binding_pb2, catalog_pb2, instance_pb2, operation_pb2
from purveyor.v1 import broker_service_pb2 as pb
from purveyor_server.domain.catalog import Catalog, Plan, PlanSchemas, Service
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.model import Endpoint, Failure, Identity, MaintenanceInfo, ProviderRef, Step
from purveyor_server.domain.states import Drift, Make, OperationState, StepState, Verb, Waiting
from purveyor_server.lifecycle.contract import Planned
from purveyor_server.lifecycle.door import ROLES, Action
from purveyor_server.rpc.convert import enums, requests
from purveyor_server.rpc.convert.binding import encode_binding, encode_credentials
from purveyor_server.rpc.convert.catalog import encode_catalog
from purveyor_server.rpc.convert.instance import encode_instance
from purveyor_server.rpc.convert.operation import encode_operation
from purveyor_server.rpc.convert.values import body_of, from_duration, from_struct, to_duration, to_struct, to_timestamp
from purveyor_server.rpc.methods import method_table
from purveyor_server.rpc.settings import RpcSettings
from tests.rpc.scripted import AT, UID, binding, instance, operation, settings

# What a Struct holds without loss: doubles, and integers that are exact in one.
numbers = st.one_of(
    st.integers(-(2**53) + 1, 2**53 - 1), st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: x % 1 != 0)
)
leaves = st.one_of(st.none(), st.booleans(), st.text(max_size=20), numbers)
trees = st.recursive(
    leaves,
    lambda inner: st.one_of(st.lists(inner, max_size=4), st.dictionaries(st.text(max_size=8), inner, max_size=4)),
)
objects = st.dictionaries(st.text(max_size=8), trees, max_size=5)


@given(objects)
def test_a_struct_brings_back_what_was_put_in(values: dict[str, Any]) -> None:
    back = from_struct(Struct.FromString(to_struct(values).SerializeToString()), "parameters")

    assert back == values
    assert [type(back[key]) for key in values] == [type(values[key]) for key in values]


def test_integers_beyond_doubles_are_seen_to_change() -> None:
    # The negative control of the round trip above: the limit that the contract states is real.
    assert from_struct(to_struct({"n": 2**53 + 1}), "parameters")["n"] != 2**53 + 1


@pytest.mark.parametrize("number", [math.nan, math.inf, -math.inf])
def test_numbers_that_json_lacks_are_refused_by_their_place(number: float) -> None:
    with pytest.raises(PurveyorError) as caught:
        from_struct(to_struct({"a": [{"b": number}]}), "parameters")

    assert caught.value.violations[0].field == "parameters.a[0].b"


@given(objects, st.dictionaries(st.text(max_size=5), st.text(max_size=5), max_size=3), st.text(max_size=9))
def test_the_body_is_the_request_as_json(parameters: dict[str, Any], labels: dict[str, str], plan_id: str) -> None:
    request = pb.ProvisionRequest(tenant="t", plan_id=plan_id, labels=labels, request_id="r", validate_only=True)
    request.parameters.update(parameters)
    request.wait.FromSeconds(3)

    expected = MessageToDict(request, preserving_proto_field_name=True)
    for field in ("wait", "validate_only", "request_id", "etag"):
        expected.pop(field, None)
    assert body_of(request) == expected


def test_the_body_holds_nothing_that_was_defaulted() -> None:
    assert body_of(pb.DeprovisionRequest(tenant="t", cascade=False, etag="e")) == {"tenant": "t"}


@pytest.mark.parametrize(
    "span", [timedelta(0), timedelta(milliseconds=1500), timedelta(microseconds=1), timedelta(days=40)]
)
def test_durations_come_back(span: timedelta) -> None:
    request = pb.WaitOperationRequest(timeout=to_duration(span))

    assert from_duration(request, "timeout") == span


@pytest.mark.parametrize(("seconds", "nanos"), [(-1, 0), (0, -1), (1, -1), (0, 1_000_000_000), (2**62, 0)])
def test_other_durations_are_refused(seconds: int, nanos: int) -> None:
    request = pb.WaitOperationRequest()
    request.timeout.seconds, request.timeout.nanos = seconds, nanos

    with pytest.raises(PurveyorError) as caught:
        from_duration(request, "timeout")

    assert caught.value.violations[0].field == "timeout"


@given(st.datetimes(datetime(1970, 1, 2), datetime(9999, 1, 1)))  # noqa: DTZ001 - hypothesis wants them without
def test_times_keep_their_microseconds(at: datetime) -> None:
    stamp = to_timestamp(at.replace(tzinfo=UTC))

    assert stamp is not None
    assert stamp.ToDatetime(tzinfo=UTC) == at.replace(tzinfo=UTC)


def test_provision_is_decoded_whole() -> None:
    request = pb.ProvisionRequest(
        tenant="t", instance_id="i", service_id="s", plan_id="p", labels={"a": "b"}, request_id="r", validate_only=True
    )
    request.parameters.update({"size": 3})
    request.context.update({"platform": "kubernetes"})
    request.originating_identity.platform = "kubernetes"
    request.originating_identity.value.update({"username": "u"})
    request.maintenance_info.version = "1.0.0"
    request.wait.FromSeconds(2)

    decoded = requests.decode_provision(request)

    assert (decoded.tenant, decoded.instance_id, decoded.service_id, decoded.plan_id) == ("t", "i", "s", "p")
    assert (decoded.parameters, decoded.context, decoded.labels) == (
        {"size": 3},
        {"platform": "kubernetes"},
        {"a": "b"},
    )
    assert decoded.originating_identity == Identity("kubernetes", {"username": "u"})
    assert decoded.maintenance_info == MaintenanceInfo("1.0.0")
    assert (decoded.request_id, decoded.validate_only, decoded.wait) == ("r", True, timedelta(seconds=2))
    assert "labels" in decoded.body
    assert "request_id" not in decoded.body


def update(*paths: str, **fields: Any) -> pb.UpdateInstanceRequest:
    request = pb.UpdateInstanceRequest(tenant="t", instance_id="i", **fields)
    request.update_mask.paths.extend(paths)
    return request


def test_an_update_changes_what_is_present() -> None:
    decoded = requests.decode_update(update(deletion_protected=False, parameters=Struct()))

    assert (decoded.deletion_protected, decoded.parameters) == (False, {})
    assert (decoded.plan_id, decoded.labels, decoded.context, decoded.maintenance_info) == (None, None, None, None)


def test_a_mask_chooses_and_clears() -> None:
    request = update("labels", "plan_id", "deletion_protected", plan_id="p-2", parameters=to_struct({"a": 1}))

    decoded = requests.decode_update(request)

    assert (decoded.plan_id, decoded.labels, decoded.deletion_protected, decoded.parameters) == ("p-2", {}, False, None)


@pytest.mark.parametrize("path", ["colour", "parameters", "plan_id", "tenant"])
def test_a_mask_with_another_path_is_refused(path: str) -> None:
    with pytest.raises(PurveyorError) as caught:
        requests.decode_update(update(path))

    assert caught.value.violations[0].field == "update_mask"


def test_an_instance_is_encoded_whole() -> None:
    record = instance(
        in_flight=settings(plan_id="p-2"),
        originating_identity=Identity("cloudfoundry", {"user_id": "u"}),
        labels={"a": "b"},
        endpoints=(Endpoint("h", ("5432",), "udp"),),
        attributes={"x": 1},
        context={"c": None},
        drift=Drift.DRIFTED,
        observed_at=AT,
    )

    message = encode_instance(record)

    assert (message.tenant, message.instance_id, message.uid, message.plan_id) == ("t", "orders", UID, "p-1")
    assert message.state == instance_pb2.Instance.STATE_READY
    assert (message.in_flight.plan_id, message.applied.maintenance_info.version) == ("p-2", "1.2.3")
    assert MessageToDict(message.parameters) == {"size": 3}
    assert MessageToDict(message.context) == {"c": None}
    assert message.endpoints[0].protocol == instance_pb2.Endpoint.PROTOCOL_UDP
    assert (message.drift, message.etag) == (instance_pb2.Instance.DRIFT_DRIFTED, '"v7-00000000000a"')
    assert (message.last_operation.operation_id, message.HasField("delete_time")) == ("op-1", False)
    assert encode_instance(instance()).drift == instance_pb2.Instance.DRIFT_UNSPECIFIED


@pytest.mark.parametrize(
    ("desired", "in_flight", "applied"),
    [
        ({"a": True}, {"a": 1}, {"a": [True]}),
        ({"a": 1}, {"a": 1}, {"a": True}),
        ({"a": [1, {"b": 0}]}, {"a": [1, {"b": False}]}, {"a": [1, {"b": 0}]}),
        ({}, {"a": 1}, {}),
        ({"a": 1}, {}, {"a": 1.0}),
        ({"a": 1, "b": 2}, {"b": 2, "a": 1}, {"a": None}),
    ],
)
def test_settings_that_are_not_the_same_json_are_kept_apart(
    desired: dict[str, Any], in_flight: dict[str, Any], applied: dict[str, Any]
) -> None:
    """Equal parameters are encoded once; true is no 1, although Python says so."""
    made = instance(
        desired=settings(parameters=desired),
        in_flight=settings(parameters=in_flight),
        applied=settings(parameters=applied),
    )

    message = encode_instance(made)

    encoded = [message.desired.parameters, message.in_flight.parameters, message.applied.parameters]
    assert encoded == [to_struct(desired), to_struct(in_flight), to_struct(applied)]
    assert message.parameters == to_struct(applied)


def test_a_binding_is_encoded_whole() -> None:
    mount = {"driver": "d", "container_dir": "/c", "mode": "rw", "device_type": "shared", "device": {"volume_id": "v"}}
    record = binding(
        expires_at=AT, bind_resource={"app_guid": "a", "unknown": 1, "backup_agent": True}, volume_mounts=(mount,)
    )

    message = encode_binding(record)

    assert message.state == binding_pb2.Binding.STATE_ACTIVE
    assert (message.bind_resource.app_guid, message.bind_resource.backup_agent) == ("a", True)
    assert (message.volume_mounts[0].device.volume_id, message.expire_time.ToDatetime(tzinfo=UTC)) == ("v", AT)
    assert encode_credentials(None) is None
    credentials = encode_credentials({"uri": "u"})
    assert credentials is not None
    assert credentials.values["uri"] == "u"


def test_a_failed_operation_carries_a_google_status() -> None:
    failure = Failure("PROVIDER_TIMEOUT", "took too long", "for operators", retryable=True, step="database")
    record = operation(
        state=OperationState.FAILED, failure=failure, provider="main", waiting=Waiting.PARKED, ended_at=AT
    )

    message = encode_operation(record, for_operator=False)

    status = status_pb2.Status.FromString(message.error.SerializeToString())
    info = error_details_pb2.ErrorInfo()
    assert status.details[0].Unpack(info)
    assert (info.reason, dict(info.metadata)) == ("PROVIDER_TIMEOUT", {"provider": "main", "step": "database"})
    assert (message.done, message.failure.user_message, message.failure.retryable) == (True, "took too long", True)
    assert (message.failure.operator_message, message.HasField("waiting")) == ("", False)
    assert encode_operation(record, for_operator=True).failure.operator_message == "for operators"


def test_a_reason_that_is_not_known_here_is_no_defect() -> None:
    message = encode_operation(operation(state=OperationState.FAILED, failure=Failure("NEWER", "text")))

    assert message.failure.reason == enums.REASONS[requests_reason("PROVIDER_FAILED")]


def requests_reason(name: str) -> Any:
    return next(reason for reason in enums.REASONS if reason.value == name)


def test_what_an_operation_waits_for() -> None:
    parked = encode_operation(operation(waiting=Waiting.PARKED, waiting_detail="soon", due_at=AT)).waiting
    blocked = encode_operation(operation(waiting=Waiting.BLOCKED, blocked_by=("o",), due_at=AT)).waiting

    assert (parked.reason, parked.detail, parked.HasField("until")) == (
        operation_pb2.Waiting.REASON_PARKED,
        "soon",
        True,
    )
    assert (list(blocked.blocked_by), blocked.HasField("until")) == (["o"], False)


def test_steps_and_planned_steps() -> None:
    step = Step(
        operation_id="o", index=0, name="role", make=Make.ENSURE, state=StepState.DONE, started_at=AT, pivot=True
    )

    done = encode_operation(operation(), (step,)).steps[0]
    planned = encode_operation(operation(verb=Verb.DEPROVISION), planned=(Planned("role", Make.ABSENT),)).steps[0]

    assert (done.name, done.state, done.pivot) == ("role", operation_pb2.Step.STATE_DONE, True)
    assert (planned.state, planned.make) == (operation_pb2.Step.STATE_PLANNED, operation_pb2.Step.MAKE_ABSENT)


def test_only_success_is_a_hundred_percent() -> None:
    assert encode_operation(operation(percent=100.0)).percent < 100
    assert encode_operation(operation(state=OperationState.SUCCEEDED, percent=3.0)).percent == 100


def test_the_catalog_is_encoded_whole() -> None:
    plan = Plan(
        id="p",
        name="plan",
        description="d",
        provider=ProviderRef("main", "x"),
        schemas=PlanSchemas({"type": "object"}, None, None),
        maximum_polling_duration=timedelta(hours=1),
        maintenance_info=MaintenanceInfo("1.0.0"),
        metadata={"bullets": ["one"]},
    )
    message = encode_catalog(Catalog((Service(id="s", name="n", description="d", plans=(plan,), tags=("a",)),), 4, "e"))

    encoded: catalog_pb2.Plan = message.services[0].plans[0]
    assert (message.version, message.etag, list(message.services[0].tags)) == (4, "e", ["a"])
    assert (encoded.maximum_polling_duration.seconds, encoded.maintenance_info.version) == (3600, "1.0.0")
    assert encoded.schemas.HasField("instance_create")
    assert not encoded.schemas.HasField("instance_update")
    assert encoded.free
    assert encoded.HasField("bindable")


def test_the_roles_of_the_contract_open_the_door() -> None:
    table = {name.rpartition("/")[2]: method for name, method in method_table(RpcSettings()).items()}

    assert {action.value for action in Action} == set(table)
    for action in Action:
        assert table[action.value].role in ROLES[action]
