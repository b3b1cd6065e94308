"""Which points a scenario passes, and which of them are worth a run.

Guarantee: every hit that a trace shows of a store command, a context call, an outside call or a piece is a target, the nth
hit of a point apart from the first. Left out, by name: commands that background loops send at times of their own (lease,
progress, retention), and of each labelled command the point without its label, which is the same moment.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

BACKGROUND = ("store.renew", "store.progress", "store.retain", "store.release", "store.wake", "store.apply_catalog",
              "store.put_meta")  # fmt: skip
FIRST_ONLY = ("store.claim",)  # how often it is sent depends on when the engine wakes up
MOMENTS = ("before", "during", "after")
LABELLED_PARTS = 4  # store.<command>.<label>.<moment>


class Target(NamedTuple):
    """Where to kill: the nth hit of a point in one phase of a scenario."""

    phase: int
    point: str
    nth: int

    @property
    def plan(self) -> str:
        """For `kit.failpoints`."""
        return f"{self.point}=kill:{self.nth}"

    @property
    def moment(self) -> str:
        """before, during or after."""
        return self.point.rpartition(".")[2]

    def __str__(self) -> str:
        return f"{self.point}:{self.nth}" + (f"@{self.phase}" if self.phase else "")


def targets(phase: int, trace: Iterable[str]) -> list[Target]:
    """The targets in a trace, in the order of their first hit."""
    lines = [line for line in trace if line]
    labelled = {line.rsplit(".", 2)[0] for line in lines if _is_labelled(line)}
    counts: Counter[str] = Counter()
    found = []
    for line in lines:
        command = line.rpartition(".")[0]
        if command in BACKGROUND or command in labelled:
            continue
        counts[line] += 1
        if counts[line] == 1 or command not in FIRST_ONLY:
            found.append(Target(phase, line, counts[line]))
    return found


def _is_labelled(line: str) -> bool:
    return line.startswith("store.") and len(line.split(".")) == LABELLED_PARTS


def stratified(found: Sequence[Target], count: int, first: int, chance: random.Random) -> list[Target]:
    """A sample of `count` targets, in the order of `found`: moments in turn, beginning with number `first`."""
    left = {moment: [target for target in found if target.moment == moment] for moment in MOMENTS}
    chosen: set[Target] = set()
    for turn in range(first, first + len(MOMENTS) * count):
        candidates = left[MOMENTS[turn % len(MOMENTS)]]
        if candidates and len(chosen) < count:
            target = chance.choice(candidates)
            candidates.remove(target)
            chosen.add(target)
    return [target for target in found if target in chosen]
