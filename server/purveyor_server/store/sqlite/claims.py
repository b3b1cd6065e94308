"""Leases: claiming what is due, holding it, giving it back.

Guarantee: FIFO by operation_id among the due operations of a tenant, round robin between tenants, and a claim costs the
same whether ten or a hundred thousand operations are unfinished: `ready` rows are walked by index, and each row becomes
ready once per due time. A claim that finds nothing writes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from heapq import merge
from typing import Any

from msgspec.structs import replace

from purveyor_server.domain.model import Operation, PlanSnapshot
from purveyor_server.domain.states import OperationState, Waiting
from purveyor_server.store.contract import Claim, Claimed, Fence, LeaseLostError, Progress
from purveyor_server.store.sqlite import rows
from purveyor_server.store.sqlite.commands import held
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.transaction import Transaction

_SQL = load("claims")
_PLAN = load("commands")["plan"]
_ANY_ASLEEP = _SQL["anything_asleep_due"]
_PROMOTE = _SQL["promote"]
_LEASED_BY = _SQL["leased_by"]
_IN_CIRCUIT = _SQL["in_circuit"]
PLANS_KEPT = 1024  # decoded plan snapshots in memory; they never change


class _Walk:
    """Walks ready operations of one kind: all, or removals only."""

    def __init__(self, transaction: Transaction, command: Claim) -> None:
        self._connection = transaction.connection
        self._command = command
        suffix = "_removals" if command.removals_only else ""
        self._next_tenant = _SQL["next_tenant" + suffix]
        self._next_provider = _SQL["next_provider" + suffix]
        self._ready = _SQL["ready" + suffix]

    def tenants(self) -> Iterator[tuple[str, str]]:
        """(tenant, its first provider), each once: those after `after_tenant`, then the rest."""
        start = after = self._command.after_tenant
        while (found := self._one(self._next_tenant, after)) is not None:
            yield found[0], found[1]
            after = found[0]
        after = ""
        while start and (found := self._one(self._next_tenant, after)) is not None and found[0] <= start:
            yield found[0], found[1]
            after = found[0]

    def of_tenant(self, tenant: str, first_provider: str, limit: int) -> list[tuple[str, str]]:
        """Up to `limit` ready (operation_id, provider) of a tenant, oldest first, of providers that have room."""
        queues: list[list[tuple[str, str]]] = []
        provider: str | None = first_provider
        while provider is not None:
            room = min(limit, self._room_of(provider))
            if room > 0:
                found = self._connection.execute(self._ready, (tenant, provider, room))
                queues.append([(operation_id, provider) for (operation_id,) in found.fetchall()])
            following = self._one(self._next_provider, tenant, provider)
            provider = following[0] if following is not None else None
        return list(merge(*queues))[:limit]

    def _room_of(self, provider: str) -> int:
        return self._command.provider_room.get(provider, self._command.provider_limit)

    def _one(self, sql: str, *keys: Any) -> Any:
        return self._connection.execute(sql, keys).fetchone()


def _choose(walk: _Walk, command: Claim) -> list[str]:
    """The operation_ids to lease: one of each tenant in turn until `limit` or nothing is left."""
    queues: list[list[tuple[str, str]]] = []
    for tenant, provider in walk.tenants():
        room = min(command.limit, command.tenant_room.get(tenant, command.tenant_limit))
        if room > 0 and (queue := walk.of_tenant(tenant, provider, room)):
            queues.append(queue)
        if len(queues) >= command.limit:
            break
    return _deal(queues, command)


def _deal(queues: list[list[tuple[str, str]]], command: Claim) -> list[str]:
    """Round robin over the tenants' queues, within the room of each provider."""
    used: dict[str, int] = {}
    chosen: list[str] = []
    for turn in range(max((len(queue) for queue in queues), default=0)):
        for queue in queues:
            if turn >= len(queue):
                continue
            operation_id, provider = queue[turn]
            if used.get(provider, 0) >= command.provider_room.get(provider, command.provider_limit):
                continue
            used[provider] = used.get(provider, 0) + 1
            chosen.append(operation_id)
            if len(chosen) >= command.limit:
                return chosen
    return chosen


def _thawed(operation: Operation, now: datetime) -> dict[str, Any]:
    """Time under a freeze does not count against an operation."""
    if operation.frozen_at is None:
        return {}
    held = now - operation.frozen_at
    times = {"deadline": operation.deadline, "rollback_deadline": operation.rollback_deadline}
    return {"frozen_at": None} | {name: time + held for name, time in times.items() if time is not None}


