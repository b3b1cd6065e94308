"""The way back: failures, cancels, deadlines, take-over, and what is left behind."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from purveyor_server.domain.errors import Reason
from purveyor_server.domain.states import BindingState, InstanceState, OperationState, StepState, Waiting
from purveyor_server.kit import failpoints
from purveyor_server.providers.contract import Ambiguous, Credentials, NotYet, Permanent, Retryable
from tests.engine.bench import SETTINGS, Bench, bench
from tests.fakes.provider import LatePiece


async def test_permanent_failure_undoes_in_reverse(tmp_path: Path) -> None:
    """Started and finished steps are removed in reverse; the instance is FAILED and clean."""
    async with bench(tmp_path) as b:
        b.world.plant("grant.ensure", Permanent("no grants today", "detail for operators"))
        operation = await b.ended(await b.provision())
        instance = await b.instance()

        assert operation.state is OperationState.FAILED
        assert operation.failure is not None
        assert (operation.failure.reason, operation.failure.step) == (Reason.PROVIDER_FAILED, "grant")
        assert operation.failure.message == "no grants today"
        assert [c for c in b.world.calls if c.endswith(".absent")] == ["grant.absent", "space.absent", "role.absent"]
        assert b.world.things == {}
        assert (instance.state, instance.cleanup_required) == (InstanceState.FAILED, ())
        assert {step.state for step in await b.steps(operation)} == {StepState.UNDONE}


async def test_undo_switched_off_is_found(tmp_path: Path) -> None:
    """Negative control: without undo the world is not empty after a failed provision."""
    failpoints.arm("undo=off")
    try:
        async with bench(tmp_path) as b:
            b.world.plant("grant.ensure", Permanent("no"))
            await b.ended(await b.provision())

            assert b.world.things != {}
    finally:
        failpoints.arm("")


async def test_retryable_failures_are_retried_with_stored_attempts(tmp_path: Path) -> None:
    """A step that fails for a while succeeds in the end and runs no other step again."""
    async with bench(tmp_path) as b:
        b.world.plant("space.ensure", Retryable("busy"), Retryable("busy"))
        operation = await b.ended(await b.provision())

        assert operation.state is OperationState.SUCCEEDED
        assert (b.world.calls.count("role.ensure"), b.world.calls.count("space.ensure")) == (1, 3)


async def test_retries_have_a_ceiling(tmp_path: Path) -> None:
    """A step that never stops failing ends the operation."""
    async with bench(tmp_path) as b:
        b.world.plant("role.ensure", *[Retryable("busy")] * 50)
        operation = await b.ended(await b.provision())

        assert operation.state is OperationState.FAILED
        assert b.world.calls.count("role.ensure") == SETTINGS.max_attempts


async def test_failed_update_puts_back_the_previous_settings(tmp_path: Path) -> None:
    """Before the pivot: READY, usable, the old settings applied everywhere, the failed operation named."""
    async with bench(tmp_path) as b:
        await b.ended(await b.provision())
        b.world.plant("grant.ensure", Permanent("no"))
        operation = await b.ended(await b.update({"size": 2}))
        instance = await b.instance()

        assert operation.state is OperationState.FAILED
        assert (instance.state, instance.usable) == (InstanceState.READY, True)
        assert instance.applied is not None
        assert instance.applied.parameters == {"size": 1}
        assert [thing["size"] for thing in b.world.things.values()] == [1, 1, 1]


async def test_update_past_its_pivot_is_not_undone(tmp_path: Path) -> None:
    """A failure after the pivot leaves DELETE_FAILED, unusable, and undoes nothing."""
    async with bench(tmp_path) as b:
        b.provider.pivot = "space"
        await b.ended(await b.provision())
        b.world.plant("grant.ensure", Permanent("no"))
        operation = await b.ended(await b.update({"size": 2}))
        instance = await b.instance()

        assert (operation.state, operation.past_pivot) == (OperationState.FAILED, True)
        assert (instance.state, instance.usable) == (InstanceState.DELETE_FAILED, False)
        assert instance.cleanup_required == ("grant",)


async def test_cancel_while_a_step_runs(tmp_path: Path) -> None:
    """The running step is not torn; when it is done everything is undone and the operation is CANCELLED."""
    async with bench(tmp_path) as b:
        gate = asyncio.Event()
        b.world.plant("space.ensure", gate)
        operation = await b.provision()
        await asyncio.wait_for(b.world.entered["space.ensure"].wait(), 5)
        await b.cancel(operation)
        gate.set()
        operation = await b.ended(operation)

        assert operation.state is OperationState.CANCELLED
        assert operation.failure is not None
        assert operation.failure.reason == Reason.CANCELLED_BY_CALLER
        assert b.world.things == {}
        assert "grant.ensure" not in b.world.calls


async def test_cancel_while_parked_turns_round_at_once(tmp_path: Path) -> None:
    """A parked operation does not sleep through its cancellation."""
    async with bench(tmp_path) as b:
        b.world.plant("space.ensure", NotYet(3600, "come back in an hour"))
        operation = await b.provision()
        await b.until(lambda now: now.waiting_detail.startswith("come back"), operation.operation_id)
        await b.cancel(operation)
        operation = await b.ended(operation)

        assert operation.state is OperationState.CANCELLED
        assert b.world.things == {}


async def test_cancel_before_the_last_result_wins(tmp_path: Path) -> None:
    """Of cancel and success exactly one wins: a cancel that commits during the last step is obeyed."""
    async with bench(tmp_path) as b:
        gate = asyncio.Event()
        b.world.plant("grant.ensure", gate)
        operation = await b.provision()
        await asyncio.wait_for(b.world.entered["grant.ensure"].wait(), 5)
        await b.cancel(operation)
        gate.set()
        operation = await b.ended(operation)

        assert operation.state is OperationState.CANCELLED
        assert (await b.instance()).state is InstanceState.FAILED
        assert b.world.things == {}


async def test_deadline_before_the_pivot_rolls_back(tmp_path: Path) -> None:
    """An operation that does not end in time is undone."""
    async with bench(tmp_path) as b:
        b.world.plant("space.ensure", *[NotYet(0.05, "still at it")] * 1000)
        operation = await b.ended(await b.provision(budget=0.3))

        assert operation.state is OperationState.FAILED
        assert operation.failure is not None
        assert operation.failure.reason == Reason.OPERATION_DEADLINE_EXCEEDED
        assert b.world.things == {}


async def test_deprovision_takes_over_a_provision(tmp_path: Path) -> None:
    """The provision ends CANCELLED without a rollback of its own; the deletion removes what was made."""
    async with bench(tmp_path) as b:
        gate = asyncio.Event()
        b.world.plant("space.ensure", gate)
        first = await b.provision()
        await asyncio.wait_for(b.world.entered["space.ensure"].wait(), 5)
        second = await b.deprovision(over=first)

        assert second.blocked_by == (first.operation_id,)
        assert second.deadline is None

        gate.set()
        first, second = await b.ended(first), await b.ended(second)

        assert (first.state, first.taken_over_by) == (OperationState.CANCELLED, second.operation_id)
        assert second.state is OperationState.SUCCEEDED
        assert second.deadline is not None
        assert (await b.instance()).state is InstanceState.DELETED
        assert b.world.things == {}


@pytest.mark.parametrize("settle", ["", "settle=off"])
async def test_take_over_waits_for_a_late_effect(tmp_path: Path, settle: str) -> None:
    """An ambiguous step is settled before the deletion begins; with settle switched off the late thing is left."""
    async with bench(tmp_path) as b:
        gate = asyncio.Event()
        b.provider.pieces[1] = LatePiece(b.world, "space", "space", gate)
        failpoints.arm(settle)
        try:
            first = await b.provision()
            await asyncio.wait_for(b.provider.pieces[1].lost.wait(), 5)
            second = await b.deprovision(over=first)
            if settle:
                await b.ended(second)
            else:
                await b.until(lambda now: now.waiting_detail.startswith("waiting until"), first.operation_id)
            gate.set()
            await b.ended(second)
            await asyncio.gather(*b.world.late)
        finally:
            failpoints.arm("")

        assert (b.world.things == {}) is (settle == "")


async def test_what_cannot_be_undone_goes_to_a_cleanup(tmp_path: Path) -> None:
    """A rollback that fails for good names what is left and a CLEANUP carries on until it is gone."""
    async with bench(tmp_path) as b:
        b.world.plant("grant.ensure", Permanent("no"))
        b.world.plant("space.absent", Permanent("cannot"), Permanent("still cannot"))
        operation = await b.ended(await b.provision())

        assert operation.state is OperationState.FAILED
        assert operation.cleanup_required == ("space", "role")

        assert (await b.cleaned()).state is InstanceState.FAILED
        assert b.world.things == {}
        generations = sorted((c.generation, c.state) for c in await b.cleanups())
        assert generations == [(0, OperationState.FAILED), (1, OperationState.SUCCEEDED)]


async def test_rollback_budget_ends_the_rollback(tmp_path: Path) -> None:
    """A backend that never removes anything does not keep an operation from ending."""
    settings = replace(SETTINGS, rollback_budget=0.2, cleanup_budget=0.1)
    async with bench(tmp_path, settings) as b:
        b.world.plant("grant.ensure", Permanent("no"))
        b.world.plant("grant.absent", *[NotYet(0.05, "not yet")] * 10)
        operation = await b.ended(await b.provision())

        assert operation.cleanup_required[0] == "grant"

        await b.cleaned()
        assert b.world.things == {}


async def test_the_plan_s_rollback_budget_comes_before_the_engine_s(tmp_path: Path) -> None:
    """What the operation brings bounds its undo; the engine's own setting is for those that bring none."""
    async with bench(tmp_path, replace(SETTINGS, rollback_budget=600.0, cleanup_budget=0.1)) as b:
        b.world.plant("grant.ensure", Permanent("no"))
        b.world.plant("grant.absent", *[NotYet(0.05, "not yet")] * 10)
        operation = await b.ended(await b.provision(rollback_budget=0.2))

        assert operation.cleanup_required[0] == "grant"

        await b.cleaned()
        assert b.world.things == {}


