"""What the end of an operation means: for its instance or binding, for those who wait for it, for what is left behind.

What a failed create or bind left is undone at once, later (DELAYED: a CLEANUP that is due then) or never by itself (MANUAL: the
operation has ended, its `waiting` says HELD, and nothing is touched before somebody says what).

Guarantee: the end is one command. Success of a forward operation requires that no cancel request is there (`CancelWonError`
otherwise, and nothing is written but the last result), so of cancel and success exactly one wins.
A resource whose removal has been accepted (DEPROVISIONING, UNBINDING) keeps that state whatever else ends.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec

from purveyor_server.domain.errors import Reason
from purveyor_server.domain.model import (
    Binding,
    CleanupStep,
    Endpoint,
    Failure,
    Instance,
    Json,
    Operation,
    SealedSecret,
    Step,
    UniqueMark,
)
from purveyor_server.domain.policies import CleanupMode, CleanupPolicy
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import (
    BindingState,
    InstanceState,
    Make,
    OperationState,
    StepState,
    Verb,
    Waiting,
)
from purveyor_server.engine.reissuing import begun, next_try
from purveyor_server.engine.succession import new_terms, released, retired
from purveyor_server.engine.transitions import ended, stops_for_cancel, unblocked
from purveyor_server.kit import failpoints
from purveyor_server.kit.ids import new_id
from purveyor_server.store.contract import Job, Writes


class CancelWonError(Exception):
    """A cancel request was committed before the success: the operation turns back instead."""


KEPT = "the clean-up policy is MANUAL: retry it, clean up, or remove what it was to make"
LATER = "the clean-up policy is DELAYED: what is left may be looked at until then"


class Ending(msgspec.Struct, frozen=True, kw_only=True):
    """How an operation ends. `left` is what a CLEANUP carries on with; `unfinished` names what nobody carries on with."""

    state: OperationState
    failure: Failure | None = None
    steps: tuple[Step, ...] = ()
    secrets: tuple[SealedSecret, ...] = ()
    unique: tuple[UniqueMark, ...] = ()
    outputs: dict[str, dict[str, Json]] = {}
    endpoints: tuple[Endpoint, ...] = ()
    plan_name: str = ""
    left: tuple[CleanupStep, ...] = ()
    unfinished: tuple[str, ...] = ()
    cleanup_delay: timedelta = timedelta(0)
    cleanup_budget: timedelta = timedelta(minutes=10)
    keeps: CleanupPolicy | None = None  # the way back is not taken now: what is left waits as this says
    revocation_delay: timedelta = timedelta(minutes=1)
    reissues: bool = False  # UPDATE: bindings need new credentials
    again: timedelta | None = None  # REISSUE that failed: when the next one begins


def finish(job: Job, ending: Ending) -> Writes:
    """The last command of an operation. Raises CancelWonError."""
    succeeds = ending.state is OperationState.SUCCEEDED
    if (succeeds or ending.keeps is not None) and stops_for_cancel(job.operation):
        raise CancelWonError
    operation = ended(job.operation, job.now, ending.state, ending.failure)
    operation = msgspec.structs.replace(operation, cleanup_required=_names(ending))
    writes = _RESOURCES[operation.verb](job, operation, ending)
    operation, cleanup = _remains(job, operation, ending)
    operations = (operation, *dependents(job, operation), *_superseded(job, operation), *cleanup, *writes.operations)
    return msgspec.structs.replace(writes, operations=operations, steps=ending.steps)


def _remains(job: Job, operation: Operation, ending: Ending) -> tuple[Operation, tuple[Operation, ...]]:
    """Who looks after what is left: an operator when the policy is MANUAL, else a CLEANUP, or the removal under way."""
    if not ending.left or _being_removed(job, operation) or failpoints.is_off("cleanup"):
        return operation, ()
    if ending.keeps is None or ending.keeps.mode is CleanupMode.IMMEDIATE:
        return operation, (cleanup_of(operation, job.now, ending),)
    if ending.keeps.mode is CleanupMode.MANUAL:
        return msgspec.structs.replace(operation, waiting=Waiting.HELD, waiting_detail=KEPT), ()
    cleanup = cleanup_of(operation, job.now, ending)
    return operation, (msgspec.structs.replace(cleanup, waiting=Waiting.PARKED, waiting_detail=LATER),)


def standing(steps: Iterable[Step], make: Make) -> tuple[CleanupStep, ...]:
    """What may be there of the steps of a journal, the newest first, and what makes it right again."""
    left = [step for step in steps if step.state is not StepState.UNDONE]
    return tuple(CleanupStep(step.name, make) for step in reversed(left))


def _being_removed(job: Job, operation: Operation) -> bool:
    """True when a removal has been accepted that takes away what is left: a clean-up beside it could make things anew."""
    if job.binding is not None and operation.binding_uid:
        return job.binding.state is BindingState.UNBINDING
    return job.instance is not None and job.instance.state is InstanceState.DEPROVISIONING


def dependents(job: Job, operation: Operation) -> tuple[Operation, ...]:
    """Those that waited for the ended operation, without it.

    A deprovision is told of an unbind that failed, its child or not: the access may still be there.
    """
    failure = None
    if operation.verb is Verb.UNBIND and operation.state is OperationState.FAILED:
        message = f"the binding {operation.binding_id!r} could not be unbound"
        failure = Failure(reason=Reason.CHILD_FAILED, message=message, retryable=True)
    return tuple(
        unblocked(other, job.now, operation.operation_id, failure if other.verb is Verb.DEPROVISION else None)
        for other in job.dependents
    )


def _superseded(job: Job, operation: Operation) -> tuple[Operation, ...]:
    """A finished removal has removed what clean-ups of the same thing were after. A finished REISSUE has made the access of an
    active binding as it is to be: what would put a renewal back has nothing to do, or nowhere to do it, after a move."""
    superseding = {Verb.DEPROVISION, Verb.UNBIND} | ({Verb.REISSUE} if _is_active(job) else set())
    if operation.verb not in superseding or operation.state is not OperationState.SUCCEEDED:
        return ()
    failure = Failure(reason=Reason.TAKEN_OVER, message=f"done by operation {operation.operation_id}")
    return tuple(
        ended(
            msgspec.structs.replace(other, taken_over_by=operation.operation_id),
            job.now,
            OperationState.CANCELLED,
            failure,
        )
        for other in job.siblings
        if other.verb is Verb.CLEANUP
        and (operation.verb is Verb.DEPROVISION or other.binding_uid == operation.binding_uid)
    )


def _is_active(job: Job) -> bool:
    return job.binding is not None and job.binding.state is BindingState.ACTIVE


def cleanup_of(operation: Operation, now: datetime, ending: Ending) -> Operation:
    """The operation that carries on with what is left: its deadline bounds it, the next generation follows it."""
    generation = operation.generation + 1 if operation.verb is Verb.CLEANUP else 0
    due = now + ending.cleanup_delay
    return Operation(
        operation_id=new_id(),
        tenant=operation.tenant,
        verb=Verb.CLEANUP,
        instance_id=operation.instance_id,
        instance_uid=operation.instance_uid,
        binding_id=operation.binding_id,
        binding_uid=operation.binding_uid,
        want=operation.want,
        was=operation.was,
        provider=operation.provider,
        contract=operation.contract,
        principal="purveyor",
        marked_revision=operation.marked_revision,
        due_at=due,
        budget=ending.cleanup_budget.total_seconds(),
        deadline=due + ending.cleanup_budget,
        origin=operation.origin or operation.operation_id,
        cleanup=ending.left,
        generation=generation,
        first_failure=operation.first_failure or ending.failure,
        created_at=now,
        version=1,
    )


def _provision(job: Job, operation: Operation, ending: Ending) -> Writes:
    instance = _instance(job)
    if instance.state is InstanceState.DEPROVISIONING:
        return Writes()
    if ending.state is OperationState.SUCCEEDED:
        instance = touch(
            instance,
            job.now,
            state=InstanceState.READY,
            usable=True,
            deletion_protected=instance.deletion_protected or instance.adopted,
            applied=operation.want,
            in_flight=None,
            outputs=ending.outputs,
            endpoints=ending.endpoints,
        )
        return Writes(instances=(instance,), secrets=ending.secrets)
    instance = touch(
        instance,
        job.now,
        state=InstanceState.FAILED,
        usable=False,
        deletion_protected=instance.deletion_protected or (instance.adopted and operation.past_pivot),
        in_flight=None,
        cleanup_required=_names(ending),
    )
    return Writes(instances=(instance,), erase=() if _names(ending) else (instance.uid,))


def _update(job: Job, operation: Operation, ending: Ending) -> Writes:
    instance = _instance(job)
    removing = instance.state is InstanceState.DEPROVISIONING
    if ending.state is OperationState.SUCCEEDED:
        changes: dict[str, Json] = {"applied": operation.want, "outputs": {**instance.outputs, **ending.outputs}}
        changes |= {"usable": True, "cleanup_required": (), "plan_name": ending.plan_name or instance.plan_name}
    elif operation.past_pivot:
        changes = {"usable": False, "cleanup_required": _names(ending)}
        if not removing:
            changes["state"] = InstanceState.DELETE_FAILED
            return Writes(instances=(touch(instance, job.now, in_flight=None, **changes),))
    else:
        changes = {"usable": not _names(ending), "cleanup_required": _names(ending), "desired": instance.applied}
    if not removing:
        changes["state"] = InstanceState.READY
    bindings, following = begun(job, operation) if ending.reissues and not removing else ((), ())
    instance = touch(instance, job.now, in_flight=None, **changes)
    return Writes(instances=(instance,), bindings=bindings, operations=following, secrets=ending.secrets)


def _repair(job: Job, operation: Operation, ending: Ending) -> Writes:
    """What was made again is usable; what could not be made stays as it was. Whether it is in order is for the next look.

    The logins of the bindings may have gone with the rest: each is made again, with the credentials that it has.
    """
    instance = _instance(job)
    changes: dict[str, Json] = {"in_flight": None}
    removing = instance.state is InstanceState.DEPROVISIONING
    if not removing:
        changes["state"] = InstanceState.READY
    made = ending.state is OperationState.SUCCEEDED
    if made:
        outputs = {**instance.outputs, **ending.outputs}
        changes |= {"usable": True, "outputs": outputs, "endpoints": ending.endpoints or instance.endpoints}
    bindings, following = begun(job, operation) if made and not removing else ((), ())
    repaired = touch(instance, job.now, **changes)
    return Writes(instances=(repaired,), bindings=bindings, operations=following, secrets=ending.secrets)


def _deprovision(job: Job, _operation: Operation, ending: Ending) -> Writes:
    instance = _instance(job)
    if ending.state is OperationState.SUCCEEDED:
        gone = touch(
            instance,
            job.now,
            state=InstanceState.DELETED,
            usable=False,
            cleanup_required=(),
            in_flight=None,
            outputs={},
            endpoints=(),
            deleted_at=job.now,
        )
        return Writes(instances=(gone,), erase=(instance.uid,))
    failed = touch(
        instance,
        job.now,
        state=InstanceState.DELETE_FAILED,
        usable=False,
        in_flight=None,
        cleanup_required=_names(ending),
    )
    return Writes(instances=(failed,))


def _bind(job: Job, operation: Operation, ending: Ending) -> Writes:
    binding = _binding(job)
    if binding.state is BindingState.UNBINDING:
        return Writes(bindings=released(job, operation))
    if ending.state is OperationState.SUCCEEDED:
        active = touch(binding, job.now, state=BindingState.ACTIVE, outputs=ending.outputs, endpoints=ending.endpoints)
        old, following = retired(job, operation)
        return Writes(bindings=(active, *old), operations=following, secrets=ending.secrets, unique=ending.unique)
    failed = touch(binding, job.now, state=BindingState.FAILED, cleanup_required=_names(ending))
    bindings = (failed, *released(job, operation))
    return Writes(bindings=bindings, erase=() if _names(ending) else (binding.uid,))


def _renew(job: Job, operation: Operation, ending: Ending) -> Writes:
    """The end that the backend keeps now is promised from now on. A binding that is going has no end to move."""
    binding = _binding(job)
    if binding.state is not BindingState.ACTIVE:
        return Writes()
    if ending.state is OperationState.SUCCEEDED:
        renewed = touch(binding, job.now, **new_terms(operation), **_given(ending), cleanup_required=())
        return Writes(bindings=(renewed,), secrets=ending.secrets, unique=ending.unique)
    return Writes(bindings=(touch(binding, job.now, cleanup_required=_names(ending)),))


def _reissue(job: Job, operation: Operation, ending: Ending) -> Writes:
    """New credentials are given out; a failure is followed by the next try. A binding that is going needs none."""
    binding = _binding(job)
    if binding.state is not BindingState.ACTIVE or ending.state is OperationState.CANCELLED:
        return Writes()
    if ending.state is OperationState.SUCCEEDED:
        moved = touch(binding, job.now, **_given(ending), cleanup_required=())
        return Writes(bindings=(moved,), secrets=ending.secrets, unique=ending.unique)
    again = () if ending.again is None else (next_try(job, operation, ending.again),)
    last = again[0].operation_id if again else binding.last_operation
    waits = touch(binding, job.now, cleanup_required=_names(ending), last_operation=last)
    return Writes(bindings=(waits,), operations=again)


def _given(ending: Ending) -> dict[str, Json]:
    return {"outputs": ending.outputs, "endpoints": ending.endpoints}


def _unbind(job: Job, _operation: Operation, ending: Ending) -> Writes:
    binding = _binding(job)
    if ending.state is OperationState.SUCCEEDED:
        gone = touch(
            binding,
            job.now,
            state=BindingState.DELETED,
            cleanup_required=(),
            outputs={},
            endpoints=(),
            deleted_at=job.now,
        )
        return Writes(bindings=(gone,), erase=(binding.uid,))
    blocked = touch(
        binding,
        job.now,
        state=BindingState.REVOCATION_BLOCKED,
        cleanup_required=_names(ending),
        revocation_attempts=binding.revocation_attempts + 1,
        retry_at=job.now + ending.revocation_delay,
    )
    return Writes(bindings=(blocked,))


def _clean(job: Job, operation: Operation, ending: Ending) -> Writes:
    """The end of a CLEANUP: the record forgets what is gone; an update that was put back is usable again.

    One that was taken over has nothing to say: the removal has.
    """
    if ending.state is OperationState.CANCELLED:
        return Writes()
    names = _names(ending)
    if operation.binding_uid:
        binding = _binding(job)
        if binding.state is BindingState.DELETED:
            return Writes()
        alive = binding.state in {BindingState.ACTIVE, BindingState.EXPIRED}  # a renewal was put back
        return Writes(
            bindings=(touch(binding, job.now, cleanup_required=names),), erase=() if names or alive else (binding.uid,)
        )
    instance = _instance(job)
    if instance.state is InstanceState.DELETED:
        return Writes()
    changes: dict[str, Json] = {"cleanup_required": names}
    created = instance.applied is not None
    if created and not names and instance.state is InstanceState.READY:
        changes["usable"] = True
    return Writes(instances=(touch(instance, job.now, **changes),), erase=() if names or created else (instance.uid,))


def _names(ending: Ending) -> tuple[str, ...]:
    return tuple(step.name for step in ending.left) or ending.unfinished


def _instance(job: Job) -> Instance:
    if job.instance is None:
        message = "an operation without its instance"
        raise LookupError(message)
    return job.instance


def _binding(job: Job) -> Binding:
    if job.binding is None:
        message = "a binding operation without its binding"
        raise LookupError(message)
    return job.binding


_RESOURCES = {
    Verb.PROVISION: _provision,
    Verb.UPDATE: _update,
    Verb.DEPROVISION: _deprovision,
    Verb.BIND: _bind,
    Verb.UNBIND: _unbind,
    Verb.CLEANUP: _clean,
    Verb.REPAIR: _repair,
    Verb.RENEW: _renew,
    Verb.REISSUE: _reissue,
}
