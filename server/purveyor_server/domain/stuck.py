"""Operations that would never end by themselves, and what is done about each kind.

Guarantee: pure, and the only place that says so. What is being worked on within its time, or is frozen, is never called stuck.
Whatever graph of operations wait for one another: while one of them is unfinished and nothing is being worked on, some rule
holds, and each holds finitely often; so every operation ends.
Limit: an operation that is due and only waits for a free slot is the engine's; it ends it at its turn, past its deadline too.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from purveyor_server.domain.errors import Reason
from purveyor_server.domain.model import Failure, Operation
from purveyor_server.domain.states import SLOT_WAITS, OperationState, Verb, Waiting

Graph = Mapping[str, Operation]


class Rule(StrEnum):
    """Kinds of stuck operations."""

    BLOCKERS_ENDED = "BLOCKERS_ENDED"  # all that it waits for has ended, or is not there
    CYCLE = "CYCLE"  # operations that wait for one another
    FORGOTTEN = "FORGOTTEN"  # nothing holds it, and it has no time to be looked at
    OVERSLEPT = "OVERSLEPT"  # it waits for a time behind its deadline
    HELD = "HELD"  # the code does not know it, and its time is long over
    EXPIRED = "EXPIRED"  # it was woken past its deadline, and waits still
    LEASED = "LEASED"  # a worker holds it long after its deadline, again and again


class Cure(StrEnum):
    """What is done."""

    FREE = "FREE"  # it waits for nobody any more
    WAKE = "WAKE"  # it is due, and the engine ends it or goes on
    END = "END"  # it ends FAILED; what it may have left is named, and cleaned up where that is the way of its verb


CURES = {
    Rule.BLOCKERS_ENDED: Cure.FREE,
    Rule.CYCLE: Cure.FREE,
    Rule.FORGOTTEN: Cure.WAKE,
    Rule.OVERSLEPT: Cure.WAKE,
    Rule.HELD: Cure.END,
    Rule.EXPIRED: Cure.END,
    Rule.LEASED: Cure.END,
}


class Bounds(msgspec.Struct, frozen=True):
    """How long past its deadline an operation is given: to end by itself, while it is held, while a worker holds it."""

    margin: timedelta = timedelta(minutes=5)
    held: timedelta = timedelta(days=1)
    leased: timedelta = timedelta(hours=1)


def judge(operation: Operation, now: datetime, since: datetime, bounds: Bounds, graph: Graph) -> Rule | None:
    """The rule that holds, None while it is not stuck.

    Time before `since`, when no broker was there, does not count. `graph` has every operation that can be reached by
    `blocked_by`, as far as there is one.
    """
    if operation.done or operation.waiting is Waiting.FROZEN:
        return None
    if operation.blocked_by:
        return _blocked(operation, graph)
    if operation.due_at is None:
        return Rule.FORGOTTEN
    deadline = operation.rollback_deadline if operation.state is OperationState.ROLLING_BACK else operation.deadline
    if deadline is None:
        return None
    return _late(operation, now - max(deadline, since), now, bounds)


def _late(operation: Operation, late: timedelta, now: datetime, bounds: Bounds) -> Rule | None:
    if operation.lease_owner:
        return Rule.LEASED if late > bounds.leased else None
    if late <= bounds.margin:
        return None
    if operation.waiting is Waiting.HELD:
        return Rule.HELD if late > bounds.held else None
    if late > 2 * bounds.margin and operation.waiting not in SLOT_WAITS:
        return Rule.EXPIRED
    return Rule.OVERSLEPT if operation.due_at is not None and operation.due_at > now else None


def _blocked(operation: Operation, graph: Graph) -> Rule | None:
    if not _waits_for(operation, graph):
        return Rule.BLOCKERS_ENDED
    ring = _reached(operation, graph)
    if not all(_waits_for(one, graph) for one in ring.values()):
        return None  # somebody in there can go on, or is freed at its own turn
    if not all(operation.operation_id in _reached(one, graph) for one in ring.values()):
        return None  # the ring is further on, and is opened there
    return Rule.CYCLE if min(ring.values(), key=_turn).operation_id == operation.operation_id else None


def _waits_for(operation: Operation, graph: Graph) -> list[Operation]:
    """The unfinished ones that it waits for."""
    found = (graph.get(name) for name in operation.blocked_by)
    return [one for one in found if one is not None and not one.done]


def _reached(operation: Operation, graph: Graph) -> dict[str, Operation]:
    """All that it waits for, directly or not, without the way of no step."""
    found: dict[str, Operation] = {}
    left = _waits_for(operation, graph)
    while left:
        one = left.pop()
        if one.operation_id not in found:
            found[one.operation_id] = one
            left += _waits_for(one, graph)
    return found


def _turn(operation: Operation) -> tuple[bool, str]:
    """Who goes first when all wait for one another: a deprovision takes away what the others work on."""
    return operation.verb is Verb.DEPROVISION, operation.operation_id


def why(operation: Operation, rule: Rule) -> Failure:
    """The failure of an operation that is ended; its first one is kept."""
    if operation.failure is not None:
        return operation.failure
    reason, message = Reason.OPERATION_DEADLINE_EXCEEDED, f"it did not end within {operation.budget:g} s"
    if rule is Rule.HELD:
        reason, message = Reason.PROVIDER_CHANGED, "the broker did not know how to go on until long after its deadline"
    elif operation.waiting is Waiting.CIRCUIT:
        reason, message = Reason.PROVIDER_UNREACHABLE, "the backend did not answer until after the deadline"
    detail = f"ended as stuck ({rule}): {operation.waiting_detail or operation.waiting}"
    return Failure(reason=reason, message=message, operator_message=detail, retryable=True)
