"""Advance: the engine's journal under its fence."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec.structs import replace

from purveyor_server.domain.model import SealedSecret
from purveyor_server.domain.states import OperationState, StepState
from purveyor_server.store.contract import SYSTEM, Advance, Fence, Job, LeaseLostError, Progress, Store, Writes
from tests.store_contract import records
from tests.store_contract.conftest import OpenStore
from tests.store_contract.records import claim, finishing, look, provision, write


async def test_started_and_result_are_one_command_and_a_step_is_replaced(store: Store) -> None:
    await provision(store)
    (claimed,) = await claim(store)
    first = records.step(claimed.operation, 0)

    def started(job: Job) -> Writes:
        return Writes(steps=(first,), secrets=(SealedSecret(job.operation.instance_uid, "password", b"sealed"),))

    def result(_: Job) -> Writes:
        return Writes(steps=(replace(first, state=StepState.DONE), records.step(claimed.operation, 1)))

    await store.advance(Advance(claimed.fence, started))
    await store.advance(Advance(claimed.fence, result))
    journal = await store.steps(SYSTEM, claimed.operation.operation_id)
    assert [(s.index, s.state) for s in journal] == [(0, StepState.DONE), (1, StepState.STARTED)]
    kept = await store.secret(claimed.instance.uid, "password")
    assert kept is not None
    assert kept.sealed == b"sealed"


async def test_a_journal_line_makes_no_event_and_a_finish_makes_one(store: Store) -> None:
    await provision(store)
    (claimed,) = await claim(store)
    head = store.head
    quiet = replace(claimed.operation, attempts=1)
    await store.advance(Advance(claimed.fence, lambda _: Writes(quiet=(quiet,))))
    assert store.head == head
    done = await store.advance(Advance(claimed.fence, finishing, with_resources=True))
    assert done.state is OperationState.SUCCEEDED
    assert store.head == head + 1


@pytest.mark.parametrize("wrong", ["owner", "number", "operation"])
async def test_a_wrong_fence_writes_nothing(store: Store, wrong: str) -> None:
    await provision(store)
    (claimed,) = await claim(store)
    good = claimed.fence
    bad = {
        "owner": replace(good, owner="other"),
        "number": replace(good, lease_no=good.lease_no + 1),
        "operation": Fence("nothing", good.owner, good.lease_no),
    }[wrong]
    with pytest.raises(LeaseLostError):
        await store.advance(Advance(bad, finishing))
    assert (await look(store)).operations == (claimed.operation,)


async def test_an_ended_operation_has_no_fence(store: Store) -> None:
    await provision(store)
    (claimed,) = await claim(store)

    def end_keeping_lease(job: Job) -> Writes:
        return Writes(operations=(replace(records.ended(job.operation), lease_owner=job.operation.lease_owner),))

    await store.advance(Advance(claimed.fence, end_keeping_lease))
    with pytest.raises(LeaseLostError):
        await store.advance(Advance(claimed.fence, finishing))


async def test_a_new_epoch_voids_the_fence_and_makes_the_operation_due(open_store: OpenStore) -> None:
    store = await open_store()
    await provision(store)
    (claimed,) = await claim(store)
    epoch = store.epoch
    await store.close()
    again = await open_store()
    assert again.epoch > epoch
    with pytest.raises(LeaseLostError):
        await again.advance(Advance(claimed.fence, finishing))
    (anew,) = await claim(again)
    assert anew.operation.lease_no == claimed.operation.lease_no + 1
    assert anew.operation.started_at == claimed.operation.started_at


async def test_progress_is_stored_without_event_and_ignores_a_lost_fence(store: Store) -> None:
    await provision(store)
    (claimed,) = await claim(store)
    head = store.head
    lost = replace(claimed.fence, lease_no=99)
    await store.progress([Progress(claimed.fence, 40.0, "making"), Progress(lost, 90.0, "wrong")])
    now = await store.operation(SYSTEM, claimed.operation.operation_id)
    assert now is not None
    assert (now.percent, now.sentence, store.head) == (40.0, "making", head)
    await store.progress([Progress(claimed.fence, 20.0, "of a step that has ended since")])
    assert await store.operation(SYSTEM, claimed.operation.operation_id) == now


async def test_erase_takes_secrets_outputs_and_saved_values_of_the_owner_alone(store: Store) -> None:
    accepted = await provision(store)
    made = (await look(store)).instance
    assert made is not None
    bound = records.binding(made)
    bind = records.operation(made, on=bound)
    filled: dict[str, Any] = {"outputs": {"host": "h"}, "saved": {"job": 1}}
    steps = (records.step(accepted, **filled), records.step(bind, **filled))
    secrets = (
        SealedSecret(made.uid, "a", b"1"),
        SealedSecret(bound.uid, "a", b"2"),
        SealedSecret(bound.uid, "b", b"3"),
    )
    await write(store, Writes(bindings=(bound,), operations=(bind,), steps=steps, secrets=secrets))
    await write(store, Writes(erase=(bound.uid,)))
    assert await store.secret(bound.uid, "a") is None
    assert await store.secret(bound.uid, "b") is None
    assert await store.secret(made.uid, "a") == secrets[0]
    (erased,) = await store.steps(SYSTEM, bind.operation_id)
    assert (erased.outputs, erased.saved) == ({}, None)
    assert await store.steps(SYSTEM, accepted.operation_id) == (steps[0],)
