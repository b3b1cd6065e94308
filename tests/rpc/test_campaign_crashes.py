"""A campaign whose broker ends at any moment goes on, and no instance is asked for twice."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any, cast

import pytest
from msgspec.structs import replace

import purveyor
from purveyor.admin import AdminClient
from purveyor.campaign_values import Campaign
from purveyor_server.lifecycle.admin.campaign_moves import UpdateInstance
from purveyor_server.lifecycle.contract import Caller, Outcome, Update
from purveyor_server.reconcile.campaigns import CampaignLoop
from purveyor_server.store.contract import Store
from tests.fakes.provider import World
from tests.rpc.campaigning import SERVICE, HeldPiece, Movable, going, loop_of, plans, provisioned, updates
from tests.rpc.whole import Whole, whole_broker

COUNT = 3


class Killed(Exception):  # noqa: N818 - what happens to a process is no error of its own
    """The process ends here."""


class Mortal:
    """Something whose asynchronous methods end the process at the nth call, before it is made or after it is done."""

    def __init__(self, inner: Any, deaths: Deaths) -> None:
        self._inner = inner
        self._deaths = deaths

    def __getattr__(self, name: str) -> Any:
        found = getattr(self._inner, name)
        return self._deaths.wrap(found) if inspect.iscoroutinefunction(found) else found


class Deaths:
    """Counts calls; at number `at` the process ends."""

    def __init__(self, at: int, *, after: bool) -> None:
        self.at = at
        self.after = after
        self.calls = 0

    def wrap(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call`, counted."""

        async def counted(*arguments: Any, **named: Any) -> Any:
            self.calls += 1
            dies = self.calls == self.at
            if dies and not self.after:
                raise Killed
            answer = await call(*arguments, **named)
            if dies:
                raise Killed
            return answer

        return counted

    def loop_of(self, broker: Whole, update: UpdateInstance) -> CampaignLoop:
        """A loop that may end so, in its store and in the update."""
        parts = broker.admin_parts
        store = cast("Store", Mortal(broker.store, self))
        return CampaignLoop(store, self.wrap(update), parts.catalog, parts.clock, 0.0)


async def driven(loop: CampaignLoop, broker: Whole, campaign_id: str) -> None:
    """Rounds until the campaign is over. Raises Killed."""
    async with asyncio.timeout(10):
        while True:
            loop.wake.clear()
            await loop.once()
            campaign = await broker.store.campaign(campaign_id)
            if campaign is None or not campaign.live:
                return
            await loop.wake.wait()


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[Whole]:
    async with whole_broker(folder, service=SERVICE, scripted=Movable) as running:
        yield running


class Swing:
    """Moves everything to and fro; each time the process may end at another call."""

    def __init__(self, broker: Whole, admin: AdminClient) -> None:
        self.broker = broker
        self.admin = admin
        self.update: UpdateInstance = broker.use_cases.update
        self._way = ("small", "big")

    async def once(self, deaths: Deaths) -> tuple[bool, set[int]]:
        """Whether it got through without dying, and how often instances were updated."""
        source, target = self._way
        self._way = (target, source)
        begun = await self.admin.create_campaign("svc", source, "to and fro", to_plan_id=target, parallelism=2)
        before = await updates(self.broker)
        try:
            await driven(deaths.loop_of(self.broker, self.update), self.broker, begun.campaign_id)
            whole = True
        except Killed:
            whole = False
            after = deaths.loop_of(self.broker, self.update)  # it has died already
            await driven(after, self.broker, begun.campaign_id)
        ended = await self.admin.campaign(begun.campaign_id)
        assert (ended.state, ended.succeeded, ended.skipped) == ("SUCCEEDED", COUNT, 0), ended
        assert await plans(self.broker) == {target: COUNT}
        counts = await updates(self.broker)
        return whole, {count - before[name] for name, count in counts.items()}


@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
async def test_killed_at_every_call_no_instance_is_updated_twice(
    broker: Whole, client: purveyor.Client, admin: AdminClient, *, after: bool
) -> None:
    await provisioned(client, COUNT)
    swing, at, whole = Swing(broker, admin), 0, False
    while not whole:
        at += 1
        whole, counts = await swing.once(Deaths(at, after=after))
        assert counts == {1}, f"killed at call {at}"
    assert at > 20


