"""Freezes: no outside call starts after one was answered, and nothing is lost when it is lifted."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from purveyor_server.domain import freezes
from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.model import Operation
from purveyor_server.domain.principal import BROKER
from purveyor_server.domain.states import InstanceState, OperationState, Waiting
from purveyor_server.providers.contract import Permanent
from purveyor_server.store.operating import AuditLook
from tests.engine.bench import REF, Bench, bench


def record(b: Bench, action: str, name: str) -> AuditRecord:
    return AuditRecord(at=b.clock.now(), principal="op", action=action, resource=f"freeze/{name}", reason="test")


async def freeze(b: Bench, name: str) -> Freeze:
    return await b.store.freeze(Freeze(name, "test", "op", b.clock.now()), record(b, "Freeze", name))


async def thaw(b: Bench, name: str) -> None:
    await b.store.thaw(name, record(b, "Thaw", name))
    await b.store.unfreeze()


async def frozen(b: Bench, operation: Operation) -> Operation:
    return await b.until(lambda now: now.waiting is Waiting.FROZEN, operation.operation_id)


@pytest.mark.parametrize("name", ["all", "provider:main"])
async def test_nothing_is_called_while_frozen_and_all_of_it_after(tmp_path: Path, name: str) -> None:
    async with bench(tmp_path) as b:
        await freeze(b, name)
        operation = await frozen(b, await b.provision())
        assert b.world.calls == []
        assert (operation.due_at, operation.waiting_detail) == (None, f"frozen: {name}: test")

        await thaw(b, name)
        assert (await b.ended(operation)).state is OperationState.SUCCEEDED


async def test_another_providers_freeze_holds_nothing(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await freeze(b, "provider:other")
        assert (await b.ended(await b.provision())).state is OperationState.SUCCEEDED


async def test_a_freeze_in_the_middle_lets_the_running_call_end_and_keeps_its_result(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        go_on = asyncio.Event()
        b.world.plant("role.ensure", go_on)
        operation = await b.provision()
        await asyncio.wait_for(b.world.entered["role.ensure"].wait(), 5)
        await freeze(b, "all")
        go_on.set()
        operation = await frozen(b, operation)
        assert b.world.calls == ["role.ensure"]
        assert [step.name for step in await b.steps(operation)] == ["role"]

        await thaw(b, "all")
        assert (await b.ended(operation)).state is OperationState.SUCCEEDED
        assert b.world.calls.count("role.ensure") == 1


async def test_frozen_deletes_hold_the_way_back_and_not_what_a_caller_asks_for(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.ended(await b.provision("kept"))
        await freeze(b, "deletes")
        b.world.plant("grant.ensure", Permanent("no"))
        failed = await frozen(b, await b.provision("fails"))
        assert failed.state is OperationState.ROLLING_BACK
        assert not [call for call in b.world.calls if call.endswith(".absent")]

        removed = await b.ended(await b.deprovision("kept"))
        assert removed.state is OperationState.SUCCEEDED

        await thaw(b, "deletes")
        await b.ended(failed)
        assert (await b.instance("fails")).state is InstanceState.FAILED
        assert b.world.things == {}


async def test_frozen_time_does_not_count_against_the_deadline(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await freeze(b, "all")
        operation = await frozen(b, await b.provision())
        assert operation.deadline is not None
        b.clock.shift += timedelta(days=2)
        await thaw(b, "all")
        ended = await b.ended(operation)
        assert ended.state is OperationState.SUCCEEDED
        assert ended.deadline is not None
        assert ended.deadline - operation.deadline >= timedelta(days=2)


async def test_a_thaw_that_was_cut_off_is_finished_by_the_next_start(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await freeze(b, "all")
        operation = await frozen(b, await b.provision())
        await b.store.thaw("all", record(b, "Thaw", "all"))  # and nobody called `unfreeze`
        await b.crash()
        await b.open()
        assert (await b.ended(operation)).state is OperationState.SUCCEEDED


async def test_recovery_holds_what_began_before_it(tmp_path: Path) -> None:
    async with bench(tmp_path, work=False) as b:
        before = await b.provision("before")
        await freeze(b, freezes.RECOVERY)
        await b.engine.start()
        await frozen(b, before)
        assert (await b.ended(await b.provision("after"))).state is OperationState.SUCCEEDED
        assert (await b.operation(before.operation_id)).waiting is Waiting.FROZEN


async def test_the_first_freeze_of_a_name_stays_and_each_act_leaves_a_record(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        first = await freeze(b, "all")
        again = await b.store.freeze(Freeze("all", "other", "other", b.clock.now()), record(b, "Freeze", "all"))
        assert again == first
        await thaw(b, "all")
        assert await b.store.freezes() == ()
        assert await b.store.thaw("all", record(b, "Thaw", "all")) is None
        found = (await b.store.audit((), AuditLook(10))).records
        assert [(r.record.number, r.record.action) for r in found] == [
            (4, "Thaw"),
            (3, "Thaw"),
            (2, "Freeze"),
            (1, "Freeze"),
        ]
        assert [r.record.number for r in (await b.store.audit((), AuditLook(2, start=2))).records] == [2, 1]


async def test_a_freeze_of_deletes_holds_what_the_broker_gives_back_by_itself(tmp_path: Path) -> None:
    async with bench(tmp_path) as b:
        await b.ended(await b.provision())
        await freeze(b, freezes.DELETES)
        removal = await b.deprovision(principal=BROKER.subject)
        await frozen(b, removal)
        assert b.world.things
        await thaw(b, freezes.DELETES)
        assert (await b.ended(removal)).state is OperationState.SUCCEEDED


async def test_what_is_frozen_while_the_backend_is_away_goes_on_once_both_are_over(tmp_path: Path) -> None:
    """A frozen operation had been let through as the circuit's probe, which it never was: no call was ever sent again."""
    async with bench(tmp_path) as b:
        circuit = b.registry.facade(REF).circuit
        for _ in range(2):
            circuit.unreachable()
        await freeze(b, "all")
        operation = await frozen(b, await b.provision())
        await thaw(b, "all")
        assert (await b.ended(operation)).state is OperationState.SUCCEEDED
