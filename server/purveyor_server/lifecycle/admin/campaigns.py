"""Campaigns as operators order them: begin, look, pause, resume, abort, retry.

Guarantee: an act and its audit record are one command; a dry run judges each instance by the rules of the update itself and
writes nothing. Who watches is told the present state first, then each newest one, to the end.
Limit: a dry run tells what would be now; an instance may have changed when its turn comes.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Callable
from datetime import datetime, timedelta
from functools import partial

import msgspec

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.campaign_items import Verdict, judge, refused
from purveyor_server.domain.campaigns import (
    Aim,
    Campaign,
    Item,
    ItemState,
    Pace,
    aborted,
    campaign_not_found,
    check_aim,
    check_alone,
    check_pace,
    check_retry,
    paused,
    resumed,
    retried,
)
from purveyor_server.domain.errors import PurveyorError, invalid
from purveyor_server.domain.model import Instance
from purveyor_server.domain.names import check_id, check_tenant
from purveyor_server.kit.ids import new_id
from purveyor_server.lifecycle.admin.acts import enter, record, tell
from purveyor_server.lifecycle.admin.campaign_moves import check_target, update_of, version_of
from purveyor_server.lifecycle.admin.contract import Act, AdminParts
from purveyor_server.lifecycle.contract import ITSELF, Caller, PageOf
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.paging import Question, read_token, write_token
from purveyor_server.store.campaigns import CampaignChange, CampaignSituation, CampaignWrites
from purveyor_server.store.contract import Page

DEFAULT_PAGE = 100
MAX_PAGE = 500
SPANS = 20  # parts of the plan's instances that one page of a dry run looks at, at most: those of other tenants are passed over
NAMED = 20  # failures that are told with a campaign
RETRIES = 500  # items that one command lets wait again
SHORTEST_HEARTBEAT = 1.0  # seconds
Rule = Callable[[Campaign, datetime], Campaign]


class CampaignWish(msgspec.Struct, frozen=True, kw_only=True):
    """What is ordered. `canary` None: one instance, where there is any. The page is that of a dry run."""

    aim: Aim
    canary: int | None = None
    batch_size: int = 0
    parallelism: int = Pace().parallelism
    max_failures: int = 0
    page_size: int = 0
    page_token: str = ""
    follows: bool = False  # from a new catalog: that the plan has lost its last instance meanwhile is no mistake


class ItemListing(msgspec.Struct, frozen=True, kw_only=True):
    """Which items are asked for; no `state` stands for all."""

    campaign_id: str
    state: ItemState | None = None
    page_size: int = 0
    page_token: str = ""


class Begun(msgspec.Struct, frozen=True):
    """A campaign that has begun; or, of a dry run, what it would be: the instances that it concerns in all, and a page of them."""

    campaign: Campaign
    total: int
    items: tuple[Item, ...] = ()
    next_page_token: str = ""


class CampaignView(msgspec.Struct, frozen=True):
    """A campaign and the first of its failures."""

    campaign: Campaign
    failures: tuple[Item, ...] = ()


async def begin(parts: AdminParts, caller: Caller, wish: CampaignWish, act: Act) -> Begun:
    """Begin a campaign, or say what it would do. Raises INVALID_REQUEST, INVALID_PAGE_TOKEN, CAMPAIGN_CONFLICT,
    REQUEST_ID_REUSED, UNKNOWN_PLAN for a plan that neither the catalog nor an instance has, and what `check_target` does."""
    reason = enter(parts, caller, Action.CREATE_CAMPAIGN, act)
    aim = check_aim(wish.aim)
    if aim.tenant:
        check_tenant(aim.tenant)
    fingerprint = _fingerprint(wish)
    if (again := await _replayed(parts, caller, act, fingerprint)) is not None:
        return again
    offer, total = check_target(parts.catalog(), aim), await parts.store.total_of_plan(aim)
    if not total and not wish.follows:
        parts.catalog().offer(aim.service_id, aim.from_plan_id)  # what neither it nor an instance knows is a mistake
    now = parts.clock.now()
    canary = min(1, total) if wish.canary is None else wish.canary
    pace = Pace(canary=canary, batch_size=wish.batch_size, parallelism=wish.parallelism, max_failures=wish.max_failures)
    campaign = Campaign(
        campaign_id="" if act.validate_only else new_id(),
        aim=aim,
        pace=check_pace(pace, total),
        to_version=version_of(aim, offer),
        provider=offer.plan.provider.name,
        reason=reason,
        principal=caller.subject,
        request_id=act.request_id,
        fingerprint=fingerprint,
        created_at=now,
        updated_at=now,
    )
    if act.validate_only:
        check_alone(aim, await parts.store.campaigns(Page(MAX_PAGE), live=True))
        return await _dry_run(parts, campaign, total, wish)
    noted = record(parts, caller, Action.CREATE_CAMPAIGN, act, _name(campaign), aim.tenant, **_facts(campaign))
    kept = await parts.store.begin_campaign(campaign, partial(check_alone, aim), noted)
    tell(parts, caller, Action.CREATE_CAMPAIGN, act, _name(kept), aim.tenant)
    return Begun(kept, total)


def _fingerprint(wish: CampaignWish) -> str:
    """What a request id stands for: the order as it was sent."""
    order = (wish.aim, wish.canary, wish.batch_size, wish.parallelism, wish.max_failures)
    return msgspec.json.encode(order).decode()


async def _replayed(parts: AdminParts, caller: Caller, act: Act, fingerprint: str) -> Begun | None:
    """The campaign that the same request has made, whatever has become of its plans and instances since."""
    if act.validate_only or not act.request_id:
        return None
    found = await parts.store.campaign_of_request(caller.subject, act.request_id)
    if found is None or found.fingerprint != fingerprint:
        return None  # what was sent otherwise is refused where a campaign is kept
    return Begun(found, found.counts.total)


async def _dry_run(parts: AdminParts, campaign: Campaign, total: int, wish: CampaignWish) -> Begun:
    aim = campaign.aim
    question = Question(
        "campaign", aim.tenant, "", f"{aim.service_id} {aim.from_plan_id} {aim.to_plan_id}", show_deleted=False,
        store=parts.store.store_id,
    )  # fmt: skip
    upto = read_token(parts.token_key, question, wish.page_token) if wish.page_token else ""
    span = _page_size(wish.page_size)
    found: tuple[Instance, ...] = ()
    for _ in range(SPANS):
        part = await parts.store.part_of_plan(aim, upto, span)
        found, upto = part.instances, part.upto
        if found or not upto:
            break
    items = await asyncio.gather(*(_foreseen(parts, campaign, instance) for instance in found))
    return Begun(campaign, total, tuple(items), write_token(parts.token_key, question, upto) if upto else "")


async def _foreseen(parts: AdminParts, campaign: Campaign, instance: Instance) -> Item:
    """The item that an instance would be."""
    verdict = judge(campaign.aim, campaign.to_version, instance, instance.uid)
    if verdict.go:
        wanted = update_of(campaign.aim, campaign.to_version, instance, validate_only=True)
        try:
            await parts.orders.update(ITSELF, wanted)
        except PurveyorError as failure:
            verdict = refused(failure)
    return _item(instance, verdict)


def _item(instance: Instance, verdict: Verdict) -> Item:
    return Item(
        campaign_id="",
        place=0,
        uid=instance.uid,
        tenant=instance.tenant,
        instance_id=instance.instance_id,
        state=verdict.state,
        code=verdict.code,
        message=verdict.message,
    )


async def get(parts: AdminParts, caller: Caller, campaign_id: str) -> CampaignView:
    """One campaign. Raises CAMPAIGN_NOT_FOUND."""
    enter(parts, caller, Action.GET_CAMPAIGN)
    return await _view(parts, campaign_id)


async def list_campaigns(parts: AdminParts, caller: Caller, page_size: int, page_token: str) -> PageOf:
    """A page of `Campaign`, the newest first. Raises INVALID_PAGE_TOKEN."""
    enter(parts, caller, Action.LIST_CAMPAIGNS)
    size = _page_size(page_size)
    question = Question("campaigns", "", "", "", show_deleted=False, store=parts.store.store_id)
    after = read_token(parts.token_key, question, page_token) if page_token else ""
    found = await parts.store.campaigns(Page(size + 1, after))
    more = write_token(parts.token_key, question, found[size - 1].campaign_id) if len(found) > size else ""
    return PageOf(found[:size], more)


async def list_items(parts: AdminParts, caller: Caller, listing: ItemListing) -> PageOf:
    """A page of `Item`, by place. Raises CAMPAIGN_NOT_FOUND, INVALID_PAGE_TOKEN."""
    enter(parts, caller, Action.LIST_CAMPAIGN_ITEMS)
    campaign, state, page_token = await _found(parts, listing.campaign_id), listing.state, listing.page_token
    size, where = _page_size(listing.page_size), state or ""
    question = Question("items", "", campaign.campaign_id, where, show_deleted=False, store=parts.store.store_id)
    after = int(read_token(parts.token_key, question, page_token)) if page_token else 0
    found = await parts.store.campaign_items(campaign.campaign_id, after, size + 1, state)
    more = write_token(parts.token_key, question, str(found[size - 1].place)) if len(found) > size else ""
    return PageOf(found[:size], more)


async def pause(parts: AdminParts, caller: Caller, campaign_id: str, act: Act) -> CampaignView:
    """Nothing new begins. Raises CAMPAIGN_NOT_FOUND, WRONG_STATE."""
    return await _act(parts, caller, Action.PAUSE_CAMPAIGN, campaign_id, act, paused)


async def resume(parts: AdminParts, caller: Caller, campaign_id: str, act: Act) -> CampaignView:
    """It goes on. Raises CAMPAIGN_NOT_FOUND, WRONG_STATE."""
    return await _act(parts, caller, Action.RESUME_CAMPAIGN, campaign_id, act, resumed)


async def abort(parts: AdminParts, caller: Caller, campaign_id: str, act: Act) -> CampaignView:
    """Nothing new begins, ever; what runs goes on to its end. Raises CAMPAIGN_NOT_FOUND, WRONG_STATE."""
    return await _act(parts, caller, Action.ABORT_CAMPAIGN, campaign_id, act, aborted)


async def retry(parts: AdminParts, caller: Caller, campaign_id: str, act: Act) -> tuple[CampaignView, int]:
    """What failed is tried again; how many. Raises CAMPAIGN_NOT_FOUND, WRONG_STATE, CAMPAIGN_CONFLICT."""
    enter(parts, caller, Action.RETRY_CAMPAIGN, act)
    campaign = await _found(parts, campaign_id)
    check_retry(campaign)
    if act.validate_only:
        return await _view(parts, campaign_id), campaign.counts.failed
    count = after = 0
    audit: tuple[AuditRecord, ...] = (
        record(parts, caller, Action.RETRY_CAMPAIGN, act, _name(campaign), campaign.aim.tenant),
    )
    while failures := await parts.store.campaign_items(campaign_id, after, RETRIES, ItemState.FAILED):

        def decide(situation: CampaignSituation, audit: tuple[AuditRecord, ...] = audit) -> CampaignWrites:
            if not situation.campaign.live:
                check_alone(situation.campaign.aim, situation.others)
            changed, items = retried(situation.campaign, situation.items, situation.now)
            return CampaignWrites(changed, items, audit)

        places = tuple([item.place for item in failures])
        await parts.store.change_campaign(CampaignChange(campaign_id, decide, places, with_others=True))
        count, after, audit = count + len(failures), failures[-1].place, ()
    tell(parts, caller, Action.RETRY_CAMPAIGN, act, _name(campaign), campaign.aim.tenant)
    return await _view(parts, campaign_id), count


async def watch(
    parts: AdminParts, caller: Caller, campaign_id: str, heartbeat: timedelta
) -> AsyncGenerator[CampaignView, None]:
    """The campaign as it is, then as it has become, at least once per `heartbeat`; ends when nothing of it runs any more."""
    enter(parts, caller, Action.WATCH_CAMPAIGN)
    seconds = max(heartbeat.total_seconds(), SHORTEST_HEARTBEAT)
    changed = asyncio.Event()
    end = parts.store.subscribe(lambda commit: changed.set() if campaign_id in commit.campaigns else None)
    try:
        while True:
            changed.clear()
            view = await _view(parts, campaign_id)
            yield view
            if not view.campaign.live and not view.campaign.counts.running:
                return
            try:
                async with asyncio.timeout(seconds):
                    await changed.wait()
            except TimeoutError:
                continue
    finally:
        end()


async def _act(
    parts: AdminParts, caller: Caller, action: Action, campaign_id: str, act: Act, rule: Rule
) -> CampaignView:
    enter(parts, caller, action, act)
    campaign = await _found(parts, campaign_id)
    if act.validate_only:
        return CampaignView(rule(campaign, parts.clock.now()), await _failures(parts, campaign_id))
    noted = record(parts, caller, action, act, _name(campaign), campaign.aim.tenant)

    def decide(situation: CampaignSituation) -> CampaignWrites:
        return CampaignWrites(rule(situation.campaign, situation.now), audit=(noted,))

    changed = await parts.store.change_campaign(CampaignChange(campaign_id, decide))
    tell(parts, caller, action, act, _name(campaign), campaign.aim.tenant)
    return CampaignView(changed, await _failures(parts, campaign_id))


async def _found(parts: AdminParts, campaign_id: str) -> Campaign:
    check_id(campaign_id, "campaign_id")
    campaign = await parts.store.campaign(campaign_id)
    if campaign is None:
        raise campaign_not_found(campaign_id)
    return campaign


async def _view(parts: AdminParts, campaign_id: str) -> CampaignView:
    return CampaignView(await _found(parts, campaign_id), await _failures(parts, campaign_id))


async def _failures(parts: AdminParts, campaign_id: str) -> tuple[Item, ...]:
    return await parts.store.campaign_items(campaign_id, 0, NAMED, ItemState.FAILED)


def _page_size(asked: int) -> int:
    if asked < 0:
        raise invalid("page_size", "must not be negative")
    return min(asked or DEFAULT_PAGE, MAX_PAGE)


def _name(campaign: Campaign) -> str:
    return f"campaign/{campaign.campaign_id}"


def _facts(campaign: Campaign) -> dict[str, str | int]:
    aim, pace = campaign.aim, campaign.pace
    facts: dict[str, str | int] = {"service_id": aim.service_id, "from_plan_id": aim.from_plan_id}
    facts |= {"to_plan_id": aim.to_plan_id} if aim.to_plan_id else {"to_version": campaign.to_version}
    return facts | {"canary": pace.canary, "batch_size": pace.batch_size, "parallelism": pace.parallelism}
