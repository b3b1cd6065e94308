"""Committed reads: lists, filters, pages, and the values beside the records."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import pytest
from msgspec.structs import replace

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.filters import Comparator, Condition
from purveyor_server.domain.states import InstanceState, OperationState, Verb
from purveyor_server.store.contract import SYSTEM, Page, Store, Writes
from tests.store_contract import records
from tests.store_contract.conftest import OpenStore
from tests.store_contract.records import START, look, provision, write

ALL = Page(100)


def where(field: str, value: str, comparator: Comparator = Comparator.EQUAL) -> tuple[Condition, ...]:
    return (Condition(field, comparator, value),)


async def test_pages_are_in_creation_order_and_complete(store: Store) -> None:
    accepted = [await provision(store, instance_id=f"i{n:02}") for n in range(10)]
    seen: list[str] = []
    page = Page(3)
    while found := await store.operations(SYSTEM, "acme", (), page):
        seen += [row.operation_id for row in found]
        page = Page(3, found[-1].operation_id)
    assert seen == [row.operation_id for row in accepted]
    instances = await store.instances(SYSTEM, "acme", (), ALL)
    assert [row.instance_id for row in instances] == [f"i{n:02}" for n in range(10)]
    assert await store.instances(SYSTEM, "acme", (), Page(2, instances[7].uid)) == instances[8:]


@pytest.mark.parametrize(
    ("condition", "found"),
    [
        (where("state", "READY"), {"b"}),
        (where("state", "READY", Comparator.NOT_EQUAL), {"a"}),
        (where("instance_id", "a"), {"a"}),
        (where("plan_id", "plan-2"), {"b"}),
        (where("service_id", "service-1"), {"a", "b"}),
        (where("create_time", "2026-01-01T00:30:00Z", Comparator.LESS), {"a"}),
        (where("create_time", "2026-01-01T00:30:00Z", Comparator.GREATER), {"b"}),
        (where("create_time", "2026-01-01T01:00:00Z"), {"b"}),
        (where("update_time", "2026-01-01T00:00:00Z") + where("state", "PROVISIONING"), {"a", "c"} - {"c"}),
    ],
)
async def test_filters_of_instances(store: Store, condition: tuple[Condition, ...], found: set[str]) -> None:
    later = START + timedelta(hours=1)
    other = replace(records.SETTINGS, plan_id="plan-2")
    first = records.instance(instance_id="a")
    second = records.instance(
        instance_id="b", state=InstanceState.READY, applied=other, created_at=later, updated_at=later
    )
    gone = records.instance(instance_id="c", state=InstanceState.DELETED, deleted_at=START)
    await write(store, Writes(instances=(first, second, gone)))
    assert {row.instance_id for row in await store.instances(SYSTEM, "acme", condition, ALL)} == found


async def test_filters_of_operations(store: Store) -> None:
    one = await provision(store, instance_id="one")
    await provision(store, instance_id="two", verb=Verb.UPDATE)
    await write(store, Writes(operations=(records.ended(one),)), instance_id="one")
    for condition, expected in (
        (where("instance_id", "one"), ["one"]),
        (where("verb", "UPDATE"), ["two"]),
        (where("state", "SUCCEEDED"), ["one"]),
        (where("end_time", "2026-01-02T00:00:00Z", Comparator.LESS), ["one"]),
        (where("instance_id", "one", Comparator.NOT_EQUAL), ["two"]),
    ):
        found = await store.operations(SYSTEM, "acme", condition, ALL)
        assert [row.instance_id for row in found] == expected


async def test_bindings_of_one_instance_and_of_all(store: Store) -> None:
    await provision(store, instance_id="one")
    await provision(store, instance_id="two")
    for name in ("one", "two"):
        made = (await look(store, instance_id=name)).instance
        assert made is not None
        await write(store, Writes(bindings=(records.binding(made, f"b-{name}"),)), instance_id=name)
    assert [b.binding_id for b in await store.bindings(SYSTEM, "acme", "", (), ALL)] == ["b-one", "b-two"]
    assert [b.binding_id for b in await store.bindings(SYSTEM, "acme", "two", (), ALL)] == ["b-two"]
    condition = where("binding_id", "b-one")
    assert [b.binding_id for b in await store.bindings(SYSTEM, "acme", "", condition, ALL)] == ["b-one"]
    assert await store.binding(SYSTEM, "acme", "one", "b-two") is None
    found = await store.binding(SYSTEM, "acme", "one", "b-one")
    assert found is not None
    assert found.binding_id == "b-one"


@pytest.mark.parametrize("condition", [where("nothing", "x"), where("create_time", "yesterday")])
async def test_a_filter_that_cannot_be_served_is_refused(store: Store, condition: tuple[Condition, ...]) -> None:
    with pytest.raises(PurveyorError) as caught:
        await store.instances(SYSTEM, "acme", condition, ALL)
    assert caught.value.reason is Reason.INVALID_FILTER


async def test_a_value_is_never_pasted_into_the_query(store: Store) -> None:
    await provision(store)
    assert await store.instances(SYSTEM, "acme", where("state", "' OR 1=1 --"), ALL) == ()


async def test_an_ended_operation_has_its_end(store: Store) -> None:
    accepted = await provision(store)
    done = records.ended(accepted, OperationState.FAILED)
    await write(store, Writes(operations=(done,)))
    assert await store.operation(SYSTEM, accepted.operation_id) == done


async def test_the_newest_catalog_and_its_plans(open_store: OpenStore) -> None:
    store = await open_store()
    assert await store.catalog() is None
    plan = records.plan()
    first = await store.apply_catalog("one", "text 1", [plan])
    assert (first.version, first.body) == (1, "text 1")
    assert await store.apply_catalog("one", "text 1", [plan]) == first
    second = await store.apply_catalog("two", "text 2", [])
    assert second.version == 2
    await store.close()
    again = await open_store()
    assert await again.catalog() == second
    assert await again.plan(plan.digest) == plan
    assert await again.plan("unknown") is None


async def test_the_first_value_of_a_name_is_kept(store: Store) -> None:
    assert await store.meta("key") is None
    kept = await asyncio.gather(*(store.put_meta("key", str(n).encode()) for n in range(20)))
    assert len(set(kept)) == 1
    assert await store.meta("key") == kept[0]


async def test_an_open_store_answers_a_ping_and_a_closed_one_does_not(open_store: OpenStore) -> None:
    store = await open_store()
    await store.ping()
    await store.close()
    await store.close()
    with pytest.raises(PurveyorError) as caught:
        await store.ping()
    assert caught.value.reason is Reason.STORE_UNAVAILABLE
    with pytest.raises(PurveyorError):
        await provision(store)
    with pytest.raises(PurveyorError):
        await store.instance(SYSTEM, "acme", "db")
