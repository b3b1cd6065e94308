"""Drift on a whole broker: what looks find is told, listed and paused; nothing is ever deleted for it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import ConflictError, FailedPreconditionError, NotFoundError
from purveyor_server.domain.drift import Pace
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.states import Drift
from purveyor_server.lifecycle.admin import looking
from purveyor_server.lifecycle.admin.acts import record
from purveyor_server.lifecycle.admin.contract import Act
from purveyor_server.lifecycle.contract import ITSELF
from purveyor_server.lifecycle.door import Action
from purveyor_server.providers.contract import Known, Observed, Unreachable
from purveyor_server.reconcile.drift import DriftLoop
from purveyor_server.store.contract import SYSTEM
from tests.fakes.provider import ScriptedProvider, World
from tests.rpc.whole import Whole, whole_broker

NOW = Pace(timedelta(0), timedelta(0))  # a look is always due


class Watched(ScriptedProvider):
    """Answers looks as a test says, else by what is there."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.says: Observed | Exception | None = None
        self.looks: list[Known] = []
        self.gate: asyncio.Event | None = None
        self.entered = asyncio.Event()

    async def observe(self, instance: Known) -> Observed:
        self.looks.append(instance)
        self.entered.set()
        if self.gate is not None:
            await self.gate.wait()
        if isinstance(self.says, Exception):
            raise self.says
        return self.says or await super().observe(instance)

    def differs(self, *differences: str) -> None:
        self.says = Observed(Drift.DRIFTED, healthy=True, at=datetime.now(UTC), differences=differences)


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[Whole]:
    async with whole_broker(folder, scripted=Watched) as running:
        yield running


@pytest.fixture
def provider(broker: Whole) -> Watched:
    assert isinstance(broker.provider, Watched)
    return broker.provider


@pytest.fixture
def loop(broker: Whole) -> DriftLoop:
    parts = broker.admin_parts
    object.__setattr__(parts, "pace", NOW)
    return DriftLoop(parts, 10)


async def provisioned(client: purveyor.Client, name: str = "one") -> None:
    await (await client.provision("svc", "small", instance_id=name, wait=20)).result()


async def changes(broker: Whole, after: int) -> list[str]:
    return [event.kind for event in await broker.store.events(after, 100)]


async def test_what_vanished_is_missing_after_two_looks_and_nothing_is_deleted(
    broker: Whole, loop: DriftLoop, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client)
    await loop.once()
    assert (await client.instance("one")).drift == "IN_SYNC"
    head = broker.store.head
    await loop.once()
    assert broker.store.head == head  # the same again is not told
    broker.world.things.clear()

    await loop.once()
    once = await client.instance("one")
    await loop.once()
    twice = await client.instance("one")

    assert (once.drift, once.usable) == ("UNKNOWN", True)
    assert (twice.drift, twice.usable, twice.state) == ("MISSING", False, "READY")
    assert await changes(broker, head) == ["INSTANCE", "INSTANCE"]
    assert [report.drift async for report in admin.drift()] == ["MISSING"]
    assert [o.verb async for o in client.operations()] == ["PROVISION"]


async def test_healthy_again_is_told_too(
    broker: Whole, loop: DriftLoop, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client)
    kept = dict(broker.world.things)
    broker.world.things.clear()
    await loop.once()
    await loop.once()
    broker.world.things.update(kept)
    head = broker.store.head
    await loop.once()
    found = await client.instance("one")
    assert (found.drift, found.usable, await changes(broker, head)) == ("IN_SYNC", True, ["INSTANCE"])
    assert [report async for report in admin.drift()] == []


async def test_a_difference_is_told_once_with_its_words_for_operators(
    broker: Whole, loop: DriftLoop, provider: Watched, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client)
    await loop.once()
    head = broker.store.head
    provider.differs("connection limit is 3, not 20")
    await loop.once()
    provider.differs("connection limit is 4, not 20")
    await loop.once()
    assert await changes(broker, head) == ["INSTANCE"]
    (report,) = [report async for report in admin.drift()]
    assert (report.drift, report.differences) == ("DRIFTED", ("connection limit is 4, not 20",))
    assert (report.tenant, report.instance_id, report.plan_id) == ("t", "one", "small")
    assert (await client.instance("one")).drift == "DRIFTED"


async def test_a_backend_that_does_not_answer_is_asked_once_a_round(
    loop: DriftLoop, provider: Watched, client: purveyor.Client, admin: AdminClient
) -> None:
    for number in range(10):
        await provisioned(client, f"i{number}")
    await loop.once()
    provider.says = Unreachable("no answer", "port closed")
    provider.looks.clear()
    await loop.once()
    assert len(provider.looks) <= 8  # those that were on their way together
    problems = {report.problem async for report in admin.drift()}
    assert problems == {"no answer: port closed"}
    assert "MISSING" not in {report.drift async for report in admin.drift()}


