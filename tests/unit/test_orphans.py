"""What a sweep may do: a history of sweeps is played, and each deed is held against all that was seen before it."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import HealthCheck, Phase, find, given, settings
from hypothesis import strategies as st
from hypothesis.errors import NoSuchExample
from msgspec.structs import replace

from purveyor_server.domain import orphans
from purveyor_server.domain.freezes import ALL, DELETES, REAPING, RECOVERY, Freeze
from purveyor_server.domain.orphans import (
    Allowance,
    Brake,
    Deed,
    Inventory,
    Knowledge,
    Scene,
    Sighting,
    SightingState,
    Standing,
    Tally,
    Thing,
)
from purveyor_server.domain.policies import InventoryPolicy, OrphanMode

START = datetime(2026, 1, 1, tzinfo=UTC)
GRACE = timedelta(hours=3)
CAP, COUNT, PERCENT = 1, 2, 50.0
FILLERS = 4  # things that are always there and always known
HEAD = 100
THINGS = (
    Thing("database", "a", "u-a", 1, "ours"),
    Thing("database", "b", "u-b", 2, "ours"),
    Thing("role", "c", "u-c", 3, "ours"),
    Thing("database", "theirs", "u-t", 1, "theirs"),
    Thing("database", "late", "u-l", HEAD, "ours"),
)
IN_USE = Knowledge("READY", "instance t/i")


class Round(NamedTuple):
    """One sweep of a history: hours since the one before, what is there, what is known to the store (and what is by the time
    of the deed), and what stands in the way."""

    hours: int
    there: frozenset[int]
    known: frozenset[int]
    meanwhile: frozenset[int] = frozenset()
    broken: bool = False
    resume: bool = False
    freeze: str = ""
    recovering: bool = False


class Done(NamedTuple):
    """A deed of a history."""

    round: int
    thing: Thing
    deed: Deed


nasty = st.builds(
    Round,
    hours=st.sampled_from((0, 1, 3, 4)),
    there=st.frozensets(st.integers(0, len(THINGS) - 1), max_size=3),
    known=st.sampled_from((frozenset[int](), frozenset[int](), frozenset({0}))),
    meanwhile=st.sampled_from((frozenset[int](), frozenset({0, 1, 2, 3, 4}))),
    broken=st.sampled_from((False, False, False, True)),
    resume=st.booleans(),
    freeze=st.sampled_from(("", "", "", "reaping", "deletes", "all", "provider:main", "provider:other")),
    recovering=st.sampled_from((False, False, False, True)),
)
plain = st.builds(
    lambda hours, there: Round(hours, there, frozenset()),
    st.sampled_from((1, 3)),
    st.sampled_from((frozenset({0}), frozenset({0, 1}))),
)
histories = st.lists(st.one_of(plain, plain, nasty), min_size=1, max_size=8)
abilities = st.sampled_from((frozenset({Deed.QUARANTINE, Deed.REAP}), frozenset({Deed.REAP})))


def play(history: list[Round], can: frozenset[Deed], mode: OrphanMode = OrphanMode.REAP) -> list[Done]:
    """What the sweeps of a history do, by the rules under test."""
    policy = InventoryPolicy(mode=mode, grace=GRACE, cap=CAP, brake_count=COUNT, brake_percent=PERCENT)
    memory: dict[str, Sighting] = {}
    inventory: Inventory | None = None
    now, deeds = START, list[Done]()
    for number, sweep in enumerate(history):
        now += timedelta(hours=sweep.hours)
        if sweep.resume and inventory is not None and inventory.brake is not None:
            inventory = orphans.resumed(inventory)
        inventory = orphans.begun(inventory, "main", policy, 1, now)
        tally = Tally(owned=FILLERS)
        for index in sorted(sweep.there):
            thing, knowledge = THINGS[index], IN_USE if index in sweep.known else orphans.NOTHING
            tally.owned += 1
            tally.orphans += knowledge.standing is not Standing.KNOWN
            found = orphans.seen(memory.get(thing.name), "main", thing, knowledge, inventory.sweep, GRACE, now)
            if found is not None:
                memory[thing.name] = found
        inventory = orphans.listed(inventory, tally, "broken" if sweep.broken else "", policy, now)
        if not inventory.complete:
            continue
        for name, sighting in memory.items():
            if sighting.sweep < inventory.sweep and sighting.state in orphans.OPEN:
                memory[name] = replace(sighting, state=SightingState.GONE)
        room = CAP
        for name, sighting in sorted(memory.items()):
            index = THINGS.index(sighting.thing)
            scene = Scene(
                store="ours",
                now=now,
                head=HEAD,
                policy=policy,
                sweep=inventory.sweep,
                room=room,
                can=can,
                freezes=(Freeze(sweep.freeze, "why", "op", now),) if sweep.freeze else (),
                recovering=sweep.recovering,
                braked=inventory.brake is not None,
            )
            verdict = orphans.judge(
                sighting, IN_USE if index in sweep.known | sweep.meanwhile else orphans.NOTHING, scene
            )
            if verdict.deed is not Deed.NOTHING:
                room -= 1
                deeds.append(Done(number, sighting.thing, verdict.deed))
                memory[name] = orphans.done(sighting, verdict.deed, "", now)
    return deeds


def faults(history: list[Round], can: frozenset[Deed], deeds: list[Done]) -> list[str]:
    """What of these deeds was not allowed, told from the history alone."""
    times = [START + timedelta(hours=sum(sweep.hours for sweep in history[: n + 1])) for n in range(len(history))]
    found = []
    for done in deeds:
        sweep, index, now = history[done.round], THINGS.index(done.thing), times[done.round]
        if done.thing.store != "ours" or done.thing.revision >= HEAD:
            found.append("a marker that is not ours, or later than the store")
        if index not in sweep.there or index in sweep.known | sweep.meanwhile:
            found.append("not there, or in use")
        if sweep.broken or sweep.recovering or sweep.freeze not in {"", "provider:other"}:
            found.append("stopped")
        since = _seen_since(history, done.round, index)
        if len(since) < 2 or now - times[since[0]] < GRACE:
            found.append("not seen in two sweeps a grace apart")
        before = [d.round for d in deeds if d.thing == done.thing and d.round < done.round]
        if done.deed is Deed.REAP and Deed.QUARANTINE in can and (not before or now - times[before[-1]] < GRACE):
            found.append("not in quarantine for a grace period")
        if len([d for d in deeds if d.round == done.round]) > CAP:
            found.append("more than the cap")
        if _excess(sweep) and not any(_excess(one) and later.resume for one, later in _pairs(history, done.round)):
            found.append("too many orphans")
    return found


def _seen_since(history: list[Round], last: int, index: int) -> list[int]:
    """The sweeps that saw a thing without a record, up to `last`, without one between that saw it gone or known."""
    found: list[int] = []
    for number in range(last, -1, -1):
        sweep = history[number]
        if index in sweep.there and index not in sweep.known:
            found.insert(0, number)
        elif index in sweep.there or not sweep.broken:
            break
    return found


def _excess(sweep: Round) -> bool:
    strange = len(sweep.there - sweep.known)
    return strange > COUNT or strange * 100 > PERCENT * (FILLERS + len(sweep.there))


def _pairs(history: list[Round], last: int) -> list[tuple[Round, Round]]:
    """Each sweep with one that came later, up to `last`."""
    return [(history[a], history[b]) for a in range(last) for b in range(a + 1, last + 1)]


def quick(examples: int) -> settings:
    return settings(max_examples=examples, deadline=None, suppress_health_check=list(HealthCheck))


@quick(400)
@given(histories, abilities)
def test_no_deed_is_done_that_the_history_does_not_allow(history: list[Round], can: frozenset[Deed]) -> None:
    assert faults(history, can, play(history, can)) == []


@quick(300)
@given(histories, abilities)
def test_a_report_does_nothing_and_a_quarantine_never_reaps(history: list[Round], can: frozenset[Deed]) -> None:
    assert play(history, can, OrphanMode.REPORT) == []
    assert [d for d in play(history, can, OrphanMode.QUARANTINE) if d.deed is Deed.REAP] == []


def test_what_is_seen_often_enough_is_quarantined_and_then_reaped() -> None:
    history = [Round(4, frozenset({0}), frozenset()) for _ in range(4)]
    both, one = frozenset({Deed.QUARANTINE, Deed.REAP}), frozenset({Deed.REAP})
    assert [(d.round, d.deed) for d in play(history, both)][:2] == [(1, Deed.QUARANTINE), (2, Deed.REAP)]
    assert play(history, one)[0] == Done(1, THINGS[0], Deed.REAP)


def no_marker(*_: Any) -> str:
    return ""


def no_grace(sighting: Sighting, _grace: timedelta) -> bool:
    return sighting.sweeps >= 1


def no_cap(scene: Scene) -> Scene:
    return replace(scene, room=1)


CONTROLS: dict[str, Callable[[pytest.MonkeyPatch], None]] = {
    "a marker": lambda patch: patch.setattr(orphans, "is_ours", no_marker),
    "in use": lambda patch: patch.setattr(orphans, "is_used", no_marker),
    "stopped": lambda patch: patch.setattr(orphans, "stopping", lambda *_: None),
    "two sweeps": lambda patch: patch.setattr(Sighting, "confirmed", no_grace),
    "in quarantine": lambda patch: patch.setattr(
        orphans, "_after_quarantine", lambda _sighting, scene: orphans._reap(scene)
    ),
    "the cap": lambda patch: patch.setattr(orphans, "judge", _uncapped(orphans.judge)),
    "too many": lambda patch: patch.setattr(orphans, "excess", no_marker),
}


def _uncapped(judge: Callable[..., Any]) -> Callable[..., Any]:
    return lambda sighting, knowledge, scene: judge(sighting, knowledge, no_cap(scene))


@pytest.mark.parametrize("word", CONTROLS)
def test_a_rule_that_is_left_out_is_found(word: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Negative controls: without one of the rules a history is found that breaks it."""
    CONTROLS[word](monkeypatch)

    def broken(drawn: tuple[list[Round], frozenset[Deed]]) -> bool:
        history, can = drawn
        return any(word in fault for fault in faults(history, can, play(history, can)))

    try:
        find(st.tuples(histories, abilities), broken, settings=settings(quick(8000), phases=(Phase.generate,)))
    except NoSuchExample:
        pytest.fail(f"nobody noticed that {word!r} is not looked at")


