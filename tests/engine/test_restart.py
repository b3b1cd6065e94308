"""What a new process does with what a dead one left: leases, the journal, held operations, circuits, bounds."""

from __future__ import annotations

import asyncio
from collections import Counter
from datetime import timedelta
from pathlib import Path

from msgspec.structs import replace

from purveyor_server.domain.states import InstanceState, OperationState, Waiting
from purveyor_server.providers.contract import Ambiguous, NotYet, PlannedStep, Retryable, Unreachable
from tests.engine.bench import SETTINGS, Bench, bench
from tests.fakes.provider import LatePiece, WorldPiece


async def test_restart_resumes_and_repeats_no_finished_step(tmp_path: Path) -> None:
    """A finished step never runs again; the started one runs again after it settled."""
    b = Bench(tmp_path)
    await b.open()
    gate = asyncio.Event()
    b.world.plant("space.ensure", gate)
    operation = await b.provision()
    await asyncio.wait_for(b.world.entered["space.ensure"].wait(), 5)
    await b.crash()
    await b.open()
    try:
        operation = await b.ended(operation)

        assert operation.state is OperationState.SUCCEEDED
        counts = Counter(b.world.calls)
        assert (counts["role.ensure"], counts["space.ensure"], counts["space.settle"]) == (1, 2, 1)
        assert set(b.world.made.values()) == {1}
    finally:
        await b.close()


async def test_secrets_are_the_same_after_a_restart(tmp_path: Path) -> None:
    """A secret minted before a crash is the one that is used after it."""
    b = Bench(tmp_path)
    await b.open()
    await b.ended(await b.provision())
    gate = asyncio.Event()
    b.world.plant("login.ensure", gate)
    operation = await b.bind()
    await asyncio.wait_for(b.world.entered["login.ensure"].wait(), 5)
    uid = (await b.binding()).uid
    before = await b.store.secret(uid, "login/password")
    await b.crash()
    await b.open()
    try:
        await b.ended(operation)
        after = await b.store.secret(uid, "login/password")

        assert before is not None
        assert before == after
    finally:
        await b.close()


async def test_unknown_steps_are_held_not_guessed(tmp_path: Path) -> None:
    """Other steps than the journal's: held; the old code heals it."""
    b = Bench(tmp_path)
    await b.open()
    b.world.plant("space.ensure", NotYet(0.01, "later"))
    operation = await b.provision()
    await b.until(lambda now: now.waiting is Waiting.PARKED, operation.operation_id)
    await b.crash()
    pieces = b.provider.pieces
    b.provider.pieces = [WorldPiece(b.world, name, name) for name in ("other", "space", "grant")]
    await b.open()
    try:
        held = await b.until(lambda now: now.waiting is Waiting.HELD, operation.operation_id)
        assert "role" in held.waiting_detail
        assert not [name for name in b.world.things if "other" in name]

        b.provider.pieces = pieces
        assert (await b.ended(operation)).state is OperationState.SUCCEEDED
    finally:
        await b.close()


async def test_another_contract_is_held(tmp_path: Path) -> None:
    """An operation begun under another contract version waits for that version."""
    async with bench(tmp_path) as b:
        operation = await b.provision(contract="scripted/0")
        held = await b.until(lambda now: now.waiting is Waiting.HELD, operation.operation_id)

        assert "scripted/0" in held.waiting_detail
        assert b.world.calls == []


async def test_late_effect_is_settled_before_the_repeat(tmp_path: Path) -> None:
    """While an interrupted call may still take effect nothing is repeated."""
    async with bench(tmp_path) as b:
        gate = asyncio.Event()
        b.provider.pieces[1] = LatePiece(b.world, "space", "space", gate)
        operation = await b.provision()
        await b.until(lambda now: now.waiting is Waiting.SETTLING, operation.operation_id)

        assert "space.ensure" not in b.world.calls  # the repeat of the late piece is counted here

        gate.set()
        assert (await b.ended(operation)).state is OperationState.SUCCEEDED
        assert {"late": True} not in b.world.things.values()


async def test_unreachable_backend_is_waited_for(tmp_path: Path) -> None:
    """Parked, not failed, no attempts spent; served when the backend is back."""
    async with bench(tmp_path) as b:
        b.world.plant("role.ensure", *[Unreachable("no answer")] * 3)
        operation = await b.provision()
        waiting = await b.until(lambda now: now.waiting is Waiting.CIRCUIT, operation.operation_id)

        assert waiting.attempts == 0
        assert (await b.ended(operation, 20)).state is OperationState.SUCCEEDED


