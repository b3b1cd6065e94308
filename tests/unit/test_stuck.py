"""Which operations are stuck, and that whatever waits for whatever, every one ends."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from purveyor_server.domain.errors import Reason
from purveyor_server.domain.model import Failure, Operation
from purveyor_server.domain.states import OperationState, Verb, Waiting
from purveyor_server.domain.stuck import CURES, Bounds, Cure, Rule, judge, why
from tests.fakes.situations import NOW, instance, operation

BOUNDS = Bounds()
LONG_AGO = NOW - timedelta(days=30)
SECOND = timedelta(seconds=1)


def one(waiting: Waiting = Waiting.NONE, late: timedelta = timedelta(0), **changes: Any) -> Operation:
    """An operation that is `late` at NOW, and that somebody will look at in an hour."""
    fields: dict[str, Any] = {"deadline": NOW - late, "due_at": NOW + timedelta(hours=1), "waiting": waiting}
    return replace(operation(instance(), Verb.PROVISION), **(fields | changes))


def judged(found: Operation, **graph: Operation) -> Rule | None:
    return judge(found, NOW, LONG_AGO, BOUNDS, {name.replace("_", "-"): value for name, value in graph.items()})


TWICE = 2 * BOUNDS.margin + SECOND
TABLE = [
    (one(Waiting.PARKED, BOUNDS.margin), None),
    (one(Waiting.PARKED, BOUNDS.margin + SECOND), Rule.OVERSLEPT),
    (one(Waiting.BACKOFF, BOUNDS.margin + SECOND), Rule.OVERSLEPT),
    (one(Waiting.CIRCUIT, BOUNDS.margin + SECOND), Rule.OVERSLEPT),
    (one(Waiting.CIRCUIT, BOUNDS.margin + SECOND, due_at=NOW), None),  # the engine is about to look
    (one(Waiting.CIRCUIT, TWICE, due_at=NOW), Rule.EXPIRED),
    (one(Waiting.SETTLING, TWICE), Rule.EXPIRED),
    (one(Waiting.HELD, TWICE), None),
    (one(Waiting.HELD, BOUNDS.held + SECOND), Rule.HELD),
    (one(Waiting.FROZEN, BOUNDS.held * 9, due_at=None), None),
    (one(Waiting.NONE, TWICE, due_at=NOW), None),  # due, and waits for a slot
    (one(Waiting.SLOT, TWICE, due_at=NOW), None),
    (one(Waiting.NONE, TWICE), Rule.OVERSLEPT),
    (one(due_at=None), Rule.FORGOTTEN),
    (one(lease_owner="w", late=TWICE), None),
    (one(lease_owner="w", late=BOUNDS.leased + SECOND), Rule.LEASED),
    (one(Waiting.PARKED, TWICE, state=OperationState.SUCCEEDED), None),
    (one(Waiting.PARKED, TWICE, state=OperationState.ROLLING_BACK, rollback_deadline=NOW), None),
    (one(Waiting.PARKED, state=OperationState.ROLLING_BACK, rollback_deadline=NOW - TWICE), Rule.EXPIRED),
    (one(Waiting.BLOCKED, due_at=None, deadline=None, blocked_by=("gone",)), Rule.BLOCKERS_ENDED),
]


@pytest.mark.parametrize(("found", "rule"), TABLE)
def test_a_rule(found: Operation, rule: Rule | None) -> None:
    assert judged(found) is rule


def test_time_without_a_broker_does_not_count() -> None:
    found = one(Waiting.PARKED, timedelta(days=9))
    assert judge(found, NOW, NOW - BOUNDS.margin, BOUNDS, {}) is None
    assert judge(found, NOW, NOW - 2 * BOUNDS.margin, BOUNDS, {}) is Rule.OVERSLEPT


def test_who_waits_for_somebody_that_goes_on_is_not_stuck() -> None:
    runs = one(lease_owner="w")
    waits = one(Waiting.BLOCKED, due_at=None, deadline=None, blocked_by=(runs.operation_id,))
    assert judge(waits, NOW, LONG_AGO, BOUNDS, {runs.operation_id: runs}) is None
    over = replace(runs, state=OperationState.FAILED)
    assert judge(waits, NOW, LONG_AGO, BOUNDS, {runs.operation_id: over}) is Rule.BLOCKERS_ENDED


def test_in_a_ring_the_deprovision_goes_last() -> None:
    parent = one(Waiting.BLOCKED, due_at=None, deadline=None, verb=Verb.DEPROVISION)
    child = one(Waiting.BLOCKED, due_at=None, deadline=None, verb=Verb.UNBIND, blocked_by=(parent.operation_id,))
    parent = replace(parent, blocked_by=(child.operation_id,))
    graph = {one.operation_id: one for one in (parent, child)}
    assert judge(parent, NOW, LONG_AGO, BOUNDS, graph) is None
    assert judge(child, NOW, LONG_AGO, BOUNDS, graph) is Rule.CYCLE


def test_the_first_error_is_the_one_that_is_told() -> None:
    first = Failure(reason=Reason.PROVIDER_FAILED, message="first")
    assert why(one(failure=first), Rule.EXPIRED) is first
    assert why(one(Waiting.HELD), Rule.HELD).reason == Reason.PROVIDER_CHANGED
    assert why(one(Waiting.CIRCUIT), Rule.EXPIRED).reason == Reason.PROVIDER_UNREACHABLE
    assert why(one(Waiting.SETTLING), Rule.EXPIRED).reason == Reason.OPERATION_DEADLINE_EXCEEDED


NAMES = tuple(f"op-{number}" for number in range(8))


@st.composite
def graphs(draw: st.DrawFn) -> dict[str, Operation]:
    """Operations that wait for one another in any way, for some that have ended, and for some that never were."""
    found: dict[str, Operation] = {}
    for name in draw(st.lists(st.sampled_from(NAMES), min_size=1, unique=True)):
        blockers = tuple(sorted(draw(st.sets(st.sampled_from(NAMES), max_size=3))))
        kind = draw(st.sampled_from([Waiting.PARKED, Waiting.CIRCUIT, Waiting.HELD, Waiting.SETTLING, Waiting.NONE]))
        due = draw(st.sampled_from([None, NOW, NOW + timedelta(days=400)]))
        state = draw(st.sampled_from([OperationState.PENDING, OperationState.FAILED]))
        verb = draw(st.sampled_from([Verb.DEPROVISION, Verb.UNBIND, Verb.CLEANUP]))
        found[name] = one(
            Waiting.BLOCKED if blockers else kind,
            operation_id=name, verb=verb, state=state, blocked_by=blockers, due_at=None if blockers else due,
            deadline=None if blockers else NOW,
        )  # fmt: skip
    return found


def lived(graph: dict[str, Operation], spared: frozenset[Rule] = frozenset()) -> dict[str, Operation]:
    """What becomes of them in a year of rounds, when the engine ends what is due and waits for nothing but a slot."""
    now, graph = NOW, dict(graph)
    for _ in range(60):
        now += timedelta(hours=25)
        for name, found in list(graph.items()):
            rule = judge(found, now, NOW, BOUNDS, graph)
            if rule is not None and rule not in spared:
                graph[name] = cured(found, rule, now)
        for name, found in list(graph.items()):
            due = found.due_at is not None and found.due_at <= now and not found.blocked_by
            if due and found.waiting is Waiting.NONE:
                graph[name] = replace(
                    found, state=OperationState.SUCCEEDED
                )  # and who waits is not told: the worst case
    return graph


def cured(found: Operation, rule: Rule, now: Any) -> Operation:
    match CURES[rule]:
        case Cure.FREE:
            return replace(found, blocked_by=(), due_at=now, deadline=now, waiting=Waiting.NONE)
        case Cure.WAKE:
            return replace(found, due_at=now, waiting=Waiting.NONE)
        case Cure.END:
            return replace(found, state=OperationState.FAILED)


@settings(max_examples=120, deadline=None)
@given(graphs())
def test_whatever_waits_for_whatever_every_one_ends(graph: dict[str, Operation]) -> None:
    assert [found for found in lived(graph).values() if not found.done] == []


RING = {
    "a": one(Waiting.BLOCKED, operation_id="a", blocked_by=("b",), due_at=None, deadline=None),
    "b": one(Waiting.BLOCKED, operation_id="b", blocked_by=("a",), due_at=None, deadline=None),
}
CONTROLS: dict[Rule, dict[str, Operation]] = {
    Rule.BLOCKERS_ENDED: {"a": one(Waiting.BLOCKED, operation_id="a", blocked_by=("x",), due_at=None)},
    Rule.CYCLE: RING,
    Rule.FORGOTTEN: {"a": one(operation_id="a", due_at=None)},
    Rule.HELD: {"a": one(Waiting.HELD, operation_id="a")},
    Rule.EXPIRED: {"a": one(Waiting.SETTLING, operation_id="a", due_at=NOW)},
}


@pytest.mark.parametrize("rule", CONTROLS)
def test_without_a_rule_somebody_never_ends(rule: Rule) -> None:
    """Negative controls: each rule is what ends some graph."""
    assert all(found.done for found in lived(CONTROLS[rule]).values())
    assert not all(found.done for found in lived(CONTROLS[rule], frozenset({rule})).values())
