"""What the numbers of a row amount to.

Guarantee: the quoted figure is the median over rounds of the ratio within one round, and its range is the lowest and the
highest round: nothing is left out, averaged away or taken from different rounds. A figure without a yardstick has no ratio
and is judged by its value; one without a target is told and not judged.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Any, Literal

Better = Literal["higher", "lower"]
Judged = Literal["ratio", "value"]


@dataclass(frozen=True, slots=True)
class Target:
    """What a row should reach. `judged` says whether that is the ratio to the yardstick or our own value."""

    least: float
    stretch: float
    better: Better = "higher"
    judged: Judged = "ratio"

    def reached(self, figure: float) -> str:
        """`stretch`, `met` or `missed`."""
        sign = 1 if self.better == "higher" else -1
        if sign * figure >= sign * self.stretch:
            return "stretch"
        return "met" if sign * figure >= sign * self.least else "missed"


@dataclass(frozen=True, slots=True)
class Pair:
    """One round: what we measured, and the yardstick when there is one. Without it a zero is a count of failures."""

    ours: float
    theirs: float | None = None

    def __post_init__(self) -> None:
        if self.theirs is None:
            if self.ours < 0:
                raise ValueError(f"a count must not be below zero: {self}")
        elif not (self.ours > 0 and self.theirs > 0):
            raise ValueError(f"a measurement must be above zero: {self}")

    @property
    def ratio(self) -> float | None:
        """Ours over theirs."""
        return None if self.theirs is None else self.ours / self.theirs


@dataclass(frozen=True, slots=True)
class Result:
    """A measured row. `low` and `high` are the range over rounds of what is judged."""

    name: str
    unit: str
    value: float
    yardstick: float | None
    ratio: float | None
    low: float
    high: float
    rounds: int
    target: Target | None

    @property
    def judged(self) -> Judged:
        """What the range is of."""
        return "value" if self.target is None or self.ratio is None else self.target.judged

    @property
    def figure(self) -> float:
        """What is judged."""
        return self.value if self.judged == "value" or self.ratio is None else self.ratio

    @property
    def verdict(self) -> str:
        """How it stands to the target."""
        return "told" if self.target is None else self.target.reached(self.figure)

    def as_json(self) -> dict[str, Any]:
        """One entry of build/bench.json."""
        target = self.target
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "yardstick": self.yardstick,
            "ratio": self.ratio,
            "low": self.low,
            "high": self.high,
            "better": "lower" if target is None else target.better,
            "target": None if target is None else target.least,
            "stretch": None if target is None else target.stretch,
            "judged": self.judged,
            "rounds": self.rounds,
        }


def summarize(name: str, unit: str, target: Target | None, pairs: Sequence[Pair]) -> Result:
    """The result of a row's rounds; raises ValueError without any, and when only some have a yardstick."""
    if not pairs:
        raise ValueError("no round was measured")
    theirs = [pair.theirs for pair in pairs if pair.theirs is not None]
    ratios = [pair.ratio for pair in pairs if pair.ratio is not None]
    if len(theirs) not in {0, len(pairs)}:
        raise ValueError(f"{len(theirs)} of {len(pairs)} rounds have a yardstick")
    if not ratios and target is not None and target.judged == "ratio":
        raise ValueError("a ratio is to be judged and there is no yardstick")
    by_ratio = target is not None and target.judged == "ratio"
    judged = ratios if by_ratio else [pair.ours for pair in pairs]
    return Result(
        name=name,
        unit=unit,
        value=median(pair.ours for pair in pairs),
        yardstick=median(theirs) if theirs else None,
        ratio=median(ratios) if ratios else None,
        low=min(judged),
        high=max(judged),
        rounds=len(pairs),
        target=target,
    )
