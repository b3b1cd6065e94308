"""Why an operation does not move.

Guarantee: said from committed rows and from what this process knows of its provider, the nearest cause first; there is
always at least one.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from datetime import datetime

from purveyor_server.domain.freezes import Freeze, holding
from purveyor_server.domain.model import Operation
from purveyor_server.domain.states import Make, StepState, Waiting
from purveyor_server.lifecycle.admin.acts import enter, find_operation
from purveyor_server.lifecycle.admin.contract import AdminParts, Cause, ProviderReport
from purveyor_server.lifecycle.admin.reporting import provider_report, providers
from purveyor_server.lifecycle.contract import Caller, OperationDetails
from purveyor_server.lifecycle.door import Action
from purveyor_server.providers.inspection import Health
from purveyor_server.store.contract import SYSTEM

_WORDS = {
    Waiting.SLOT: "due, and no slot is free",
    Waiting.PARKED: "the provider said: not yet",
    Waiting.BACKOFF: "a step failed in a way that may pass and is tried again",
    Waiting.CIRCUIT: "the backend does not answer; no attempts are spent meanwhile",
    Waiting.LEASE: "a worker let go of it because its lease was about to end",
    Waiting.SETTLING: "an interrupted call may still take effect in the backend",
    Waiting.HELD: "the provider's code no longer knows its steps, or a secret parameter cannot be unsealed: its detail says it",
    Waiting.FROZEN: "an operator stopped it",
}


async def explain(parts: AdminParts, caller: Caller, operation_id: str) -> tuple[OperationDetails, tuple[Cause, ...]]:
    """The operation with its steps, and the causes. Raises OPERATION_NOT_FOUND."""
    enter(parts, caller, Action.EXPLAIN_OPERATION)
    operation = await find_operation(parts, operation_id)
    steps = await parts.store.steps(SYSTEM, operation_id)
    blockers = await parts.store.operations_named(SYSTEM, operation.blocked_by) if operation.blocked_by else ()
    unsettled = next((step.name for step in steps if step.state is StepState.STARTED and step.unsettled), "")
    found = [
        *causes(operation, parts.clock.now(), blockers, unsettled),
        *_around(operation, await parts.store.freezes(), _report(parts, operation)),
    ]
    return OperationDetails(operation, steps), tuple(found)


def _report(parts: AdminParts, operation: Operation) -> ProviderReport | None:
    return next((provider_report(parts, ref) for ref in providers(parts) if ref.name == operation.provider), None)


def causes(operation: Operation, now: datetime, blockers: Iterable[Operation], unsettled: str) -> Iterator[Cause]:
    """What the records say. Pure."""
    if operation.done:
        failure = f": {operation.failure.message}" if operation.failure is not None else ""
        yield Cause("ENDED", f"it has ended {operation.state}{failure}")
        if operation.held:
            yield Cause(
                "HELD", f"left behind and kept: {', '.join(operation.cleanup_required)}: {operation.waiting_detail}"
            )
        elif operation.cleanup_required:
            yield Cause("CLEANUP_REQUIRED", f"left behind for clean-ups: {', '.join(operation.cleanup_required)}")
        return
    if operation.lease_owner:
        step = f"; step {unsettled} is under way" if unsettled else ""
        yield Cause("RUNNING", f"a worker holds it until its lease ends{step}", operation.due_at)
    elif operation.waiting is Waiting.BLOCKED:
        for other in blockers:
            text = f"waits for {other.verb} {other.operation_id} ({other.state})"
            yield Cause("BLOCKED", text, operation_id=other.operation_id)
    elif operation.waiting is not Waiting.NONE:
        detail = f": {operation.waiting_detail}" if operation.waiting_detail else ""
        yield Cause(str(operation.waiting), f"{_WORDS[operation.waiting]}{detail}", operation.due_at)
    elif operation.due_at is not None and operation.due_at > now:
        yield Cause("DUE", "waits for its time", operation.due_at)
    else:
        yield Cause("SLOT", "due since it was accepted or woken; waits for a free slot", operation.due_at)
    deadline = operation.rollback_deadline or operation.deadline
    if deadline is not None and deadline < now:
        yield Cause("DUE", "past its deadline: it turns back or ends at its next turn", deadline)


def _around(operation: Operation, freezes: Iterable[Freeze], report: ProviderReport | None) -> Iterator[Cause]:
    """What holds more than this one."""
    if operation.done:
        return
    for freeze in (
        one for one in freezes if holding((one,), operation, Make.ABSENT)
    ):  # what is not a removal is held less
        yield Cause("FROZEN", f"frozen since {freeze.at:%Y-%m-%d %H:%M:%SZ}: {freeze.name}: {freeze.reason}")
    if report is None:
        yield Cause("HELD", f"the catalog has no provider {operation.provider!r} any more; its snapshot is used")
    elif report.health in {Health.CIRCUIT_OPEN, Health.UNUSABLE}:
        yield Cause("CIRCUIT", f"the provider {report.ref.name} cannot work: {report.problem}")
