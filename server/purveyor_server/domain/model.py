"""The records that a store keeps: plain immutable values.

Guarantee: no I/O, no defaults read from outside; a record is replaced whole, never edited in place
(`msgspec.structs.replace`), and `version` counts its replacements (the etag of a resource).
Times are aware datetimes in UTC. `Json` is what JSON can hold.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any

import msgspec

from purveyor_server.domain.policies import CleanupPolicy, LeasePolicy
from purveyor_server.domain.states import (
    FINAL_OPERATION,
    BindingState,
    Drift,
    InstanceState,
    Make,
    OperationState,
    StepState,
    Verb,
    Waiting,
)

Json = Any
"""None, bool, int, float, str, list or dict of the same."""


class MaintenanceInfo(msgspec.Struct, frozen=True):
    """OSBAPI maintenance_info: `version` is a semantic version; only it is compared."""

    version: str
    description: str = ""


class ProviderRef(msgspec.Struct, frozen=True):
    """Which provider serves a plan: name in the catalog, kind (entry point), its configuration (secrets by reference)."""

    name: str
    kind: str
    config: dict[str, Json] = {}


class PlanSnapshot(msgspec.Struct, frozen=True):
    """All that is needed to run, change and delete what a plan made, whatever the live catalog says.

    `digest` is the SHA-256 of the rest (hex) and names the snapshot in the store; `settings` are the provider's plan
    settings; `defaults` are already merged into stored parameters.
    """

    digest: str
    service_id: str
    service_name: str
    plan_id: str
    plan_name: str
    provider: ProviderRef
    settings: dict[str, Json] = {}
    bindable: bool = True
    plan_updateable: bool = False
    maintenance_info: MaintenanceInfo | None = None
    lease: LeasePolicy = LeasePolicy()
    binding_rotatable: bool = False
    cleanup: CleanupPolicy = CleanupPolicy()


class Settings(msgspec.Struct, frozen=True):
    """One wish or fact about an instance: which plan snapshot, with which parameters (defaults merged)."""

    plan: str  # PlanSnapshot.digest
    service_id: str
    plan_id: str
    parameters: dict[str, Json] = {}  # MASK where a secret is
    maintenance_info: MaintenanceInfo | None = None
    sealed: dict[str, str] = {}  # place (JSON Pointer) of a secret parameter -> its column among the instance's secrets


class Identity(msgspec.Struct, frozen=True):
    """Originating identity: the platform's name and what it says of its end user."""

    platform: str
    value: dict[str, Json] = {}


class Endpoint(msgspec.Struct, frozen=True):
    """OSBAPI endpoint: a host, its ports (single or `from-to`), and tcp, udp or all."""

    host: str
    ports: tuple[str, ...]
    protocol: str = "tcp"


class Pause(msgspec.Struct, frozen=True):
    """Somebody has told the broker to leave an instance alone: why, who, when."""

    reason: str
    principal: str
    at: datetime


class Instance(msgspec.Struct, frozen=True, kw_only=True):
    """One incarnation of an instance id. `desired`, `in_flight` and `applied` are kept apart so a failed update loses nothing."""

    uid: str
    tenant: str
    instance_id: str
    state: InstanceState
    desired: Settings
    in_flight: Settings | None = None
    applied: Settings | None = None
    service_name: str = ""
    plan_name: str = ""
    usable: bool = False
    cleanup_required: tuple[str, ...] = ()
    drift: Drift = Drift.UNKNOWN
    observed_at: datetime | None = None
    deletion_protected: bool = False
    adopted: bool = False
    reconcile_paused: Pause | None = None
    owner: str = ""  # the platform (a principal) that ordered it; empty when none did
    platform_orphan_since: datetime | None = None  # since when its platform does not name it
    claims: int = 0  # how often the platform said "mine" since it last named it
    digest: str = ""  # HMAC of the create request as sent (hex)
    context: dict[str, Json] = {}
    originating_identity: Identity | None = None
    labels: dict[str, str] = {}
    attributes: dict[str, Json] = {}
    dashboard_url: str = ""
    endpoints: tuple[Endpoint, ...] = ()
    outputs: dict[str, dict[str, Json]] = {}  # piece name -> its outputs, without secrets
    last_operation: str = ""
    version: int = 0
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None

    @property
    def present(self) -> Settings:
        """What it is to be taken as: the settings that are applied; before there are any, those of its creation."""
        return self.applied or self.desired


