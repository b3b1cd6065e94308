"""Campaigns and their items: one command each, read page by page, told to listeners, forgotten with their time."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.campaigns import Aim, Campaign, CampaignState, Counts, Item, ItemState, Pace
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.states import InstanceState
from purveyor_server.kit.clock import ManualClock
from purveyor_server.store.campaigns import CampaignChange, CampaignSituation, CampaignWrites
from purveyor_server.store.contract import Commit, Page, Retention, Store, Writes
from purveyor_server.store.operating import AuditLook
from tests.store_contract import records
from tests.store_contract.conftest import OpenStore
from tests.store_contract.records import START, write

AIM = Aim(service_id="service-1", from_plan_id="plan-1", to_plan_id="plan-2")
RECORD = AuditRecord(at=START, principal="op", action="CreateCampaign", resource="campaign/c1", reason="asked for")
DAY = timedelta(days=1)


def campaign(campaign_id: str = "c1", **values: Any) -> Campaign:
    given: dict[str, Any] = {"aim": AIM, "pace": Pace(), "principal": "op", "created_at": START, "updated_at": START}
    return Campaign(campaign_id=campaign_id, **{**given, **values})


def items(count: int, campaign_id: str = "c1", **values: Any) -> tuple[Item, ...]:
    return tuple(
        Item(campaign_id=campaign_id, place=n, uid=f"u{n}", tenant="acme", instance_id=f"i{n}", **values)
        for n in range(1, count + 1)
    )


def free(_others: tuple[Campaign, ...]) -> None:
    """Nothing stands in the way."""


async def put(store: Store, *put: Item, **changes: Any) -> Campaign:
    """Write items and changes of their campaign."""

    def decide(situation: CampaignSituation) -> CampaignWrites:
        return CampaignWrites(replace(situation.campaign, **changes), put)

    return await store.change_campaign(CampaignChange(put[0].campaign_id if put else "c1", decide))


async def audited(store: Store) -> list[str]:
    return [found.record.action for found in (await store.audit((), AuditLook(100))).records]


async def test_a_campaign_begins_once_for_one_request(store: Store) -> None:
    wanted = campaign(request_id="r1", fingerprint="f")
    assert await store.begin_campaign(wanted, free, RECORD) == wanted
    assert await store.begin_campaign(campaign("c2", request_id="r1", fingerprint="f"), free, RECORD) == wanted
    with pytest.raises(PurveyorError) as reused:
        await store.begin_campaign(campaign("c2", request_id="r1", fingerprint="g"), free, RECORD)
    other = campaign("c3", request_id="r1", fingerprint="g", principal="somebody")
    assert await store.begin_campaign(other, free, RECORD) == other

    assert reused.value.reason is Reason.REQUEST_ID_REUSED
    assert await store.campaign_of_request("op", "r1") == wanted
    assert await store.campaign_of_request("op", "r2") is None
    assert await audited(store) == ["CreateCampaign"] * 2
    assert [found.campaign_id for found in await store.campaigns(Page(10))] == ["c3", "c1"]


async def test_what_stands_in_the_way_is_judged_in_the_command(store: Store) -> None:
    def alone(others: tuple[Campaign, ...]) -> None:
        if others:
            raise PurveyorError(Reason.CAMPAIGN_CONFLICT, "not alone")

    begun = (store.begin_campaign(campaign(f"c{number}"), alone, RECORD) for number in range(5))
    answers = await asyncio.gather(*begun, return_exceptions=True)

    assert sum(isinstance(answer, Campaign) for answer in answers) == 1
    assert len(await store.campaigns(Page(10))) == 1
    assert await audited(store) == ["CreateCampaign"]


async def test_a_change_is_whole_or_not_at_all_and_told(store: Store) -> None:
    commits: list[Commit] = []
    store.subscribe(commits.append)
    await store.begin_campaign(campaign(), free, RECORD)
    changed = await put(store, *items(3), counts=Counts(pending=3))

    def refuse(situation: CampaignSituation) -> CampaignWrites:
        assert [item.place for item in situation.items] == [1, 3]
        raise PurveyorError(Reason.WRONG_STATE, "no")

    with pytest.raises(PurveyorError):
        await store.change_campaign(CampaignChange("c1", refuse, (1, 3, 9)))
    with pytest.raises(PurveyorError) as missing:
        await store.change_campaign(CampaignChange("c9", refuse))

    assert missing.value.reason is Reason.CAMPAIGN_NOT_FOUND
    assert await store.campaign("c1") == changed
    assert await store.campaign_items("c1", 0, 10) == items(3)
    assert [commit.campaigns for commit in commits if commit.campaigns] == [frozenset({"c1"})] * 2


async def test_a_change_may_ask_for_the_others(store: Store) -> None:
    for name in ("c1", "c2", "c3"):
        await store.begin_campaign(campaign(name), free, RECORD)

    def end(_: CampaignSituation) -> CampaignWrites:
        return CampaignWrites(campaign("c3", state=CampaignState.SUCCEEDED, ended_at=START))

    await store.change_campaign(CampaignChange("c3", end))
    seen: list[tuple[str, ...]] = []

    def look(situation: CampaignSituation) -> CampaignWrites:
        seen.append(tuple(other.campaign_id for other in situation.others))
        return CampaignWrites()

    await store.change_campaign(CampaignChange("c1", look, with_others=True))
    await store.change_campaign(CampaignChange("c1", look))
    assert seen == [("c2",), ()]
    assert [found.campaign_id for found in await store.campaigns(Page(10), live=True)] == ["c1", "c2"]


async def test_one_that_ended_is_looked_after_while_something_of_it_runs(store: Store) -> None:
    await store.begin_campaign(campaign(), free, RECORD)
    await put(store, state=CampaignState.ABORTED, ended_at=START, counts=Counts(running=1))
    assert len(await store.campaigns(Page(10), live=True)) == 1
    await put(store, counts=Counts(succeeded=1))
    assert await store.campaigns(Page(10), live=True) == ()


async def test_items_by_place_by_state_and_by_time(store: Store) -> None:
    await store.begin_campaign(campaign(), free, RECORD)
    await store.begin_campaign(campaign("c2"), free, RECORD)
    first, second, third, fourth = items(4)
    late = replace(second, not_before=START + timedelta(seconds=5))
    failed = replace(third, state=ItemState.FAILED)
    await put(store, first, late, failed, fourth)
    await put(store, *items(2, "c2"))

    assert await store.campaign_items("c1", 0, 2) == (first, late)
    assert await store.campaign_items("c1", 2, 10) == (failed, fourth)
    assert await store.campaign_items("c1", 0, 10, ItemState.FAILED) == (failed,)
    assert await store.due_items("c1", START, 10) == (first, fourth)
    assert await store.due_items("c1", START, 1) == (first,)
    assert await store.due_items("c1", START + timedelta(seconds=5), 10) == (first, late, fourth)


async def test_a_list_is_a_page_the_newest_first(store: Store) -> None:
    for name in ("c1", "c2", "c3"):
        await store.begin_campaign(campaign(name), free, RECORD)
    assert [found.campaign_id for found in await store.campaigns(Page(2))] == ["c3", "c2"]
    assert [found.campaign_id for found in await store.campaigns(Page(2, "c2"))] == ["c1"]


async def test_instances_of_a_plan_are_found_part_by_part(store: Store) -> None:
    other = replace(records.SETTINGS, plan_id="plan-2")
    states = (InstanceState.READY, InstanceState.FAILED, InstanceState.DELETED, InstanceState.READY)
    made = [
        records.instance(tenant, f"db{n}", state=state, applied=other if n == 3 else records.SETTINGS)
        for tenant in ("acme", "others")
        for n, state in enumerate(states)
    ]
    for instance in made:
        await write(store, Writes(instances=(instance,)), instance.tenant)
    ours = [made[0], made[1], made[4], made[5]]

    found: list[Any] = []
    after, parts = "", 0
    while parts == 0 or after:
        part = await store.part_of_plan(AIM, after, 3)
        found += part.instances
        after, parts = part.upto, parts + 1
    assert found == ours
    assert parts == 2  # three of four, then one
    one = await store.part_of_plan(replace(AIM, tenant="others"), "", 100)
    assert (list(one.instances), one.upto) == ([made[4], made[5]], "")
    assert await store.total_of_plan(AIM) == 4
    assert await store.total_of_plan(replace(AIM, tenant="acme")) == 2


async def test_ended_ones_are_forgotten_with_their_items_a_few_at_a_time(
    open_store: OpenStore, clock: ManualClock
) -> None:
    store = await open_store()
    for name in ("c1", "c2"):
        await store.begin_campaign(campaign(name), free, RECORD)
    await put(store, *items(25), state=CampaignState.SUCCEEDED, ended_at=START)
    await put(store, *items(3, "c2"))
    clock.advance(DAY.total_seconds() * 31)
    policy = Retention(operations=30 * DAY, tombstones=30 * DAY, events=30 * DAY, max_events=1000, limit=10)
    removed = []
    while count := await store.retain(policy):
        removed.append(count)
    assert removed[:2] == [10, 10]
    assert await store.campaign("c1") is None
    assert await store.campaign_items("c1", 0, 100) == ()
    assert len(await store.campaign_items("c2", 0, 100)) == 3


async def test_what_was_kept_is_there_after_an_opening(open_store: OpenStore) -> None:
    store = await open_store()
    await store.begin_campaign(campaign(), free, RECORD)
    await put(store, *items(2), gathered=True)
    await store.close()
    again = await open_store()
    found = await again.campaign("c1")
    assert found is not None
    assert found.gathered
    assert await again.campaign_items("c1", 0, 10) == items(2)
