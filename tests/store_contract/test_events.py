"""The event log: dense, in commit order, told once."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import msgspec
import pytest

from purveyor_server.domain.model import EventKind, Instance, Operation
from purveyor_server.domain.states import Verb
from purveyor_server.store.contract import Advance, Commit, Retention, Store, Writes
from purveyor_server.store.log import CompactedError
from tests.store_contract import records
from tests.store_contract.conftest import OpenStore
from tests.store_contract.records import claim, finishing, log_of, look, provision, write

HOUR = timedelta(hours=1)


async def test_an_event_carries_the_record(store: Store) -> None:
    accepted = await provision(store)
    first, second = await store.events(0, 10)
    made = (await look(store)).instance
    assert (first.revision, first.kind, first.operation_id) == (1, EventKind.INSTANCE, accepted.operation_id)
    assert msgspec.json.decode(first.body, type=Instance) == made
    assert (second.revision, second.kind, second.state) == (2, EventKind.OPERATION, "PENDING")
    assert msgspec.json.decode(second.body, type=Operation) == accepted
    assert (second.tenant, second.instance_id, second.uid) == ("acme", "db", accepted.instance_uid)


async def test_a_binding_has_events_of_its_own(store: Store) -> None:
    await provision(store)
    made = (await look(store)).instance
    assert made is not None
    bound = records.binding(made)
    bind = records.operation(made, Verb.BIND, bound)
    await write(store, Writes(bindings=(bound,), operations=(bind,)))
    third, fourth = await store.events(2, 10)
    assert (third.kind, third.binding_id, third.uid) == (EventKind.BINDING, "app", bound.uid)
    assert (fourth.kind, fourth.binding_id, fourth.uid) == (EventKind.OPERATION, "app", bound.uid)


async def test_pages_follow_on_one_another_and_end_at_the_head(store: Store) -> None:
    for number in range(7):
        await provision(store, instance_id=f"i{number}")
    paged = await log_of(store, page=3)
    assert [event.revision for event in paged] == list(range(1, 15))
    assert await store.events(14, 10) == ()
    assert await store.events(99, 10) == ()


async def test_listeners_hear_each_commit_before_the_caller_has_its_answer(store: Store) -> None:
    heard: list[Commit] = []
    end = store.subscribe(heard.append)
    accepted = await provision(store)
    assert heard[-1].head == store.head == 2
    assert [event.revision for event in heard[-1].events] == [1, 2]
    assert heard[-1].operations == (accepted,)
    assert heard[-1].due
    end()
    end()
    await provision(store, instance_id="other")
    assert len(heard) == 1


async def test_a_listener_that_fails_does_not_starve_the_next(store: Store) -> None:
    heard: list[Commit] = []

    def broken(_: Commit) -> None:
        raise RuntimeError("a bug")

    store.subscribe(broken)
    store.subscribe(heard.append)
    await provision(store)
    assert len(heard) == 1


async def test_commits_are_told_in_order_without_a_gap(store: Store) -> None:
    revisions: list[int] = []
    store.subscribe(lambda commit: revisions.extend(event.revision for event in commit.events))
    await asyncio.gather(*(provision(store, f"t{n % 5}", f"i{n}") for n in range(100)))
    assert revisions == list(range(1, 201))
    assert [event.revision for event in await log_of(store)] == revisions


async def test_the_head_and_the_log_survive_a_restart(open_store: OpenStore) -> None:
    store = await open_store()
    await provision(store)
    before, identity = await log_of(store), store.store_id
    await store.close()
    again = await open_store()
    assert (again.head, again.store_id) == (2, identity)
    assert await log_of(again) == before
    await provision(again, instance_id="other")
    assert again.head == 4


async def test_compaction_never_passes_silently(store: Store) -> None:
    for number in range(5):
        await provision(store, instance_id=f"i{number}")
    await store.retain(Retention(HOUR, HOUR, HOUR, max_events=4))
    with pytest.raises(CompactedError) as refused:
        await store.events(5, 10)
    assert refused.value.earliest == await store.earliest() == 7
    assert [event.revision for event in await store.events(6, 10)] == [7, 8, 9, 10]


async def test_a_log_that_was_compacted_goes_on_after_a_restart(open_store: OpenStore) -> None:
    store = await open_store()
    await provision(store)
    (claimed,) = await claim(store)
    await store.advance(Advance(claimed.fence, finishing))
    await store.retain(Retention(HOUR, HOUR, HOUR, max_events=1))
    await store.close()
    again = await open_store()
    assert again.head == 4
    assert [event.revision for event in await again.events(3, 10)] == [4]
