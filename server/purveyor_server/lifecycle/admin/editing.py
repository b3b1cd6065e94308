"""Break-glass: a step's line in the journal, written by hand.

Guarantee: only lines of steps that were begun, of an operation that nobody works on; a finished step never runs again, by
this way neither. Afterwards the operation is due and goes on by the ordinary rules.
Limit: a step that is declared done has no outputs; credentials that need them will fail.
"""

from __future__ import annotations

from datetime import datetime

from msgspec.structs import replace

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource, invalid, operation_not_found
from purveyor_server.domain.model import Operation, Step
from purveyor_server.domain.names import check_id
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import Make, OperationState, StepState, Waiting
from purveyor_server.lifecycle.admin.acts import enter, record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts, Mark
from purveyor_server.lifecycle.contract import Caller, OperationDetails
from purveyor_server.lifecycle.door import Action
from purveyor_server.store.contract import SYSTEM, Amend, Job, Writes

BUSY_RETRY = 1.0  # seconds
ROUNDS = 4  # times an edit is decided anew when the journal moves meanwhile


class _MovedError(Exception):
    """The operation is not as it was read."""


async def edit_step(
    parts: AdminParts, caller: Caller, operation_id: str, step: str, mark: Mark, act: Act
) -> OperationDetails:
    """Declare a step. Raises OPERATION_NOT_FOUND, OPERATION_IN_PROGRESS, WRONG_STATE, INVALID_REQUEST."""
    enter(parts, caller, Action.EDIT_STEP, act)
    check_id(operation_id, "operation_id")
    for _ in range(ROUNDS):
        operation = await parts.store.operation(SYSTEM, operation_id)
        if operation is None:
            raise operation_not_found(operation_id)
        line = _line(await parts.store.steps(SYSTEM, operation_id), step)
        edited = _edited(operation, line, mark, parts.clock.now())
        if edited == line or act.validate_only:
            break
        noted = record(
            parts,
            caller,
            Action.EDIT_STEP,
            act,
            f"operation/{operation_id}/step/{step}",
            operation.tenant,
            mark=str(mark),
        )

        def decide(job: Job, seen: int = operation.version, line: Step = edited, noted: AuditRecord = noted) -> Writes:
            if job.operation.version != seen:
                raise _MovedError
            return Writes(operations=(_due(job),), steps=(line,), audit=(noted,))

        try:
            operation = await parts.store.amend(Amend(SYSTEM, operation_id, decide))
        except _MovedError:
            continue
        tell(parts, caller, Action.EDIT_STEP, act, f"operation/{operation_id}/step/{step}", operation.tenant)
        break
    else:
        raise _busy(operation_id)
    return OperationDetails(operation, await parts.store.steps(SYSTEM, operation_id))


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
        raise _busy(operation.operation_id)
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


def _busy(operation_id: str) -> PurveyorError:
    return PurveyorError(
        Reason.OPERATION_IN_PROGRESS,
        f"the operation {operation_id} is being worked on: wait, or freeze its provider first",
        metadata={"operation": operation_id},
        resource=Resource("operation", operation_id),
        retry_after=BUSY_RETRY,
    )
