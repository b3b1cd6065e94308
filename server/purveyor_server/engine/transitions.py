"""Every change that the engine makes to an operation, as pure functions `Job -> Writes`.

Guarantee: a function here reads only the `Job` (rows as they are inside the transaction) and its own arguments, so it may
run any number of times. The fence is checked by the store before it is called.
Limit: what an ended operation means for instance and binding is in `outcomes`.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import Any

from msgspec.structs import replace

from purveyor_server.domain.freezes import Freeze, describe
from purveyor_server.domain.model import Failure, Operation, SealedSecret, Step
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import FORWARD_ONLY, YIELDING, OperationState, Waiting
from purveyor_server.store.contract import Job, Writes

RETURNING = frozenset({OperationState.CANCELLING, OperationState.ROLLING_BACK})


def stops_for_cancel(operation: Operation) -> bool:
    """True when a cancel request is to be obeyed: before the pivot, of a verb that may turn back; or a clean-up's take-over."""
    if operation.verb in YIELDING:
        return bool(operation.taken_over_by)
    return operation.cancel_requested and not operation.past_pivot and operation.verb not in FORWARD_ONLY


def begin_step(
    job: Job, step: Step, finished: Step | None, secrets: tuple[SealedSecret, ...], percent: float
) -> Writes:
    """STARTED of `step`, in one command with RESULT of the step before it; not STARTED when a cancel came first."""
    operation = touch(
        job.operation, job.now, attempts=0, waiting=Waiting.NONE, waiting_detail="", percent=percent, sentence=""
    )
    results = (finished,) if finished is not None else ()
    if stops_for_cancel(job.operation):
        return Writes(quiet=(operation,), steps=results, secrets=secrets)
    if step.pivot and not operation.past_pivot:
        operation = replace(operation, past_pivot=True)
        return Writes(operations=(operation,), steps=(*results, step), secrets=secrets)
    return Writes(quiet=(operation,), steps=(*results, step), secrets=secrets)


def forget_to_begin(
    job: Job, step: Step, finished: Step | None, secrets: tuple[SealedSecret, ...], percent: float
) -> Writes:
    """`begin_step` without STARTED: the planted fault that the recovery suite must find (failpoint `started=off`)."""
    writes = begin_step(job, step, finished, secrets, percent)
    return replace(writes, steps=tuple(line for line in writes.steps if line is not step))


def write_step(job: Job, *steps: Step, secrets: tuple[SealedSecret, ...] = ()) -> Writes:
    """Journal steps alone: a result before a rollback, a saved value, UNDONE of one and UNDOING of the next."""
    return Writes(quiet=(touch(job.operation, job.now),), steps=steps, secrets=secrets)


def park(job: Job, steps: tuple[Step, ...], waiting: Waiting, due_at: datetime, detail: str, attempts: int) -> Writes:
    """Let go of the operation until `due_at`: the lease ends, the reason is stored."""
    going_forward = job.operation.state is not OperationState.ROLLING_BACK
    if going_forward and stops_for_cancel(job.operation) and waiting in {Waiting.PARKED, Waiting.BACKOFF}:
        due_at = job.now  # the cancel came while the step ran: turn round at once
    operation = touch(
        job.operation,
        job.now,
        due_at=due_at,
        waiting=waiting,
        waiting_detail=detail,
        attempts=attempts,
        lease_owner="",
    )
    return Writes(quiet=(operation,), steps=steps)


def freeze(job: Job, stop: Freeze, steps: tuple[Step, ...], secrets: tuple[SealedSecret, ...]) -> Writes:
    """Let go of the operation until it is thawed; `steps` is what is known so far, without the call that was to come."""
    operation = touch(
        job.operation,
        job.now,
        due_at=None,
        waiting=Waiting.FROZEN,
        waiting_detail=describe(stop),
        frozen_at=job.now,
        lease_owner="",
    )
    return Writes(quiet=(operation,), steps=steps, secrets=secrets)


def turn_back(job: Job, step: Step | None, failure: Failure, budget: timedelta) -> Writes:
    """Set the one-way direction ROLLING_BACK, with a budget of its own; the first failure is kept."""
    operation = touch(
        job.operation,
        job.now,
        state=OperationState.ROLLING_BACK,
        failure=job.operation.failure or failure,
        rollback_deadline=job.now + budget,
        attempts=0,
        waiting=Waiting.NONE,
        waiting_detail="",
    )
    return Writes(operations=(operation,), steps=(step,) if step is not None else ())


def ended(operation: Operation, now: datetime, state: OperationState, failure: Failure | None) -> Operation:
    """The operation in a final state, nobody's any more."""
    return touch(
        operation,
        now,
        state=state,
        failure=failure if state is not OperationState.SUCCEEDED else None,
        percent=100.0 if state is OperationState.SUCCEEDED else operation.percent,
        sentence="",
        ended_at=now,
        due_at=None,
        waiting=Waiting.NONE,
        waiting_detail="",
        lease_owner="",
        blocked_by=(),
    )


CHILDREN_PERCENT = 50.0  # of an operation with children: how far it is once all of them have ended


def out_of_the_way(gone: int, count: int) -> str:
    """What a parent waits for, in words."""
    return f"{gone} of {count} bindings are out of the way"


def _told(dependent: Operation, left: int) -> dict[str, Any]:
    """How far a parent is, by what is left of its children; nothing for others."""
    if not dependent.children:
        return {}
    gone = max(dependent.children - left, 0)
    percent = max(dependent.percent, CHILDREN_PERCENT * gone / dependent.children)
    return {"percent": percent, "waiting_detail": out_of_the_way(gone, dependent.children)}


def unblocked(dependent: Operation, now: datetime, blocker: str, failure: Failure | None) -> Operation:
    """A dependent of an ended operation: due when nothing else blocks it; its deadline starts then."""
    left = tuple(name for name in dependent.blocked_by if name != blocker)
    told = _told(dependent, len(left))
    if left:
        return touch(dependent, now, blocked_by=left, failure=dependent.failure or failure, **told)
    return touch(
        dependent,
        now,
        blocked_by=(),
        percent=told.get("percent", dependent.percent),
        failure=dependent.failure or failure,
        waiting=Waiting.NONE,
        waiting_detail="",
        due_at=now,
        deadline=now + timedelta(seconds=dependent.budget),
    )
