"""Campaigns go on: what has ended is noted, what is next is begun.

Guarantee: an instance is written down as begun before it is asked for, and is asked for under a request id of its own, so a
broker that is killed at any moment asks for nothing twice. The rule that lets one more begin is judged inside of the command
that writes it down: a pause that is answered holds. Freezes `all`, `deletes` (a move ends with the removal of what was left),
`recovery` and that of the provider are obeyed.
Limit: an instance that is busy is asked for again after some seconds; nothing wakes the loop for it.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping, Sequence

import structlog

from purveyor_server.domain import campaign_items
from purveyor_server.domain.audit import AuditOutcome, AuditRecord
from purveyor_server.domain.campaigns import (
    MAX_LIVE,
    MAX_PARALLELISM,
    Campaign,
    CampaignState,
    Item,
    ItemState,
    applied,
    gathered,
    paused,
    room,
)
from purveyor_server.domain.catalog import Catalog
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.freezes import ALL, DELETES, PROVIDER, RECOVERY
from purveyor_server.domain.model import Operation
from purveyor_server.domain.states import Verb
from purveyor_server.kit.clock import Clock
from purveyor_server.lifecycle.admin.campaign_moves import UpdateInstance, check_target, update_of, version_of
from purveyor_server.lifecycle.contract import ITSELF
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.recording import record
from purveyor_server.store.campaigns import CampaignChange, CampaignSituation, CampaignWrites
from purveyor_server.store.contract import SYSTEM, Commit, Page, Store

_log = structlog.get_logger(__name__)
SPAN = 500  # instances, of whatever tenant, that one round looks at while a campaign is written down
LOOK = 50  # items that are judged at once


class CampaignLoop:
    """Looks after every campaign that is not over; `wake` is set when there may be something to do."""

    name = "campaigns"

    def __init__(
        self, store: Store, update: UpdateInstance, catalog: Callable[[], Catalog], clock: Clock, interval: float
    ) -> None:
        self.interval = interval
        self.wake = asyncio.Event()
        self._store = store
        self._update = update
        self._catalog = catalog
        self._clock = clock
        store.subscribe(self._on_commit)

    def _on_commit(self, commit: Commit) -> None:
        if commit.campaigns or any(_ours(operation) for operation in commit.operations):
            self.wake.set()

    async def once(self) -> float | None:
        """One step of each campaign; 0 when there was something to do."""
        live = await self._store.campaigns(Page(2 * MAX_LIVE), live=True)
        if not live:
            return None
        frozen = {freeze.name for freeze in await self._store.freezes()}
        moved = [await self._advance(campaign, frozen) for campaign in live]
        return 0.0 if any(moved) else None

    async def _advance(self, campaign: Campaign, frozen: set[str]) -> bool:
        """Whether anything has changed. What goes wrong with one campaign does not stop the others."""
        try:
            held = bool(frozen & {ALL, DELETES, RECOVERY, PROVIDER + campaign.provider})
            if campaign.counts.running:
                moved = await self._look_after(campaign, asks=not held)
                campaign = await self._store.campaign(campaign.campaign_id) or campaign
            else:
                moved = False
            if held or campaign.state not in {CampaignState.PLANNED, CampaignState.RUNNING}:
                return moved
            if (why := self._astray(campaign)) is not None:
                await self._pause(campaign, why)
                return True
            go_on = self._gather if campaign.state is CampaignState.PLANNED else self._begin
            return await go_on(campaign) or moved
        except PurveyorError as failure:
            if failure.reason is Reason.DRAINING:
                raise
            reason, text = str(failure.reason), failure.message
            _log.warning("campaign does not go on", campaign=campaign.campaign_id, reason=reason, problem=text)
            return False

    # Write down.

    async def _gather(self, campaign: Campaign) -> bool:
        part = await self._store.part_of_plan(campaign.aim, campaign.gathered_to, SPAN)

        def decide(situation: CampaignSituation) -> CampaignWrites:
            seen = situation.campaign
            if seen.gathered_to != campaign.gathered_to or seen.state is not CampaignState.PLANNED:
                return CampaignWrites()
            items = tuple(
                Item(
                    campaign_id=seen.campaign_id,
                    place=seen.counts.total + number,
                    uid=instance.uid,
                    tenant=instance.tenant,
                    instance_id=instance.instance_id,
                )
                for number, instance in enumerate(part.instances, start=1)
            )
            return CampaignWrites(gathered(seen, len(items), part.upto, situation.now, done=not part.upto), items)

        await self._store.change_campaign(CampaignChange(campaign.campaign_id, decide))
        return True

    # Begin.

    async def _begin(self, campaign: Campaign) -> bool:
        """Pick the next items, write down what becomes of them, ask for those whose turn it is."""
        wanted = room(campaign)
        if not wanted:
            return False
        due = await self._store.due_items(campaign.campaign_id, self._clock.now(), max(wanted, LOOK))
        if not due:
            return False
        picked = await self._picked(campaign, due, wanted)

        def decide(situation: CampaignSituation) -> CampaignWrites:
            left, changes = room(situation.campaign), []
            if situation.campaign.state is not CampaignState.RUNNING:
                return CampaignWrites()
            for item in situation.items:
                verdict = picked[item.place]
                if item.state is not ItemState.PENDING or (verdict.go and not left):
                    continue
                left -= verdict.go
                now = situation.now
                after = campaign_items.begun(item, now) if verdict.go else campaign_items.judged(item, verdict, now)
                changes.append((item, after))
            return _changed(situation, changes)

        await self._store.change_campaign(CampaignChange(campaign.campaign_id, decide, tuple(picked)))
        if any(verdict.go for verdict in picked.values()):
            await self._look_after(campaign, asks=True)
        return True

    async def _picked(self, campaign: Campaign, due: Sequence[Item], wanted: int) -> dict[int, campaign_items.Verdict]:
        """Verdicts by place, of as many as it takes to find `wanted` that can go."""
        picked: dict[int, campaign_items.Verdict] = {}
        for item in due:
            instance = await self._store.instance(SYSTEM, item.tenant, item.instance_id)
            verdict = campaign_items.judge(campaign.aim, campaign.to_version, instance, item.uid)
            picked[item.place] = verdict
            wanted -= verdict.go
            if not wanted:
                break
        return picked

    # Look after what runs.

    async def _look_after(self, campaign: Campaign, *, asks: bool) -> bool:
        """Ask for what has no operation yet, unless something is frozen; note what has ended."""
        running = await self._store.campaign_items(campaign.campaign_id, 0, MAX_PARALLELISM, ItemState.RUNNING)
        running = tuple([item for item in running if asks or item.operation_id])
        operations = await self._operations(running)
        becoming = (self._become(campaign, item, operations) for item in running)
        found = await asyncio.gather(*becoming, return_exceptions=True)
        after = {item.place: item for item in found if isinstance(item, Item)}
        if after:
            await self._note(campaign, after)
        for failure in found:
            if isinstance(failure, BaseException):
                raise failure
        return bool(after)

    async def _note(self, campaign: Campaign, after: Mapping[int, Item]) -> None:
        """Keep what running items have become."""

        def decide(situation: CampaignSituation) -> CampaignWrites:
            changes = [(item, after[item.place]) for item in situation.items if item.state is ItemState.RUNNING]
            return _changed(situation, changes)

        changed = await self._store.change_campaign(CampaignChange(campaign.campaign_id, decide, tuple(after)))
        if changed.state is CampaignState.PAUSED and campaign.state is CampaignState.RUNNING:
            _log.warning("campaign paused itself", campaign=changed.campaign_id, problem=changed.problem)

    async def _operations(self, running: Sequence[Item]) -> dict[str, Operation]:
        names = [item.operation_id for item in running if item.operation_id]
        found = await self._store.operations_named(SYSTEM, names) if names else ()
        return {operation.operation_id: operation for operation in found}

    async def _become(self, campaign: Campaign, item: Item, operations: dict[str, Operation]) -> Item | None:
        """What a running item has become; None when nothing has changed."""
        if not item.operation_id:
            return await self._ask(campaign, item)
        operation = operations.get(item.operation_id)
        if operation is None:
            instance = await self._store.instance(SYSTEM, item.tenant, item.instance_id)
            return campaign_items.lost(item, instance, campaign.aim, campaign.to_version, self._clock.now())
        return campaign_items.ended(item, operation, self._clock.now()) if operation.done else None

    async def _ask(self, campaign: Campaign, item: Item) -> Item | None:
        """Send the update, or send it again; None when nobody knows what has become of it."""
        instance = await self._store.instance(SYSTEM, item.tenant, item.instance_id)
        verdict = campaign_items.judge(campaign.aim, campaign.to_version, instance, item.uid)
        if instance is None or verdict.code == campaign_items.GONE:
            return campaign_items.judged(item, verdict, self._clock.now())
        try:
            outcome = await self._update(
                ITSELF, update_of(campaign.aim, campaign.to_version, instance, item.request_id)
            )
        except PurveyorError as failure:
            if failure.reason is Reason.DRAINING:
                raise
            if failure.reason in campaign_items.UNSURE:
                return None
            refusal = campaign_items.refused(failure)
            return campaign_items.judged(item, refusal, self._clock.now())
        operation = outcome.operation
        assert operation is not None, "an update that is accepted has an operation"
        accepted = campaign_items.accepted(item, operation.operation_id)
        return campaign_items.ended(accepted, operation, self._clock.now()) if operation.done else accepted

    # Stop by itself.

    def _astray(self, campaign: Campaign) -> str | None:
        """Why the catalog does not allow it any more."""
        try:
            offer = check_target(self._catalog(), campaign.aim)
        except PurveyorError as failure:
            return failure.message
        version = version_of(campaign.aim, offer)
        if version == campaign.to_version:
            return None
        return f"the plan is at maintenance version {version} now, not {campaign.to_version}"

    async def _pause(self, campaign: Campaign, why: str) -> None:
        def decide(situation: CampaignSituation) -> CampaignWrites:
            if not situation.campaign.live:
                return CampaignWrites()
            changed = paused(situation.campaign, situation.now, why)
            return CampaignWrites(changed, audit=(_stopped(situation, changed),))

        await self._store.change_campaign(CampaignChange(campaign.campaign_id, decide))
        _log.warning("campaign paused itself", campaign=campaign.campaign_id, problem=why)


def _ours(operation: Operation) -> bool:
    return operation.done and operation.verb is Verb.UPDATE and operation.principal == ITSELF.subject


def _changed(situation: CampaignSituation, changes: list[tuple[Item, Item]]) -> CampaignWrites:
    """The items, and the campaign that they make; a pause that follows is recorded."""
    if not changes:
        return CampaignWrites()
    before, after = situation.campaign, applied(situation.campaign, changes, situation.now)
    stops = after.state is CampaignState.PAUSED and before.state is not CampaignState.PAUSED
    audit = (_stopped(situation, after),) if stops else ()
    return CampaignWrites(after, tuple([item for _, item in changes]), audit)


def _stopped(situation: CampaignSituation, campaign: Campaign) -> AuditRecord:
    return record(
        ITSELF,
        Action.PAUSE_CAMPAIGN,
        f"campaign/{campaign.campaign_id}",
        situation.now,
        AuditOutcome.DONE,
        tenant=campaign.aim.tenant,
        reason=campaign.problem,
    )
