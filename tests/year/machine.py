"""The state machine: any action after any other, by hypothesis.

Guarantee: a run that goes wrong fails with its story and its seed, both to be told again; hypothesis then looks for a
shorter one.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, rule

from tests.year import actions
from tests.year.actions import Action, FreezeName, Harm, Steering, Story
from tests.year.backend import Fault
from tests.year.catalogs import CHANGES
from tests.year.choosing import suited
from tests.year.habits import HABITS
from tests.year.house import DAY, SOUND
from tests.year.teller import Figures
from tests.year.telling import telling


def rounded(low: float, high: float) -> st.SearchStrategy[float]:
    """Seconds that are easily read."""
    return st.floats(low, high).map(lambda value: round(value, 2))


SECONDS = st.one_of(rounded(0.1, 10.0), rounded(10.0, 600.0), rounded(600.0, DAY), rounded(DAY, 30 * DAY))
CALLS = [
    "*",
    "quarantine",
    "reclaim",
    *(f"{kind}.{make}" for kind in ("role", "space", "login") for make in ("ensure", "absent")),
]


INSTANCES = st.sampled_from(["a", "b", "c"])
NUMBERS = st.integers(1, 6)
CHOICES = st.integers(0, 99)
PAUSES = st.sampled_from([0.0, 1.0, 3.0, 20.0, 60.0, 600.0, DAY])
TROUBLES: st.SearchStrategy[Action] = st.one_of(
    st.builds(actions.Plant, st.sampled_from(CALLS), st.sampled_from(sorted(Fault))),
    st.builds(actions.Plant, st.just("*"), st.sampled_from(sorted(Fault))),
    st.builds(actions.Crash, rounded(0.1, 300.0)),
    st.builds(actions.Crash, rounded(300.0, 2 * DAY)),
    st.builds(actions.CutAtCommit, st.integers(1, 6)),
    st.builds(actions.Outage, st.one_of(rounded(1.0, 60.0), rounded(60.0, 900.0))),
    st.builds(actions.Litter, st.sampled_from(["space", "login"]), st.booleans()),
    st.builds(actions.Stranger, st.sampled_from(["space", "login"]), st.booleans()),
    st.builds(actions.Tamper, st.sampled_from(["a", "b", "c"]), st.sampled_from(sorted(Harm))),
)


CAMPAIGNS: st.SearchStrategy[Action] = st.one_of(
    st.builds(
        actions.Campaign,
        st.sampled_from(["small", "large", "leased"]),
        st.sampled_from(["", "small", "large", "leased"]),
    ),
    st.builds(actions.Steer, st.sampled_from(sorted(Steering))),
)
FURNITURE = (
    actions.Provision("a", "leased", 1),
    actions.Wait(30.0),
    actions.Bind("a", "x"),
    actions.Wait(30.0),
    actions.Provision("b", "large", 2),
    actions.Wait(30.0),
)


class WrongError(AssertionError):
    """A story went wrong: what was found, the story, the seed of its chance."""

    def __init__(self, found: list[str], story: Story, seed: int) -> None:
        super().__init__(told(found, story, seed))
        self.found, self.story, self.seed = found, story, seed


def told(found: list[str], story: Story, seed: int) -> str:
    """What is to be said of a story that went wrong."""
    lines = [*found, f"in the story with the seed {seed}:", *(f"    {action}," for action in story)]
    return "\n".join(lines)


class Year(RuleBasedStateMachine):
    """A broker's year. `figures` of all runs are added up in the class, `spoil` is what all of them lack."""

    figures = Figures()
    spoil = SOUND

    def __init__(self) -> None:
        super().__init__()
        self._stack = ExitStack()
        self._broken = False

    @initialize(seed=st.integers(0, 2**32 - 1), furnished=st.integers(0, 3))
    def begin(self, seed: int, furnished: int) -> None:
        self.seed = seed
        self.told = self._stack.enter_context(telling(seed, self.spoil))
        self.figures["begun"] += 1
        for action in FURNITURE[: 2 * furnished]:
            self._do(action)

    def _do(self, action: Action) -> None:
        self.told.do(action)
        self._check()

    def _check(self) -> None:
        if self.told.wrong and not self._broken:
            self._broken = True
            raise WrongError(list(self.told.wrong), tuple(self.told.told), self.seed)

    @rule(choice=CHOICES, number=NUMBERS, after=PAUSES)
    def call_a(self, choice: int, number: int, after: float) -> None:
        self._call("a", choice, number, after)

    @rule(choice=CHOICES, number=NUMBERS, after=PAUSES)
    def call_b(self, choice: int, number: int, after: float) -> None:
        self._call("b", choice, number, after)

    @rule(choice=CHOICES, number=NUMBERS, after=PAUSES)
    def call_c(self, choice: int, number: int, after: float) -> None:
        self._call("c", choice, number, after)

    @rule(instance=INSTANCES, trouble=TROUBLES, choices=st.tuples(CHOICES, CHOICES), number=NUMBERS, after=PAUSES)
    def race(self, instance: str, trouble: Action, choices: tuple[int, int], number: int, after: float) -> None:
        """Two callers at once, while something goes wrong."""
        self._do(trouble)
        for choice in choices:
            self._do(suited(self.told.teller.ledger, instance, choice, number))
        self._do(actions.Wait(after or 0.5))

    def _call(self, instance: str, choice: int, number: int, after: float) -> None:
        """A caller does something that makes sense, mostly, and waits for a while."""
        self._do(suited(self.told.teller.ledger, instance, choice, number))
        if after:
            self._do(actions.Wait(after))

    @rule(seconds=SECONDS)
    def wait(self, seconds: float) -> None:
        self._do(actions.Wait(seconds))

    @rule(trouble=TROUBLES)
    def befall(self, trouble: Action) -> None:
        self._do(trouble)

    @rule(name=st.sampled_from(sorted(FreezeName)), thaw=st.booleans())
    def freeze(self, name: FreezeName, thaw: bool) -> None:  # noqa: FBT001 - hypothesis passes by name
        self._do(actions.Thaw(name) if thaw else actions.Freeze(name))

    @rule(change=st.sampled_from(CHANGES))
    def catalog(self, change: tuple[str, tuple[str, ...]]) -> None:
        self._do(actions.Apply(*change))

    @rule(order=CAMPAIGNS)
    def campaign(self, order: Action) -> None:
        self._do(order)

    @rule(habit=HABITS)
    def follow(self, habit: Story) -> None:
        for action in habit:
            self._do(action)

    def teardown(self) -> None:
        try:
            if hasattr(self, "told") and not self._broken:
                self.told.finish()
                self._count()
                self._check()
        finally:
            self._stack.close()

    def _count(self) -> None:
        teller = self.told.teller
        self.figures.update(teller.figures)
        counts: dict[str, Any] = {
            "runs": 1,
            "hours": int(teller.house.now / 3600),
            "expiries": teller.ledger.expiries,
            "moved": teller.ledger.moved,
            "reaped": teller.judge.reaped,
            "rotations": teller.ledger.rotations,
            "actions": len(self.told.told),
            "operations": teller.ledger.ended,
            "calls": teller.house.backend.calls,
            "logins": teller.judge.logins,
            "crashes": teller.house.crashes,
            "sweeps": sum(teller.house.rounds.values()),
        }
        self.figures.update(counts)
