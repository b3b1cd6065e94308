"""What the numbers of a row amount to.

Guarantee: the quoted figure is the median over rounds of the ratio within one round, and its range is the lowest and the
highest round: nothing is left out, averaged away or taken from different rounds.
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
    """One round: what we measured, and the yardstick."""

    ours: float
    theirs: float

    def __post_init__(self) -> None:
        if not (self.ours > 0 and self.theirs > 0):
            raise ValueError(f"a measurement must be above zero: {self}")

    @property
    def ratio(self) -> float:
        """Ours over theirs."""
        return self.ours / self.theirs


@dataclass(frozen=True, slots=True)
class Result:
    """A measured row. `low` and `high` are the range over rounds of what is judged."""

    name: str
    unit: str
    value: float
    yardstick: float
    ratio: float
    low: float
    high: float
    rounds: int
    target: Target

    @property
    def figure(self) -> float:
        """What is judged."""
        return self.ratio if self.target.judged == "ratio" else self.value

    @property
    def verdict(self) -> str:
        """How it stands to the target."""
        return self.target.reached(self.figure)

    def as_json(self) -> dict[str, Any]:
        """One entry of build/bench.json."""
        return {
            "name": self.name,
            "value": self.value,
            "unit": self.unit,
            "yardstick": self.yardstick,
            "ratio": self.ratio,
            "low": self.low,
            "high": self.high,
            "better": self.target.better,
            "target": self.target.least,
            "stretch": self.target.stretch,
            "judged": self.target.judged,
            "rounds": self.rounds,
        }


def summarize(name: str, unit: str, target: Target, pairs: Sequence[Pair]) -> Result:
    """The result of a row's rounds; raises ValueError without any."""
    if not pairs:
        raise ValueError("no round was measured")
    judged = [pair.ratio if target.judged == "ratio" else pair.ours for pair in pairs]
    return Result(
        name=name,
        unit=unit,
        value=median(pair.ours for pair in pairs),
        yardstick=median(pair.theirs for pair in pairs),
        ratio=median(pair.ratio for pair in pairs),
        low=min(judged),
        high=max(judged),
        rounds=len(pairs),
        target=target,
    )
