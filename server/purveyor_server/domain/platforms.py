"""What platforms say of their instances, and what is made of that.

Guarantee: pure. **An empty, cut or wrong inventory changes nothing**: one that ends early, does not hold as many ids as it said, is
empty, names nothing that the broker knows, has shrunk by half, or would make too many orphans at once is refused with the reason
and the list. An instance that its platform does not name becomes a platform-orphan, which is a note in its record; what may happen
to one is decided only after a second inventory, a grace later, has left it out as well.
Limit: only instances that this platform itself has ordered are judged by its inventory.
Source: DESIGN.md section 10.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from datetime import datetime, timedelta
from enum import StrEnum

import msgspec

from purveyor_server.domain.errors import Precondition, PurveyorError, Reason
from purveyor_server.domain.model import Instance
from purveyor_server.domain.records import touch

MAX_NAMED = 20  # instances that a refusal names
CLAIMS_SUBJECT = "CLAIMS"


class OrphanPolicy(StrEnum):
    """What is done with a platform-orphan whose grace is over."""

    REPORT = "report"
    DEPROVISION = "deprovision"


class PlatformRules(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of inventories and of what follows from them.

    `brake_percent` is of the platform's instances, and lets one orphan pass where there are few; `cap` is per round of the loop;
    `claims` is how often a platform may say "mine" of an instance that it leaves out of its inventories.
    """

    policy: OrphanPolicy = OrphanPolicy.REPORT
    grace: timedelta = timedelta(days=7)
    cap: int = 5
    brake_percent: float = 10.0
    brake_count: int = 20
    claims: int = 3
    max_ids: int = 200_000
    pause: timedelta = timedelta(seconds=30)  # between two messages of an inventory
    longest: timedelta = timedelta(minutes=5)  # an inventory as a whole


class Placed(msgspec.Struct, frozen=True):
    """An instance of a platform, as far as its inventory is about it."""

    uid: str
    instance_id: str
    created_at: datetime
    orphaned: bool
    leaving: bool  # it is being given back


class Inventory(msgspec.Struct, frozen=True, kw_only=True):
    """What a platform says that it has, whole: as of `taken_at`."""

    snapshot_id: str
    taken_at: datetime
    instance_ids: frozenset[str]

    @property
    def digest(self) -> str:
        """Names its content (hex)."""
        found = hashlib.sha256()
        for name in sorted(self.instance_ids):
            found.update(name.encode() + b"\0")
        return found.hexdigest()


class InventoryReport(msgspec.Struct, frozen=True, kw_only=True):
    """What became of the last inventory of a platform in a tenant; kept."""

    tenant: str
    owner: str
    snapshot_id: str
    digest: str
    taken_at: datetime
    received_at: datetime
    named: int  # ids in the inventory
    known: int  # instances of the platform that the broker has
    orphaned: tuple[str, ...] = ()  # instance ids that have become orphans with it
    healed: tuple[str, ...] = ()  # orphans that it names again
    missing: int = 0  # orphans there are after it
    unknown: int = 0  # ids that are no instance of the platform here


class Verdict(msgspec.Struct, frozen=True):
    """What an inventory changes: uids."""

    report: InventoryReport
    orphaned: tuple[str, ...] = ()
    missing: tuple[str, ...] = ()  # orphans that it leaves out again
    healed: tuple[str, ...] = ()


def judge(
    inventory: Inventory,
    placed: Sequence[Placed],
    last: InventoryReport | None,
    now: datetime,
    rules: PlatformRules,
    whose: tuple[str, str],
) -> Verdict:
    """What an inventory of `whose` (tenant, owner) changes. Raises INVENTORY_REFUSED, REQUEST_ID_REUSED."""
    judged = [one for one in placed if one.created_at <= inventory.taken_at and not one.leaving]
    left_out = [one for one in judged if one.instance_id not in inventory.instance_ids]
    new = [one for one in left_out if not one.orphaned]
    again = [one for one in left_out if one.orphaned]
    healed = [one for one in placed if one.orphaned and one.instance_id in inventory.instance_ids]
    _check_time(inventory, last, now)
    _brake(inventory, judged, left_out, new, last, rules)
    here = {one.instance_id for one in placed}
    tenant, owner = whose
    report = InventoryReport(
        tenant=tenant,
        owner=owner,
        snapshot_id=inventory.snapshot_id,
        digest=inventory.digest,
        taken_at=inventory.taken_at,
        received_at=now,
        named=len(inventory.instance_ids),
        known=len(placed),
        orphaned=tuple(one.instance_id for one in new),
        healed=tuple(one.instance_id for one in healed),
        missing=len(left_out),
        unknown=len(inventory.instance_ids - here),
    )
    return Verdict(report, _uids(new), _uids(again), _uids(healed))


