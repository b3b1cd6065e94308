"""Orphans: what a sweep has seen in a backend that no record stands for, and what may be done with it.

Guarantee: pure. Nothing is acted upon unless all of it holds: it bears our store's marker, the store knows neither a record
nor an unfinished operation of its uid, its marker is older than the store's newest revision, it was seen in two sweeps at
least a grace period apart and in this one, the policy says so, no freeze, recovery or brake stops it, and the sweep has not
done its share. What is not known for certain counts as in use.
Limit: time is the clock's: one that jumps ahead shortens the grace to two sweeps.
Source: DESIGN.md section 10.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from purveyor_server.domain.freezes import ALL, DELETES, PROVIDER, REAPING, RECOVERY, Freeze
from purveyor_server.domain.policies import InventoryPolicy, OrphanMode
from purveyor_server.domain.states import InstanceState

TWICE = 2  # sweeps
SHRINK_FLOOR = 10  # things; of a shorter list one orphan is more than the standard percentage anyway


class SightingState(StrEnum):
    """How far a thing without a record has come. The last three are ends: seen again, it begins anew."""

    SEEN = "SEEN"
    CONFIRMED = "CONFIRMED"  # in two sweeps, a grace period apart
    QUARANTINED = "QUARANTINED"  # unusable, kept
    IGNORED = "IGNORED"  # an operator said so
    REAPED = "REAPED"  # removed
    GONE = "GONE"  # not there any more
    ADOPTED = "ADOPTED"  # a record stands for it now


ENDED = frozenset({SightingState.REAPED, SightingState.GONE, SightingState.ADOPTED})
OPEN = frozenset(SightingState) - ENDED


class Standing(StrEnum):
    """What the store says of a uid."""

    KNOWN = "KNOWN"  # a record, or an unfinished operation
    REMAINS = "REMAINS"  # a tombstone: it should have gone with its record
    UNKNOWN = "UNKNOWN"


class Knowledge(msgspec.Struct, frozen=True):
    """What the store has of a uid: the state and name of its record, unfinished operations, whether what it
    left is to be kept."""

    state: str = ""
    resource: str = ""
    operations: tuple[str, ...] = ()
    exempt: bool = False

    @property
    def standing(self) -> Standing:
        """In one word."""
        if self.operations or self.state not in {"", InstanceState.DELETED}:
            return Standing.KNOWN
        return Standing.REMAINS if self.state else Standing.UNKNOWN


NOTHING = Knowledge()


class Thing(msgspec.Struct, frozen=True):
    """A thing in a backend and what its marker says: whose it is, its uid, and the newest revision when it was marked."""

    kind: str
    name: str
    uid: str
    revision: int
    store: str


class SightingKey(msgspec.Struct, frozen=True):
    """A thing without a record, by the name it has in its backend."""

    provider: str
    kind: str
    name: str


class Sighting(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a thing that no record stands for. `sweeps` have seen it, the last one was number `sweep`."""

    provider: str
    thing: Thing
    standing: Standing
    state: SightingState = SightingState.SEEN
    first_seen: datetime
    last_seen: datetime
    sweep: int
    sweeps: int = 1
    quarantined_at: datetime | None = None
    tried_at: datetime | None = None  # when something was last done to it
    failure: str = ""  # why that did not work, or what is odd about it

    @property
    def key(self) -> SightingKey:
        """Its name."""
        return SightingKey(self.provider, self.thing.kind, self.thing.name)

    def confirmed(self, grace: timedelta) -> bool:
        """Seen in two sweeps, far enough apart."""
        return self.sweeps >= TWICE and self.last_seen - self.first_seen >= grace


class Brake(msgspec.Struct, frozen=True):
    """Why sweeps of a provider do nothing until an operator says go on."""

    reason: str
    at: datetime


