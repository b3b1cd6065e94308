"""Purge in every state that a graph of records can be in: it ends what is unfinished, frees who waited, names what is left."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import purveyor
from purveyor.admin import AdminClient
from purveyor.admin_values import Purged
from purveyor.errors import OperationFailedError
from purveyor_server.domain.model import Step
from purveyor_server.domain.policies import CleanupMode, CleanupPolicy
from purveyor_server.domain.states import Make, StepState
from purveyor_server.providers.contract import NotYet, Permanent
from purveyor_server.store.contract import SYSTEM, Accept, Amend, Backlog, Decision, Page, Situation, Writes
from tests.rpc.test_stuck import ended, waiting
from tests.rpc.whole import BIG, SERVICE, SMALL, Whole, whole_broker

MANUAL = replace(BIG, cleanup=CleanupPolicy(CleanupMode.MANUAL))
LATER = replace(BIG, id="later", name="later", cleanup=CleanupPolicy(CleanupMode.DELAYED, timedelta(hours=1)))
ALL = {"instance/role", "instance/space", "instance/grant"}


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[Whole]:
    async with whole_broker(folder, service=replace(SERVICE, plans=(SMALL, MANUAL, LATER))) as running:
        yield running


class Scene:
    """A tenant's view, an operator's, and what is behind."""

    def __init__(self, client: purveyor.Client, admin: AdminClient, broker: Whole) -> None:
        self.client, self.admin, self.broker, self.world = client, admin, broker, broker.world

    async def ready(self, *bindings: str) -> None:
        await (await self.client.provision("svc", "small", instance_id="orders", wait=20)).result()
        for name in bindings:
            await (await self.client.bind("orders", binding_id=name, wait=20)).result()

    async def fails(self, asked: Awaitable[purveyor.OperationHandle[Any]]) -> str:
        handle = await asked
        with pytest.raises(OperationFailedError):
            await handle.result()
        return handle.id

    async def parks(self, asked: Awaitable[purveyor.OperationHandle[Any]], reason: str = "PARKED") -> str:
        handle = await asked
        await waiting(self.client, handle.id, reason)
        return handle.id

    async def purged(self, binding_id: str = "") -> Purged:
        calls = list(self.world.calls)
        found = await self.admin.purge("t", "orders", "away with it", binding_id=binding_id, even_if_in_use=True)
        assert self.world.calls == calls
        return found


@pytest.fixture
def scene(client: purveyor.Client, admin: AdminClient, broker: Whole) -> Scene:
    return Scene(client, admin, broker)


async def kept(scene: Scene) -> None:
    scene.world.plant("grant.ensure", Permanent("no"))
    await scene.fails(scene.client.provision("svc", "big", instance_id="orders"))


async def cleaned_later(scene: Scene) -> None:
    scene.world.plant("grant.ensure", Permanent("no"))
    await scene.fails(scene.client.provision("svc", "later", instance_id="orders"))


async def half_made(scene: Scene) -> None:
    scene.world.plant("grant.ensure", NotYet(3600, "tomorrow"))
    await scene.parks(scene.client.provision("svc", "small", instance_id="orders"))


async def half_updated(scene: Scene) -> None:
    await scene.ready()
    scene.world.plant("space.ensure", NotYet(3600, "tomorrow"))
    await scene.parks(scene.client.update("orders", parameters={"size": 2}))


async def delete_failed(scene: Scene) -> None:
    await scene.ready()
    scene.world.plant("grant.absent", Permanent("no"))
    await scene.fails(scene.client.deprovision("orders"))


async def frozen(scene: Scene) -> None:
    await scene.ready()
    await scene.admin.freeze("provider:main", "its backend is away")
    await scene.parks(scene.client.deprovision("orders"), "FROZEN")


async def of_no_known_plan(scene: Scene) -> None:
    """Neither snapshot nor provider of the record are there."""
    await scene.ready()

    def decide(situation: Situation) -> Decision:
        assert situation.instance is not None
        assert situation.instance.applied is not None
        lost = replace(situation.instance.applied, plan="nowhere", service_id="gone", plan_id="gone")
        instance = replace(situation.instance, applied=lost, desired=lost, version=situation.instance.version + 1)
        return Decision(Writes(instances=(instance,)))

    await scene.broker.store.accept(Accept(SYSTEM, "t", "orders", decide))


async def with_unknown_steps(scene: Scene) -> None:
    """A journal with a step that no code knows any more."""
    await half_made(scene)
    (operation,) = await scene.broker.store.every_unfinished(Page(10))
    line = Step(
        operation_id=operation.operation_id, index=3, name="relic", make=Make.ENSURE, state=StepState.STARTED,
        started_at=operation.created_at,
    )  # fmt: skip
    await scene.broker.store.amend(Amend(SYSTEM, operation.operation_id, lambda _job: Writes(steps=(line,))))


async def with_bindings(scene: Scene) -> None:
    await scene.ready("app", "job")
    scene.world.plant("login.absent", Permanent("no"))
    await scene.fails(scene.client.unbind("orders", "app"))


async def half_cascaded(scene: Scene) -> None:
    await scene.ready("app", "job")
    scene.world.plant("login.absent", NotYet(3600, "tomorrow"), NotYet(3600, "tomorrow"))
    parent = await scene.client.deprovision("orders", cascade=True)
    async for child in parent.children():
        await waiting(scene.client, child.operation_id, "PARKED")


BOTH = {"binding/app/login", "binding/job/login"}
SCENES: list[tuple[Callable[[Scene], Awaitable[None]], set[str], int]] = [
    (kept, ALL, 0),
    (cleaned_later, ALL, 1),
    (half_made, ALL, 1),
    (half_updated, ALL, 1),
    (delete_failed, ALL, 0),
    (frozen, ALL, 1),
    (of_no_known_plan, ALL, 0),
    (with_unknown_steps, ALL | {"instance/relic"}, 1),
    (with_bindings, ALL | BOTH, 0),
    (half_cascaded, ALL | BOTH, 3),
]


@pytest.mark.parametrize(("arrange", "left", "over"), SCENES, ids=lambda value: getattr(value, "__name__", ""))
async def test_a_purge_ends_all_and_names_what_is_left(
    scene: Scene, arrange: Callable[[Scene], Awaitable[None]], left: set[str], over: int
) -> None:
    await arrange(scene)
    found = await scene.purged()
    assert {name.split()[0] for name in found.left_behind} == left
    assert len(found.ended_operation_ids) == over
    assert await scene.broker.store.backlog() == Backlog(0, 0)
    assert [one.instance_id async for one in scene.client.instances()] == []
    again = await scene.purged()
    assert (again.left_behind, again.ended_operation_ids) == (found.left_behind, ())


async def test_a_binding_purged_in_a_cascade_lets_its_parent_go_on(scene: Scene) -> None:
    await scene.ready("app")
    scene.world.plant("login.absent", NotYet(3600, "tomorrow"))
    parent = await scene.client.deprovision("orders", cascade=True)
    (child,) = [one async for one in parent.children()]
    await waiting(scene.client, child.operation_id, "PARKED")
    found = await scene.purged("app")
    assert found.ended_operation_ids == (child.operation_id,)
    assert [name.split()[0] for name in found.left_behind] == ["binding/app/login"]
    async with asyncio.timeout(10):
        await parent.result()
    assert [name.split("_")[1] for name in scene.world.things] == ["login"]


async def test_a_failed_binding_with_remains_is_purged_alone(scene: Scene) -> None:
    await (await scene.client.provision("svc", "big", instance_id="orders", wait=20)).result()
    scene.world.plant("login.ensure", Permanent("no"))
    await scene.fails(scene.client.bind("orders", binding_id="app"))
    found = await scene.purged("app")
    assert [name.split()[0] for name in found.left_behind] == ["binding/app/login"]
    assert (await scene.client.instance("orders")).state == "READY"
    assert (await scene.admin.status()).remains_kept == 0


async def test_remains_that_are_kept_are_counted_until_something_is_done_about_them(scene: Scene) -> None:
    await kept(scene)
    assert (await scene.admin.status()).remains_kept == 1
    (operation,) = [one async for one in scene.client.operations()]
    made = await scene.admin.retry(operation.operation_id, "again")
    assert await ended(scene.client, made.operation_id) == "SUCCEEDED"
    assert (await scene.admin.status()).remains_kept == 0