class ExpiryChange(msgspec.Struct, frozen=True):
    """What a RENEW does to its binding: the end to reach, the end to go back to (None: no end), and what else follows the end."""

    to: datetime
    back: datetime | None = None
    renew_before: datetime | None = None
    rotate_at: datetime | None = None


class Succession(msgspec.Struct, frozen=True):
    """What a BIND that makes a successor means for the predecessor.

    `overlap` is how long the predecessor outlives the successor's activation; `enforced` says that the backend ends logins
    by itself and has to be told; `rotate_at` is what the predecessor gets back when the successor fails.
    """

    predecessor_uid: str
    overlap: timedelta
    enforced: bool = False
    rotate_at: datetime | None = None


class Binding(msgspec.Struct, frozen=True, kw_only=True):
    """One incarnation of a binding id. Credentials are not here: they are sealed under `uid`."""

    uid: str
    tenant: str
    instance_id: str
    instance_uid: str
    binding_id: str
    state: BindingState
    plan: str  # PlanSnapshot.digest
    service_id: str
    plan_id: str
    parameters: dict[str, Json] = {}  # MASK where a secret is
    sealed: dict[str, str] = {}  # as of Settings, among the binding's secrets
    bind_resource: dict[str, Json] = {}
    context: dict[str, Json] = {}
    originating_identity: Identity | None = None
    labels: dict[str, str] = {}
    attributes: dict[str, Json] = {}
    cleanup_required: tuple[str, ...] = ()
    digest: str = ""
    creator: str = ""  # principal that asked for it
    predecessor_binding_id: str = ""
    successor_binding_id: str = ""  # from the accept of its BIND on; empty again when that fails
    expires_at: datetime | None = None  # what is promised: never later than the backend keeps
    renew_before: datetime | None = None
    rotate_at: datetime | None = None  # when the broker rotates it by itself
    rotated_at: datetime | None = None  # of a successor that the broker made by itself: when
    revocation_attempts: int = 0  # UNBINDs that failed
    retry_at: datetime | None = None  # REVOCATION_BLOCKED: when the next one is due
    endpoints: tuple[Endpoint, ...] = ()
    syslog_drain_url: str = ""
    route_service_url: str = ""
    volume_mounts: tuple[dict[str, Json], ...] = ()
    outputs: dict[str, dict[str, Json]] = {}
    last_operation: str = ""
    version: int = 0
    created_at: datetime
    updated_at: datetime
    deleted_at: datetime | None = None


class Failure(msgspec.Struct, frozen=True):
    """Why an operation failed. `message` is for the caller, `operator_message` for the log and operators (no secret)."""

    reason: str
    message: str
    operator_message: str = ""
    retryable: bool = False
    step: str = ""


class RequestKey(msgspec.Struct, frozen=True):
    """The idempotency key of a mutating call (AIP-155): who, which method, which request_id, and a hash of the body (hex)."""

    principal: str
    method: str
    request_id: str
    fingerprint: str


class CleanupStep(msgspec.Struct, frozen=True):
    """One thing left behind: which step of the origin operation, its piece, and what makes it right again."""

    name: str
    make: Make


