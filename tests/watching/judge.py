"""What a watcher was told, held against every event that was committed.

Guarantee: an event that the watcher's filter wants, committed after its beginning, is MISSED unless it was told or lies in a
stretch that the broker said was lost; told twice it is REPEATED, before an older one DISORDERED, unwanted or with another
content WRONG. The picture of who began with a snapshot must be the store's own in the end.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from enum import StrEnum
from typing import NamedTuple

from tests.watching.house import Fact

KINDS = ("INSTANCE", "BINDING", "OPERATION")


class Fault(StrEnum):
    """What a problem is counted as."""

    MISSED = "missed"
    REPEATED = "repeated"
    DISORDERED = "disordered"
    WRONG = "wrong"


class Problem(NamedTuple):
    """Something wrong, in words."""

    fault: Fault
    text: str


class Wish(NamedTuple):
    """What a watcher asks for."""

    tenant: str
    kinds: tuple[str, ...] = KINDS
    instance_id: str = ""

    def wants(self, fact: Fact) -> bool:
        """Whether it is for this watcher."""
        wanted = fact.tenant == self.tenant and fact.kind in self.kinds
        return wanted and self.instance_id in {"", fact.instance_id}


@dataclass
class Story:
    """What one watcher went through. `unsure` are stretches (after, up to] of which it may have been told or not: where it
    began, and what the broker said was lost."""

    name: str
    wish: Wish
    told: list[Fact] = field(default_factory=list)
    unsure: list[tuple[int, int]] = field(default_factory=list)
    floor: int = 0  # nothing up to here may be told
    until: int = 0  # everything up to here must be told
    picture: dict[str, Fact] | None = None  # by uid, of who begins with snapshots
    path: list[str] = field(default_factory=list)  # how it went, for whoever looks into a problem

    @property
    def last(self) -> int:
        """The newest revision that it was told."""
        return self.told[-1].revision if self.told else self.floor

    def tell(self, fact: Fact) -> None:
        """An event came."""
        self.told.append(fact)
        self.show(fact)

    def show(self, fact: Fact) -> None:
        """A record's state came, by an event or in a snapshot: the higher version is the newer one."""
        if self.picture is None or fact.kind == "OPERATION":
            return
        known = self.picture.get(fact.uid)
        if known is None or fact.version >= known.version:
            self.picture[fact.uid] = fact


def judge(story: Story, facts: Sequence[Fact], living: Iterable[Fact] | None) -> list[Problem]:
    """Everything wrong with a story; `living` is what the store holds in the end, None when it did not come to rest."""
    problems = [*_events(story, facts), *_order(story)]
    if story.picture is not None and living is not None:
        problems += _picture(story, story.picture, living)
    return [Problem(found.fault, f"{story.name}: {found.text}") for found in problems]


def _events(story: Story, facts: Sequence[Fact]) -> Iterable[Problem]:
    told = {fact.revision for fact in story.told}
    for fact in facts[story.floor : story.until]:
        if fact.revision not in told and story.wish.wants(fact) and not _is_unsure(story, fact.revision):
            yield Problem(Fault.MISSED, f"{fact} was never told")
    for fact in story.told:
        known = facts[fact.revision - 1] if 0 < fact.revision <= len(facts) else None
        if fact != known or not story.wish.wants(fact) or fact.revision <= story.floor:
            yield Problem(Fault.WRONG, f"{fact} was told, {known} was committed, wanted is {story.wish}")


def _is_unsure(story: Story, revision: int) -> bool:
    return any(after < revision <= up_to for after, up_to in story.unsure)


def _order(story: Story) -> Iterable[Problem]:
    seen: set[int] = set()
    newest = 0
    for fact in story.told:
        if fact.revision in seen:
            yield Problem(Fault.REPEATED, f"{fact} was told again")
        elif fact.revision < newest:
            yield Problem(Fault.DISORDERED, f"{fact} was told after {newest}")
        seen.add(fact.revision)
        newest = max(newest, fact.revision)


def _picture(story: Story, picture: dict[str, Fact], living: Iterable[Fact]) -> Iterable[Problem]:
    real = {fact.uid: fact for fact in living if story.wish.wants(fact)}
    shown = {uid: fact for uid, fact in picture.items() if fact.state != "DELETED"}
    for uid in real.keys() | shown.keys():
        one, other = real.get(uid), shown.get(uid)
        if one is None or other is None or (one.version, one.state) != (other.version, other.state):
            yield Problem(Fault.MISSED, f"the picture has {other}, the store {one}")
