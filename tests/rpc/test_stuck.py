"""The loop that ends what would not end, over a whole broker; each case stays as it is without the loop."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

import purveyor
from purveyor.admin import AdminClient
from purveyor_server.domain.model import Operation
from purveyor_server.domain.states import Waiting
from purveyor_server.domain.stuck import Bounds, Rule
from purveyor_server.providers.contract import NotYet, Unreachable
from purveyor_server.reconcile.stuck import StuckLoop
from purveyor_server.store.contract import SYSTEM, Amend, Job, Writes
from tests.rpc.whole import Whole

NONE = timedelta(0)
YEAR = timedelta(days=365)


def loop(broker: Whole, **bounds: timedelta) -> StuckLoop:
    """A loop whose margins are nothing, unless they are given; time counts from a year ago."""
    found = StuckLoop(broker.admin_parts, 60.0, Bounds(**({"margin": YEAR, "held": YEAR, "leased": YEAR} | bounds)))
    found._since -= YEAR
    return found


async def changed(broker: Whole, operation_id: str, **changes: Any) -> Operation:
    """Put an operation into a situation by hand."""

    def decide(job: Job) -> Writes:
        return Writes(quiet=(replace(job.operation, version=job.operation.version + 1, **changes),))

    return await broker.store.amend(Amend(SYSTEM, operation_id, decide))


async def waiting(client: purveyor.Client, operation_id: str, reason: str) -> None:
    handle = await client.operation(operation_id)
    async with asyncio.timeout(10):
        async for status in handle:
            if status.waiting is not None and status.waiting.reason == reason:
                return


async def ended(client: purveyor.Client, operation_id: str) -> str:
    handle = await client.operation(operation_id)
    async with asyncio.timeout(10):
        async for status in handle:
            if status.done:
                return f"{status.state} {status.failure.reason if status.failure else ''}".strip()
    raise AssertionError("the stream ended before the operation")


def rules(broker: Whole) -> dict[Rule, int]:
    return dict(broker.admin_parts.stuck.cured)


async def ready(client: purveyor.Client) -> None:
    await (await client.provision("svc", "big", instance_id="orders", wait=20)).result()


async def test_nothing_is_stuck_in_a_sound_broker(client: purveyor.Client, admin: AdminClient, broker: Whole) -> None:
    broker.world.plant("role.ensure", NotYet(3600, "tomorrow"))
    handle = await client.provision("svc", "big", instance_id="orders")
    await waiting(client, handle.id, "PARKED")
    await loop(broker, margin=NONE, held=NONE, leased=NONE).once()
    assert (rules(broker), (await admin.status()).stuck) == ({}, 0)


async def test_what_waits_for_what_has_ended_is_freed(
    client: purveyor.Client, admin: AdminClient, broker: Whole
) -> None:
    await ready(client)
    gate = asyncio.Event()
    broker.world.plant("login.ensure", gate)
    bind = await client.bind("orders", binding_id="app")
    await broker.world.entered["login.ensure"].wait()
    removal = await client.unbind("orders", "app")
    await changed(broker, removal.id, blocked_by=("0198c0de-0000-7000-8000-000000000000",))
    gate.set()
    await ended(client, bind.id)
    assert not (await removal.refresh()).done
    await loop(broker).once()
    assert await ended(client, removal.id) == "SUCCEEDED"
    assert rules(broker) == {Rule.BLOCKERS_ENDED: 1}
    assert (await admin.status()).stuck == 1
    await loop(broker).once()
    assert (await admin.status()).stuck == 0


async def test_a_ring_is_opened(client: purveyor.Client, broker: Whole) -> None:
    await ready(client)
    await (await client.bind("orders", binding_id="app", wait=20)).result()
    broker.world.plant("login.absent", NotYet(3600, "tomorrow"))
    parent = await client.deprovision("orders", cascade=True)
    (child,) = [one async for one in client.operations(filter=f"parent_operation_id = {parent.id}")]
    await waiting(client, child.operation_id, "PARKED")
    held = {"blocked_by": (parent.id,), "due_at": None, "deadline": None, "waiting": Waiting.BLOCKED}
    await changed(broker, child.operation_id, **held)
    await loop(broker).once()
    assert await ended(client, child.operation_id) == "SUCCEEDED"
    assert await ended(client, parent.id) == "SUCCEEDED"
    assert rules(broker) == {Rule.CYCLE: 1}


async def test_what_oversleeps_its_deadline_is_woken_and_ended_by_the_engine(
    client: purveyor.Client, broker: Whole
) -> None:
    broker.world.plant("space.ensure", NotYet(3600, "tomorrow"))
    handle = await client.provision("svc", "big", instance_id="orders")
    await waiting(client, handle.id, "PARKED")
    past = broker.admin_parts.clock.now() - timedelta(seconds=5)
    await changed(broker, handle.id, deadline=past)
    broker.engine._seen.add(handle.id)
    await loop(broker, margin=timedelta(seconds=4)).once()
    assert await ended(client, handle.id) == "FAILED OPERATION_DEADLINE_EXCEEDED"
    assert (rules(broker), broker.world.things) == ({Rule.OVERSLEPT: 1}, {})


async def test_a_removal_that_never_began_ends_though_its_backend_stays_away(
    client: purveyor.Client, admin: AdminClient, broker: Whole
) -> None:
    await ready(client)
    broker.world.plant("grant.absent", *[Unreachable("away")] * 1000)
    removal = await client.deprovision("orders")
    await waiting(client, removal.id, "CIRCUIT")
    past = broker.admin_parts.clock.now() - timedelta(seconds=5)
    await changed(broker, removal.id, deadline=past, due_at=past + timedelta(hours=1))
    walk = loop(broker, margin=timedelta(seconds=1))
    async with asyncio.timeout(10):
        while rules(broker) == {}:  # while the engine tries once more, it holds the operation
            await walk.once()
    assert await ended(client, removal.id) == "FAILED PROVIDER_UNREACHABLE"
    instance = await client.instance("orders")
    assert (instance.state, set(instance.cleanup_required)) == ("DELETE_FAILED", {"role", "space", "grant"})
    assert rules(broker) == {Rule.EXPIRED: 1}
    (record,) = [one async for one in admin.audit(filter="action = AbandonOperation")]
    assert record.principal == "purveyor"


@pytest.mark.parametrize("rule", [Rule.HELD, Rule.LEASED])
async def test_what_is_held_too_long_ends_and_a_clean_up_follows(
    client: purveyor.Client, broker: Whole, rule: Rule
) -> None:
    gate = asyncio.Event()
    broker.world.plant("space.ensure", gate)
    handle = await client.provision("svc", "big", instance_id="orders")
    await broker.world.entered["space.ensure"].wait()
    now = broker.admin_parts.clock.now()
    situation: dict[str, Any] = {"deadline": now - timedelta(seconds=5)}
    if rule is Rule.HELD:
        later = now + timedelta(hours=1)
        situation |= {"lease_owner": "", "waiting": Waiting.HELD, "waiting_detail": "unknown step", "due_at": later}
    await changed(broker, handle.id, **situation)
    await loop(broker, margin=NONE, held=NONE, leased=NONE).once()
    expected = {Rule.HELD: "FAILED PROVIDER_CHANGED", Rule.LEASED: "FAILED OPERATION_DEADLINE_EXCEEDED"}
    assert await ended(client, handle.id) == expected[rule]
    gate.set()
    (cleanup,) = [one async for one in client.operations(filter="verb = CLEANUP")]
    assert (cleanup.parent_operation_id, rules(broker)) == (handle.id, {rule: 1})


async def test_a_freeze_is_obeyed(client: purveyor.Client, admin: AdminClient, broker: Whole) -> None:
    broker.world.plant("space.ensure", NotYet(3600, "tomorrow"))
    handle = await client.provision("svc", "big", instance_id="orders")
    await waiting(client, handle.id, "PARKED")
    await changed(broker, handle.id, deadline=broker.admin_parts.clock.now() - timedelta(seconds=5))
    await admin.freeze("provider:main", "a disk is being changed")
    await loop(broker, margin=NONE).once()
    assert rules(broker) == {}


async def test_an_operation_that_moved_meanwhile_wins(client: purveyor.Client, broker: Whole) -> None:
    broker.world.plant("space.ensure", NotYet(3600, "tomorrow"))
    handle = await client.provision("svc", "big", instance_id="orders")
    await waiting(client, handle.id, "PARKED")
    await changed(broker, handle.id, deadline=broker.admin_parts.clock.now() - timedelta(seconds=5))
    amend = broker.store.amend

    async def late(command: Amend) -> Operation:
        await changed_by(amend, handle.id)
        return await amend(command)

    broker.store.amend = late  # type: ignore[method-assign] # somebody is quicker
    await loop(broker, margin=NONE).once()
    found = await broker.store.operation(SYSTEM, handle.id)
    assert found is not None
    assert (found.done, rules(broker)) == (False, {})


async def changed_by(amend: Any, operation_id: str) -> None:
    await amend(
        Amend(
            SYSTEM, operation_id, lambda job: Writes(quiet=(replace(job.operation, version=job.operation.version + 1),))
        )
    )