class Operation(msgspec.Struct, frozen=True, kw_only=True):
    """The durable record behind Last Operation.

    `due_at` is the one scheduling field: when somebody should look at it next. None = nobody (final, blocked or held);
    while leased it is the end of the lease, so an expired lease is due by itself.
    `want`/`was` are the settings that this operation works towards and from.
    """

    operation_id: str
    tenant: str
    verb: Verb
    instance_id: str
    instance_uid: str
    binding_id: str = ""
    binding_uid: str = ""
    state: OperationState = OperationState.PENDING
    want: Settings | None = None
    was: Settings | None = None
    adopt: dict[str, Json] | None = (
        None  # PROVISION: the existing thing that it takes over, in the provider's words; no secret
    )
    provider: str = ""  # ProviderRef.name
    contract: str = ""  # Provider.contract at accept
    request: RequestKey | None = None
    principal: str = ""
    expiry: ExpiryChange | None = None  # RENEW
    succession: Succession | None = None  # BIND of a successor
    marked_revision: int = 0  # head of the log when accepted; part of every ownership marker this operation writes
    # scheduling
    due_at: datetime | None = None
    waiting: Waiting = Waiting.NONE
    waiting_detail: str = ""
    frozen_at: datetime | None = None  # since when a freeze holds it: that time does not count against its deadlines
    blocked_by: tuple[str, ...] = ()
    lease_owner: str = ""
    lease_no: int = 0  # grows with every claim: the fence
    lease_epoch: int = 0
    attempts: int = 0  # failed attempts of the current step
    budget: float = 0.0  # seconds this operation may take once unblocked
    rollback_budget: float = 0.0  # seconds that its undo may take; 0 = what the engine gives
    deadline: datetime | None = None  # None while blocked
    rollback_deadline: datetime | None = None
    cancel_requested: bool = False
    taken_over_by: str = ""
    past_pivot: bool = False
    # story
    percent: float = 0.0
    sentence: str = ""
    failure: Failure | None = None
    cleanup_required: tuple[str, ...] = ()
    parent: str = ""
    children: int = 0  # how many operations of bindings a DEPROVISION waits for: the first half of its percent
    origin: str = ""  # CLEANUP: the operation whose remains it removes
    cleanup: tuple[CleanupStep, ...] = ()  # CLEANUP: what to do, in order
    generation: int = 0  # CLEANUP: how many came before it for the same origin
    first_failure: Failure | None = (
        None  # CLEANUP, and what goes on in another one's place: the error that began it all
    )
    remains: CleanupPolicy | None = None  # what becomes of its remains when it fails; None: removed at once
    resumes: str = ""  # the operation whose journal it goes on with
    version: int = 0
    created_at: datetime
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def done(self) -> bool:
        """True once the state is final."""
        return self.state in FINAL_OPERATION

    @property
    def held(self) -> bool:
        """True when it failed and its remains are kept for an operator, until something else is done about them."""
        return self.done and self.waiting is Waiting.HELD


class Step(msgspec.Struct, frozen=True, kw_only=True):
    """The journal's line about one step of an operation; `index` is its place in the plan (0 is the first).

    `unsettled` is true while an interrupted run may still take effect, so that neither a repeat nor an undo may begin.
    """

    operation_id: str
    index: int
    name: str
    make: Make
    pivot: bool = False
    weight: float = 1.0
    state: StepState
    unsettled: bool = False
    attempts: int = 0
    outputs: dict[str, Json] = {}
    saved: Json = None
    started_at: datetime
    ended_at: datetime | None = None


class SealedSecret(msgspec.Struct, frozen=True):
    """A secret at rest: owner is the uid of an instance or binding, `name` the column it is bound to."""

    owner: str
    name: str
    sealed: bytes


class UniqueMark(msgspec.Struct, frozen=True):
    """A keyed digest (hex) of a credential field that no two bindings of a provider may share; `field` names both."""

    owner: str
    field: str
    digest: str


class EventKind(StrEnum):
    """What an event is about."""

    INSTANCE = "INSTANCE"
    BINDING = "BINDING"
    OPERATION = "OPERATION"


class Event(msgspec.Struct, frozen=True, kw_only=True):
    """One change, at its place in the dense log. `body` is the record as JSON bytes (no secret is ever in a record)."""

    revision: int
    kind: EventKind
    tenant: str
    instance_id: str
    binding_id: str = ""
    operation_id: str = ""
    uid: str
    state: str
    body: bytes
    at: datetime
