"""Claims: who gets what, in which order, and for how long."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from purveyor_server.domain.model import SealedSecret
from purveyor_server.domain.states import OperationState, Verb, Waiting
from purveyor_server.kit.clock import ManualClock
from purveyor_server.store.contract import SYSTEM, Advance, Job, LeaseLostError, Page, Store, Writes
from tests.store_contract import records
from tests.store_contract.records import START, claim, finishing, look, provision, write


async def test_a_claim_starts_a_pending_operation_with_one_event(store: Store, clock: ManualClock) -> None:
    await provision(store)
    clock.advance(5)
    (claimed,) = await claim(store)
    taken = claimed.operation
    assert taken.state is OperationState.RUNNING
    assert (taken.started_at, taken.due_at) == (clock.now(), clock.now() + records.LEASE)
    assert (taken.lease_owner, taken.lease_no, taken.lease_epoch) == ("worker", 1, store.epoch)
    assert await store.operation(SYSTEM, taken.operation_id) == taken
    (event,) = await store.events(2, 10)
    assert (event.operation_id, event.state) == (taken.operation_id, "RUNNING")


async def test_a_leased_operation_is_due_again_only_when_the_lease_ends(store: Store, clock: ManualClock) -> None:
    await provision(store)
    (first,) = await claim(store)
    assert await claim(store) == ()
    clock.advance(records.LEASE.total_seconds())
    head = store.head
    (second,) = await claim(store, owner="other")
    assert second.operation.lease_no == 2
    assert second.operation.started_at == first.operation.started_at
    assert store.head == head  # the state did not change
    with pytest.raises(LeaseLostError):
        await store.advance(Advance(first.fence, finishing))


async def test_a_claim_that_finds_nothing_tells_nobody(store: Store) -> None:
    notices: list[object] = []
    store.subscribe(notices.append)
    assert await claim(store) == ()
    assert await claim(store, limit=0) == ()
    assert notices == []


async def test_fifo_within_a_tenant_and_round_robin_between_tenants(store: Store) -> None:
    accepted = {t: [await provision(store, t, f"i{n}") for n in range(3)] for t in ("a", "b", "c")}
    taken = await claim(store, limit=5, after_tenant="a")
    assert [c.operation.tenant for c in taken] == ["b", "c", "a", "b", "c"]
    assert [c.operation.operation_id for c in taken if c.operation.tenant == "b"] == [
        o.operation_id for o in accepted["b"][:2]
    ]


async def test_an_older_operation_that_became_due_later_goes_first(store: Store, clock: ManualClock) -> None:
    late = await provision(store, instance_id="late", due_at=START + timedelta(seconds=10))
    early = await provision(store, instance_id="early")
    clock.advance(20)
    taken = await claim(store)
    assert [c.operation.operation_id for c in taken] == [late.operation_id, early.operation_id]


async def test_rooms_of_tenants_and_providers_hold(store: Store) -> None:
    for tenant in ("a", "b"):
        for number in range(3):
            await provision(store, tenant, f"pg{number}")
            await provision(store, tenant, f"s3{number}", provider="s3")
    taken = await claim(store, tenant_room={"a": 0}, tenant_limit=4, provider_room={"s3": 1}, provider_limit=2)
    assert sorted((c.operation.tenant, c.operation.provider) for c in taken) == [("b", "pg"), ("b", "pg"), ("b", "s3")]
    assert await claim(store, provider_limit=0) == ()


async def test_removals_only_looks_at_nothing_else(store: Store) -> None:
    await provision(store, instance_id="made")
    removal = await provision(store, instance_id="gone", verb=Verb.DEPROVISION)
    taken = await claim(store, removals_only=True)
    assert [c.operation.operation_id for c in taken] == [removal.operation_id]


@pytest.mark.parametrize("state", [OperationState.CANCELLING, OperationState.ROLLING_BACK])
async def test_a_claim_keeps_the_direction(store: Store, state: OperationState) -> None:
    await provision(store, state=state, started_at=START)
    head = store.head
    (claimed,) = await claim(store)
    assert claimed.operation.state is state
    assert store.head == head


@pytest.mark.parametrize("due", [None, START + timedelta(days=1)])
async def test_what_is_not_due_is_not_claimed(store: Store, due: object) -> None:
    await provision(store, due_at=due, waiting=Waiting.PARKED)
    assert await claim(store) == ()


async def test_claimed_carries_all_that_work_needs(store: Store) -> None:
    now, before = records.plan("now"), records.plan("before")
    await store.apply_catalog("digest", "text", [now, before])
    made = records.instance()
    bound = records.binding(made, plan=before.digest)
    origin = records.operation(made, on=bound, state=OperationState.FAILED, due_at=None, ended_at=START)
    want = replace(records.SETTINGS, plan=now.digest)
    cleanup = records.operation(made, Verb.CLEANUP, bound, origin=origin.operation_id, want=want)
    secrets = (SealedSecret(made.uid, "admin", b"1"), SealedSecret(bound.uid, "password", b"2"))
    steps = (records.step(origin), records.step(cleanup))
    operations = (origin, cleanup)
    await write(store, Writes((made,), (bound,), operations, steps=steps, secrets=secrets))
    (claimed,) = await claim(store)
    assert (claimed.instance, claimed.binding) == (made, bound)
    assert (claimed.steps, claimed.origin, claimed.origin_steps) == ((steps[1],), origin, (steps[0],))
    assert claimed.plans == {now.digest: now, before.digest: before}
    assert claimed.secrets == secrets


async def test_renew_extends_what_is_held_and_names_it(store: Store, clock: ManualClock) -> None:
    await provision(store, instance_id="one")
    await provision(store, instance_id="two")
    one, two = await claim(store)
    await store.advance(Advance(two.fence, finishing))
    clock.advance(20)
    assert await store.renew([one.fence, two.fence], records.LEASE) == {one.operation.operation_id}
    clock.advance(20)
    assert await claim(store) == ()


async def test_release_gives_everything_of_one_owner_back(store: Store) -> None:
    await provision(store, instance_id="one")
    await provision(store, instance_id="two")
    (mine,) = await claim(store, limit=1, owner="me")
    (theirs,) = await claim(store, limit=1, owner="them")
    assert await store.release("me") == 1
    assert [c.operation.operation_id for c in await claim(store)] == [mine.operation.operation_id]
    await store.advance(Advance(theirs.fence, finishing))


async def test_wake_makes_those_due_that_wait_for_the_circuit(open_store: object, store: Store) -> None:
    far = START + timedelta(hours=1)
    for number in range(5):
        await provision(store, instance_id=f"c{number}", due_at=far, waiting=Waiting.CIRCUIT)
    await provision(store, instance_id="parked", due_at=far, waiting=Waiting.PARKED)
    await provision(store, instance_id="other", due_at=far, waiting=Waiting.CIRCUIT, provider="s3")
    told: list[bool] = []
    store.subscribe(lambda commit: told.append(commit.due))
    assert await store.wake("pg") == 5
    assert told == [True]
    assert len(await claim(store)) == 5


async def test_a_parked_operation_comes_back_and_the_counts_follow(store: Store, clock: ManualClock) -> None:
    await provision(store)
    (claimed,) = await claim(store)

    def park(job: Job) -> Writes:
        again = records.parked(replace(job.operation, lease_owner=""), job.now + timedelta(seconds=5))
        return Writes(quiet=(again,))

    await store.advance(Advance(claimed.fence, park))
    assert (await store.backlog()).parked == 1
    assert await claim(store) == ()
    clock.advance(5)
    (again,) = await claim(store)
    assert again.operation.waiting is Waiting.NONE
    assert (await look(store)).backlog.pending == 1


async def test_many_parked_operations_are_all_served_once(store: Store, clock: ManualClock) -> None:
    for number in range(120):
        await provision(store, f"t{number % 7}", f"i{number}", due_at=START + timedelta(seconds=number % 11 + 1))
    clock.advance(60)
    served: list[str] = []
    while taken := await claim(store, limit=16):
        served += [c.operation.operation_id for c in taken]
    assert len(served) == len(set(served)) == 120
    every = [o for n in range(7) for o in await store.operations(SYSTEM, f"t{n}", (), Page(100))]
    assert {o.operation_id for o in every} == set(served)