class Claims:
    """The lease commands; keeps decoded plan snapshots between claims."""

    def __init__(self, promote_limit: int) -> None:
        self._promote_limit = promote_limit
        self._plans: dict[str, PlanSnapshot] = {}

    def claim(self, transaction: Transaction, command: Claim) -> tuple[Claimed, ...]:
        """Lease what is due; see `Claim`."""
        if command.limit <= 0:
            return ()
        now = transaction.now_micros
        if transaction.connection.execute(_ANY_ASLEEP, (now,)).fetchone() is not None:
            transaction.execute(_PROMOTE, (now, self._promote_limit))
        chosen = _choose(_Walk(transaction, command), command)
        return tuple([self._lease(transaction, operation_id, command) for operation_id in chosen])

    def _lease(self, transaction: Transaction, operation_id: str, command: Claim) -> Claimed:
        before = transaction.operation(operation_id)
        assert before is not None
        starts = before.state is OperationState.PENDING
        leased = replace(
            before,
            state=OperationState.RUNNING if starts else before.state,
            started_at=before.started_at or transaction.now,
            waiting=Waiting.NONE,
            waiting_detail="",
            due_at=transaction.now + command.lease,
            **_thawed(before, transaction.now),
            lease_owner=command.owner,
            lease_no=before.lease_no + 1,
            lease_epoch=transaction.epoch,
            version=before.version + 1,
        )
        transaction.put_operation(leased, quiet=not starts)
        return self._claimed(transaction, leased)

    def _claimed(self, transaction: Transaction, operation: Operation) -> Claimed:
        instance = transaction.instance_by_uid(operation.instance_uid)
        if instance is None:
            raise LookupError("an unfinished operation without its instance")
        binding = transaction.binding_by_uid(operation.binding_uid) if operation.binding_uid else None
        wanted = {settings.plan for settings in (operation.want, operation.was) if settings is not None}
        if binding is not None:
            wanted.add(binding.plan)
        secrets = transaction.secrets(operation.instance_uid)
        if operation.binding_uid:
            secrets += transaction.secrets(operation.binding_uid)
        origin = transaction.operation(operation.origin) if operation.origin else None
        return Claimed(
            operation=operation,
            instance=instance,
            binding=binding,
            steps=transaction.steps(operation.operation_id),
            plans=self._snapshots(transaction, wanted),
            secrets=secrets,
            origin=origin,
            origin_steps=transaction.steps(origin.operation_id) if origin is not None else (),
        )

    def _snapshots(self, transaction: Transaction, digests: set[str]) -> dict[str, PlanSnapshot]:
        found: dict[str, PlanSnapshot] = {}
        for digest in digests:
            plan = self._plans.get(digest) or self._read_plan(transaction, digest)
            if plan is not None:
                found[digest] = plan
        return found

    def _read_plan(self, transaction: Transaction, digest: str) -> PlanSnapshot | None:
        row = transaction.connection.execute(_PLAN, (digest,)).fetchone()
        if row is None:
            return None
        if len(self._plans) >= PLANS_KEPT:
            self._plans.clear()
        return self._plans.setdefault(digest, rows.decode_plan(row[0]))


def renew(transaction: Transaction, fences: tuple[Fence, ...], seconds: Any) -> frozenset[str]:
    """Extend the leases that still hold, to `seconds` (a timedelta) from now; returns their operation_ids."""
    kept: set[str] = set()
    for fence in fences:
        try:
            operation = held(transaction, fence)
        except LeaseLostError:
            continue
        transaction.put_operation(replace(operation, due_at=transaction.now + seconds), quiet=True)
        kept.add(fence.operation_id)
    return frozenset(kept)


def release(transaction: Transaction, owner: str) -> int:
    """Give back every lease of `owner`: due now."""
    leased = transaction.operations(_LEASED_BY, (owner,))
    for operation in leased:
        transaction.put_operation(replace(operation, due_at=transaction.now, lease_owner=""), quiet=True)
    return len(leased)


def progress(transaction: Transaction, marks: tuple[Progress, ...]) -> None:
    """Store percent and sentence where the fence holds, and the operation is not further already."""
    for mark in marks:
        try:
            operation = held(transaction, mark.fence)
        except LeaseLostError:
            continue
        if operation.state is OperationState.RUNNING and mark.percent < operation.percent:
            continue  # of a step that has ended since
        transaction.put_operation(replace(operation, percent=mark.percent, sentence=mark.sentence), quiet=True)


def wake(transaction: Transaction, provider: str, limit: int) -> int:
    """Make up to `limit` operations that wait for the circuit of `provider` due now."""
    waiting = transaction.operations(_IN_CIRCUIT, (provider, limit))
    for operation in waiting:
        woken = replace(operation, due_at=transaction.now, waiting=Waiting.NONE, waiting_detail="")
        transaction.put_operation(woken, quiet=True)
    return len(waiting)
