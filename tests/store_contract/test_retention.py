"""Retention: what is past its time goes, what is needed stays."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from purveyor_server.domain.model import Instance, Operation, Pause
from purveyor_server.domain.states import InstanceState, Verb
from purveyor_server.kit.clock import ManualClock
from purveyor_server.store.contract import SYSTEM, Page, Retention, Store, Writes
from tests.store_contract import records
from tests.store_contract.records import START, log_of, look, provision, write

DAY = timedelta(days=1)
POLICY = Retention(DAY, DAY, DAY, max_events=1_000_000, limit=10)
KEEP_EVENTS = replace(POLICY, events=DAY * 1000)


async def retained(store: Store, policy: Retention = POLICY) -> int:
    total = 0
    while count := await store.retain(policy):
        total += count
    return total


async def history(store: Store, length: int) -> tuple[Instance, list[Operation]]:
    """A ready instance with `length` ended operations; the last one is its last operation."""
    made = records.instance(state=InstanceState.READY)
    done = [records.ended(records.operation(made, Verb.UPDATE)) for _ in range(length)]
    made = replace(made, last_operation=done[-1].operation_id)
    steps = tuple(records.step(one) for one in done)
    await write(store, Writes(instances=(made,), operations=tuple(done), steps=steps))
    return made, done


async def test_old_operations_go_with_their_journal_and_the_last_one_stays(store: Store, clock: ManualClock) -> None:
    _, done = await history(store, 25)
    assert await retained(store) == 0
    clock.advance(DAY.total_seconds() + 1)
    assert await retained(store, KEEP_EVENTS) == 24
    assert await store.operations(SYSTEM, "acme", (), Page(100)) == (done[-1],)
    assert await store.steps(SYSTEM, done[0].operation_id) == ()
    assert len(await store.steps(SYSTEM, done[-1].operation_id)) == 1


async def test_an_unfinished_operation_and_its_origin_stay(store: Store, clock: ManualClock) -> None:
    made, done = await history(store, 3)
    cleanup = records.operation(made, Verb.CLEANUP, origin=done[0].operation_id)
    await write(store, Writes(operations=(cleanup,)))
    clock.advance(DAY.total_seconds() * 30)
    await retained(store)
    left = await store.operations(SYSTEM, "acme", (), Page(100))
    assert {row.operation_id for row in left} == {done[0].operation_id, done[2].operation_id, cleanup.operation_id}


async def test_tombstones_go_when_their_time_has_come(store: Store, clock: ManualClock) -> None:
    accepted = await provision(store)
    made = (await look(store)).instance
    assert made is not None
    gone = replace(made, state=InstanceState.DELETED, deleted_at=START)
    await write(store, Writes(instances=(gone,), operations=(records.ended(accepted),)))
    assert await store.instance(SYSTEM, "acme", "db") == gone
    clock.advance(DAY.total_seconds() + 1)
    await retained(store)
    assert await store.instance(SYSTEM, "acme", "db") is None
    assert await store.operations(SYSTEM, "acme", (), Page(100)) == ()


async def test_a_tombstone_with_unfinished_work_stays(store: Store, clock: ManualClock) -> None:
    await provision(store)
    made = (await look(store)).instance
    assert made is not None
    await write(store, Writes(instances=(replace(made, state=InstanceState.DELETED, deleted_at=START),)))
    clock.advance(DAY.total_seconds() * 30)
    await retained(store)
    assert (await look(store)).instance is not None


@pytest.mark.parametrize(
    ("changes", "stays"),
    [
        ({"adopted": True, "cleanup_required": ("instance/database",)}, True),
        ({"deletion_protected": True, "cleanup_required": ("instance/database",)}, True),
        ({"reconcile_paused": Pause("by hand", "op", START), "cleanup_required": ("instance/database",)}, True),
        ({"adopted": True}, False),  # deprovisioned: nothing is left
        ({"cleanup_required": ("instance/database",)}, False),
    ],
)
async def test_what_a_purge_left_of_an_exempt_instance_is_remembered(
    store: Store,
    clock: ManualClock,
    changes: dict[str, Any],
    stays: bool,  # noqa: FBT001 - a column of the table
) -> None:
    """Without its tombstone the database of an adopted instance would be an orphan like any other, and reaped."""
    gone = records.instance(state=InstanceState.DELETED, deleted_at=START, **changes)
    await write(store, Writes(instances=(gone,)))
    clock.advance(DAY.total_seconds() * 400)
    await retained(store, KEEP_EVENTS)
    known = await store.knowledge([gone.uid])
    assert (known[gone.uid].exempt if gone.uid in known else None) is (True if stays else None)


async def test_events_go_by_count_and_by_age_and_the_newest_stays(store: Store, clock: ManualClock) -> None:
    for number in range(20):
        await provision(store, instance_id=f"i{number}")
    assert await retained(store, replace(POLICY, max_events=15)) == 25
    assert [event.revision for event in await log_of(store, after=25)] == list(range(26, 41))
    clock.advance(DAY.total_seconds() + 1)
    assert await retained(store) == 14
    assert [event.revision for event in await log_of(store, after=39)] == [40]
    await provision(store, instance_id="next")
    assert [event.revision for event in await log_of(store, after=39)] == [40, 41, 42]


async def test_a_request_key_is_kept_as_long_as_its_operation(store: Store, clock: ManualClock) -> None:
    accepted = await provision(store, request=records.request("r1"))
    clock.advance(DAY.total_seconds() * 30)
    await retained(store)
    assert (await look(store, request=records.request("r1"))).replay == accepted
