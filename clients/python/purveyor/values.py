"""What the broker answers, as frozen values.

Guarantee: a value never changes after it was received; fields that may hold a secret are left out of its repr. States and
verbs are the contract's names without their prefix; a name of a newer server is passed on, never refused.
Times are aware datetimes in UTC; None where the contract says absent. Integers come back from JSON values as integers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from enum import StrEnum
from typing import TypeAlias

from purveyor.credentials import Credentials

Json: TypeAlias = "bool | int | float | str | list[Json] | dict[str, Json] | None"
# What a caller may pass where JSON goes: read-only kinds, so that a dict[str, list[str]] fits.
JsonInput: TypeAlias = "bool | int | float | str | Sequence[JsonInput] | Mapping[str, JsonInput] | None"
Seconds: TypeAlias = float | timedelta


class InstanceState(StrEnum):
    """Where an instance stands."""

    PROVISIONING = "PROVISIONING"
    READY = "READY"
    UPDATING = "UPDATING"
    DEPROVISIONING = "DEPROVISIONING"
    DELETED = "DELETED"
    FAILED = "FAILED"
    DELETE_FAILED = "DELETE_FAILED"


class BindingState(StrEnum):
    """Where a binding stands."""

    BINDING = "BINDING"
    ACTIVE = "ACTIVE"
    UNBINDING = "UNBINDING"
    DELETED = "DELETED"
    EXPIRED = "EXPIRED"
    FAILED = "FAILED"
    REVOCATION_BLOCKED = "REVOCATION_BLOCKED"


class OperationState(StrEnum):
    """Where an operation stands; the last three are its ends."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    ROLLING_BACK = "ROLLING_BACK"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Verb(StrEnum):
    """What an operation does."""

    PROVISION = "PROVISION"
    UPDATE = "UPDATE"
    DEPROVISION = "DEPROVISION"
    BIND = "BIND"
    UNBIND = "UNBIND"
    CLEANUP = "CLEANUP"
    REPAIR = "REPAIR"
    RENEW = "RENEW"


@dataclass(frozen=True, kw_only=True)
class Plan:
    """One variant of a service. `*_schema`: the JSON Schema of its parameters; None accepts none at all.

    `state`: ACTIVE, or DEPRECATED: still to be had, and going to be retired. `transitions_from`: ids of the plans whose
    instances may move to this one; None: of those that are `updatable`.
    """

    id: str
    name: str
    description: str = ""
    free: bool = True
    bindable: bool = True
    updatable: bool = False
    rotatable: bool = False
    maintenance_version: str = ""
    state: str = "ACTIVE"
    transitions_from: tuple[str, ...] | None = None
    maximum_polling_duration: timedelta | None = None
    provision_schema: Mapping[str, Json] | None = None
    update_schema: Mapping[str, Json] | None = None
    bind_schema: Mapping[str, Json] | None = None
    metadata: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Service:
    """One kind of thing that can be ordered."""

    id: str
    name: str
    description: str = ""
    tags: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    bindable: bool = True
    updatable: bool = False
    allow_context_updates: bool = False
    plans: tuple[Plan, ...] = ()
    metadata: Mapping[str, Json] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Catalog:
    """What the caller may order: one snapshot."""

    version: int
    etag: str
    services: tuple[Service, ...] = ()


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A failure of an operation. `message` is for the user; `operator_message` is empty unless the caller is an operator."""

    reason: str
    message: str
    operator_message: str = ""
    retryable: bool = False
    step: str = ""


@dataclass(frozen=True, kw_only=True)
class Waiting:
    """Why an operation does not move: `reason` is SLOT, PARKED, BACKOFF, BLOCKED, CIRCUIT, LEASE, SETTLING, HELD or
    FROZEN."""

    reason: str
    until: datetime | None = None
    blocked_by: tuple[str, ...] = ()
    detail: str = ""


@dataclass(frozen=True, kw_only=True)
class Step:
    """One outside thing made (`ENSURE`) or removed (`ABSENT`); `state` is what the journal says."""

    name: str
    make: str
    state: str
    attempts: int = 0
    pivot: bool = False
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class OperationStatus:
    """An operation as it was when it was sent. `steps` only in the full view and for `validate_only`.

    `operation_id` is empty when nothing was started (validate_only, or nothing to do). `error_code`, `error_message` and
    `error_metadata` repeat `Operation.error`.
    """

    operation_id: str
    tenant: str = ""
    verb: str = ""
    instance_id: str = ""
    instance_uid: str = ""
    binding_id: str = ""
    binding_uid: str = ""
    state: str = ""
    done: bool = False
    percent: float = 0.0
    sentence: str = ""
    error_code: str = ""
    error_message: str = ""
    error_metadata: Mapping[str, str] = field(default_factory=dict)
    failure: Failure | None = None
    waiting: Waiting | None = None
    cancel_requested: bool = False
    past_pivot: bool = False
    taken_over_by: str = ""
    parent_operation_id: str = ""
    attempts: int = 0
    cleanup_required: tuple[str, ...] = ()
    create_time: datetime | None = None
    start_time: datetime | None = None
    end_time: datetime | None = None
    deadline: datetime | None = None
    request_id: str = ""
    etag: str = ""
    steps: tuple[Step, ...] = ()
    principal: str = ""
    first_failure: Failure | None = None
    resumed_operation_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What an instance is set to: plan and parameters with the catalog's defaults merged in."""

    service_id: str
    plan_id: str
    parameters: Mapping[str, Json] = field(default_factory=dict, repr=False)
    maintenance_version: str = ""