def tally(owned: int, strange: int) -> Tally:
    return Tally(owned, strange)


@pytest.mark.parametrize(
    ("owned", "strange", "reference", "word"),
    [
        (0, 0, None, ""),
        (100, 10, None, ""),
        (100, 11, None, "percent"),
        (1, 1, None, "percent"),
        (300, 20, None, ""),
        (300, 21, None, "more than 20"),
        (51, 0, 100, ""),
        (50, 0, 100, "shrunk"),
        (0, 0, 10, "shrunk"),
        (0, 0, 9, ""),
    ],
)
def test_a_list_that_is_not_to_be_believed(owned: int, strange: int, reference: int | None, word: str) -> None:
    reason = orphans.excess(tally(owned, strange), InventoryPolicy(), reference, None)
    assert (word in reason) if word else reason == ""


def swept(before: Inventory | None, owned: int, strange: int, problem: str = "") -> Inventory:
    running = orphans.begun(before, "main", InventoryPolicy(), 1, START)
    return orphans.listed(running, tally(owned, strange), problem, InventoryPolicy(), START)


def test_a_brake_stays_until_an_operator_says_go_on_and_lets_pass_what_was_seen() -> None:
    first = swept(None, 100, 0)
    stopped = swept(first, 100, 30)
    assert stopped.brake == Brake("30 orphans are more than 20", START)
    assert swept(stopped, 100, 0).brake == stopped.brake
    go_on = orphans.resumed(stopped)
    assert (go_on.brake, go_on.allowance) == (None, Allowance(100, 30))
    within = swept(go_on, 100, 30)
    assert (within.brake, within.allowance) == (None, Allowance(100, 30))
    assert swept(within, 100, 31).brake is not None
    healed = swept(within, 100, 3)
    assert (healed.brake, healed.allowance) == (None, None)
    assert swept(healed, 100, 30).brake is not None