async def test_failed_bind_leaves_nothing(tmp_path: Path) -> None:
    """A bind that fails is undone, its secrets erased."""
    async with bench(tmp_path) as b:
        await b.ended(await b.provision())
        before = dict(b.world.things)
        b.world.plant("login.ensure", Ambiguous("lost"), Permanent("no"))
        await b.ended(await b.bind())
        binding = await b.binding()

        assert binding.state is BindingState.FAILED
        assert b.world.things == before
        assert await b.store.secret(binding.uid, "login/password") is None


async def test_failed_deprovision_says_what_is_left(tmp_path: Path) -> None:
    """DELETE_FAILED, unusable, open to a fresh attempt."""
    async with bench(tmp_path) as b:
        await b.ended(await b.provision())
        b.world.plant("space.absent", Permanent("in use"))
        failed = await b.ended(await b.deprovision())
        instance = await b.instance()

        assert failed.state is OperationState.FAILED
        assert (instance.state, instance.usable) == (InstanceState.DELETE_FAILED, False)
        assert instance.cleanup_required == ("space", "role")

        await b.ended(await b.deprovision())

        assert (await b.instance()).state is InstanceState.DELETED
        assert b.world.things == {}


async def test_expired_while_nobody_was_there_gets_one_forward_attempt(tmp_path: Path) -> None:
    """After an outage longer than the deadline the operation is tried once more before it is undone."""
    b = Bench(tmp_path)
    await b.open(work=False)
    operation = await b.provision(budget=5.0)
    await b.store.close()
    b.clock.shift = timedelta(hours=1)
    await b.open()
    try:
        operation = await b.ended(operation)
        assert operation.state is OperationState.SUCCEEDED
    finally:
        await b.close()


