"""Drift: what a look at a backend says of an instance, and what is made of it.

Guarantee: pure. One look that finds nothing is no proof: the instance is UNKNOWN until a second look says so too, and only then
MISSING. A look that failed says nothing: what was IN_SYNC becomes UNKNOWN, what was found DRIFTED or MISSING stays so. Nothing
here deletes anything.
Limit: a look is a picture of one moment.
Source: DESIGN.md sections 4 and 10.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec

from purveyor_server.domain.states import Drift

LOOKS = 2  # that have to find nothing before an instance is MISSING
MAX_DIFFERENCES = 50
MAX_TEXT = 500  # characters of a difference or a problem


class Look(msgspec.Struct, frozen=True):
    """One look. `seen` None: it failed, and `problem` says why, in words for operators."""

    seen: Drift | None
    differences: tuple[str, ...] = ()
    problem: str = ""
    supported: bool = True  # False: the provider cannot look at all


class Pace(msgspec.Struct, frozen=True):
    """When to look again: after a look that settled something, and after one that needs a second."""

    every: timedelta = timedelta(minutes=10)
    confirm: timedelta = timedelta(minutes=1)


class Observation(msgspec.Struct, frozen=True, kw_only=True):
    """What the looks at one incarnation of an instance have come to.

    `drift` is what the instance's record says too; `since` is when it became so; `observed_at` is the last look that was
    answered. `misses` counts looks in a row that found nothing.
    """

    uid: str
    tenant: str
    instance_id: str
    drift: Drift = Drift.UNKNOWN
    differences: tuple[str, ...] = ()
    problem: str = ""
    supported: bool = True
    misses: int = 0
    looked_at: datetime | None = None
    observed_at: datetime | None = None
    since: datetime
    look_at: datetime  # when the next look is wanted

    @property
    def listed(self) -> bool:
        """Whether operators should see it: whatever is not in order, or cannot be told."""
        if not self.supported or self.drift is Drift.IN_SYNC:
            return False
        return self.drift is not Drift.UNKNOWN or bool(self.misses or self.problem)


def judge(before: Observation, look: Look, now: datetime, pace: Pace) -> Observation:
    """What the looks have come to after one more, taken at `now`."""
    misses = before.misses
    if look.seen is not None:
        misses = before.misses + 1 if look.seen is Drift.MISSING else 0
    drift = _drift(before, look, misses)
    unsure = look.seen is Drift.MISSING and drift is not Drift.MISSING
    return msgspec.structs.replace(
        before,
        drift=drift,
        differences=_bounded(look.differences) if look.seen is not None else before.differences,
        problem=look.problem[:MAX_TEXT],
        supported=look.supported,
        misses=misses,
        looked_at=now,
        observed_at=now if look.seen is not None else before.observed_at,
        since=now if drift is not before.drift else before.since,
        look_at=now + (min(pace.confirm, pace.every) if unsure else pace.every),
    )


def _drift(before: Observation, look: Look, misses: int) -> Drift:
    if look.seen is None:
        return before.drift if before.drift in {Drift.DRIFTED, Drift.MISSING} else Drift.UNKNOWN
    if look.seen is Drift.MISSING and misses < LOOKS:
        return Drift.UNKNOWN
    return look.seen


def _bounded(differences: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(text[:MAX_TEXT] for text in differences[:MAX_DIFFERENCES])


def first(uid: str, tenant: str, instance_id: str, now: datetime) -> Observation:
    """Before the first look."""
    return Observation(uid=uid, tenant=tenant, instance_id=instance_id, since=now, look_at=now)