async def test_graceful_stop_gives_leases_back(tmp_path: Path) -> None:
    """A stopped engine leaves nothing leased, so the next one goes on at once."""
    b = Bench(tmp_path, replace(SETTINGS, stop_grace=0.1))
    await b.open()
    b.world.plant("space.ensure", asyncio.Event())
    operation = await b.provision()
    await asyncio.wait_for(b.world.entered["space.ensure"].wait(), 5)
    await b.close()
    await b.open()
    try:
        assert (await b.ended(operation)).state is OperationState.SUCCEEDED
        assert (await b.instance()).state is InstanceState.READY
    finally:
        await b.close()


async def test_a_lost_lease_writes_nothing(tmp_path: Path) -> None:
    """A worker whose lease ran out and was taken by another commits nothing more."""
    settings = replace(SETTINGS, lease=timedelta(seconds=30))
    async with bench(tmp_path, settings) as b:
        gate = asyncio.Event()
        b.world.plant("space.ensure", gate)
        operation = await b.provision(budget=600.0)
        await asyncio.wait_for(b.world.entered["space.ensure"].wait(), 5)
        b.clock.shift = timedelta(seconds=60)  # wall time runs on: the lease is over for everybody else
        await b.until(lambda now: now.lease_no > 1, operation.operation_id)
        gate.set()
        operation = await b.ended(operation)

        assert operation.state is OperationState.SUCCEEDED
        assert set(b.world.made.values()) == {1}
        assert b.engine.running == 0


async def test_tenants_take_turns_within_bounds(tmp_path: Path) -> None:
    """One tenant's flood neither takes every slot nor delays another tenant's single operation to its end."""
    settings = replace(SETTINGS, running=4, per_tenant=2, reserved=1)
    b = Bench(tmp_path, settings)
    await b.open(work=False)
    gate = asyncio.Event()
    b.world.plant("role.ensure", *[gate] * 40)
    for number in range(20):
        await b.provision(f"flood-{number}", tenant="flood")
    quiet = await b.provision("quiet", tenant="quiet")
    await b.engine.start()
    try:
        running = await b.until(lambda now: now.state is OperationState.RUNNING, quiet.operation_id)
        assert running.tenant == "quiet"
        assert b.engine.running <= 4
        tenants = Counter(o.tenant for c in b.commits for o in c.operations if o.state is OperationState.RUNNING)
        assert tenants["flood"] == 2
    finally:
        gate.set()
        await b.close()


async def test_removals_have_reserved_slots(tmp_path: Path) -> None:
    """With every common slot taken by steps that hang, a deprovision still runs."""
    settings = replace(SETTINGS, running=2, per_tenant=2, reserved=1)
    async with bench(tmp_path, settings) as b:
        await b.ended(await b.provision("old"))
        gate = asyncio.Event()
        b.world.plant("role.ensure", *[gate] * 10)
        for number in range(4):
            await b.provision(f"new-{number}")
        await b.engine.signals.wait("claimed", b.engine.signals.count("claimed") + 1)

        ended = await b.ended(await b.deprovision("old"))

        assert ended.state is OperationState.SUCCEEDED
        gate.set()


async def test_ambiguous_and_retryable_are_kept_apart(tmp_path: Path) -> None:
    """Only what may have happened is settled before the repeat."""
    async with bench(tmp_path) as b:
        b.world.plant("role.ensure", Retryable("certainly not"))
        b.world.plant("space.ensure", Ambiguous("perhaps"))
        await b.ended(await b.provision())

        assert "role.settle" not in b.world.calls
        assert b.world.calls.count("space.settle") == 1


async def test_plan_may_grow_with_what_is_done(tmp_path: Path) -> None:
    """The plan is asked again after every step; later steps may depend on earlier outputs."""
    async with bench(tmp_path) as b:
        extra = WorldPiece(b.world, "extra", "extra")
        base = b.provider.plan

        def plan(work: object, done: object) -> object:
            steps = tuple(base(work, done))  # type: ignore[arg-type]  # the scripted provider ignores both
            return (*steps, PlannedStep(extra)) if "grant" in done else steps  # type: ignore[operator]

        b.provider.plan = plan  # type: ignore[method-assign,assignment]
        operation = await b.ended(await b.provision())

        assert [step.name for step in await b.steps(operation)] == ["role", "space", "grant", "extra"]
