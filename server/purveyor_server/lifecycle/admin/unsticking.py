"""Operations that would never end by themselves are freed, woken or ended, page by page.

Guarantee: each is judged again inside the command that changes it, so a worker that took it meanwhile wins; what is ended
leaves an audit record, names what it may have left, and hands it to a clean-up where that is the way of its verb. Nothing that
a freeze holds is touched.
Limit: chains of waiting operations are followed up to MAX_GRAPH of them; longer ones are opened from their far ends.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from datetime import datetime, timedelta

import msgspec
import structlog
from msgspec.structs import replace

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.freezes import Freeze, holding
from purveyor_server.domain.model import Failure, Operation, Step
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import Make, OperationState, Verb, Waiting
from purveyor_server.domain.stuck import CURES, Bounds, Cure, Rule, judge, why
from purveyor_server.engine.outcomes import finish
from purveyor_server.engine.transitions import ended, unblocked
from purveyor_server.kit.backoff import Backoff
from purveyor_server.lifecycle.admin.acts import record
from purveyor_server.lifecycle.admin.contract import Act, AdminParts
from purveyor_server.lifecycle.contract import ITSELF
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.remains import given_up
from purveyor_server.store.contract import SYSTEM, Amend, Job, Page, Writes
from purveyor_server.store.operating import work_place

_log = structlog.get_logger(__name__)
MAX_GRAPH = 500  # operations that are looked at for one that waits
AGAIN = Backoff(first=30.0, ceiling=3600.0)  # of the clean-ups that follow; as the engine's
BUDGET = timedelta(minutes=10)  # of such a clean-up


class _MovedError(Exception):
    """Somebody else was quicker."""


class Looked(msgspec.Struct, frozen=True):
    """A page of unfinished operations: where the next one begins ("" at the end), and how many of which kind were stuck."""

    after: str
    stuck: Counter[Rule]


async def look(parts: AdminParts, after: str, limit: int, since: datetime, bounds: Bounds) -> Looked:
    """Judge a page, and do what is to be done. Raises STORE_UNAVAILABLE, STORE_FULL."""
    page = await parts.store.every_unfinished(Page(limit, after))
    freezes = await parts.store.freezes()
    stuck: Counter[Rule] = Counter()
    for operation in page:
        rule = await _one(parts, operation, freezes, since, bounds)
        if rule is not None:
            stuck[rule] += 1
    return Looked(work_place(page[-1]) if len(page) == limit else "", stuck)


async def _one(
    parts: AdminParts, operation: Operation, freezes: Iterable[Freeze], since: datetime, bounds: Bounds
) -> Rule | None:
    if holding(freezes, operation, Make.ABSENT) is not None:
        return None
    graph = await _graph(parts, operation)
    rule = judge(operation, parts.clock.now(), since, bounds, graph)
    if rule is None:
        return None
    steps = await parts.store.steps(SYSTEM, operation.operation_id) if CURES[rule] is Cure.END else ()

    def decide(job: Job) -> Writes:
        if job.operation.version != operation.version or judge(job.operation, job.now, since, bounds, graph) != rule:
            raise _MovedError
        return _cured(parts, job, rule, graph, steps)

    try:
        await parts.store.amend(Amend(SYSTEM, operation.operation_id, decide, with_resources=True))
    except _MovedError:
        return None
    except PurveyorError as error:
        if error.reason is not Reason.OPERATION_NOT_FOUND:
            raise
        return None
    named = {"operation": operation.operation_id, "verb": str(operation.verb), "tenant": operation.tenant}
    _log.warning("operation was stuck", rule=str(rule), cure=str(CURES[rule]), **named)
    return rule


async def _graph(parts: AdminParts, operation: Operation) -> dict[str, Operation]:
    """All that it waits for, directly or not, and itself."""
    found = {operation.operation_id: operation}
    names = list(operation.blocked_by)
    while names and len(found) < MAX_GRAPH:
        asked, names = names[:MAX_GRAPH], names[MAX_GRAPH:]
        for one in await parts.store.operations_named(SYSTEM, asked):
            if one.operation_id not in found:
                found[one.operation_id] = one
                names += [name for name in one.blocked_by if name not in found and not one.done]
    return found


def _cured(parts: AdminParts, job: Job, rule: Rule, graph: dict[str, Operation], steps: tuple[Step, ...]) -> Writes:
    operation, now = job.operation, job.now
    if CURES[rule] is Cure.WAKE:
        woken = touch(operation, now, due_at=now, waiting=Waiting.NONE, waiting_detail="")
        return Writes(operations=(woken,))
    if CURES[rule] is Cure.FREE:
        return Writes(operations=(_freed(operation, now, graph),))
    failure = why(operation, rule)
    resource = f"operation/{operation.operation_id}"
    act = Act(reason=f"it would not end by itself: {rule}")
    noted = record(parts, ITSELF, Action.ABANDON_OPERATION, act, resource, operation.tenant)
    return replace(_ended(job, steps, failure), audit=(noted,))


def _freed(operation: Operation, now: datetime, graph: dict[str, Operation]) -> Operation:
    """Without anything to wait for; a deprovision is told of an unbind that has failed."""
    others = [one for name in operation.blocked_by if (one := graph.get(name)) is not None]
    deprovisions = operation.verb is Verb.DEPROVISION
    failed = next(
        (one for one in others if deprovisions and one.state is OperationState.FAILED and one.verb is Verb.UNBIND), None
    )
    failure = None
    if failed is not None:
        message = f"the binding {failed.binding_id!r} could not be unbound"
        failure = Failure(reason=Reason.CHILD_FAILED, message=message, retryable=True)
    alone = replace(operation, blocked_by=operation.blocked_by[:1])
    return unblocked(alone, now, operation.blocked_by[0], failure)


def _ended(job: Job, steps: tuple[Step, ...], failure: Failure) -> Writes:
    if job.instance is None or (job.operation.binding_uid and job.binding is None):
        return Writes(operations=(ended(job.operation, job.now, OperationState.FAILED, failure),))
    delay = timedelta(seconds=AGAIN.delay(job.operation.generation))
    return finish(job, given_up(job, steps, failure, BUDGET, delay))
