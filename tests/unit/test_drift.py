"""What looks at a backend come to."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from purveyor_server.domain.automation import why_kept, why_left_alone
from purveyor_server.domain.drift import Look, Observation, Pace, first, judge
from purveyor_server.domain.model import Instance, Pause, Settings
from purveyor_server.domain.states import Drift, InstanceState

START = datetime(2026, 1, 1, tzinfo=UTC)
PACE = Pace(every=timedelta(minutes=10), confirm=timedelta(minutes=1))
MINUTE = timedelta(minutes=1)
FAILED = Look(None, problem="it does not answer")
GONE, THERE, CHANGED = Look(Drift.MISSING, ("gone",)), Look(Drift.IN_SYNC), Look(Drift.DRIFTED, ("limit is 3",))
LOOKS = st.sampled_from([FAILED, GONE, THERE, CHANGED])


def after(*looks: Look) -> Observation:
    found = first("u", "t", "i", START)
    for number, look in enumerate(looks):
        found = judge(found, look, START + number * MINUTE, PACE)
    return found


def test_one_look_that_finds_nothing_is_no_proof() -> None:
    once = after(THERE, GONE)
    assert (once.drift, once.misses, once.listed) == (Drift.UNKNOWN, 1, True)
    assert once.look_at == START + MINUTE + PACE.confirm

    twice = after(THERE, GONE, GONE)
    assert (twice.drift, twice.differences) == (Drift.MISSING, ("gone",))
    assert (twice.since, twice.look_at) == (START + 2 * MINUTE, START + 2 * MINUTE + PACE.every)


def test_a_failed_look_says_nothing() -> None:
    assert after(THERE, FAILED).drift is Drift.UNKNOWN
    assert after(CHANGED, FAILED).drift is Drift.DRIFTED
    assert after(GONE, GONE, FAILED).drift is Drift.MISSING
    assert after(*[FAILED] * 5).drift is Drift.UNKNOWN
    found = after(CHANGED, FAILED)
    assert (found.problem, found.differences, found.observed_at) == ("it does not answer", ("limit is 3",), START)


def test_what_is_there_again_is_in_order_at_once() -> None:
    found = after(GONE, GONE, THERE)
    assert (found.drift, found.misses, found.differences, found.listed) == (Drift.IN_SYNC, 0, (), False)


def test_a_provider_that_cannot_look_is_not_listed() -> None:
    assert not after(Look(None, problem="cannot", supported=False)).listed
    assert not first("u", "t", "i", START).listed


@given(st.lists(LOOKS, max_size=12))
def test_missing_is_said_by_two_looks_in_a_row_or_kept(looks: list[Look]) -> None:
    found = after(*looks)
    answered = [look.seen for look in looks if look.seen is not None]
    assert (found.drift is Drift.MISSING) == (answered[-2:] == [Drift.MISSING, Drift.MISSING])


def test_a_hasty_rule_is_found() -> None:
    """Negative control: one look taken for proof differs from the rule above."""
    hasty = GONE.seen
    assert after(THERE, GONE).drift is not hasty


def test_what_may_be_done_to_an_instance() -> None:
    plain = Instance(
        uid="u", tenant="t", instance_id="i", state=InstanceState.READY, desired=Settings("d", "s", "p"),
        created_at=START, updated_at=START,
    )  # fmt: skip
    assert (why_left_alone(plain), why_kept(plain)) == ("", "")
    paused = replace(plain, reconcile_paused=Pause("an audit", "ann", START))
    assert "an audit" in why_left_alone(paused)
    assert "an audit" in why_kept(paused)
    for field in ("deletion_protected", "adopted"):
        kept = replace(plain, **{field: True})
        assert why_kept(kept)
        assert not why_left_alone(kept)
