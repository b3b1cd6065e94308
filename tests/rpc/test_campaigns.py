"""Campaigns on a whole broker: begun, held, broken off, killed at every point; one that failed is always named."""

from __future__ import annotations

import asyncio
import json
import os
import pty
import sys
from collections import Counter
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import purveyor
from purveyor.admin import AdminClient
from purveyor.campaign_values import Campaign
from purveyor.errors import FailedPreconditionError, InvalidRequestError, NotFoundError
from purveyor_server.store.contract import Page
from tests.rpc.campaigning import POISON, Movable, going, loop_of, made_older, plans, provisioned, updates
from tests.rpc.campaigning import SERVICE as SHOP
from tests.rpc.whole import Whole, whole_broker


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[Whole]:
    async with whole_broker(folder, service=SHOP, scripted=Movable) as running:
        yield running


@pytest.fixture
def provider(broker: Whole) -> Movable:
    assert isinstance(broker.provider, Movable)
    return broker.provider


async def reached(admin: AdminClient, campaign_id: str, *states: str, **counts: int) -> Campaign:
    """The campaign once it is in one of `states` with these counts."""
    async with asyncio.timeout(20):
        async for found in admin.watch_campaign(campaign_id):
            if found.state in states and all(getattr(found, name) == count for name, count in counts.items()):
                return found
    raise AssertionError(f"it ended as {found}")


async def begin(admin: AdminClient, **wish: Any) -> Campaign:
    return await admin.create_campaign("svc", "small", "bigger ones", **{"to_plan_id": "big", **wish})


async def test_every_instance_is_moved_once_a_few_at_a_time(
    broker: Whole, provider: Movable, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client, 12)
    await (await client.provision("svc", "kept", instance_id="other", wait=20)).result()
    begun = await begin(admin, canary=1, batch_size=4, parallelism=3)
    async with going(loop_of(broker)):
        ended = await reached(admin, begun.campaign_id, "SUCCEEDED")

    assert (begun.state, begun.principal, begun.reason) == ("PLANNED", "local", "bigger ones")
    assert (ended.total, ended.succeeded, ended.failures, ended.batch) == (12, 12, (), 3)
    assert ended.end_time is not None
    assert await plans(broker) == {"big": 12, "kept": 1}
    assert set((await updates(broker)).values()) == {1}
    assert provider.held.most <= 3
    assert [one.campaign_id async for one in admin.campaigns()] == [begun.campaign_id]
    items = [item async for item in admin.campaign_items(begun.campaign_id, page_size=5)]
    assert [item.place for item in items] == list(range(1, 13))
    assert {item.state for item in items} == {"SUCCEEDED"}
    operation = await client.operation(items[0].operation_id)
    assert (operation.status.verb, operation.status.state) == ("UPDATE", "SUCCEEDED")


async def test_one_that_fails_is_named_and_the_others_are_moved(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client, 6, i3=POISON)
    begun = await begin(admin, canary=0, max_failures=1)
    async with going(loop_of(broker)):
        ended = await reached(admin, begun.campaign_id, "FINISHED_WITH_FAILURES")
        (failed,) = [item async for item in admin.campaign_items(begun.campaign_id, state="failed")]
        again, count = await admin.retry_campaign(begun.campaign_id, "perhaps it works now")
        once_more = await reached(admin, begun.campaign_id, "FINISHED_WITH_FAILURES")

    assert (ended.succeeded, ended.failed, await plans(broker)) == (5, 1, Counter(big=5, small=1))
    assert ended.failures == (failed,)
    assert (failed.instance_id, failed.code, failed.attempt) == ("i3", "PROVIDER_FAILED", 1)
    assert "the disk is damaged" in failed.message
    assert (count, again.pending, again.failed) == (1, 1, 0)
    assert [item.attempt for item in once_more.failures] == [2]
    assert (await updates(broker))["i3"] == 2


async def test_the_canary_stops_everything_else(broker: Whole, client: purveyor.Client, admin: AdminClient) -> None:
    await provisioned(client, 5, i0=POISON, i1=POISON, i2=POISON, i3=POISON, i4=POISON)
    begun = await begin(admin, canary=1, max_failures=5)
    async with going(loop_of(broker)):
        stopped = await reached(admin, begun.campaign_id, "PAUSED", running=0)
    assert (stopped.problem, stopped.failed, stopped.pending) == ("the canary failed", 1, 4)
    assert sum((await updates(broker)).values()) == 1
    records = [r async for r in admin.audit(filter="action = PauseCampaign")]
    assert [(r.principal, r.reason) for r in records] == [("purveyor", "the canary failed")]