async def test_expired_attempt_that_fails_is_undone(tmp_path: Path) -> None:
    """The one attempt after an outage is not a licence to go on for ever."""
    b = Bench(tmp_path)
    await b.open(work=False)
    operation = await b.provision(budget=5.0)
    await b.store.close()
    b.clock.shift = timedelta(hours=1)
    b.world.plant("space.ensure", Retryable("busy"))
    await b.open()
    try:
        operation = await b.ended(operation)
        assert operation.state is OperationState.FAILED
        assert b.world.things == {}
    finally:
        await b.close()


async def test_credentials_of_a_sibling_are_refused(tmp_path: Path) -> None:
    """A provider that hands out the same credentials twice: the second bind fails, clean; the first goes on."""
    async with bench(tmp_path) as b:
        await b.ended(await b.provision())
        b.provider.credentials = lambda *_: Credentials({"username": "root", "password": "same"})  # type: ignore[method-assign]
        await b.ended(await b.bind("b1"))
        second = await b.ended(await b.bind("b2"))

        assert second.state is OperationState.FAILED
        assert second.failure is not None
        assert second.failure.reason == Reason.CREDENTIALS_NOT_UNIQUE
        assert (await b.binding("b1")).state is BindingState.ACTIVE
        assert len([name for name in b.world.things if "login" in name]) == 1

        await b.ended(await b.unbind("b1"))
        assert (await b.ended(await b.bind("b3"))).state is OperationState.SUCCEEDED