@dataclass(frozen=True, kw_only=True)
class Endpoint:
    """Where something can be reached. `ports`: single ports or ranges, as text."""

    host: str
    ports: tuple[str, ...] = ()
    protocol: str = "TCP"


@dataclass(frozen=True, kw_only=True)
class Instance:
    """One provisioned thing. `desired`, `in_flight` and `applied` are kept apart: a failed update loses nothing."""

    tenant: str
    instance_id: str
    uid: str
    service_id: str
    service_name: str
    plan_id: str
    plan_name: str
    state: str
    usable: bool = False
    cleanup_required: tuple[str, ...] = ()
    drift: str = ""
    drift_observe_time: datetime | None = None
    deletion_protected: bool = False
    adopted: bool = False
    desired: Settings | None = None
    in_flight: Settings | None = None
    applied: Settings | None = None
    parameters: Mapping[str, Json] = field(default_factory=dict, repr=False)
    context: Mapping[str, Json] = field(default_factory=dict)
    dashboard_url: str = ""
    labels: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Json] = field(default_factory=dict)
    endpoints: tuple[Endpoint, ...] = ()
    maintenance_version: str = ""
    etag: str = ""
    last_operation: OperationStatus | None = None
    create_time: datetime | None = None
    update_time: datetime | None = None
    delete_time: datetime | None = None
    pause_reason: str = ""
    pause_time: datetime | None = None
    platform_orphan_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Binding:
    """One access to an instance. Its credentials are never part of it: see `ActiveBinding` and `Client.credentials`."""

    tenant: str
    instance_id: str
    binding_id: str
    uid: str
    instance_uid: str
    service_id: str
    plan_id: str
    state: str
    parameters: Mapping[str, Json] = field(default_factory=dict, repr=False)
    context: Mapping[str, Json] = field(default_factory=dict)
    expire_time: datetime | None = None
    renew_before: datetime | None = None
    predecessor_binding_id: str = ""
    successor_binding_id: str = ""
    rotate_time: datetime | None = None
    revocation_retry_time: datetime | None = None
    revocation_attempts: int = 0
    cleanup_required: tuple[str, ...] = ()
    endpoints: tuple[Endpoint, ...] = ()
    labels: Mapping[str, str] = field(default_factory=dict)
    attributes: Mapping[str, Json] = field(default_factory=dict)
    etag: str = ""
    last_operation: OperationStatus | None = None
    create_time: datetime | None = None
    update_time: datetime | None = None
    delete_time: datetime | None = None


class EventKind(StrEnum):
    """What an event is about."""

    INSTANCE = "INSTANCE"
    BINDING = "BINDING"
    OPERATION = "OPERATION"


class EventType(StrEnum):
    """What happened. SYNCED is no event of the broker's: it ends a snapshot."""

    CREATED = "CREATED"
    CHANGED = "CHANGED"
    ENDED = "ENDED"
    PRESENT = "PRESENT"
    SYNCED = "SYNCED"


@dataclass(frozen=True, kw_only=True)
class Event:
    """One change; or, PRESENT, one record of a snapshot. Of two of one `uid` the higher `version` is the newer state.

    `revision`: its place in the log; in a snapshot, where that begins. `record`: the state after the change; None when it is
    too large for an event.
    """

    type: EventType | str
    revision: int = 0
    time: datetime | None = None
    kind: EventKind | str = ""
    tenant: str = ""
    instance_id: str = ""
    binding_id: str = ""
    operation_id: str = ""
    uid: str = ""
    version: int = 0
    state: str = ""
    record: Instance | Binding | OperationStatus | None = None


@dataclass(frozen=True, kw_only=True)
class ActiveBinding(Binding):
    """A binding that works, with its credentials (hidden in its repr)."""

    credentials: Credentials
