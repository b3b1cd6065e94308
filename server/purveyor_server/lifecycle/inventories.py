"""Inventories of platforms: what a platform says that it still has, and its word for a single instance.

Guarantee: an inventory is judged as a whole, once its end has come; whatever happens before that changes nothing. The same
inventory sent again is answered as the first time. Only the platform that ordered an instance can leave it out, or claim it.
Limit: ids are held in memory until the end, at most `max_ids` of them.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime

import msgspec

from purveyor_server.domain.audit import AuditOutcome
from purveyor_server.domain.errors import PurveyorError, Reason, instance_not_found, invalid
from purveyor_server.domain.model import Instance
from purveyor_server.domain.names import check_id, check_request_id
from purveyor_server.domain.platforms import Inventory, InventoryReport, Placed, claimed, judge, refused, replayed
from purveyor_server.domain.states import InstanceState
from purveyor_server.lifecycle import recording
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.running import Parts
from purveyor_server.store.contract import Accept, Decision, Page, Situation, Writes

PAGE = 1000  # instances read at once


class Begin(msgspec.Struct, frozen=True, kw_only=True):
    """How an inventory begins. `taken_at` None: when its first message came."""

    snapshot_id: str
    expected: int
    taken_at: datetime | None = None
    validate_only: bool = False


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """One message of an inventory."""

    tenant: str = ""
    begin: Begin | None = None
    instance_ids: tuple[str, ...] = ()
    end: bool = False


class Taken(msgspec.Struct, frozen=True):
    """What became of an inventory; `replayed`: of an earlier sending of it."""

    report: InventoryReport
    replayed: bool = False


async def sync_inventory(parts: Parts, caller: Caller, stream: AsyncIterator[Part]) -> Taken:
    """Take an inventory in; see `Lifecycle.sync_inventory`."""
    rules = parts.settings.platforms
    try:
        async with asyncio.timeout(rules.longest.total_seconds()):
            first = await _next(parts, stream)
            parts.door.enter(caller, Action.SYNC_INVENTORY, "" if first is None else first.tenant)
            if first is None or first.begin is None:
                raise invalid("begin", "is required in the first message")
            began = parts.clock.now()  # what is ordered while it comes is not in the platform's list
            inventory = await _collected(parts, first, first.begin, stream, began)
    except TimeoutError:
        limit = f"{rules.longest.total_seconds():g}"
        text = f"the inventory was not complete after {limit} s; nothing was changed"
        raise PurveyorError(Reason.DEADLINE_EXCEEDED, text, metadata={"limit_seconds": limit}) from None
    return await _take(parts, caller, first.tenant, inventory, validate_only=first.begin.validate_only)


async def _next(parts: Parts, stream: AsyncIterator[Part]) -> Part | None:
    """The next message; None at the end. Raises DEADLINE_EXCEEDED after too long a pause."""
    pause = parts.settings.platforms.pause.total_seconds()
    try:
        async with asyncio.timeout(pause):
            return await anext(stream, None)
    except TimeoutError:
        text = f"nothing of the inventory came for {pause:g} s; nothing was changed"
        raise PurveyorError(Reason.DEADLINE_EXCEEDED, text, metadata={"limit_seconds": f"{pause:g}"}) from None


async def _collected(
    parts: Parts, first: Part, begin: Begin, stream: AsyncIterator[Part], began: datetime
) -> Inventory:
    """The whole inventory. Raises INVALID_REQUEST, and INVENTORY_REFUSED for one that was cut."""
    check_request_id(begin.snapshot_id, "begin.snapshot_id")
    rules, found, part = parts.settings.platforms, set[str](), first
    if not 0 <= begin.expected <= rules.max_ids:
        raise invalid("begin.total_expected", f"must be 0 to {rules.max_ids}")
    while True:
        if part.tenant not in {"", first.tenant}:
            raise invalid("tenant", "is another one than in the first message")
        if part is not first and part.begin is not None:
            raise invalid("begin", "comes once, in the first message")
        for name in part.instance_ids:
            if name in found:
                raise invalid("instance_ids", f"{name[:80]!r} is named twice")
            found.add(check_id(name, "instance_ids"))
        if len(found) > begin.expected:
            raise refused("truncated", f"holds more than the {begin.expected} ids that it said")
        if part.end:
            break
        following = await _next(parts, stream)
        if following is None:
            raise refused("truncated", f"ended without its end, after {len(found)} of {begin.expected} ids")
        part = following
    if len(found) != begin.expected:
        raise refused("truncated", f"holds {len(found)} ids, not the {begin.expected} that it said")
    taken = begin.taken_at or began
    return Inventory(snapshot_id=begin.snapshot_id, taken_at=taken, instance_ids=frozenset(found))


async def _take(parts: Parts, caller: Caller, tenant: str, inventory: Inventory, *, validate_only: bool) -> Taken:
    last = await parts.store.last_inventory(tenant, caller.subject)
    if last is not None and replayed(inventory, last):
        return Taken(last, replayed=True)
    placed = await _placed(parts, tenant, caller.subject)
    whose = (tenant, caller.subject)
    verdict = judge(inventory, placed, last, parts.clock.now(), parts.settings.platforms, whose)
    if validate_only:
        return Taken(verdict.report)
    report = verdict.report
    details = {"orphaned": list(report.orphaned), "healed": list(report.healed), "named": report.named}
    record = recording.record(
        caller,
        Action.SYNC_INVENTORY,
        f"inventory/{inventory.snapshot_id}",
        parts.clock.now(),
        AuditOutcome.ACCEPTED,
        tenant=tenant,
        request_id=inventory.snapshot_id,
        details=details,
    )
    kept = await parts.store.take_inventory(verdict, record)
    parts.door.note(caller, Action.SYNC_INVENTORY, tenant, orphaned=str(len(kept.orphaned)), named=str(kept.named))
    return Taken(kept)


async def _placed(parts: Parts, tenant: str, owner: str) -> list[Placed]:
    """Every instance of the platform."""
    found: list[Placed] = []
    after = ""
    while page := await parts.store.placed(tenant, owner, Page(PAGE, after)):
        found += page
        after = page[-1].uid
    return found


async def claim_instance(
    parts: Parts, caller: Caller, tenant: str, instance_id: str, request_id: str, *, validate_only: bool
) -> tuple[Instance, int]:
    """Its platform says that it is its own; see `Lifecycle.claim_instance`."""
    scope = parts.door.enter(caller, Action.CLAIM_INSTANCE, tenant)
    check_id(instance_id, "instance_id")
    if request_id:
        check_request_id(request_id)

    def decide(situation: Situation) -> Decision:
        found = situation.instance
        gone = found is None or found.state in {InstanceState.DELETED, InstanceState.DEPROVISIONING}
        if found is None or gone or found.owner != caller.subject:
            raise instance_not_found(tenant, instance_id)
        changed = claimed(found, situation.now, parts.settings.platforms)
        if changed is found:
            return Decision(instance=found)
        record = recording.record(
            caller,
            Action.CLAIM_INSTANCE,
            f"instance/{instance_id}",
            situation.now,
            AuditOutcome.ACCEPTED,
            tenant=tenant,
            request_id=request_id,
            details={"claims": changed.claims},
        )
        return Decision(Writes(instances=(changed,), audit=(record,)), instance=changed)

    decision = await parts.store.accept(Accept(scope, tenant, instance_id, decide, dry_run=validate_only))
    assert decision.instance is not None, "decided on"
    parts.door.note(caller, Action.CLAIM_INSTANCE, tenant, instance=instance_id, validated=validate_only)
    return decision.instance, max(0, parts.settings.platforms.claims - decision.instance.claims)
