"""Campaigns and their items in the store.

Guarantee: a campaign, its items and the audit record of an act are one command; counters are those of the campaign's own rule.
Limit: every live campaign is read when one begins; the rule of the domain bounds how many there can be.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

import msgspec

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.campaigns import Aim, Campaign, Item, ItemState, campaign_not_found
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.store.campaigns import CampaignChange, CampaignSituation, CampaignWrites, PartOfPlan
from purveyor_server.store.contract import Page
from purveyor_server.store.sqlite import rows
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.readers import Readers
from purveyor_server.store.sqlite.transaction import Transaction

_SQL = load("campaigns")
_CAMPAIGN = _SQL["campaign"]
_BY_REQUEST = _SQL["by_request"]
_LIVE = _SQL["live"]
_CAMPAIGNS = _SQL["campaigns"]
_PUT_CAMPAIGN = _SQL["put_campaign"]
_PUT_ITEM = _SQL["put_item"]
_ITEMS_NAMED = _SQL["items_named"]
_ITEMS = _SQL["items"]
_ITEMS_IN_STATE = _SQL["items_in_state"]
_ITEMS_DUE = _SQL["items_due"]
_PART = _SQL["part"]
_LIVE_COUNTS = _SQL["live_counts"]
_TOTAL = _SQL["total"]
_GONE_ITEMS = _SQL["gone_items"]
_GONE_CAMPAIGNS = _SQL["gone_campaigns"]
LOOK = 1000  # more than there can be

_campaign = msgspec.json.Decoder(Campaign).decode
_item = msgspec.json.Decoder(Item).decode


def begin(
    transaction: Transaction, campaign: Campaign, check: Callable[[tuple[Campaign, ...]], None], record: AuditRecord
) -> Campaign:
    """Keep a new one, or return the one that the same request made."""
    if campaign.request_id:
        key = (campaign.principal, campaign.request_id)
        row = transaction.connection.execute(_BY_REQUEST, key).fetchone()
        if row is not None:
            return _replayed(_campaign(row[0]), campaign)
    check(_live(transaction))
    _put(transaction, campaign)
    transaction.put_audit(record)
    return campaign


def _replayed(before: Campaign, campaign: Campaign) -> Campaign:
    if before.fingerprint != campaign.fingerprint:
        raise PurveyorError(
            Reason.REQUEST_ID_REUSED,
            f"the request id {campaign.request_id!r} began another campaign",
            metadata={"request_id": campaign.request_id, "campaign_id": before.campaign_id},
        )
    return before


def change(transaction: Transaction, wanted: CampaignChange) -> Campaign:
    """Run a change; raises CAMPAIGN_NOT_FOUND."""
    row = transaction.connection.execute(_CAMPAIGN, (wanted.campaign_id,)).fetchone()
    if row is None:
        raise campaign_not_found(wanted.campaign_id)
    before = _campaign(row[0])
    others = tuple([one for one in _live(transaction) if one.campaign_id != before.campaign_id])
    items = _named(transaction, wanted)
    writes = wanted.decide(CampaignSituation(transaction.now, before, items, others if wanted.with_others else ()))
    _write(transaction, writes)
    return writes.campaign or before


def _named(transaction: Transaction, wanted: CampaignChange) -> tuple[Item, ...]:
    if not wanted.places:
        return ()
    names = msgspec.json.encode(wanted.places).decode()
    found = transaction.connection.execute(_ITEMS_NAMED, (wanted.campaign_id, names)).fetchall()
    return tuple([_item(body) for (body,) in found])


def _live(transaction: Transaction) -> tuple[Campaign, ...]:
    found = transaction.connection.execute(_LIVE, ("", LOOK)).fetchall()
    return tuple([_campaign(body) for (body,) in found])


def _write(transaction: Transaction, writes: CampaignWrites) -> None:
    if writes.campaign is not None:
        _put(transaction, writes.campaign)
    for item in writes.items:
        not_before = None if item.not_before is None else rows.micros(item.not_before)
        row = (item.campaign_id, item.place, item.state, not_before, rows.encode(item))
        transaction.execute(_PUT_ITEM, row)
    if writes.audit:
        transaction.put_audit(*writes.audit)


def _put(transaction: Transaction, campaign: Campaign) -> None:
    looked_after = campaign.live or campaign.counts.running > 0
    ended = None if campaign.ended_at is None else rows.micros(campaign.ended_at)
    key = (campaign.campaign_id, int(looked_after), campaign.principal, campaign.request_id or None, ended)
    transaction.execute(_PUT_CAMPAIGN, (*key, rows.encode(campaign)))
    transaction.told.append(campaign.campaign_id)


def retain(transaction: Transaction, before: datetime, limit: int) -> int:
    """Forget ended campaigns of a time before `before`, their items first, at most `limit`; how many rows went."""
    moment = rows.micros(before)
    removed = transaction.execute(_GONE_ITEMS, (moment, limit)).rowcount
    if removed < limit:
        removed += transaction.execute(_GONE_CAMPAIGNS, (moment,)).rowcount
    return removed


class CampaignReading:
    """The committed reads."""

    _readers: Readers

    async def campaign(self, campaign_id: str) -> Campaign | None:
        found = await self._readers.rows(_CAMPAIGN, (campaign_id,))
        return _campaign(found[0][0]) if found else None

    async def campaign_of_request(self, principal: str, request_id: str) -> Campaign | None:
        found = await self._readers.rows(_BY_REQUEST, (principal, request_id))
        return _campaign(found[0][0]) if found else None

    async def campaigns(self, page: Page, *, live: bool = False) -> tuple[Campaign, ...]:
        found = await self._readers.rows(_LIVE if live else _CAMPAIGNS, (page.after, page.limit))
        return tuple([_campaign(row[0]) for row in found])

    async def campaign_counts(self) -> dict[str, int]:
        """Campaigns that are not over, by state."""
        return dict(await self._readers.rows(_LIVE_COUNTS))

    async def campaign_items(
        self, campaign_id: str, after: int, limit: int, state: ItemState | None = None
    ) -> tuple[Item, ...]:
        if state is None:
            found = await self._readers.rows(_ITEMS, (campaign_id, after, limit))
        else:
            found = await self._readers.rows(_ITEMS_IN_STATE, (campaign_id, state, after, limit))
        return tuple([_item(row[0]) for row in found])

    async def due_items(self, campaign_id: str, now: datetime, limit: int) -> tuple[Item, ...]:
        found = await self._readers.rows(_ITEMS_DUE, (campaign_id, rows.micros(now), limit))
        return tuple([_item(row[0]) for row in found])

    async def part_of_plan(self, aim: Aim, after: str, span: int) -> PartOfPlan:
        keys = (after, aim.service_id, aim.from_plan_id, aim.tenant, span)
        found = await self._readers.rows(_PART, keys)
        instances = tuple([rows.decode_instance(body) for _, body in found if body is not None])
        return PartOfPlan(instances, found[-1][0] if len(found) == span else "")

    async def total_of_plan(self, aim: Aim) -> int:
        keys = (aim.service_id, aim.from_plan_id, aim.tenant)
        return int((await self._readers.rows(_TOTAL, keys))[0][0])
