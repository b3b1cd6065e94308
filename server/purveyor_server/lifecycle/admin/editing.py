"""Break-glass: a step's line in the journal, written by hand.

Guarantee: only lines of steps that were begun, of an operation that nobody works on; a finished step never runs again, by
this way neither. Afterwards the operation is due and goes on by the ordinary rules.
Limit: a step that is declared done has no outputs; credentials that need them will fail.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource, invalid
from purveyor_server.domain.model import Operation, Step
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import Make, OperationState, StepState, Waiting
from purveyor_server.lifecycle.admin.acts import busy, enter, find_operation, record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts, Mark
from purveyor_server.lifecycle.contract import Caller, OperationDetails
from purveyor_server.lifecycle.door import Action
from purveyor_server.store.contract import SYSTEM, Amend, Job, Writes

ROUNDS = 4  # times an edit is decided anew when the journal moves meanwhile


class _MovedError(Exception):
    """The operation is not as it was read."""


async def edit_step(
    parts: AdminParts, caller: Caller, operation_id: str, step: str, mark: Mark | None, act: Act
) -> OperationDetails:
    """Declare a step. Raises OPERATION_NOT_FOUND, OPERATION_IN_PROGRESS, WRONG_STATE, INVALID_REQUEST."""
    enter(parts, caller, Action.EDIT_STEP, act)
    if mark is None:
        raise invalid("mark", f"must be {' or '.join(Mark)}")
    for _ in range(ROUNDS):
        operation = await find_operation(parts, operation_id)
        line = _line(await parts.store.steps(SYSTEM, operation_id), step)
        edited = _edited(operation, line, mark, parts.clock.now())
        if edited != line and not act.validate_only:
            try:
                operation = await _write(parts, caller, operation, edited, mark, act)
            except _MovedError:
                continue
        return OperationDetails(operation, await parts.store.steps(SYSTEM, operation_id))
    raise busy(f"the operation {operation_id}", operation_id)


async def _write(parts: AdminParts, caller: Caller, seen: Operation, line: Step, mark: Mark, act: Act) -> Operation:
    """Put the line down, unless the operation moved since it was seen (_MovedError)."""
    resource = f"operation/{seen.operation_id}/step/{line.name}"
    noted = record(parts, caller, Action.EDIT_STEP, act, resource, seen.tenant, mark=str(mark))

    def decide(job: Job) -> Writes:
        if job.operation.version != seen.version:
            raise _MovedError
        return Writes(operations=(_due(job),), steps=(line,), audit=(noted,))

    written = await parts.store.amend(Amend(SYSTEM, seen.operation_id, decide))
    tell(parts, caller, Action.EDIT_STEP, act, resource, seen.tenant)
    return written


def _due(job: Job) -> Operation:
    if job.operation.waiting is Waiting.FROZEN:
        return touch(job.operation, job.now)
    return touch(job.operation, job.now, due_at=job.now, waiting=Waiting.NONE, waiting_detail="", attempts=0)


def _line(steps: tuple[Step, ...], name: str) -> Step:
    for step in steps:
        if step.name == name:
            return step
    begun = ", ".join(step.name for step in steps) or "none"
    raise invalid("step", f"the operation has begun no step {name!r} (begun: {begun})")


def _edited(operation: Operation, step: Step, mark: Mark, now: datetime) -> Step:
    """The line as it shall be; the same line when it is so already."""
    if operation.done:
        raise _wrong(operation, f"it has ended: {operation.state}")
    if operation.lease_owner:
        raise busy(f"the operation {operation.operation_id}", operation.operation_id)
    back = operation.state is OperationState.ROLLING_BACK
    if back and mark is Mark.DONE:
        raise _wrong(operation, "it is going back: a step can only be declared absent")
    wanted = _wanted_state(step, mark, back=back)
    if wanted is step.state and not step.unsettled:
        return step
    if step.state is StepState.DONE and not back:
        raise _wrong(operation, f"the step {step.name} is finished and never runs again; cancel the operation instead")
    ended = now if wanted in {StepState.DONE, StepState.UNDONE} else None
    return replace(step, state=wanted, unsettled=False, ended_at=ended)


def _wanted_state(step: Step, mark: Mark, *, back: bool) -> StepState:
    if back:
        return StepState.UNDONE
    if mark is Mark.DONE or step.make is Make.ABSENT:
        return StepState.DONE
    return StepState.STARTED


def _wrong(operation: Operation, why: str) -> PurveyorError:
    text = f"the journal of {operation.operation_id} cannot be edited so: {why}"
    return PurveyorError(
        Reason.WRONG_STATE,
        text,
        metadata={"operation": operation.operation_id, "state": str(operation.state)},
        resource=Resource("operation", operation.operation_id),
        preconditions=(Precondition("EDITABLE", f"operation/{operation.operation_id}", text),),
    )