def test_a_shrunken_list_is_not_the_new_measure_until_somebody_says_so() -> None:
    stopped = swept(swept(None, 100, 0), 40, 0)
    assert stopped.brake is not None
    assert stopped.reference == 100
    go_on = orphans.resumed(stopped)
    assert go_on.reference == 40
    assert swept(go_on, 40, 0).brake is None
    assert swept(go_on, 20, 0).brake is not None


def test_a_list_that_breaks_off_stops_sweeps_and_one_that_never_began_does_not() -> None:
    assert "broke off after 3" in getattr(swept(None, 3, 0, "gone").brake, "reason", "")
    silent = swept(swept(None, 100, 0), 0, 0, "no answer")
    assert (silent.brake, silent.complete, silent.reference) == (None, False, 100)
    broken = orphans.resumed(swept(swept(None, 100, 0), 3, 3, "gone"))
    assert (broken.brake, broken.allowance, broken.reference) == (None, None, 100)


def test_what_comes_back_begins_anew_and_what_is_known_is_no_orphan() -> None:
    thing, later = THINGS[0], START + 2 * GRACE
    first = orphans.seen(None, "main", thing, orphans.NOTHING, 1, GRACE, START)
    assert first is not None
    again = orphans.seen(first, "main", thing, orphans.NOTHING, 2, GRACE, later)
    assert again is not None
    assert (again.state, again.sweeps) == (SightingState.CONFIRMED, 2)
    marked = orphans.seen(again, "main", replace(thing, revision=9), orphans.NOTHING, 3, GRACE, later)
    assert (getattr(marked, "state", None), getattr(marked, "sweeps", 0)) == (SightingState.SEEN, 1)
    reaped = orphans.done(again, Deed.REAP, "", later)
    back = orphans.seen(reaped, "main", thing, orphans.NOTHING, 4, GRACE, later)
    assert (getattr(back, "state", None), getattr(back, "failure", "")) == (
        SightingState.SEEN, "seen again after it was removed",
    )  # fmt: skip
    taken = orphans.seen(again, "main", thing, IN_USE, 5, GRACE, later)
    assert getattr(taken, "state", None) is SightingState.ADOPTED
    assert orphans.seen(None, "main", thing, IN_USE, 5, GRACE, later) is None
    kept = orphans.done(again, Deed.QUARANTINE, "", later)
    odd = orphans.seen(kept, "main", thing, IN_USE, 5, GRACE, later)
    assert getattr(odd, "state", None) is SightingState.QUARANTINED
    assert "release it" in getattr(odd, "failure", "")


@pytest.mark.parametrize(
    ("knowledge", "standing"),
    [
        (Knowledge(), Standing.UNKNOWN),
        (Knowledge("DELETED"), Standing.REMAINS),
        (Knowledge("DELETED", operations=("op",)), Standing.KNOWN),
        (Knowledge("", operations=("op",)), Standing.KNOWN),
        (Knowledge("FAILED"), Standing.KNOWN),
    ],
)
def test_what_the_store_says_of_a_uid(knowledge: Knowledge, standing: Standing) -> None:
    assert knowledge.standing is standing


def test_what_was_adopted_or_protected_is_never_acted_upon_by_itself() -> None:
    assert orphans.is_used(Knowledge("DELETED", exempt=True))
    assert not orphans.is_used(Knowledge("DELETED"))


def test_every_freeze_but_another_provider_s_stops_a_sweep() -> None:
    for name in (REAPING, DELETES, ALL, RECOVERY, "provider:main"):
        assert orphans.stopping((Freeze(name, "why", "op", START),), "main")
    assert not orphans.stopping((Freeze("provider:other", "why", "op", START),), "main")