class Allowance(msgspec.Struct, frozen=True):
    """What an operator has seen and let pass: so many things, so many of them orphans. More, or fewer things, brake again."""

    owned: int
    orphans: int


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What is remembered of a provider's sweeps: the last one, and what stops them.

    `reference` is the number of things in the last complete list that was believed, None for never. `later` is the highest
    revision of a marker that the broker froze for.
    """

    provider: str
    sweep: int = 0
    epoch: int = 0  # of the store, when it began
    mode: OrphanMode = OrphanMode.REPORT
    began_at: datetime
    ended_at: datetime | None = None
    complete: bool = False
    problem: str = ""  # why the list broke off
    owned: int = 0
    orphans: int = 0  # of them, without those that are ignored
    quarantined: int = 0  # by this sweep
    reaped: int = 0
    failed: int = 0
    reference: int | None = None
    brake: Brake | None = None
    allowance: Allowance | None = None
    later: int = -1


class Tally(msgspec.Struct):
    """What a list has shown so far. `later` is the highest revision that is not older than the store, -1 for none."""

    owned: int = 0
    orphans: int = 0
    later: int = -1


def begun(before: Inventory | None, provider: str, policy: InventoryPolicy, epoch: int, now: datetime) -> Inventory:
    """The next sweep of a provider."""
    if before is None:
        return Inventory(provider=provider, sweep=1, epoch=epoch, mode=policy.mode, began_at=now)
    return Inventory(
        provider=provider,
        sweep=before.sweep + 1,
        epoch=epoch,
        mode=policy.mode,
        began_at=now,
        reference=before.reference,
        brake=before.brake,
        allowance=before.allowance,
        later=before.later,
    )


def listed(running: Inventory, tally: Tally, problem: str, policy: InventoryPolicy, now: datetime) -> Inventory:
    """A sweep whose list has ended, with `problem` before its end. A brake that is on stays on."""
    complete = not problem
    found = replace(running, owned=tally.owned, orphans=tally.orphans, complete=complete, problem=problem)
    reason = _broken_off(tally, problem) if problem else excess(tally, policy, running.reference, running.allowance)
    if reason and running.brake is None:
        found = replace(found, brake=Brake(reason, now))
    if complete and found.brake is None:
        kept = running.allowance if excess(tally, policy, running.reference, None) else None
        found = replace(found, reference=tally.owned, allowance=kept)
    return found


def _broken_off(tally: Tally, problem: str) -> str:
    """A backend that does not answer at all stops this sweep alone: the next one finds it again, or does not."""
    return f"the list broke off after {tally.owned} things: {problem}" if tally.owned else ""


def excess(tally: Tally, policy: InventoryPolicy, reference: int | None, allowance: Allowance | None) -> str:
    """Why a complete list is not to be believed; "" when it is."""
    let_pass = allowance is not None and tally.orphans <= allowance.orphans
    if tally.orphans and not let_pass:
        if tally.orphans > policy.brake_count:
            return f"{tally.orphans} orphans are more than {policy.brake_count}"
        if tally.orphans * 100 > policy.brake_percent * tally.owned:
            return f"{tally.orphans} orphans of {tally.owned} things are more than {policy.brake_percent:g} percent"
    shrunk = reference is not None and reference >= SHRINK_FLOOR and 2 * tally.owned <= reference
    if shrunk and not (allowance is not None and tally.owned >= allowance.owned):
        return f"the list has shrunk from {reference} to {tally.owned} things"
    return ""


def resumed(stopped: Inventory) -> Inventory:
    """The brake is off: what the last sweep has shown may pass, more may not."""
    if not stopped.complete:
        return replace(stopped, brake=None)
    return replace(stopped, brake=None, reference=stopped.owned, allowance=Allowance(stopped.owned, stopped.orphans))


def seen(
    before: Sighting | None,
    provider: str,
    thing: Thing,
    knowledge: Knowledge,
    sweep: int,
    grace: timedelta,
    now: datetime,
) -> Sighting | None:
    """What is remembered after a sweep has seen a thing; None when nothing is to be."""
    standing = knowledge.standing
    if standing is Standing.KNOWN:
        return _known(before, now, sweep)
    if before is None or before.state in ENDED or before.thing != thing:
        again = "seen again after it was removed" if _came_back(before, thing) else ""
        return Sighting(
            provider=provider,
            thing=thing,
            standing=standing,
            first_seen=now,
            last_seen=now,
            sweep=sweep,
            failure=again,
        )
    if before.standing is Standing.KNOWN:  # in quarantine while a record stood for it: its time begins anew
        anew = replace(before, standing=standing, first_seen=now, last_seen=now, sweep=sweep, sweeps=1, failure="")
        return replace(anew, quarantined_at=now)
    sweeps = before.sweeps + (before.sweep != sweep)
    found = replace(before, standing=standing, last_seen=now, sweep=sweep, sweeps=sweeps)
    if found.state is SightingState.SEEN and found.confirmed(grace):
        return replace(found, state=SightingState.CONFIRMED)
    return found


def under_review(found: Sighting) -> Sighting:
    """A sighting of a store that was put back, before an operator has said go on: its grace begins with the last of these."""
    early = found.state in {SightingState.SEEN, SightingState.CONFIRMED}
    return replace(found, state=SightingState.SEEN, first_seen=found.last_seen, sweeps=1) if early else found


def _came_back(before: Sighting | None, thing: Thing) -> bool:
    return before is not None and before.state is SightingState.REAPED and before.thing == thing


def _known(before: Sighting | None, now: datetime, sweep: int) -> Sighting | None:
    """A record stands for it: what was quarantined stays shown until an operator releases it."""
    if before is None or before.state in ENDED:
        return None
    if before.state is SightingState.QUARANTINED:
        odd = "a record stands for it, and it is quarantined: release it"
        return replace(before, standing=Standing.KNOWN, last_seen=now, sweep=sweep, failure=odd)
    return replace(before, standing=Standing.KNOWN, state=SightingState.ADOPTED, last_seen=now, sweep=sweep, failure="")


class Deed(StrEnum):
    """What is done to an orphan."""

    NOTHING = "NOTHING"
    QUARANTINE = "QUARANTINE"
    RELEASE = "RELEASE"
    REAP = "REAP"


class Verdict(msgspec.Struct, frozen=True):
    """What a sweep may do now, or why it does nothing."""

    deed: Deed
    why: str = ""


class Scene(msgspec.Struct, frozen=True, kw_only=True):
    """All that a judgement looks at besides the thing itself. `head` is the store's newest revision, `room` how much more this
    sweep may do, `can` what the provider is able to."""

    store: str
    now: datetime
    head: int
    policy: InventoryPolicy
    sweep: int
    room: int
    can: frozenset[Deed]
    freezes: tuple[Freeze, ...] = ()
    recovering: bool = False
    braked: bool = False


def judge(sighting: Sighting, knowledge: Knowledge, scene: Scene) -> Verdict:
    """What a sweep may do with one thing."""
    held = is_ours(sighting, scene) or is_used(knowledge) or is_stopped(sighting, scene) or is_early(sighting, scene)
    if held:
        return Verdict(Deed.NOTHING, held)
    if sighting.state is SightingState.QUARANTINED:
        return _after_quarantine(sighting, scene)
    if Deed.QUARANTINE in scene.can:
        return Verdict(Deed.QUARANTINE)
    return _reap(scene)


def is_ours(sighting: Sighting, scene: Scene) -> str:
    """Why its marker forbids it: another store's, or one that is not older than this store."""
    if sighting.thing.store != scene.store or not sighting.thing.uid:
        return "it does not bear this store's marker"
    return (
        "it is marked later than the store's newest revision" if is_later(sighting.thing.revision, scene.head) else ""
    )


