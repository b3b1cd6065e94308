"""What a failed create or bind left behind waits as the clean-up policy says; nothing else is ever kept."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from purveyor_server.domain.errors import Reason
from purveyor_server.domain.model import Operation
from purveyor_server.domain.policies import CleanupMode, CleanupPolicy
from purveyor_server.domain.states import BindingState, InstanceState, OperationState, StepState, Waiting
from purveyor_server.providers.contract import Ambiguous, Permanent
from tests.engine.bench import Bench, bench
from tests.fakes.provider import LatePiece

MANUAL = CleanupPolicy(CleanupMode.MANUAL)
HOUR = CleanupPolicy(CleanupMode.DELAYED, timedelta(hours=1))


def removals(b: Bench) -> list[str]:
    """The calls that remove something."""
    return [call for call in b.world.calls if call.endswith(".absent")]


async def failed(b: Bench, policy: CleanupPolicy) -> Operation:
    """A provision whose last step failed for good."""
    b.world.plant("grant.ensure", Permanent("no grants today"))
    return await b.ended(await b.provision(remains=policy))


async def test_manual_keeps_everything_and_the_operation_ends(tmp_path: Path) -> None:
    """Nothing is removed, no clean-up is made, and what may be there is named, newest first."""
    async with bench(tmp_path) as b:
        operation = await failed(b, MANUAL)
        instance = await b.instance()

        assert (operation.state, operation.held, operation.waiting) == (OperationState.FAILED, True, Waiting.HELD)
        assert operation.failure is not None
        assert (operation.failure.reason, operation.failure.step) == (Reason.PROVIDER_FAILED, "grant")
        assert instance.state is InstanceState.FAILED
        assert instance.cleanup_required == operation.cleanup_required == ("grant", "space", "role")
        assert [step.state for step in await b.steps(operation)] == [StepState.DONE, StepState.DONE, StepState.STARTED]
        assert (removals(b), await b.cleanups(), len(b.world.things)) == ([], (), 2)


async def test_delayed_begins_when_its_time_has_come_and_keeps_the_first_error(tmp_path: Path) -> None:
    """Until then the remains are there to be looked at; the clean-up carries the error that began it all."""
    async with bench(tmp_path) as b:
        operation = await failed(b, HOUR)
        (cleanup,) = await b.cleanups()

        assert (operation.state, operation.held) == (OperationState.FAILED, False)
        assert (cleanup.waiting, removals(b)) == (Waiting.PARKED, [])
        assert cleanup.due_at is not None
        assert operation.ended_at is not None
        assert cleanup.due_at - operation.ended_at == timedelta(hours=1)
        assert cleanup.deadline is not None
        assert cleanup.deadline > cleanup.due_at
        assert cleanup.first_failure == operation.failure

        b.clock.shift = timedelta(hours=1, seconds=1)
        assert (await b.cleaned()).cleanup_required == ()
        assert removals(b) == ["grant.absent", "space.absent", "role.absent"]
        assert b.world.things == {}


async def test_the_first_error_outlives_generations_of_clean_ups(tmp_path: Path) -> None:
    """A clean-up that fails itself hands the first error on, not its own."""
    async with bench(tmp_path) as b:
        b.world.plant("grant.absent", Permanent("cannot"), Permanent("cannot"))
        operation = await failed(b, CleanupPolicy(CleanupMode.DELAYED, timedelta(milliseconds=10)))
        await b.cleaned()
        generations = sorted(await b.cleanups(), key=lambda one: one.generation)

        assert [one.generation for one in generations] == [0, 1, 2]
        assert {one.first_failure for one in generations} == {operation.failure}


@pytest.mark.parametrize("policy", [MANUAL, HOUR], ids=["manual", "delayed"])
async def test_a_callers_cancel_is_undone_at_once(tmp_path: Path, policy: CleanupPolicy) -> None:
    """Who cancels wants it gone."""
    async with bench(tmp_path) as b:
        gate = asyncio.Event()
        b.world.plant("space.ensure", gate)
        operation = await b.provision(remains=policy)
        await b.world.entered["space.ensure"].wait()
        await b.cancel(operation)
        gate.set()
        operation = await b.ended(operation)

        assert (operation.state, operation.held) == (OperationState.CANCELLED, False)
        assert b.world.things == {}


@pytest.mark.parametrize("policy", [MANUAL, HOUR], ids=["manual", "delayed"])
async def test_a_removal_takes_the_remains_at_once(tmp_path: Path, policy: CleanupPolicy) -> None:
    """Deprovision does not wait for the policy; a delayed clean-up is taken over."""
    async with bench(tmp_path) as b:
        await failed(b, policy)
        cleanups = await b.cleanups()
        ended = await b.ended(await b.deprovision(over=cleanups[0] if cleanups else None))

        assert ended.state is OperationState.SUCCEEDED
        assert (await b.instance()).state is InstanceState.DELETED
        assert b.world.things == {}
        assert {(one.state, one.taken_over_by) for one in await b.cleanups()} <= {
            (OperationState.CANCELLED, ended.operation_id)
        }


async def test_a_failed_bind_is_kept_too(tmp_path: Path) -> None:
    """A binding whose login may be there; an unbind removes it."""
    async with bench(tmp_path) as b:
        await b.ended(await b.provision())
        b.world.plant("login.ensure", *[Ambiguous("lost")] * 50)
        operation = await b.ended(await b.bind(remains=MANUAL))
        binding = await b.binding()

        assert operation.held
        assert (binding.state, binding.cleanup_required) == (BindingState.FAILED, ("login",))
        await b.ended(await b.unbind())
        assert (await b.binding()).state is BindingState.DELETED


async def test_a_failed_update_is_never_kept(tmp_path: Path) -> None:
    """Its undo puts the previous settings back at once, whatever is said of creates."""
    async with bench(tmp_path) as b:
        await b.ended(await b.provision())
        b.world.plant("grant.ensure", Permanent("no"))
        operation = await b.ended(await b.update({"size": 2}, remains=MANUAL))
        instance = await b.instance()

        assert (operation.state, operation.held) == (OperationState.FAILED, False)
        assert (instance.state, instance.usable) == (InstanceState.READY, True)
        assert set(map(str, b.world.things.values())) == {"{'size': 1}"}


async def test_what_left_nothing_is_an_ordinary_failure(tmp_path: Path) -> None:
    """A provision that never began a step has nothing to keep."""
    async with bench(tmp_path, work=False) as b:
        operation = await b.provision(remains=MANUAL)
        b.clock.shift = timedelta(hours=1)
        b.engine._started_at = b.clock.now()
        b.engine._seen.add(operation.operation_id)
        await b.engine.start()
        operation = await b.ended(operation)

        assert (operation.state, operation.held, operation.cleanup_required) == (OperationState.FAILED, False, ())
        assert (await b.instance()).cleanup_required == ()


async def test_a_cancelled_operation_whose_step_never_settles_ends(tmp_path: Path) -> None:
    """Past its deadline it turns back without waiting for the step; the way back has a budget of its own, and ends too."""
    async with bench(tmp_path) as b:
        gate = asyncio.Event()
        b.provider.pieces[1] = LatePiece(b.world, "space", "space", gate)
        operation = await b.provision(budget=0.3, rollback_budget=0.3)
        await b.world.entered["space.settle"].wait()
        await b.cancel(operation)
        operation = await b.ended(operation)
        gate.set()
        await asyncio.gather(*b.world.late)

        assert operation.state is OperationState.FAILED
        assert operation.cleanup_required == ("space", "role")
