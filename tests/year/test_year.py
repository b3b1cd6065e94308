"""The short form of `make verify-year`, its planted faults, and the parts that its verdict rests on."""

from __future__ import annotations

import asyncio

import pytest

from tests.year.actions import Action, Bind, Crash, CutAtCommit, Deprovision, Provision, Use, Wait
from tests.year.controls import CONTROLS, Control, check
from tests.year.house import DAY, SOUND, Spoil
from tests.year.mutants import MUTANTS
from tests.year.shrinking import shortest
from tests.year.suite import Batch, Hunt, Options, Suite, hunt, run_batch
from tests.year.telling import tell, telling
from tests.year.virtual import StuckError, YearLoop, pass_time


def test_stories_go_well() -> None:
    batch = run_batch(1, 15)

    assert batch.wrong == ""
    assert batch.figures["runs"] >= 15
    assert batch.figures["operations"] > 50


@pytest.mark.parametrize("control", CONTROLS, ids=lambda control: control.name)
def test_a_planted_fault_is_found(control: Control) -> None:
    verdict = check(control)

    assert verdict.sound == []
    assert verdict.found, verdict.planted


def test_the_same_seed_tells_the_same_story() -> None:
    story = (Provision("a"), Wait(2.0), Crash(10.0), Bind("a", "x"), CutAtCommit(2), Wait(DAY), Use(), Deprovision("a"))

    def marks() -> tuple[float, int, list[str]]:
        with telling(5) as told:
            for action in story:
                told.do(action)
            told.finish()
            house = told.teller.house
            return house.now, house.backend.calls, sorted(told.teller.ledger.resources)

    assert marks() == marks()


def test_a_story_that_goes_wrong_is_made_shorter() -> None:
    story = CONTROLS[0].story
    padding: tuple[Action, ...] = (Use(), Wait(5.0), Provision("c"), Wait(60.0))
    spoil = CONTROLS[0].spoil

    short = shortest(padding + story + padding, lambda one: tell(one, 7, spoil) != [] and tell(one, 7, SOUND) == [])

    assert 0 < len(short) <= len(story)


def test_random_stories_catch_a_mutant() -> None:
    found = hunt([mutant.name for mutant in MUTANTS].index("a sweep does not ask what is known"), 500, 50)

    assert "is made unusable" in found.words
    assert found.stories < 50


def test_the_last_line_says_what_was_wrong() -> None:
    suite = Suite(Options(), print)
    suite._take(Batch(3, {"runs": 4, "hours": 48, "operations": 9}, "it went wrong"))

    assert "runs=4 days=2 operations=9" in suite.summary
    assert "violations=1" in suite.summary
    assert not suite.clean
    assert "mutants" not in suite.summary


def test_the_last_line_says_which_mutants_were_caught() -> None:
    suite = Suite(Options(hunt=5), print)
    suite._catch(Hunt("one", "it went wrong", 3))
    suite._catch(Hunt("other", "", 5))

    assert "mutants=2 caught=1 " in suite.summary


def test_a_loop_switched_off_makes_no_round() -> None:
    with telling(1, Spoil(loops=frozenset({"expiry"}))) as told:
        told.do(Wait(10 * DAY))
        assert told.teller.house.rounds["expiry"] == 0
        assert told.teller.house.rounds["rotation"] > 0


def test_simulated_time_passes_without_waiting() -> None:
    loop = YearLoop()
    try:
        loop.run(pass_time(365 * DAY))
        assert loop.time() == pytest.approx(365 * DAY)
    finally:
        loop.close()


@pytest.mark.parametrize("never_rests", [False, True])
def test_a_world_that_stands_still_or_never_rests_is_found(*, never_rests: bool) -> None:
    def again() -> None:
        asyncio.get_running_loop().call_soon(again)

    async def spin() -> None:
        if never_rests:
            again()
        await asyncio.get_running_loop().create_future()

    loop = YearLoop()
    try:
        with pytest.raises(StuckError):
            loop.run(spin())
        for task in asyncio.all_tasks(loop):
            task.cancel()
        loop.run(pass_time(0.0))  # the cancelled task ends
    finally:
        loop.close()