async def test_pause_resume_abort(
    broker: Whole, provider: Movable, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client, 8)
    provider.held.gate.clear()
    begun = await begin(admin, canary=0, parallelism=2)
    async with going(loop_of(broker)):
        await reached(admin, begun.campaign_id, "RUNNING", running=2)
        paused = await admin.pause_campaign(begun.campaign_id, "lunch")
        assert (await admin.pause_campaign(begun.campaign_id, "lunch still")).state == "PAUSED"
        provider.held.gate.set()
        rest = await reached(admin, begun.campaign_id, "PAUSED", running=0)
        assert (rest.succeeded, rest.pending) == (2, 6)
        provider.held.gate.clear()
        await admin.resume_campaign(begun.campaign_id, "lunch is over")
        await reached(admin, begun.campaign_id, "RUNNING", running=2, succeeded=2)
        tried = await admin.abort_campaign(begun.campaign_id, "enough", validate_only=True)
        aborted = await admin.abort_campaign(begun.campaign_id, "enough")
        with pytest.raises(FailedPreconditionError):
            await admin.resume_campaign(begun.campaign_id, "after all")
        provider.held.gate.set()
        over = await reached(admin, begun.campaign_id, "ABORTED", running=0)
        await begin(admin)  # nothing is in its way any more

    assert (paused.state, tried.state, aborted.state) == ("PAUSED", "ABORTED", "ABORTED")
    assert (over.succeeded, over.pending, await plans(broker)) == (4, 4, Counter(big=4, small=4))
    acts = [r.action async for r in admin.audit(filter="outcome = DONE")]
    assert Counter(acts) == {"CreateCampaign": 2, "PauseCampaign": 2, "ResumeCampaign": 1, "AbortCampaign": 1}


async def test_a_dry_run_says_what_would_become_of_each_and_changes_nothing(
    broker: Whole, provider: Movable, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client, 6, i1=2)
    await client.deprovision("i2", wait=20)
    provider.held.gate.clear()
    await client.update("i3", parameters={"size": 9})
    await broker.admin_parts.store.ping()
    head = broker.store.head
    pages = [page async for page in admin.plan_campaign("svc", "small", to_plan_id="strict", page_size=2)]
    provider.held.gate.set()

    found = {item.instance_id: (item.state, item.code) for page in pages for item in page.items}
    assert found == {
        "i0": ("PENDING", ""),
        "i1": ("FAILED", "INVALID_PARAMETERS"),
        "i3": ("PENDING", "OPERATION_IN_PROGRESS"),
        "i4": ("PENDING", ""),
        "i5": ("PENDING", ""),
    }
    assert len(pages) == 3
    assert {(page.total, page.campaign.campaign_id) for page in pages} == {(5, "")}
    assert broker.store.head <= head + 2  # the end of the update alone
    assert await broker.store.campaigns(Page(10)) == ()


async def test_what_the_schema_no_longer_accepts_fails_alone(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client, 4, i1=2)
    begun = await begin(admin, to_plan_id="strict", canary=0, max_failures=1)
    async with going(loop_of(broker)):
        ended = await reached(admin, begun.campaign_id, "FINISHED_WITH_FAILURES")
    assert [(item.instance_id, item.code) for item in ended.failures] == [("i1", "INVALID_PARAMETERS")]
    assert await plans(broker) == {"strict": 3, "small": 1}
    with pytest.raises(InvalidRequestError):  # and no caller can move it there either
        await client.update("i1", plan="strict")
    await client.update("i1", parameters={"size": 6}, plan="strict")


