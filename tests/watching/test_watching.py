"""The short form of `make verify-watch`, and the judge on stories that are known to be wrong.

The numbers are printed; the seed changes who does what. The long form has more of everything.
"""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

from tests.watching.house import Fact
from tests.watching.judge import Fault, Story, Wish, judge
from tests.watching.suite import Options, Suite

SEED = int(os.environ.get("WATCH_SEED", "1"))


@pytest.mark.crash
@pytest.mark.slow
async def test_nothing_is_missed_or_told_twice() -> None:
    options = Options(seconds=5.0, watchers=12, writers=4, restart_every=2.0, kept=100, seed=SEED, verbs=frozenset())
    suite = Suite(options, print)
    print(f"seed {SEED} (WATCH_SEED)")

    await suite.run()

    print(suite.summary)
    assert suite.problems == []
    assert (suite.planted, suite.found) == (5, 5)
    assert suite.clean


def fact(revision: int, kind: str = "INSTANCE", state: str = "READY", version: int = 1) -> Fact:
    return Fact(revision, kind, "t", "i", f"u{revision}", state, version)


FACTS = [fact(revision) for revision in range(1, 7)]


def story(told: list[Fact], **fields: object) -> Story:
    made = Story("w", Wish("t"), until=6)
    for name, value in fields.items():
        setattr(made, name, value)
    for one in told:
        made.tell(one)
    return made


def faults(of: Story, living: list[Fact] | None = None) -> list[Fault]:
    return [problem.fault for problem in judge(of, FACTS, living)]


def test_a_story_that_is_right_has_no_problem() -> None:
    assert faults(story(FACTS)) == []
    assert faults(story(FACTS[3:], floor=2, unsure=[(2, 3)])) == []
    assert faults(story(FACTS[:2] + FACTS[4:], unsure=[(2, 4)])) == []


@pytest.mark.parametrize(
    ("made", "found"),
    [
        (lambda: story(FACTS[:2] + FACTS[3:]), Fault.MISSED),
        (lambda: story(FACTS[:3] + FACTS[2:]), Fault.REPEATED),
        (lambda: story([FACTS[1], FACTS[0], *FACTS[2:]]), Fault.DISORDERED),
        (lambda: story([*FACTS[:5], FACTS[5]._replace(state="FAILED")]), Fault.WRONG),
        (lambda: story(FACTS, floor=1), Fault.WRONG),
        (lambda: story([*FACTS, fact(9)]), Fault.WRONG),
    ],
    ids=("left out", "twice", "turned round", "changed", "before its beginning", "made up"),
)
def test_a_story_that_is_wrong_is_found(made: Callable[[], Story], found: Fault) -> None:
    assert faults(made()) == [found]


def test_a_picture_must_be_the_stores() -> None:
    living = [one._replace(revision=0) for one in FACTS]
    assert faults(story(FACTS, picture={}), living) == []
    assert faults(story(FACTS, picture={}), living[1:]) == [Fault.MISSED]
    assert faults(story(FACTS, picture={}), [*living[1:], living[0]._replace(version=2)]) == [Fault.MISSED]
