"""What an operator does about an operation that failed, or that does not end: retry it, clean up after it, abandon it.

Guarantee: each act and its audit record are one command; none touches an operation that a worker holds, and none makes a
finished step run again. An abandoned operation has ended for good, and everything that it may have left is named.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime, timedelta
from typing import NamedTuple

from msgspec.structs import replace

from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource
from purveyor_server.domain.model import CleanupStep, Failure, Operation, RequestKey, Step
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import OperationState, Verb, Waiting
from purveyor_server.engine.outcomes import Ending, cleanup_of, finish
from purveyor_server.engine.rollback import inverse
from purveyor_server.engine.transitions import ended
from purveyor_server.kit.ids import new_id
from purveyor_server.lifecycle.admin.acts import busy, enter, find_operation, record, tell
from purveyor_server.lifecycle.admin.contract import Abandoned, Act, AdminParts
from purveyor_server.lifecycle.attempts import RetryAsk, check_ended_badly, decide_retry
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.making import Order
from purveyor_server.lifecycle.plans import UnpreparedError
from purveyor_server.lifecycle.remains import given_up, piece_text, subject_of
from purveyor_server.store.contract import SYSTEM, Accept, Amend, Decision, Job, Situation, Writes

ROUNDS = 4  # times an act is decided anew when the operation moves meanwhile
CLEANUP_BUDGET = timedelta(minutes=10)
CLEANED = frozenset({Verb.PROVISION, Verb.BIND, Verb.UPDATE, Verb.CLEANUP})  # whose remains are undone step by step


async def retry(parts: AdminParts, caller: Caller, operation_id: str, act: Act) -> Operation:
    """The operation that goes on, or begins anew. Raises OPERATION_NOT_FOUND, WRONG_STATE and what its verb raises."""
    enter(parts, caller, Action.RETRY_OPERATION, act)
    failed = await find_operation(parts, operation_id)
    check_ended_badly(failed)
    ask = RetryAsk(
        failed=failed,
        steps=await parts.store.steps(SYSTEM, operation_id),
        order=_order(caller, failed, act),
        uid=new_id(),
        book=parts.book,
        settings=parts.use_case_settings,
    )

    def decide(situation: Situation) -> Decision:
        decision = decide_retry(situation, ask)
        if decision.replayed or decision.operation is None:
            return decision
        made = decision.operation.operation_id
        noted = record(parts, caller, Action.RETRY_OPERATION, act, _resource(failed), failed.tenant, operation=made)
        return replace(decision, writes=replace(decision.writes, audit=(noted,)))

    operation = await _accepted(parts, failed, ask, decide, dry_run=act.validate_only)
    if act.validate_only:
        return replace(operation, operation_id="")
    tell(parts, caller, Action.RETRY_OPERATION, act, _resource(failed), failed.tenant)
    return operation


async def _accepted(
    parts: AdminParts, failed: Operation, ask: RetryAsk, decide: Callable[[Situation], Decision], *, dry_run: bool
) -> Operation:
    command = Accept(
        SYSTEM,
        failed.tenant,
        failed.instance_id,
        decide,
        binding_id=failed.binding_id,
        request=ask.order.request,
        with_bindings=failed.verb is Verb.DEPROVISION,
        dry_run=dry_run,
        label="retry",
    )
    parts.book.refresh_missing()
    for _ in range(ROUNDS):
        try:
            decision = await parts.store.accept(command)
        except UnpreparedError as stale:
            if digest := stale.metadata.get("plan"):
                await parts.book.learn(digest)
        else:
            assert decision.operation is not None
            return decision.operation
    raise busy(_resource(failed), failed.operation_id)


def _order(caller: Caller, failed: Operation, act: Act) -> Order:
    action = Action.RETRY_OPERATION
    key = RequestKey(caller.subject, str(action), act.request_id, failed.operation_id) if act.request_id else None
    return Order(
        operation_id=new_id(),
        verb=failed.verb,
        tenant=failed.tenant,
        instance_id=failed.instance_id,
        binding_id=failed.binding_id,
        principal=caller.subject,
        adopt=failed.adopt,
        request=key,
    )


class _Cleaning(NamedTuple):
    """The clean-up that is at work, and what has to be written for it: nothing when it is so already."""

    cleanup: Operation
    changed: tuple[Operation, ...] = ()


async def clean_up(parts: AdminParts, caller: Caller, operation_id: str, act: Act) -> Operation:
    """The clean-up of what a failed operation left, begun now. Raises OPERATION_NOT_FOUND, WRONG_STATE."""
    enter(parts, caller, Action.CLEAN_UP_OPERATION, act)
    failed = await find_operation(parts, operation_id)
    resource = _resource(failed)
    answer: list[Operation] = []  # of the decision that was committed: the last one

    def decide(job: Job) -> Writes:
        cleaning = _cleaned(job)
        answer[:] = [cleaning.cleanup]
        if act.validate_only or not cleaning.changed:
            return Writes()
        made = cleaning.cleanup.operation_id
        noted = record(parts, caller, Action.CLEAN_UP_OPERATION, act, resource, failed.tenant, operation=made)
        return Writes(operations=cleaning.changed, audit=(noted,))

    await parts.store.amend(Amend(SYSTEM, operation_id, decide, with_resources=True))
    if act.validate_only:
        return answer[0] if answer[0].version > 1 else replace(answer[0], operation_id="")
    tell(parts, caller, Action.CLEAN_UP_OPERATION, act, resource, failed.tenant)
    return answer[0]


def _cleaned(job: Job) -> _Cleaning:
    operation, subject, now = job.operation, subject_of(job), job.now
    if not operation.done:
        raise _wrong(operation, f"it has not ended: {operation.state}")
    if operation.verb not in CLEANED:
        raise _wrong(operation, f"what a {operation.verb} left is removed by asking for it again")
    if subject is None or subject.deleted_at is not None:
        raise _wrong(operation, "what it worked on is gone")
    origin = operation.origin or operation.operation_id
    running = next((one for one in job.siblings if one.verb is Verb.CLEANUP and one.origin == origin), None)
    if running is not None:
        return _hurried(running, now)
    if not subject.cleanup_required or subject.last_operation != origin:
        raise _wrong(operation, "nothing that it left behind is recorded")
    known = operation.cleanup or tuple(
        CleanupStep(name, inverse(operation.verb)) for name in operation.cleanup_required
    )
    left = tuple(step for step in known if step.name in subject.cleanup_required)
    ending = Ending(state=operation.state, failure=operation.failure, left=left, cleanup_budget=CLEANUP_BUDGET)
    cleanup = cleanup_of(operation, now, ending)
    released = touch(operation, now, waiting=Waiting.NONE, waiting_detail="")
    return _Cleaning(cleanup, (cleanup, released))


def _hurried(running: Operation, now: datetime) -> _Cleaning:
    """A clean-up that waits for its time begins now."""
    due = running.due_at is None or running.due_at <= now
    if running.lease_owner or running.waiting is Waiting.FROZEN or due:
        return _Cleaning(running)
    deadline = now + timedelta(seconds=running.budget)
    woken = touch(running, now, due_at=now, deadline=deadline, waiting=Waiting.NONE, waiting_detail="")
    return _Cleaning(woken, (woken,))


class _MovedError(Exception):
    """The operation is not as it was read."""


async def abandon(parts: AdminParts, caller: Caller, operation_id: str, act: Act) -> Abandoned:
    """End it for good, whatever it waits for, and touch nothing. Raises OPERATION_NOT_FOUND, OPERATION_IN_PROGRESS while
    a worker holds it, WRONG_STATE when it has ended otherwise."""
    reason = enter(parts, caller, Action.ABANDON_OPERATION, act)
    for _ in range(ROUNDS):
        seen = await find_operation(parts, operation_id)
        steps = await parts.store.steps(SYSTEM, operation_id)
        if seen.failure is not None and seen.failure.reason == Reason.ABANDONED and seen.done:
            return Abandoned(seen, _told(seen, steps))
        after: list[Operation] = []  # of the decision that was committed: the last one

        def decide(job: Job, seen: Operation = seen, steps: tuple[Step, ...] = steps) -> Writes:
            if job.operation.version != seen.version:
                raise _MovedError
            writes = _abandoned(job, steps, reason)
            after[:] = [one for one in writes.operations if one.operation_id == seen.operation_id]  # noqa: B023 - as above
            if act.validate_only:
                return Writes()
            left = list(_told(after[0], steps))  # noqa: B023 - as above
            noted = record(parts, caller, Action.ABANDON_OPERATION, act, _resource(seen), seen.tenant, left_behind=left)
            return replace(writes, audit=(noted,))

        try:
            await parts.store.amend(Amend(SYSTEM, operation_id, decide, with_resources=True))
        except _MovedError:
            continue
        if not act.validate_only:
            tell(parts, caller, Action.ABANDON_OPERATION, act, _resource(seen), seen.tenant)
        return Abandoned(after[0], _told(after[0], steps))
    raise busy(f"the operation {operation_id}", operation_id)


def _abandoned(job: Job, steps: tuple[Step, ...], reason: str) -> Writes:
    operation = job.operation
    first = operation.first_failure or operation.failure
    failure = Failure(
        reason=Reason.ABANDONED,
        message="an operator gave it up; nothing more is done about what it left behind",
        operator_message=reason,
        step=first.step if first is not None else "",
    )
    if operation.held:
        let_go = {"waiting": Waiting.NONE, "waiting_detail": ""}
        return Writes(operations=(touch(operation, job.now, failure=failure, first_failure=first, **let_go),))
    if operation.done:
        raise _wrong(operation, f"it has ended: {operation.state}")
    if operation.lease_owner:
        raise busy(f"the operation {operation.operation_id}", operation.operation_id)
    if job.instance is None or (operation.binding_uid and job.binding is None):
        writes = Writes(operations=(ended(operation, job.now, OperationState.FAILED, failure),))
    else:
        writes = finish(job, given_up(job, steps, failure, CLEANUP_BUDGET))
    over, *others = writes.operations
    return replace(writes, operations=(replace(over, first_failure=first), *others))


def _told(operation: Operation, steps: tuple[Step, ...]) -> tuple[str, ...]:
    """What may be left in the backend, with outside names where the journal has them."""
    outputs = {step.name: step.outputs for step in steps}
    owner = f"binding/{operation.binding_id}" if operation.binding_id else "instance"
    return tuple(piece_text(owner, name, outputs.get(name, {})) for name in operation.cleanup_required)


def _resource(operation: Operation) -> str:
    return f"operation/{operation.operation_id}"


def _wrong(operation: Operation, why: str) -> PurveyorError:
    text = f"this cannot be done about the operation {operation.operation_id}: {why}"
    return PurveyorError(
        Reason.WRONG_STATE,
        text,
        metadata={"operation": operation.operation_id, "state": str(operation.state)},
        resource=Resource("operation", operation.operation_id),
        preconditions=(Precondition("FAILED", _resource(operation), text),),
    )
