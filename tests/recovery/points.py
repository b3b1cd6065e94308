"""Which points a scenario passes, and which of them are worth a run.

Guarantee: every hit that a trace shows of a store command, a context call, an outside call or a settle is a target, the nth
hit of a point apart from the first. Left out because they cannot differ from a target, or change nothing that a restart
reads: a labelled command's point without its label (the same moment), the points around a whole piece (between the store
command before and the outside call after them nothing happens), lease renewals and progress (void after a restart), and what the broker's loops note whenever they come by.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Iterable, Sequence
from typing import NamedTuple

# A sweep, and a look at a backend, write what the next one writes as well.
SWEEPS = "see|change_inventory|lose_sightings|forget_sightings|observe"
BACKGROUND = re.compile(rf"store\.(renew|progress|wake|{SWEEPS})|piece\.\w+\.(ensure|absent)")
FIRST_ONLY = ("store.claim", "store.retain")  # how often they are sent depends on when somebody wakes up
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
        if BACKGROUND.fullmatch(command) or command in labelled:
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
