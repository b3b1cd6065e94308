"""A broker with plans to move between, a provider that can be held and poisoned, and the loop of campaigns."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any

from msgspec.structs import replace

import purveyor
from purveyor_server.domain.catalog import Catalog, Plan, PlanSchemas, Service
from purveyor_server.domain.filters import INSTANCES, parse
from purveyor_server.domain.model import MaintenanceInfo, ProviderRef
from purveyor_server.domain.policies import PlanState
from purveyor_server.domain.states import Verb
from purveyor_server.lifecycle.admin.campaign_moves import UpdateInstance
from purveyor_server.providers.contract import Context, Done, NotYet, Outputs, Permanent, PlannedStep, Work
from purveyor_server.reconcile.campaigns import CampaignLoop
from purveyor_server.reconcile.loop import keep_going
from purveyor_server.store.contract import SYSTEM, Page, Writes
from tests.fakes.provider import ScriptedProvider, World, WorldPiece
from tests.rpc.whole import Whole
from tests.store_contract.records import write

SCHEMA = {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1}}}
STRICT = {"type": "object", "properties": {"size": {"type": "integer", "minimum": 5}}}
POISON = 13
INTERVAL = 0.05
SMALL = Plan(
    id="small",
    name="small",
    description="A small one.",
    provider=ProviderRef("main", "scripted"),
    plan_updateable=True,
    schemas=PlanSchemas(SCHEMA, SCHEMA, None),
)


def other(name: str, **changes: Any) -> Plan:
    """A plan beside `small`."""
    return replace(SMALL, id=name, name=name, **changes)


PLANS = (
    SMALL,
    other("big"),
    other("strict", schemas=PlanSchemas(STRICT, STRICT, None)),
    other("fixed", plan_updateable=False),
    other("foreign", provider=ProviderRef("elsewhere", "scripted")),
    other("retired", state=PlanState.RETIRED),
    other("choosy", transitions_from=("big",)),
    other("kept", maintenance_info=MaintenanceInfo("2.0.0")),
)
SERVICE = Service(id="svc", name="service", description="Things.", plans=PLANS)


class HeldPiece(WorldPiece):
    """What an update does: it waits for the gate, and fails for what is poisoned; the way back works."""

    def __init__(self, world: World) -> None:
        super().__init__(world, "held", "held")
        self.gate = asyncio.Event()
        self.gate.set()
        self.begun: Counter[str] = Counter()
        self.most = self.now = 0

    async def ensure(self, ctx: Context) -> Done | NotYet:
        assert ctx.want is not None
        self.begun[ctx.name("held")] += 1
        self.now += 1
        self.most = max(self.most, self.now)
        try:
            await self.gate.wait()
        finally:
            self.now -= 1
        if ctx.want.parameters.get("size") == POISON and ctx.want.plan_id != "small":
            message = "the disk is damaged"
            raise Permanent(message)
        return await super().ensure(ctx)


class Movable(ScriptedProvider):
    """An update is one step, the held one."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.held = HeldPiece(world)

    def plan(self, work: Work, done: Mapping[str, Outputs]) -> Sequence[PlannedStep]:
        return (PlannedStep(self.held),) if work.verb is Verb.UPDATE else super().plan(work, done)


def loop_of(broker: Whole, without: str = "", update: UpdateInstance | None = None) -> CampaignLoop:
    """The loop of a broker; with a catalog that has lost a plan, or another way to update, if one is given."""
    parts, kept = broker.admin_parts, tuple(plan for plan in PLANS if plan.id != without)
    catalog = Catalog((replace(SERVICE, plans=kept),))
    return CampaignLoop(broker.store, update or broker.use_cases.update, lambda: catalog, parts.clock, INTERVAL)


async def made_older(broker: Whole, instance_id: str) -> None:
    """As if the instance had been made when its plan had no maintenance version."""
    found = await broker.store.instance(SYSTEM, "t", instance_id)
    assert found is not None
    assert found.applied is not None
    before = replace(found.applied, maintenance_info=None)
    await write(broker.store, Writes(instances=(replace(found, applied=before, desired=before),)), "t")


@asynccontextmanager
async def going(loop: CampaignLoop) -> AsyncIterator[None]:
    """Let a loop go on for the length of the block."""
    task = asyncio.create_task(keep_going(loop, loop.wake), name="campaigns")
    try:
        yield
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def provisioned(client: purveyor.Client, count: int, plan: str = "small", **sizes: int) -> list[str]:
    """Instances `i0`, `i1` and so on; `sizes` by id."""
    names = [f"i{number}" for number in range(count)]

    async def one(name: str) -> None:
        order = await client.provision("svc", plan, parameters={"size": sizes.get(name, 7)}, instance_id=name, wait=20)
        await order.result()

    await asyncio.gather(*(one(name) for name in names))
    return names


async def plans(broker: Whole, tenant: str = "t") -> Counter[str]:
    """How many instances there are of each plan."""
    found = await broker.store.instances(SYSTEM, tenant, parse("", INSTANCES), Page(1000))
    return Counter((instance.applied or instance.desired).plan_id for instance in found)


async def updates(broker: Whole) -> Counter[str]:
    """How many updates there were, by instance id."""
    found: Counter[str] = Counter()
    for operation in await broker.store.operations(SYSTEM, "t", (), Page(10_000)):
        found[operation.instance_id] += operation.verb is Verb.UPDATE
    return +found
