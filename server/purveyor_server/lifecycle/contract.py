"""The use-cases as values: what a face hands to the door, and what it gets back.

Guarantee: nothing here knows a wire format; a face decodes into these, calls one method of `Lifecycle`, encodes the answer.
Absent (None) in an update means unchanged. Durations are `timedelta`; `wait` of zero returns at once.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, NamedTuple

import msgspec

from purveyor_server.domain.model import Binding, EventKind, Identity, Instance, Json, MaintenanceInfo, Operation, Step
from purveyor_server.domain.principal import BROKER, NONE, Principal, Role
from purveyor_server.domain.states import Make

ZERO = timedelta(0)


class Caller(msgspec.Struct, frozen=True):
    """Who calls, from where, and the id of this call. `only` narrows it to one tenant, whatever else it may touch."""

    principal: Principal
    call_id: str = ""
    deadline: timedelta | None = None  # time left for the whole call
    origin: str = ""  # the other end of the connection, as far as it is known
    only: str = ""

    @property
    def subject(self) -> str:
        """The principal's name: what records and request ids hang on."""
        return self.principal.subject

    def roles_in(self, tenant: str) -> frozenset[str]:
        """Every role that is held in one tenant."""
        return self.principal.roles_in(tenant) if self.only in {"", tenant} else NONE

    def tenants_with(self, needed: frozenset[str]) -> frozenset[str] | None:
        """Where one of `needed` is held; None for every tenant."""
        if not self.only:
            return self.principal.tenants_with(needed)
        return NONE if self.roles_in(self.only).isdisjoint(needed) else frozenset({self.only})

    @property
    def operates(self) -> bool:
        """Whether what is written for operators may be shown."""
        return self.principal.holds(Role.OPERATOR)


ITSELF = Caller(BROKER)
"""The caller in whose name the broker's own loops come."""


class Write(msgspec.Struct, frozen=True, kw_only=True):
    """What every mutating request carries. `body` is the request as sent, as JSON values, without wait, validate_only,
    request_id and etag: the input of fingerprint and digest."""

    tenant: str
    instance_id: str
    request_id: str = ""
    validate_only: bool = False
    wait: timedelta = ZERO
    body: dict[str, Json] = {}
    originating_identity: Identity | None = None


class Ordered(Write, frozen=True, kw_only=True):
    """What an operator orders for a tenant; `reason` is what the audit record will say."""

    reason: str


class Repair(Ordered, frozen=True, kw_only=True):
    """Make every piece of an instance again as it was applied."""


class Adopt(Ordered, frozen=True, kw_only=True):
    """Take an existing thing, that `source` names in its provider's words, under management as an instance."""

    service_id: str
    plan_id: str
    source: dict[str, Json]
    parameters: dict[str, Json] = {}
    labels: dict[str, str] = {}


class Provision(Write, frozen=True, kw_only=True):
    """Make an instance; an empty `instance_id` lets the server choose one."""

    service_id: str
    plan_id: str
    parameters: dict[str, Json] = {}
    context: dict[str, Json] = {}
    labels: dict[str, str] = {}
    maintenance_info: MaintenanceInfo | None = None


class Update(Write, frozen=True, kw_only=True):
    """Change an instance. `parameters` are merged over the applied ones; a null removes a key."""

    plan_id: str | None = None
    parameters: dict[str, Json] | None = None
    context: dict[str, Json] | None = None
    labels: dict[str, str] | None = None
    deletion_protected: bool | None = None
    maintenance_info: MaintenanceInfo | None = None
    etag: str = ""


class Deprovision(Write, frozen=True, kw_only=True):
    """Give an instance back; `cascade` unbinds its bindings first."""

    cascade: bool = False
    allow_missing: bool = False
    etag: str = ""


class Bind(Write, frozen=True, kw_only=True):
    """Make a binding; an empty `binding_id` lets the server choose one."""

    binding_id: str = ""
    parameters: dict[str, Json] = {}
    bind_resource: dict[str, Json] = {}
    context: dict[str, Json] = {}
    labels: dict[str, str] = {}
    ttl: timedelta | None = None


class Unbind(Write, frozen=True, kw_only=True):
    """Revoke a binding."""

    binding_id: str
    allow_missing: bool = False
    etag: str = ""


class Renew(Write, frozen=True, kw_only=True):
    """Move the end of a binding: to a time, to a time from now, or (neither) as the plan says."""

    binding_id: str
    expire_time: datetime | None = None
    ttl: timedelta | None = None
    allow_shorter: bool = False
    etag: str = ""


class Rotate(Write, frozen=True, kw_only=True):
    """Make the successor of a binding; an empty `successor_id` lets the server choose one. None: as the plan says."""

    binding_id: str
    successor_id: str = ""
    ttl: timedelta | None = None
    overlap: timedelta | None = None
    etag: str = ""


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A list call: `filter` is the caller's text, `page_token` what the page before returned."""

    tenant: str
    instance_id: str = ""  # bindings only; "" = of every instance
    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    show_deleted: bool = False
    full: bool = False  # operations only: with their steps


class OperationDetails(msgspec.Struct, frozen=True):
    """An operation; `steps` only when the full view was asked for."""

    operation: Operation
    steps: tuple[Step, ...] = ()


class Planned(NamedTuple):
    """A step that would be taken; of a child operation its name begins with `binding/ID/`."""

    name: str
    make: Make
    pivot: bool = False


class Outcome(msgspec.Struct, frozen=True):
    """The answer to a mutating call. `operation` is None where none was needed (nothing to do, allow_missing).

    `credentials` are there when a Bind, or an identical replay of it, finds the binding ACTIVE within `wait`.
    With validate_only, `operation.operation_id` is empty and `planned` has the steps, those of child operations first.
    """

    operation: Operation | None
    instance: Instance | None = None
    binding: Binding | None = None
    credentials: dict[str, Json] | None = None
    replayed: bool = False
    planned: tuple[Planned, ...] = ()
    last_operation: Operation | None = None
    """The newest operation of the resource, where it is known to differ from `operation` or `operation` is None."""


class Start(StrEnum):
    """Where a watch of events begins."""

    NOW = "NOW"
    EARLIEST = "EARLIEST"
    AFTER = "AFTER"
    SNAPSHOT = "SNAPSHOT"


class Following(msgspec.Struct, frozen=True, kw_only=True):
    """A watch of events; no `kinds` stands for all, an empty `instance_id` too."""

    tenant: str
    start: Start = Start.NOW
    token: str = ""
    kinds: frozenset[EventKind] = frozenset()
    instance_id: str = ""
    heartbeat: timedelta = timedelta(seconds=15)


class Told(NamedTuple):
    """One message of that watch: encoded events, the token of the place behind them, and once whether all that was there before
    has been told."""

    parts: tuple[bytes, ...]
    token: str
    synced: bool = False


class PageOf(msgspec.Struct, frozen=True):
    """A page of a list; an empty token is the end."""

    items: tuple[Any, ...]
    next_page_token: str = ""


__all__ = [
    "ITSELF",
    "Adopt",
    "Bind",
    "Caller",
    "Deprovision",
    "Following",
    "Listing",
    "OperationDetails",
    "Ordered",
    "Outcome",
    "PageOf",
    "Planned",
    "Provision",
    "Renew",
    "Repair",
    "Rotate",
    "Start",
    "Told",
    "Unbind",
    "Update",
    "Write",
]
