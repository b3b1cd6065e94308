"""The part of the store's contract that campaigns need.

Guarantee: as `store/contract.py`; a campaign, the items that a change names and the audit record are one command, and the rule
in it is a pure function that may run more than once. Items are written down and read page by page.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.campaigns import Aim, Campaign, Item, ItemState

if TYPE_CHECKING:
    from purveyor_server.domain.model import Instance
    from purveyor_server.store.contract import Page


class CampaignSituation(msgspec.Struct, frozen=True):
    """What a change of a campaign sees: it, the items that it named, and the other live ones when it asked for them."""

    now: datetime
    campaign: Campaign
    items: tuple[Item, ...] = ()
    others: tuple[Campaign, ...] = ()


class CampaignWrites(msgspec.Struct, frozen=True):
    """What it puts down; None leaves the campaign as it is."""

    campaign: Campaign | None = None
    items: tuple[Item, ...] = ()
    audit: tuple[AuditRecord, ...] = ()


class CampaignChange(msgspec.Struct, frozen=True):
    """One change. Raises CAMPAIGN_NOT_FOUND, and what `decide` raises."""

    campaign_id: str
    decide: Callable[[CampaignSituation], CampaignWrites]
    places: tuple[int, ...] = ()  # of the items that it wants to see
    with_others: bool = False


class PartOfPlan(msgspec.Struct, frozen=True):
    """Some of the instances of a plan; `upto` is the uid to go on after, "" at the end."""

    instances: tuple[Instance, ...]
    upto: str


class CampaignCommands(Protocol):
    """The writes."""

    async def begin_campaign(
        self, campaign: Campaign, check: Callable[[tuple[Campaign, ...]], None], record: AuditRecord
    ) -> Campaign:
        """Keep a new campaign and leave the record, unless the same request made one before: that one is returned.

        `check` gets every live campaign and raises what stands in the way. Raises REQUEST_ID_REUSED.
        """
        ...

    async def change_campaign(self, change: CampaignChange) -> Campaign:
        """Run a change; the campaign as it is after it."""
        ...


class CampaignReads(Protocol):
    """The committed reads; of every tenant, for operators only."""

    async def campaign(self, campaign_id: str) -> Campaign | None:
        """One campaign."""
        ...

    async def campaign_of_request(self, principal: str, request_id: str) -> Campaign | None:
        """The campaign that a request made."""
        ...

    async def campaigns(self, page: Page, *, live: bool = False) -> tuple[Campaign, ...]:
        """Campaigns, the newest first; with `live` only those in which something may begin or runs, the oldest first."""
        ...

    async def campaign_items(
        self, campaign_id: str, after: int, limit: int, state: ItemState | None = None
    ) -> tuple[Item, ...]:
        """Items by place, those after `after`; of one state or of all."""
        ...

    async def due_items(self, campaign_id: str, now: datetime, limit: int) -> tuple[Item, ...]:
        """Pending items whose turn it is, by place."""
        ...

    async def part_of_plan(self, aim: Aim, after: str, span: int) -> PartOfPlan:
        """Instances that `aim` is about among the `span` ones of the plan, of whatever tenant, whose uids are next after `after`;
        those that are on their way to the plan are of it."""
        ...

    async def total_of_plan(self, aim: Aim) -> int:
        """How many instances `aim` is about, by the counters of what tenants have."""
        ...
