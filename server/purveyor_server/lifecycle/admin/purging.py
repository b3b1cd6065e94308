"""Purge: forget a resource without touching any backend. A forced revocation is the purge of a binding whose access could not
be taken away: nothing else may be given up so, and the record says until when the access may still be there.

Guarantee: refused while somebody works on an operation of it (its outside calls could follow), and while it is in use
unless that is said; everything that may be left behind is named in the answer, the tombstone and the audit record.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping

import msgspec
from msgspec.structs import replace

from purveyor_server.domain.conflicts import BindingRow, binding_row_of
from purveyor_server.domain.errors import (
    Precondition,
    PurveyorError,
    Reason,
    Resource,
    binding_not_found,
    instance_not_found,
)
from purveyor_server.domain.model import Binding, Failure, Instance, Json, Operation, Step
from purveyor_server.domain.names import check_id, check_tenant
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import BindingState, InstanceState, OperationState, StepState
from purveyor_server.engine.transitions import ended, unblocked
from purveyor_server.lifecycle.admin.acts import busy, enter, record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts, Purged
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.refusals import wrong_state
from purveyor_server.lifecycle.remains import piece_text
from purveyor_server.store.contract import SYSTEM, Accept, Decision, Situation, Writes

Journals = Mapping[str, tuple[Step, ...]]
ROUNDS = 4  # times a purge is decided anew when operations begin meanwhile


class Aim(msgspec.Struct, frozen=True):
    """What is to be forgotten; without a `binding_id` it is the whole instance."""

    tenant: str
    instance_id: str
    binding_id: str | None = None
    even_if_in_use: bool = False
    parked: bool = False  # a forced revocation: only what is REVOCATION_BLOCKED may be given up

    @property
    def action(self) -> Action:
        """The use-case."""
        if self.parked:
            return Action.FORCE_REVOKE_BINDING
        return Action.PURGE_INSTANCE if self.binding_id is None else Action.PURGE_BINDING

    @property
    def resource(self) -> str:
        """Its name in records."""
        name = f"instance/{self.instance_id}"
        return name if self.binding_id is None else f"{name}/binding/{self.binding_id}"


async def purge(parts: AdminParts, caller: Caller, aim: Aim, act: Act) -> Purged:
    """Forget it. Raises INSTANCE_NOT_FOUND, BINDING_NOT_FOUND, OPERATION_IN_PROGRESS, IN_USE."""
    action = aim.action
    enter(parts, caller, action, act)
    _check(aim)
    journals: dict[str, tuple[Step, ...]] = {}

    def decide(situation: Situation) -> Decision:
        decision = _decide(situation, aim, journals)
        if decision.writes == Writes():
            return decision
        left: dict[str, Json] = {"left_behind": list(_purged(decision).left_behind)}
        if aim.parked:
            left["access_until"] = _access_until(decision)
        noted = record(parts, caller, action, act, aim.resource, aim.tenant, **left)
        return replace(decision, writes=replace(decision.writes, audit=(noted,)))

    command = Accept(
        SYSTEM,
        aim.tenant,
        aim.instance_id,
        decide,
        binding_id=aim.binding_id or "",
        with_bindings=True,
        dry_run=act.validate_only,
    )
    for _ in range(ROUNDS):
        try:
            decision = await parts.store.accept(command)
        except _UnreadError as unread:
            for operation_id in unread.operations:
                journals[operation_id] = await parts.store.steps(SYSTEM, operation_id)
        else:
            if not act.validate_only and decision.writes != Writes():
                tell(parts, caller, action, act, aim.resource, aim.tenant)
            return _purged(decision)
    raise busy(f"an operation on {aim.resource}", "", instance_id=aim.instance_id)


def _purged(decision: Decision) -> Purged:
    """What a decision forgets, as the caller is told: its tombstone names what is left behind."""
    assert decision.instance is not None
    gone = decision.binding or decision.instance
    ended_ids = tuple(operation.operation_id for operation in decision.writes.operations if operation.done)
    return Purged(decision.instance, decision.binding, gone.cleanup_required, ended_ids)


def _check(aim: Aim) -> None:
    check_tenant(aim.tenant)
    check_id(aim.instance_id, "instance_id")
    if aim.binding_id is not None:
        check_id(aim.binding_id, "binding_id")


class _UnreadError(Exception):
    """Journals that have to be read before the decision can be made."""

    def __init__(self, operations: tuple[str, ...]) -> None:
        super().__init__(str(operations))
        self.operations = operations


def _decide(situation: Situation, aim: Aim, journals: Journals) -> Decision:
    instance, binding = situation.instance, None if aim.binding_id is None else situation.binding
    if instance is None:
        raise instance_not_found(aim.tenant, aim.instance_id)
    if aim.binding_id is not None and binding is None:
        raise binding_not_found(aim.tenant, aim.instance_id, aim.binding_id)
    subject = binding or instance
    if subject.deleted_at is not None:
        return Decision(instance=instance, binding=binding)
    operations = _operations(situation, binding)
    bindings = (binding,) if binding is not None else situation.bindings
    _check_idle(aim, operations)
    if aim.parked and binding is not None:
        _check_parked(situation, binding)
    _check_unused(aim, instance, binding, bindings)
    unread = tuple(o.operation_id for o in operations if o.operation_id not in journals)
    if unread:
        raise _UnreadError(unread)
    return _forget(situation, aim, operations, bindings, journals)


def _operations(situation: Situation, binding: Binding | None) -> tuple[Operation, ...]:
    """Unfinished operations that end with what is purged."""
    if binding is None:
        return situation.operations
    return tuple(o for o in situation.operations if o.binding_uid == binding.uid)


def _check_idle(aim: Aim, operations: Iterable[Operation]) -> None:
    for operation in operations:
        if operation.lease_owner:
            raise busy(f"an operation on {aim.resource}", operation.operation_id, instance_id=aim.instance_id)


def _check_unused(aim: Aim, instance: Instance, binding: Binding | None, bindings: Iterable[Binding]) -> None:
    if aim.even_if_in_use:
        return
    if binding is None and instance.state in {InstanceState.READY, InstanceState.UPDATING}:
        raise _in_use(aim, f"instance {instance.instance_id}", str(instance.state))
    for one in bindings:
        if one.state is BindingState.ACTIVE:
            raise _in_use(aim, f"binding {one.binding_id}", str(one.state))


def _forget(
    situation: Situation,
    aim: Aim,
    operations: tuple[Operation, ...],
    bindings: tuple[Binding, ...],
    journals: Journals,
) -> Decision:
    now, instance = situation.now, situation.instance
    assert instance is not None
    whole = aim.binding_id is None
    failure = Failure(reason=Reason.PURGED, message=f"{aim.resource} was purged by an operator")
    over = tuple(ended(operation, now, OperationState.FAILED, failure) for operation in operations)
    freed = tuple(_freed(situation, over))
    parts = {one.uid: tuple(_left(f"binding/{one.binding_id}", one, operations, journals)) for one in bindings}
    own = tuple(_left("instance", instance, operations, journals)) if whole else ()
    gone = tuple(
        touch(b, now, state=BindingState.DELETED, deleted_at=now, cleanup_required=parts[b.uid]) for b in bindings
    )
    left = (*own, *(name for names in parts.values() for name in names))
    if whole:
        changes = {"usable": False, "in_flight": None, "cleanup_required": left}
        instance = touch(instance, now, state=InstanceState.DELETED, deleted_at=now, **changes)
    erased = (*(b.uid for b in gone), *((instance.uid,) if whole else ()))
    writes = Writes(instances=(instance,) if whole else (), bindings=gone, operations=(*over, *freed), erase=erased)
    return Decision(writes, instance=instance, binding=None if whole else gone[0])


def _freed(situation: Situation, over: tuple[Operation, ...]) -> Iterator[Operation]:
    """Those that waited for what has been ended: they go on."""
    ended_ids = {operation.operation_id for operation in over}
    for waiting in situation.operations:
        blockers = [name for name in waiting.blocked_by if name in ended_ids]
        if not blockers or waiting.operation_id in ended_ids:
            continue
        for name in blockers:
            waiting = unblocked(waiting, situation.now, name, None)  # noqa: PLW2901 - the same operation, step by step
        yield waiting


def _left(
    owner: str, subject: Instance | Binding, operations: Iterable[Operation], journals: Journals
) -> Iterator[str]:
    """Pieces that may be there: what has outputs, what is left to clean up, what an unfinished operation has begun."""
    known: dict[str, Json] = dict(subject.outputs)
    known.update({name: {} for name in subject.cleanup_required if name not in known})
    for operation in operations:
        if (operation.binding_uid or operation.instance_uid) != subject.uid:
            continue
        begun = [step.name for step in journals[operation.operation_id] if step.state is not StepState.UNDONE]
        for name in (*begun, *(step.name for step in operation.cleanup)):
            known.setdefault(name, {})
    for name, outputs in known.items():
        yield piece_text(owner, name, outputs)


def _check_parked(situation: Situation, binding: Binding) -> None:
    """Its UNBIND has failed, and at most another attempt waits: what was never tried is not given up."""
    if binding_row_of(binding, ()) is not BindingRow.REVOCATION_BLOCKED and not binding.revocation_attempts:
        raise wrong_state(None, binding, situation.operations)


def _access_until(decision: Decision) -> str:
    """Until when the backend may let its credentials in, for the record."""
    end = decision.binding.expires_at if decision.binding is not None else None
    return "without end" if end is None else end.isoformat()


def _in_use(aim: Aim, what: str, state: str) -> PurveyorError:
    text = f"{what} is {state}: say so if it shall be forgotten all the same"
    return PurveyorError(
        Reason.IN_USE,
        text,
        metadata={"instance_id": aim.instance_id, "state": state},
        resource=Resource("instance", aim.instance_id),
        preconditions=(Precondition("NOT_IN_USE", what.replace(" ", "/", 1), text),),
    )