async def test_busy_ones_wait_and_gone_ones_are_passed_over(
    broker: Whole, provider: Movable, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client, 4)
    begun = await begin(admin, canary=0)
    loop = loop_of(broker)
    await loop.once()  # all are written down
    provider.held.gate.clear()
    busy = await client.update("i0", parameters={"size": 9})
    await client.deprovision("i1", wait=20)
    gone = await client.deprovision("i2", wait=20)
    await gone.result()
    await (await client.provision("svc", "small", instance_id="i2", wait=20)).result()  # another one of that name
    await loop.once()
    provider.held.gate.set()
    await busy.result()
    waiting = {item.instance_id: item.code async for item in admin.campaign_items(begun.campaign_id, state="pending")}
    async with going(loop):
        await reached(admin, begun.campaign_id, "RUNNING", succeeded=1)
        states = {item.instance_id: (item.state, item.code) async for item in admin.campaign_items(begun.campaign_id)}
    assert waiting == {"i0": "OPERATION_IN_PROGRESS"}
    assert states == {
        "i0": ("PENDING", "OPERATION_IN_PROGRESS"),
        "i1": ("SKIPPED", "GONE"),
        "i2": ("SKIPPED", "GONE"),
        "i3": ("SUCCEEDED", ""),
    }


async def test_freezes_hold_it(broker: Whole, client: purveyor.Client, admin: AdminClient) -> None:
    await provisioned(client, 2)
    begun = await begin(admin)
    loop = loop_of(broker)
    for name in ("all", "deletes", "provider:main"):
        await admin.freeze(name, "hands off")
        await loop.once()
        assert (await admin.campaign(begun.campaign_id)).state == "PLANNED"
        await admin.thaw(name, "go on")
    async with going(loop):
        await reached(admin, begun.campaign_id, "SUCCEEDED")


async def test_an_upgrade_gives_everything_the_catalogs_version(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client, 3, "kept")
    for name in ("i0", "i1"):  # as of an older catalog
        await made_older(broker, name)
    begun = await admin.create_campaign("svc", "kept", "all of them", canary=0)
    async with going(loop_of(broker)):
        ended = await reached(admin, begun.campaign_id, "SUCCEEDED")
    assert (begun.to_version, ended.succeeded, ended.skipped) == ("2.0.0", 2, 1)
    assert (await client.instance("i0")).maintenance_version == "2.0.0"


@pytest.mark.parametrize(
    ("wish", "reason", "said"),
    [
        ({"to_plan_id": "nowhere"}, "UNKNOWN_PLAN", "nowhere"),
        ({"to_plan_id": "small"}, "INVALID_REQUEST", "the plan that they have"),
        ({"to_plan_id": "retired"}, "UNKNOWN_PLAN", "retired"),
        ({"to_plan_id": "foreign"}, "PLAN_NOT_UPDATABLE", "another provider"),
        ({"to_plan_id": "choosy"}, "PLAN_NOT_UPDATABLE", "does not take"),
        ({"to_plan_id": ""}, "MAINTENANCE_INFO_CONFLICT", "no maintenance version"),
        ({"canary": 3}, "INVALID_REQUEST", "concerns 2 instances"),
        ({"parallelism": 0}, "INVALID_REQUEST", "1 to 100"),
        ({"tenant": "No Such"}, "INVALID_REQUEST", "tenant"),
    ],
)
async def test_what_cannot_be_is_refused_with_its_reason(
    client: purveyor.Client, admin: AdminClient, wish: dict[str, Any], reason: str, said: str
) -> None:
    await provisioned(client, 2)
    kinds = (InvalidRequestError, NotFoundError, FailedPreconditionError)
    with pytest.raises(kinds) as refused:
        await begin(admin, **wish)
    with pytest.raises(kinds):
        _ = [page async for page in admin.plan_campaign("svc", "small", **{"to_plan_id": "big", **wish})]
    assert refused.value.reason == reason
    assert said in refused.value.message
    assert [one async for one in admin.campaigns()] == []


async def test_two_over_the_same_instances_or_in_a_circle(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client, 2)
    with pytest.raises(NotFoundError) as missing:
        await admin.campaign("nothing")
    assert missing.value.reason == "CAMPAIGN_NOT_FOUND"
    first = await begin(admin, request_id="r1", canary=2)
    assert (await begin(admin, request_id="r1", canary=2)).campaign_id == first.campaign_id
    with pytest.raises(InvalidRequestError) as reused:
        await begin(admin, request_id="r1", canary=0)
    assert reused.value.reason == "REQUEST_ID_REUSED"
    for source, target in (("small", "strict"), ("big", "small"), ("big", "strict")):
        with pytest.raises(FailedPreconditionError) as refused:
            await admin.create_campaign("svc", source, "another", to_plan_id=target, canary=0)
        assert (refused.value.reason, refused.value.metadata) == ("CAMPAIGN_CONFLICT", {"campaigns": first.campaign_id})
    async with going(loop_of(broker)):
        await reached(admin, first.campaign_id, "SUCCEEDED")
        again = await begin(admin, request_id="r1", canary=2)  # though there are no two any more
        assert (again.campaign_id, again.state) == (first.campaign_id, "SUCCEEDED")
        back = await admin.create_campaign("svc", "big", "back again", to_plan_id="small")
        await reached(admin, back.campaign_id, "SUCCEEDED")
    assert await plans(broker) == {"small": 2}


