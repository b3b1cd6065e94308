"""Numbers from pools: one owner at a time, the same on every run, free again with the owner's end."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.states import BindingState, InstanceState, Verb
from purveyor_server.kit.clock import ManualClock
from purveyor_server.store.contract import Advance, Fence, Job, LeaseLostError, Store, Writes
from tests.store_contract import records
from tests.store_contract.conftest import OpenStore
from tests.store_contract.records import claim, ended, provision, write

POOL = "port"


async def fences(store: Store, count: int) -> list[Fence]:
    """Leased provisions of as many instances."""
    for number in range(count):
        await provision(store, instance_id=f"i{number}")
    return [claimed.fence for claimed in await claim(store, limit=count)]


async def finish(store: Store, fence: Fence) -> None:
    """The instance is gone, and its owner erased, in one command."""

    def decide(job: Job) -> Writes:
        assert job.instance is not None
        gone = replace(job.instance, state=InstanceState.DELETED, deleted_at=job.now)
        return Writes(instances=(gone,), operations=(ended(job.operation, at=job.now),), erase=(gone.uid,))

    await store.advance(Advance(fence, decide, with_resources=True))


async def test_two_owners_never_get_the_same_number(store: Store) -> None:
    held = await fences(store, 20)

    given = await asyncio.gather(*(store.allocate(fence, POOL, 1, 20) for fence in held))

    assert sorted(given) == list(range(1, 21))
    with pytest.raises(PurveyorError) as refused:
        await store.allocate(held[0], POOL, 1, 20, avoid=given)
    assert refused.value.reason is Reason.POOL_EXHAUSTED
    assert refused.value.metadata == {"pool": POOL}


async def test_an_owner_keeps_its_number(store: Store, clock: ManualClock) -> None:
    (first, second) = await fences(store, 2)
    one = await store.allocate(first, POOL, 10, 19)
    assert await store.allocate(second, POOL, 10, 19) != one

    assert await store.allocate(first, POOL, 10, 19) == one
    assert await store.allocate(first, POOL, 500, 600) == one  # whatever the range says now
    assert await store.allocate(first, POOL, 10, 19, avoid=(one + 5,)) == one
    clock.advance(records.LEASE.total_seconds())
    again = next(
        claimed for claimed in await claim(store, owner="other") if claimed.fence.operation_id == first.operation_id
    )
    assert await store.allocate(again.fence, POOL, 10, 19) == one


async def test_a_number_to_avoid_is_replaced_and_free_again(store: Store) -> None:
    first, second = await fences(store, 2)
    one = await store.allocate(first, POOL, 1, 2)

    other = await store.allocate(first, POOL, 1, 2, avoid=(one,))

    assert other != one
    assert await store.allocate(first, POOL, 1, 2) == other
    assert await store.allocate(second, POOL, 1, 2) == one


async def test_pools_are_apart(store: Store) -> None:
    first, second = await fences(store, 2)

    assert await store.allocate(first, POOL, 7, 7) == await store.allocate(second, "uid", 7, 7) == 7
    assert await store.allocate(first, "uid", 8, 8) == 8


async def test_a_binding_is_an_owner_of_its_own(store: Store) -> None:
    await provision(store)
    (claimed,) = await claim(store)
    binding = records.binding(claimed.instance, state=BindingState.BINDING)
    work = records.operation(claimed.instance, Verb.BIND, binding)
    await write(store, Writes(bindings=(binding,), operations=(work,)))
    (bound,) = await claim(store)

    assert await store.allocate(claimed.fence, POOL, 1, 9) != await store.allocate(bound.fence, POOL, 1, 9)


async def test_numbers_are_free_once_the_owner_is_erased(store: Store) -> None:
    first, second = await fences(store, 2)
    one = await store.allocate(first, POOL, 1, 1)
    with pytest.raises(PurveyorError, match="is taken"):
        await store.allocate(second, POOL, 1, 1)

    await finish(store, first)

    assert await store.allocate(second, POOL, 1, 1) == one


async def test_a_freed_number_rests_while_others_are_free(store: Store) -> None:
    first, second, third = await fences(store, 3)
    one = await store.allocate(first, POOL, 1, 3)
    await finish(store, first)

    assert [await store.allocate(fence, POOL, 1, 3) for fence in (second, third)] == [one + 1, one + 2]


async def test_a_lost_lease_gets_nothing(store: Store, clock: ManualClock) -> None:
    (fence,) = await fences(store, 1)
    clock.advance(records.LEASE.total_seconds())
    (taken,) = await claim(store, owner="other")

    with pytest.raises(LeaseLostError):
        await store.allocate(fence, POOL, 1, 1)

    assert await store.allocate(taken.fence, POOL, 1, 1) == 1
    await finish(store, taken.fence)
    with pytest.raises(LeaseLostError):
        await store.allocate(taken.fence, POOL, 1, 1)


async def test_numbers_outlive_the_process(open_store: OpenStore, clock: ManualClock) -> None:
    store = await open_store()
    first, _ = await fences(store, 2)
    one = await store.allocate(first, POOL, 1, 1)
    await store.close()

    store = await open_store()
    found = {claimed.fence.operation_id: claimed.fence for claimed in await claim(store)}

    assert await store.allocate(found.pop(first.operation_id), POOL, 1, 1) == one
    with pytest.raises(PurveyorError):
        await store.allocate(next(iter(found.values())), POOL, 1, 1)
    assert clock.now() - records.START < timedelta(days=1)
