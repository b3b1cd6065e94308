"""Messages of the contract to values.

Guarantee: an unknown enum value becomes `UNKNOWN_<number>` and never an error; absent times become None.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol, TypeVar

from google.rpc import error_details_pb2

from purveyor.credentials import Credentials
from purveyor.values import (
    ActiveBinding,
    Binding,
    Catalog,
    Endpoint,
    Event,
    Failure,
    Instance,
    OperationStatus,
    Plan,
    Service,
    Settings,
    Step,
    Waiting,
)

if TYPE_CHECKING:
    from google.protobuf.struct_pb2 import Struct, Value
    from google.protobuf.timestamp_pb2 import Timestamp

    from purveyor.v1 import binding_pb2, catalog_pb2, event_pb2, instance_pb2, operation_pb2, status_pb2
    from purveyor.values import Json

# The gRPC codes by number; google.rpc.Code, which no module of the generated stubs carries.
CODES = (
    *("OK", "CANCELLED", "UNKNOWN", "INVALID_ARGUMENT", "DEADLINE_EXCEEDED", "NOT_FOUND", "ALREADY_EXISTS"),
    *("PERMISSION_DENIED", "RESOURCE_EXHAUSTED", "FAILED_PRECONDITION", "ABORTED", "OUT_OF_RANGE", "UNIMPLEMENTED"),
    *("INTERNAL", "UNAVAILABLE", "DATA_LOSS", "UNAUTHENTICATED"),
)

Number = TypeVar("Number", contravariant=True)  # noqa: PLC0105 - the enum's own value type


class _Enum(Protocol[Number]):
    def Name(self, number: Number) -> str: ...


def enum_name(kind: _Enum[Number], number: Number, prefix: str) -> str:
    """The name of an enum value without its prefix; empty for UNSPECIFIED."""
    try:
        name = kind.Name(number).removeprefix(prefix)
    except ValueError:
        return f"UNKNOWN_{number}"
    return "" if name == "UNSPECIFIED" else name


def json_of(struct: Struct) -> dict[str, Json]:
    """A Struct as JSON values, in the order of their names (a Struct has none); whole numbers come back as integers."""
    return {name: _value(value) for name, value in sorted(struct.fields.items())}


def _value(value: Value) -> Json:
    match value.WhichOneof("kind"):
        case "number_value":
            number = value.number_value
            return int(number) if number.is_integer() else number
        case "string_value":
            return value.string_value
        case "bool_value":
            return value.bool_value
        case "struct_value":
            return json_of(value.struct_value)
        case "list_value":
            return [_value(item) for item in value.list_value.values]
        case _:
            return None


def time_of(stamp: Timestamp) -> datetime | None:
    """An aware datetime; None for the zero Timestamp, which is how an absent one reads.

    A time beyond the years that a datetime has becomes its first or last one.
    """
    if not stamp.seconds and not stamp.nanos:
        return None
    try:
        return stamp.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError):
        return datetime.max.replace(tzinfo=UTC) if stamp.seconds > 0 else datetime.min.replace(tzinfo=UTC)


def catalog(message: catalog_pb2.Catalog) -> Catalog:
    """The catalog."""
    return Catalog(
        version=message.version, etag=message.etag, services=tuple(_service(service) for service in message.services)
    )


def _service(message: catalog_pb2.Service) -> Service:
    return Service(
        id=message.id,
        name=message.name,
        description=message.description,
        tags=tuple(message.tags),
        requires=tuple(message.requires),
        bindable=message.bindable,
        updatable=message.plan_updateable,
        allow_context_updates=message.allow_context_updates,
        plans=tuple(_plan(plan, message) for plan in message.plans),
        metadata=json_of(message.metadata),
    )


def _plan(message: catalog_pb2.Plan, service: catalog_pb2.Service) -> Plan:
    schemas = message.schemas
    limit = message.maximum_polling_duration
    return Plan(
        id=message.id,
        name=message.name,
        description=message.description,
        free=message.free,
        bindable=message.bindable if message.HasField("bindable") else service.bindable,
        updatable=message.plan_updateable if message.HasField("plan_updateable") else service.plan_updateable,
        rotatable=message.binding_rotatable,
        maintenance_version=message.maintenance_info.version,
        state=enum_name(type(message).State, message.state, "STATE_") or "ACTIVE",
        transitions_from=tuple(message.transitions.from_plan_ids) if message.HasField("transitions") else None,
        maximum_polling_duration=limit.ToTimedelta() if message.HasField("maximum_polling_duration") else None,
        provision_schema=json_of(schemas.instance_create) if schemas.HasField("instance_create") else None,
        update_schema=json_of(schemas.instance_update) if schemas.HasField("instance_update") else None,
        bind_schema=json_of(schemas.binding_create) if schemas.HasField("binding_create") else None,
        metadata=json_of(message.metadata),
    )


def operation(message: operation_pb2.Operation) -> OperationStatus:
    """An operation."""
    kind = type(message)
    return OperationStatus(
        operation_id=message.operation_id,
        tenant=message.tenant,
        verb=enum_name(kind.Verb, message.verb, "VERB_"),
        instance_id=message.instance_id,
        instance_uid=message.instance_uid,
        binding_id=message.binding_id,
        binding_uid=message.binding_uid,
        state=enum_name(kind.State, message.state, "STATE_"),
        done=message.done,
        percent=message.percent,
        sentence=message.sentence,
        error_code=_code(message.error.code) if message.HasField("error") else "",
        error_message=message.error.message,
        error_metadata=_error_metadata(message.error),
        failure=_failure(message.failure) if message.HasField("failure") else None,
        waiting=_waiting(message.waiting) if message.HasField("waiting") else None,
        cancel_requested=message.cancel_requested,
        past_pivot=message.past_pivot,
        taken_over_by=message.taken_over_by,
        parent_operation_id=message.parent_operation_id,
        attempts=message.attempts,
        cleanup_required=tuple(message.cleanup_required),
        create_time=time_of(message.create_time),
        start_time=time_of(message.start_time),
        end_time=time_of(message.end_time),
        deadline=time_of(message.deadline),
        request_id=message.request_id,
        etag=message.etag,
        steps=tuple(_step(step) for step in message.steps),
        principal=message.principal,
        first_failure=_failure(message.first_failure) if message.HasField("first_failure") else None,
        resumed_operation_id=message.resumed_operation_id,
    )


def _code(number: int) -> str:
    return CODES[number] if 0 <= number < len(CODES) else f"UNKNOWN_{number}"


def _error_metadata(status: status_pb2.Status) -> dict[str, str]:
    """What the recorded ErrorInfo carries; empty when there is none."""
    info = error_details_pb2.ErrorInfo()
    for detail in status.details:
        if detail.Is(info.DESCRIPTOR) and detail.Unpack(info):
            return dict(info.metadata)
    return {}


def _failure(failure: operation_pb2.Failure) -> Failure:
    from purveyor.v1.error_reason_pb2 import ErrorReason  # noqa: PLC0415 - only a failed operation needs the reasons

    return Failure(
        reason=enum_name(ErrorReason, failure.reason, "ERROR_REASON_"),
        message=failure.user_message,
        operator_message=failure.operator_message,
        retryable=failure.retryable,
        step=failure.step,
    )


def _waiting(message: operation_pb2.Waiting) -> Waiting:
    return Waiting(
        reason=enum_name(type(message).Reason, message.reason, "REASON_"),
        until=time_of(message.until),
        blocked_by=tuple(message.blocked_by),
        detail=message.detail,
    )


def _step(message: operation_pb2.Step) -> Step:
    kind = type(message)
    return Step(
        name=message.name,
        make=enum_name(kind.Make, message.make, "MAKE_"),
        state=enum_name(kind.State, message.state, "STATE_"),
        attempts=message.attempts,
        pivot=message.pivot,
        start_time=time_of(message.start_time),
        end_time=time_of(message.end_time),
    )


def _settings(message: instance_pb2.InstanceSettings) -> Settings:
    return Settings(
        service_id=message.service_id,
        plan_id=message.plan_id,
        parameters=json_of(message.parameters),
        maintenance_version=message.maintenance_info.version,
    )


def _endpoint(message: instance_pb2.Endpoint) -> Endpoint:
    protocol = enum_name(type(message).Protocol, message.protocol, "PROTOCOL_")
    return Endpoint(host=message.host, ports=tuple(message.ports), protocol=protocol or "TCP")


def instance(message: instance_pb2.Instance) -> Instance:
    """An instance."""
    kind = type(message)
    return Instance(
        tenant=message.tenant,
        instance_id=message.instance_id,
        uid=message.uid,
        service_id=message.service_id,
        service_name=message.service_name,
        plan_id=message.plan_id,
        plan_name=message.plan_name,
        state=enum_name(kind.State, message.state, "STATE_"),
        usable=message.usable,
        cleanup_required=tuple(message.cleanup_required),
        drift=enum_name(kind.Drift, message.drift, "DRIFT_"),
        drift_observe_time=time_of(message.drift_observe_time),
        deletion_protected=message.deletion_protected,
        adopted=message.adopted,
        desired=_settings(message.desired) if message.HasField("desired") else None,
        in_flight=_settings(message.in_flight) if message.HasField("in_flight") else None,
        applied=_settings(message.applied) if message.HasField("applied") else None,
        parameters=json_of(message.parameters),
        context=json_of(message.context),
        dashboard_url=message.dashboard_url,
        labels=dict(message.labels),
        attributes=json_of(message.attributes),
        endpoints=tuple(_endpoint(endpoint) for endpoint in message.endpoints),
        maintenance_version=message.maintenance_info.version,
        etag=message.etag,
        last_operation=operation(message.last_operation) if message.HasField("last_operation") else None,
        create_time=time_of(message.create_time),
        update_time=time_of(message.update_time),
        delete_time=time_of(message.delete_time),
        pause_reason=message.reconciliation_pause.reason,
        pause_time=time_of(message.reconciliation_pause.pause_time),
        platform_orphan_time=time_of(message.platform_orphan_time),
    )


def binding(message: binding_pb2.Binding) -> Binding:
    """A binding, without credentials."""
    return Binding(
        tenant=message.tenant,
        instance_id=message.instance_id,
        binding_id=message.binding_id,
        uid=message.uid,
        instance_uid=message.instance_uid,
        service_id=message.service_id,
        plan_id=message.plan_id,
        state=enum_name(type(message).State, message.state, "STATE_"),
        parameters=json_of(message.parameters),
        context=json_of(message.context),
        expire_time=time_of(message.expire_time),
        renew_before=time_of(message.renew_before),
        predecessor_binding_id=message.predecessor_binding_id,
        successor_binding_id=message.successor_binding_id,
        rotate_time=time_of(message.rotate_time),
        revocation_retry_time=time_of(message.revocation_retry_time),
        revocation_attempts=message.revocation_attempts,
        cleanup_required=tuple(message.cleanup_required),
        endpoints=tuple(_endpoint(endpoint) for endpoint in message.endpoints),
        labels=dict(message.labels),
        attributes=json_of(message.attributes),
        etag=message.etag,
        last_operation=operation(message.last_operation) if message.HasField("last_operation") else None,
        create_time=time_of(message.create_time),
        update_time=time_of(message.update_time),
        delete_time=time_of(message.delete_time),
    )


def event(message: event_pb2.Event) -> Event:
    """An event with its record."""
    kind = type(message)
    return Event(
        type=enum_name(kind.Type, message.type, "TYPE_"),
        revision=message.revision,
        time=time_of(message.time),
        kind=enum_name(kind.Kind, message.kind, "KIND_"),
        tenant=message.tenant,
        instance_id=message.instance_id,
        binding_id=message.binding_id,
        operation_id=message.operation_id,
        uid=message.uid,
        version=message.version,
        state=message.state,
        record=_record(message),
    )


def _record(message: event_pb2.Event) -> Instance | Binding | OperationStatus | None:
    match message.WhichOneof("record"):
        case "instance":
            return instance(message.instance)
        case "binding":
            return binding(message.binding)
        case "operation":
            return operation(message.operation)
        case _:
            return None


def credentials(message: binding_pb2.Credentials) -> Credentials:
    """The credentials of a binding."""
    return Credentials(json_of(message.values))


def active(found: Binding, secret: Credentials) -> ActiveBinding:
    """A binding together with its credentials."""
    return ActiveBinding(**vars(found), credentials=secret)