async def test_a_catalog_that_no_longer_allows_it_pauses_it(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client, 2)
    begun = await begin(admin)
    await loop_of(broker, without="big").once()
    stopped = await admin.campaign(begun.campaign_id)
    assert stopped.state == "PAUSED"
    assert "big" in stopped.problem


async def test_plans_that_nobody_may_leave_and_campaigns_of_nothing(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client, 1, "fixed")
    with pytest.raises(FailedPreconditionError) as refused:
        await admin.create_campaign("svc", "fixed", "away", to_plan_id="big")
    assert refused.value.reason == "PLAN_NOT_UPDATABLE"
    begun = await begin(admin)
    async with going(loop_of(broker)):
        ended = await reached(admin, begun.campaign_id, "SUCCEEDED")
    assert (begun.canary, ended.total) == (0, 0)


async def test_who_is_left_alone_is_passed_over(broker: Whole, client: purveyor.Client, admin: AdminClient) -> None:
    await provisioned(client, 2)
    await admin.pause("t", "i0", "an experiment is going on")
    await client.update("i1", deletion_protected=True)
    begun = await begin(admin, canary=0)
    async with going(loop_of(broker)):
        await reached(admin, begun.campaign_id, "SUCCEEDED")
    items = {item.instance_id: item async for item in admin.campaign_items(begun.campaign_id)}
    assert (items["i0"].state, items["i0"].code, items["i1"].state) == ("SKIPPED", "LEFT_ALONE", "SUCCEEDED")
    assert "an experiment is going on" in items["i0"].message


async def cli(broker: Whole, *arguments: str, terminal: bool = False) -> tuple[int, str, str]:
    """Code, stdout and stderr of `purveyor campaign`; what a terminal shows comes as stdout."""
    command = (sys.executable, "-m", "purveyor.cli", "campaign", *arguments, "--admin", broker.address)
    shown, screen = pty.openpty() if terminal else (-1, asyncio.subprocess.PIPE)
    process = await asyncio.create_subprocess_exec(*command, stdout=screen, stderr=asyncio.subprocess.PIPE)
    reading = asyncio.to_thread(_screen, shown, screen) if terminal else None
    told = asyncio.create_task(reading) if reading is not None else None
    out, err = await process.communicate()
    if told is not None:
        os.close(screen)
        out = await told
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


def _screen(shown: int, _screen: int) -> bytes:
    """All that is written to a terminal until nobody has it open."""
    found = b""
    try:
        while part := os.read(shown, 65536):
            found += part
    except OSError:  # EIO is how its end is told
        pass
    os.close(shown)
    return found


async def test_the_command_line(broker: Whole, client: purveyor.Client) -> None:
    await provisioned(client, 4, i2=POISON)
    foreseen = await cli(broker, "start", "svc/small", "--to", "big", "--dry-run", "--json")
    assert foreseen[0] == 0, foreseen
    assert json.loads(foreseen[1])["counts"] == {"would be moved": 4}
    async with going(loop_of(broker)):
        arguments = ("--to", "big", "--canary", "0", "--max-failures", "1", "--reason", "more room", "--watch")
        code, screen, err = await cli(broker, "start", "svc/small", *arguments, terminal=True)
    assert code == 1, (screen, err)
    for word in ("svc/small to big", "FINISHED_WITH_FAILURES", "i2", "the disk is damaged", "3 moved"):
        assert word in screen
    (listed,) = json.loads((await cli(broker, "list", "--json"))[1])
    lines = await cli(broker, "watch", listed["campaign_id"])
    assert lines[0] == 1
    assert f"{listed['campaign_id']}  FINISHED_WITH_FAILURES" in lines[1]
    assert "PROVIDER_FAILED" in lines[1]
    shown = await cli(broker, "items", listed["campaign_id"], "--state", "failed", "--json")
    assert [item["instance_id"] for item in json.loads(shown[1])] == ["i2"]
