"""Looks at backends: what is kept, what is told, in which order they are due."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.drift import Look, Observation, Pace, first, judge
from purveyor_server.domain.filters import Filter
from purveyor_server.domain.model import Instance
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import Drift, InstanceState
from purveyor_server.kit.clock import ManualClock
from purveyor_server.store.contract import SYSTEM, Page, Store, Writes
from purveyor_server.store.observing import Seen, Sight
from purveyor_server.store.operating import AuditLook
from tests.store_contract.records import START, binding, instance, log_of, operation, write

PACE = Pace(timedelta(minutes=10), timedelta(minutes=1))
HERE, GONE = Look(Drift.IN_SYNC), Look(Drift.MISSING)
NO_FILTER: Filter = ()


async def ready(store: Store, instance_id: str = "db") -> Instance:
    made = instance(instance_id=instance_id, state=InstanceState.READY)
    await write(store, Writes(instances=(made,)), instance_id=instance_id)
    return made


async def look(store: Store, of: Instance, seen: Look = HERE, *, tell: bool = False) -> Observation:
    def decide(sight: Sight) -> Seen:
        before = sight.observation or first(of.uid, of.tenant, of.instance_id, sight.now)
        after = judge(before, seen, sight.now, PACE)
        return Seen(after, touch(sight.instance, sight.now, drift=after.drift) if tell else None)

    found = await store.observe(of.uid, decide)
    assert found is not None
    return found.observation


async def due(store: Store, clock: ManualClock) -> list[str]:
    return [found.instance_id for found in await store.due_looks(clock.now(), 10)]


async def test_the_one_that_waits_longest_comes_first(store: Store, clock: ManualClock) -> None:
    made = [await ready(store, name) for name in ("a", "b", "c")]
    assert await due(store, clock) == ["a", "b", "c"]
    await look(store, made[1])
    await look(store, made[0], GONE)
    assert await due(store, clock) == ["c"]
    clock.advance(60)
    assert await due(store, clock) == ["c", "a"]
    clock.advance(600)
    assert await due(store, clock) == ["c", "a", "b"]
    assert [found.instance_id for found in await store.due_looks(clock.now(), 1)] == ["c"]


async def test_only_ready_ones_are_due_and_what_was_worked_on_is_due_at_once(store: Store, clock: ManualClock) -> None:
    made = await ready(store)
    await look(store, made)
    assert await due(store, clock) == []
    busy = touch(made, clock.now(), state=InstanceState.UPDATING)
    await write(store, Writes(instances=(busy,)))
    assert await due(store, clock) == []
    await write(store, Writes(instances=(touch(busy, clock.now(), state=InstanceState.READY),)))
    assert await due(store, clock) == ["db"]


async def test_a_change_of_the_record_alone_brings_no_look_forward(store: Store, clock: ManualClock) -> None:
    made = await ready(store)
    await look(store, made)
    await write(store, Writes(instances=(touch(made, clock.now(), labels={"a": "b"}),)))
    assert await due(store, clock) == []


async def test_a_quiet_look_makes_no_event(store: Store) -> None:
    made = await ready(store)
    head = store.head
    await look(store, made)
    assert (store.head, await log_of(store, head)) == (head, [])
    await look(store, made, tell=True)
    (event,) = await log_of(store, head)
    assert (event.kind, event.uid) == ("INSTANCE", made.uid)


async def test_a_look_sees_the_rows_of_its_own_transaction(store: Store) -> None:
    made = await ready(store)
    bound = binding(made)
    running = operation(made, on=bound)
    await write(store, Writes(bindings=(bound,), operations=(running,)))
    sights: list[Sight] = []
    await store.observe(made.uid, sights.append)
    (sight,) = sights
    assert (sight.instance.uid, [b.uid for b in sight.bindings]) == (made.uid, [bound.uid])
    assert [o.operation_id for o in sight.operations] == [running.operation_id]
    assert sight.observation is None
    assert await store.observe("nobody", sights.append) is None


async def test_what_a_decision_raises_is_its_answer(store: Store) -> None:
    made = await ready(store)

    def refuse(_sight: Sight) -> Seen:
        raise LookupError("no")

    with pytest.raises(LookupError):
        await store.observe(made.uid, refuse)
    assert await store.observation(made.uid) is None


async def test_what_is_not_in_order_is_listed_by_page_and_counted(store: Store) -> None:
    made = [await ready(store, name) for name in ("a", "b", "c", "d")]
    for one in made[:2]:
        await look(store, one, GONE)
    await look(store, made[2], Look(Drift.DRIFTED, ("x",)))
    await look(store, made[3])
    first_page = await store.drifted(Page(2))
    rest = await store.drifted(Page(2, first_page[-1].instance.uid))
    assert [found.instance.instance_id for found in (*first_page, *rest)] == ["a", "b", "c"]
    assert rest[0].observation.differences == ("x",)
    assert await store.drift_counts() == {"UNKNOWN": 2, "DRIFTED": 1}
    assert (await store.facts()).drift == {"UNKNOWN": 2, "DRIFTED": 1}


async def test_an_observation_goes_with_its_instance(store: Store) -> None:
    made = await ready(store)
    await look(store, made, GONE)
    gone = replace(touch(made, START, state=InstanceState.DELETED), deleted_at=START)
    await write(store, Writes(instances=(gone,)))
    assert await store.observation(made.uid) is None
    assert await store.drift_counts() == {}


async def test_a_look_and_its_record_are_one_command(store: Store) -> None:
    made = await ready(store)
    record = AuditRecord(at=START, principal="ann", action="ObserveInstance", resource="instance/db", reason="why")
    await store.observe(made.uid, lambda _sight: None, record)
    assert (await store.audit(NO_FILTER, AuditLook(10))).records == ()
    kept = first(made.uid, "acme", "db", START)
    await store.observe(made.uid, lambda _sight: Seen(kept), record)
    assert [found.record.action for found in (await store.audit(NO_FILTER, AuditLook(10))).records] == [
        "ObserveInstance"
    ]
    assert await store.observation(made.uid) == kept
    assert await store.instance(SYSTEM, "acme", "db") == made