@pytest.mark.parametrize("forgets", [False, True], ids=["as it is", "without request ids"])
async def test_what_was_moved_back_after_the_crash_is_not_moved_again(
    broker: Whole, client: purveyor.Client, admin: AdminClient, *, forgets: bool
) -> None:
    """The second form is the negative control."""
    await provisioned(client, 1)
    begun = await admin.create_campaign("svc", "small", "once", to_plan_id="big")

    async def update(caller: Caller, request: Update) -> Outcome:
        return await broker.use_cases.update(caller, replace(request, request_id="") if forgets else request)

    loop = loop_of(broker, update=Deaths(1, after=True).wrap(update))
    with pytest.raises(Killed):
        await driven(loop, broker, begun.campaign_id)
    (operation,) = [one async for one in client.operations() if one.verb == "UPDATE"]
    await (await client.operation(operation.operation_id)).result()
    await (await client.update("i0", plan="small", wait=20)).result()
    await driven(loop_of(broker, update=update), broker, begun.campaign_id)

    assert await plans(broker) == ({"big": 1} if forgets else {"small": 1})
    assert (await admin.campaign(begun.campaign_id)).succeeded == 1


async def test_what_was_begun_before_a_crash_waits_for_a_thaw(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client, 2)
    begun = await admin.create_campaign("svc", "small", "soon", to_plan_id="big")
    with pytest.raises(Killed):
        await driven(
            loop_of(broker, update=Deaths(1, after=False).wrap(broker.use_cases.update)), broker, begun.campaign_id
        )
    await admin.freeze("provider:main", "hands off")
    await loop_of(broker).once()
    assert await updates(broker) == {}
    assert (await admin.campaign(begun.campaign_id)).running == 1
    await admin.thaw("provider:main", "go on")
    await driven(loop_of(broker), broker, begun.campaign_id)
    assert await updates(broker) == {"i0": 1, "i1": 1}


async def test_what_was_begun_before_a_pause_is_left_alone(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    """An operator's hand upon it between the turn that was written down and the update: the rule holds in the command."""
    await provisioned(client, 1)
    begun = await admin.create_campaign("svc", "small", "soon", to_plan_id="big")
    with pytest.raises(Killed):
        await driven(
            loop_of(broker, update=Deaths(1, after=False).wrap(broker.use_cases.update)), broker, begun.campaign_id
        )
    await admin.pause("t", "i0", "an experiment")
    await driven(loop_of(broker), broker, begun.campaign_id)
    (item,) = [item async for item in admin.campaign_items(begun.campaign_id)]
    assert (item.state, item.code, await updates(broker)) == ("SKIPPED", "LEFT_ALONE", {})


def held(broker: Whole) -> HeldPiece:
    assert isinstance(broker.provider, Movable)
    return broker.provider.held


async def test_a_restart_in_the_middle_is_seen_by_who_watches(folder: Path) -> None:
    world, states = World(), list[Campaign]()

    async def watch(address: str, campaign_id: str, seen: asyncio.Event) -> None:
        async with AdminClient(address) as admin:
            async for found in admin.watch_campaign(campaign_id):
                states.append(found)
                if found.running == 4:
                    seen.set()

    async with asyncio.timeout(30):
        async with whole_broker(folder, service=SERVICE, scripted=Movable, world=world) as first:
            async with purveyor.Client(first.address, tenant="t") as client:
                await provisioned(client, 8)
            held(first).gate.clear()
            async with AdminClient(first.address) as admin, going(loop_of(first)):
                begun = await admin.create_campaign("svc", "small", "on and on", to_plan_id="big", canary=0)
                seen = asyncio.Event()
                watching = asyncio.create_task(watch(first.address, begun.campaign_id, seen))
                await seen.wait()
        async with whole_broker(folder, service=SERVICE, scripted=Movable, world=world) as second:
            async with going(loop_of(second)):
                await watching
            assert await plans(second) == {"big": 8}
            assert set((await updates(second)).values()) == {1}
    assert (states[-1].state, states[-1].succeeded, states[-1].failed) == ("SUCCEEDED", 8, 0)