def replayed(inventory: Inventory, last: InventoryReport | None) -> bool:
    """Whether this very inventory was taken in before. Raises REQUEST_ID_REUSED for another one under its name."""
    if last is None or last.snapshot_id != inventory.snapshot_id:
        return False
    if last.digest != inventory.digest:
        raise PurveyorError(
            Reason.REQUEST_ID_REUSED,
            f"snapshot_id {inventory.snapshot_id!r} was already used for another inventory",
            metadata={"request_id": inventory.snapshot_id},
        )
    return True


def _check_time(inventory: Inventory, last: InventoryReport | None, now: datetime) -> None:
    if inventory.taken_at > now:
        raise refused("future", "says that it was taken later than now: look at the clocks")
    check_newer(inventory.taken_at, last)


def check_newer(taken_at: datetime, last: InventoryReport | None) -> None:
    """Raise INVENTORY_REFUSED for what is older than the `last` one. Asked again when it is taken in: another may have been quicker."""
    if last is not None and taken_at < last.taken_at:
        raise refused("stale", f"is older than the one before it, {last.snapshot_id!r}")


def _brake(
    inventory: Inventory,
    judged: Sequence[Placed],
    left_out: Sequence[Placed],
    new: Sequence[Placed],
    last: InventoryReport | None,
    rules: PlatformRules,
) -> None:
    """Raise INVENTORY_REFUSED for what looks like an accident."""
    if judged and not inventory.instance_ids:
        raise refused("empty", f"is empty, and the broker has {len(judged)} instances of this platform", judged)
    if judged and len(left_out) == len(judged):
        raise refused("strange", f"names none of the {len(judged)} instances of this platform", judged)
    if last is not None and new and 2 * len(inventory.instance_ids) < last.named:
        text = f"has shrunk by half: {len(inventory.instance_ids)} after {last.named}"
        raise refused("shrunk", text, new)
    most = min(rules.brake_count, max(1, int(len(judged) * rules.brake_percent / 100)))
    if len(new) > most:
        text = f"would make {len(new)} of {len(judged)} instances orphans at once, at most {most} may become so"
        raise refused("too_many", text, new)


def refused(brake: str, why: str, concerned: Iterable[Placed] = ()) -> PurveyorError:
    """INVENTORY_REFUSED: nothing was changed."""
    names = sorted(one.instance_id for one in concerned)
    metadata = {"brake": brake, "count": str(len(names)), "instances": ",".join(names[:MAX_NAMED])}
    text = f"the inventory {why}; nothing was changed"
    return PurveyorError(
        Reason.INVENTORY_REFUSED,
        text,
        metadata=metadata,
        preconditions=tuple(
            Precondition("INVENTORY", f"instance/{name}", "is not in the inventory") for name in names[:MAX_NAMED]
        ),
    )


def _uids(found: Iterable[Placed]) -> tuple[str, ...]:
    return tuple(one.uid for one in found)


def orphaned(instance: Instance, now: datetime) -> Instance:
    """Its platform does not name it any more."""
    return touch(instance, now, platform_orphan_since=now)


def healed(instance: Instance, now: datetime) -> Instance:
    """Its platform names it again: what was claimed is forgotten."""
    return touch(instance, now, platform_orphan_since=None, claims=0)


def claimed(instance: Instance, now: datetime, rules: PlatformRules) -> Instance:
    """Its platform says that it is its own. Raises WRONG_STATE when it has said so too often, or need not."""
    name = instance.instance_id
    if instance.platform_orphan_since is None:
        return instance
    if instance.claims >= rules.claims:
        text = f"the instance {name!r} was claimed {instance.claims} times: name it in an inventory, or ask an operator"
        raise PurveyorError(
            Reason.WRONG_STATE,
            text,
            metadata={"instance_id": name, "claims": str(instance.claims)},
            preconditions=(Precondition(CLAIMS_SUBJECT, f"instance/{name}", text),),
        )
    return touch(instance, now, platform_orphan_since=None, claims=instance.claims + 1)