async def test_a_removal_takes_over_a_cleanup(tmp_path: Path) -> None:
    """The clean-up of a failed update ends before the deletion begins, so nothing is made anew behind it."""
    async with bench(tmp_path) as b:
        await b.ended(await b.provision())
        b.world.plant("grant.ensure", Permanent("no"), Permanent("no way back"))
        await b.ended(await b.update({"size": 2}))
        gate = asyncio.Event()
        b.world.plant("grant.ensure", gate)
        b.world.entered["grant.ensure"].clear()
        await asyncio.wait_for(b.world.entered["grant.ensure"].wait(), 5)
        (cleanup,) = await b.cleanups()
        removal = await b.deprovision(over=cleanup)
        gate.set()

        assert (await b.ended(removal)).state is OperationState.SUCCEEDED
        assert (await b.ended(cleanup)).state is OperationState.CANCELLED
        assert b.world.things == {}
        assert len(await b.cleanups()) == 1


async def test_no_cleanup_is_made_beside_a_removal(tmp_path: Path) -> None:
    """What an update could not put back, while its instance is being removed, is the removal's to take away."""
    async with bench(tmp_path) as b:
        await b.ended(await b.provision())
        gate = asyncio.Event()
        b.world.plant("grant.ensure", gate, Permanent("no way back"))
        b.world.entered["grant.ensure"].clear()
        update = await b.update({"size": 2})
        await asyncio.wait_for(b.world.entered["grant.ensure"].wait(), 5)
        removal = await b.deprovision(over=update)
        gate.set()

        assert (await b.ended(removal)).state is OperationState.SUCCEEDED
        assert b.world.things == {}
        assert await b.cleanups() == ()


async def test_an_unbind_that_fails_keeps_the_deprovision_that_waits_for_it_from_going_on(tmp_path: Path) -> None:
    """One that ran before the deprovision counts as a child: its login would have outlived the instance, out of everybody's reach."""
    async with bench(tmp_path) as b:
        await b.ended(await b.provision())
        await b.ended(await b.bind())
        b.world.plant("login.absent", NotYet(0.5, "later"), Permanent("refused"))
        unbind = await b.unbind()
        await b.until(lambda now: now.waiting is Waiting.PARKED, unbind.operation_id)
        waits: dict[str, Any] = {"blocked_by": (unbind.operation_id,), "due_at": None, "waiting": Waiting.BLOCKED}
        deprovision = await b.deprovision(**waits)

        failed = await b.ended(deprovision)
        assert failed.state is OperationState.FAILED
        assert failed.failure is not None
        assert failed.failure.reason == Reason.CHILD_FAILED
        assert (await b.instance()).state is InstanceState.DELETE_FAILED
        assert (await b.binding()).state is BindingState.REVOCATION_BLOCKED