def is_later(revision: int, head: int) -> bool:
    """Whether the store was put back to a time before the thing was made.

    A marker carries the newest revision that its operation was accepted at, before its own event: so in the store that
    accepted it there is always a later one.
    """
    return revision >= head


def is_used(knowledge: Knowledge) -> str:
    """Why the store forbids it."""
    if knowledge.standing is Standing.KNOWN:
        return "the store has a record or an operation of it"
    return "its instance was adopted, protected from deletion, or left alone" if knowledge.exempt else ""


def is_stopped(sighting: Sighting, scene: Scene) -> str:
    """Which stop, or which policy, forbids it."""
    if scene.recovering:
        return "the store is being recovered"
    if stop := stopping(scene.freezes, sighting.provider):
        return f"frozen: {stop.name}: {stop.reason}"
    if scene.braked:
        return "the sweeps of its provider are stopped"
    if scene.room <= 0:
        return "the sweep has done its share"
    return "the policy is REPORT" if scene.policy.mode is OrphanMode.REPORT else ""


def is_early(sighting: Sighting, scene: Scene) -> str:
    """Why its time has not come."""
    if sighting.state not in {SightingState.CONFIRMED, SightingState.QUARANTINED}:
        return f"it is {sighting.state}"
    if sighting.sweep != scene.sweep:
        return "this sweep has not seen it"
    return "" if sighting.confirmed(scene.policy.grace) else "it was not seen in two sweeps a grace period apart"


def stopping(freezes: Iterable[Freeze], provider: str) -> Freeze | None:
    """The freeze that keeps sweeps of a provider from doing anything."""
    names = {REAPING, DELETES, ALL, RECOVERY, PROVIDER + provider}
    return next((freeze for freeze in freezes if freeze.name in names), None)


def forbidding(freezes: Iterable[Freeze], provider: str) -> Freeze | None:
    """The freeze that keeps everybody from outside calls to a provider."""
    return next((freeze for freeze in freezes if freeze.name in {ALL, PROVIDER + provider}), None)


def _after_quarantine(sighting: Sighting, scene: Scene) -> Verdict:
    since = sighting.quarantined_at
    if scene.policy.mode is not OrphanMode.REAP:
        return Verdict(Deed.NOTHING, "it is quarantined, and the policy is no more")
    if since is None or sighting.last_seen - since < scene.policy.grace:
        return Verdict(Deed.NOTHING, "it is quarantined for less than the grace period")
    return _reap(scene)


def _reap(scene: Scene) -> Verdict:
    if scene.policy.mode is OrphanMode.REAP and Deed.REAP in scene.can:
        return Verdict(Deed.REAP)
    return Verdict(Deed.NOTHING, f"its provider cannot do what {scene.policy.mode} asks for")


def done(sighting: Sighting, deed: Deed, failure: str, now: datetime) -> Sighting:
    """The sighting after a deed; what failed leaves the state as it was. What an operator releases is left alone from then on."""
    tried = replace(sighting, tried_at=now, failure=failure)
    if failure or deed is Deed.NOTHING:
        return tried
    if deed is Deed.QUARANTINE:
        return replace(tried, state=SightingState.QUARANTINED, quarantined_at=now)
    if deed is Deed.RELEASE:
        return replace(tried, state=SightingState.IGNORED, quarantined_at=None)
    return replace(tried, state=SightingState.REAPED)
