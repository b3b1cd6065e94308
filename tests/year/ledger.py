"""What callers were told, and what they asked for: the memory by which the broker is judged.

Guarantee: made of requests, answers and told ends of operations alone, never of the broker's rules; what a caller was not
told (its broker died) is read through the public use-cases after the next start, as callers do.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

from purveyor_server.domain.model import Binding, Operation
from purveyor_server.domain.principal import BROKER
from purveyor_server.domain.states import BindingState, OperationState, Verb


@dataclass
class Access:
    """A binding: its credentials, the end that was promised last, the latest end that there can be (None: no end), and what
    became of it."""

    uid: str
    tenant: str
    instance_id: str
    binding_id: str
    instance_uid: str = ""
    credentials: dict[str, Any] = field(default_factory=dict)
    ends: datetime | None = None
    latest: datetime | None = None
    kept_until: datetime | None = None  # at least, beside its successor
    ends_before: datetime | None = None  # as it was before it had a successor
    seen_active: bool = False
    made: bool = False
    unwanted: bool = False  # somebody asked for its end
    forgotten: bool = False  # somebody gave it up
    gone: bool = False  # and was told that it has ended


@dataclass
class Resource:
    """An instance: what was asked of it last with success, and what became of it."""

    uid: str
    tenant: str
    instance_id: str
    parameters: dict[str, Any] | None = None
    forgotten: bool = False  # somebody gave it up
    harmed: bool = False  # by a stranger's hand, and not repaired
    made: bool = False
    unwanted: bool = False
    gone: bool = False


class Ledger:
    """Everything told and asked, by uid."""

    def __init__(self) -> None:
        self.resources: dict[str, Resource] = {}
        self.accesses: dict[str, Access] = {}
        self.ended = self.expiries = self.rotations = self.moved = 0
        self.moves: Counter[str] = (
            Counter()
        )  # updates by campaigns that have ended, well or not, by uid of the instance
        self._ended_ids: set[str] = set()
        self._wishes: dict[str, dict[str, Any]] = {}  # what an operation, once it succeeds, has made true

    def _succeeded(self, successor: Binding, overlap: timedelta) -> None:
        """From a successor's beginning on its predecessor is promised the overlap, within its own end."""
        for access in self.accesses.values():
            named = (access.instance_uid, access.binding_id) == (
                successor.instance_uid,
                successor.predecessor_binding_id,
            )
            if named and access.made and not access.gone:
                least = successor.updated_at + overlap
                access.kept_until = least if access.ends_before is None else min(access.ends_before, least)

    # Asked

    def wish(self, operation: Operation, parameters: dict[str, Any]) -> None:
        """An accepted provision or update works towards these parameters."""
        if not operation.done or operation.operation_id not in self._wishes:
            self._wishes[operation.operation_id] = parameters
        if operation.state is OperationState.SUCCEEDED:
            self.resource(operation).parameters = parameters

    def unwant(self, tenant: str, instance_id: str, binding_id: str = "") -> list[Access | Resource]:
        """Somebody is about to ask for the removal of whatever has this id; what was wanted until now."""
        named: list[Access | Resource] = [
            record
            for record in (*self.accesses.values(), *(self.resources.values() if not binding_id else ()))
            if (record.tenant, record.instance_id) == (tenant, instance_id)
            and (not binding_id or (isinstance(record, Access) and record.binding_id == binding_id))
            and not record.unwanted
        ]
        for record in named:
            record.unwanted = True
        return named

    def forget(self, tenant: str, instance_id: str) -> None:
        """An operator has given it up: nobody promises anything any more."""
        records: tuple[Access | Resource, ...] = (*self.accesses.values(), *self.resources.values())
        for record in records:
            if (record.tenant, record.instance_id) == (tenant, instance_id):
                record.forgotten = True

    def forgotten(self, uid: str) -> bool:
        """Whether somebody has given it up."""
        record = self.resources.get(uid) or self.accesses.get(uid)
        return record is not None and record.forgotten

    # Told

    def see(self, binding: Binding, *, busy: bool, max_ttl: timedelta | None, overlap: timedelta) -> None:
        """A binding as it is answered. While something is at work on it, its end in the backend may be an earlier answer's."""
        access = self.accesses.get(binding.uid)
        if access is None:
            return
        if binding.state is BindingState.ACTIVE and binding.predecessor_binding_id and not access.seen_active:
            access.seen_active = True
            self._succeeded(binding, overlap)
        ends = binding.expires_at
        if not binding.successor_binding_id:
            access.ends_before = ends
        access.ends = ends
        if not busy or access.latest is None or (ends is not None and ends > access.latest):
            access.latest = ends
        if max_ttl is not None:
            last = binding.created_at + max_ttl
            access.latest = last if access.latest is None else min(last, access.latest)

    def hear(self, operations: Iterable[Operation]) -> None:
        """Ends of operations, as watchers are told; an end that was heard before changes nothing."""
        for operation in operations:
            if operation.done and operation.operation_id not in self._ended_ids:
                self._ended_ids.add(operation.operation_id)
                self.ended += 1
                self._end(operation)

    def _end(self, operation: Operation) -> None:
        if operation.verb is Verb.UPDATE and operation.principal == BROKER.subject:
            self.moves[operation.instance_uid] += 1
        if operation.state is not OperationState.SUCCEEDED:
            return
        match operation.verb:
            case Verb.PROVISION | Verb.UPDATE:
                resource = self.resource(operation)
                resource.made = True
                itself = operation.principal == BROKER.subject  # for a campaign: another plan, the same parameters
                self.moved += itself
                if not itself:
                    resource.parameters = self._wishes.get(operation.operation_id)
            case Verb.REPAIR:
                self.resource(operation).harmed = False
            case Verb.DEPROVISION:
                self.resource(operation).gone = True
                for access in self.accesses.values():
                    if access.instance_uid == operation.instance_uid:
                        access.unwanted = access.gone = True
            case Verb.BIND:
                self.access(operation).made = True
                self.rotations += operation.principal == BROKER.subject
            case Verb.UNBIND:
                self.access(operation).gone = True
                self.expiries += operation.principal == BROKER.subject
            case _:
                pass

    def resource(self, operation: Operation) -> Resource:
        """The instance that an operation is about."""
        uid = operation.instance_uid
        if uid not in self.resources:
            self.resources[uid] = Resource(uid, operation.tenant, operation.instance_id)
        return self.resources[uid]

    def access(self, operation: Operation) -> Access:
        """The binding that an operation is about."""
        uid = operation.binding_uid
        if uid not in self.accesses:
            self.accesses[uid] = Access(uid, operation.tenant, operation.instance_id, operation.binding_id)
        self.accesses[uid].instance_uid = operation.instance_uid
        return self.accesses[uid]