async def test_an_operation_that_began_meanwhile_wins(
    broker: Whole, loop: DriftLoop, provider: Watched, client: purveyor.Client
) -> None:
    await (await client.provision("svc", "big", instance_id="one", wait=20)).result()
    await loop.once()
    provider.differs("as it was before the update")
    provider.gate = asyncio.Event()
    provider.entered.clear()
    round_ = asyncio.create_task(loop.once())
    await provider.entered.wait()
    await (await client.update("one", parameters={"size": 7}, wait=20)).result()
    provider.gate.set()
    await round_
    assert (await client.instance("one")).drift == "IN_SYNC"


async def test_bindings_are_named_and_bind_work_puts_a_look_off(
    broker: Whole, loop: DriftLoop, provider: Watched, client: purveyor.Client
) -> None:
    await provisioned(client)
    await (await client.bind("one", binding_id="app", wait=20)).result()
    uid = (await client.binding("one", "app")).uid
    await loop.once()
    assert provider.looks[-1].bindings == (uid,)
    held = asyncio.Event()
    broker.world.plant("login.ensure", held)
    handle = await client.bind("one", binding_id="other")
    provider.looks.clear()
    await loop.once()
    assert provider.looks == []
    held.set()
    await handle.result()


async def test_freezes_stop_looks(broker: Whole, loop: DriftLoop, provider: Watched, client: purveyor.Client) -> None:
    await provisioned(client)
    for name in ("all", "provider:main"):
        act, parts = Act(reason="maintenance"), broker.admin_parts
        noted = record(parts, ITSELF, Action.FREEZE, act, name)
        await broker.store.freeze(Freeze(name, "maintenance", "op", parts.clock.now()), noted)
        await loop.once()
        assert provider.looks == []
        await broker.store.thaw(name, noted)
    await loop.once()
    assert len(provider.looks) == 1


async def test_a_look_now_is_recorded_and_a_try_keeps_nothing(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client)
    broker.world.things.clear()
    tried = await admin.look("t", "one", "just looking", validate_only=True)
    assert (tried.drift, await broker.store.drift_counts()) == ("UNKNOWN", {})
    await admin.look("t", "one", "a call from the team")
    found = await admin.look("t", "one", "again")
    assert found.drift == "MISSING"
    records = [(r.action, r.reason) async for r in admin.audit() if r.action == "ObserveInstance"]
    assert records == [("ObserveInstance", "again"), ("ObserveInstance", "a call from the team")]
    with pytest.raises(NotFoundError):
        await admin.look("t", "nobody", "why")


async def test_what_cannot_be_looked_at_is_refused(broker: Whole, client: purveyor.Client, admin: AdminClient) -> None:
    held = asyncio.Event()
    broker.world.plant("role.ensure", held)
    handle = await client.provision("svc", "small", instance_id="one")
    with pytest.raises(FailedPreconditionError):
        await admin.look("t", "one", "why")
    held.set()
    await handle.result()
    hold = asyncio.Event()
    broker.world.plant("login.ensure", hold)
    bound = await client.bind("one", binding_id="app")
    with pytest.raises(ConflictError):
        await admin.look("t", "one", "why")
    hold.set()
    await bound.result()


async def test_a_pause_is_told_kept_and_recorded(client: purveyor.Client, admin: AdminClient) -> None:
    await provisioned(client)
    assert (await admin.pause("t", "one", "a try", validate_only=True)).pause_reason == "a try"
    assert (await client.instance("one")).pause_reason == ""
    await admin.pause("t", "one", "the team migrates by hand")
    await admin.pause("t", "one", "again")
    found = await client.instance("one")
    assert found.pause_reason == "the team migrates by hand"
    assert found.pause_time is not None
    await admin.resume("t", "one", "done")
    assert (await client.instance("one")).pause_reason == ""
    acts = [(r.action, r.reason) async for r in admin.audit() if "Reconciliation" in r.action]
    assert acts == [("ResumeReconciliation", "done"), ("PauseReconciliation", "the team migrates by hand")]


async def test_the_command_line(broker: Whole, client: purveyor.Client) -> None:
    await provisioned(client)
    broker.world.things.clear()

    async def ran(*arguments: str) -> Any:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "purveyor.cli", "--json", "--tenant", "t", "drift", *arguments,
            "--admin", broker.address, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate()
        assert process.returncode == 0
        return json.loads(out)

    assert (await ran("look", "one"))["drift"] == "UNKNOWN"
    assert [found["instance_id"] for found in await ran("list")] == ["one"]
    assert (await ran("pause", "one", "--reason", "leave it"))["pause_reason"] == "leave it"


async def test_a_review_after_a_restore_knows_the_bindings(
    broker: Whole, provider: Watched, client: purveyor.Client
) -> None:
    await provisioned(client)
    await (await client.bind("one", binding_id="app", wait=20)).result()
    uid = (await client.binding("one", "app")).uid
    instance = await broker.store.instance(SYSTEM, "t", "one")
    assert instance is not None
    sight = await looking.sight_of(broker.admin_parts, instance)
    assert sight is not None
    _, known = await looking.known_of(broker.admin_parts, replace(instance), sight.bindings)
    assert known.bindings == (uid,)
