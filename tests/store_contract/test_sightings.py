"""What sweeps have seen is remembered, judged in the command that writes, and listed in pages."""

from __future__ import annotations

from datetime import datetime, timedelta

import pytest
from msgspec.structs import replace

from purveyor_server.domain import orphans
from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.orphans import Inventory, Knowledge, Sighting, SightingKey, SightingState, Standing, Thing
from purveyor_server.domain.policies import InventoryPolicy
from purveyor_server.domain.states import InstanceState
from purveyor_server.kit.clock import ManualClock
from purveyor_server.store.contract import Page, Store, Writes
from purveyor_server.store.operating import AuditLook
from purveyor_server.store.sightings import Glimpse, InventoryChange, SightingChange
from tests.store_contract import records
from tests.store_contract.conftest import OpenStore
from tests.store_contract.records import START, write

RECORD = AuditRecord(at=START, principal="op", action="ReapOrphan", resource="orphan/main/database/a", reason="why")
HOUR = timedelta(hours=1)


def thing(name: str, uid: str = "", revision: int = 1) -> Thing:
    return Thing("database", name, uid or f"uid-{name}", revision, "store")


async def see(store: Store, *things: Thing, sweep: int = 1, provider: str = "main") -> None:
    def decide(one: Thing, before: Sighting | None, knowledge: Knowledge, now: datetime) -> Sighting | None:
        return orphans.seen(before, provider, one, knowledge, sweep, HOUR, now)

    await store.see(provider, things, decide)


async def listed(store: Store, provider: str = "", *states: SightingState) -> list[str]:
    return [found.thing.name for _, found in await store.sightings(Page(100), provider, states)]


def key(name: str) -> SightingKey:
    return SightingKey("main", "database", name)


async def test_what_was_seen_survives_a_restart_and_counts_as_seen_before(
    open_store: OpenStore, clock: ManualClock
) -> None:
    store = await open_store()
    await see(store, thing("a"))
    await store.close()
    clock.advance(HOUR.total_seconds())
    store = await open_store()
    await see(store, thing("a"), thing("b"), sweep=2)
    found = await store.sighting(key("a"))
    assert found is not None
    assert (found.state, found.sweeps, found.first_seen, found.last_seen) == (
        SightingState.CONFIRMED, 2, START, START + HOUR,
    )  # fmt: skip
    assert await listed(store, "main", SightingState.SEEN) == ["b"]
    assert await store.count_sightings() == {("main", SightingState.CONFIRMED): 1, ("main", SightingState.SEEN): 1}


async def test_a_decision_sees_records_tombstones_and_unfinished_operations(store: Store) -> None:
    alive, dead = (
        records.instance(instance_id="alive"),
        records.instance(instance_id="dead", state=InstanceState.DELETED, adopted=True),
    )
    bound = records.binding(alive)
    working = records.operation(alive)
    await write(store, Writes(instances=(alive,), bindings=(bound,), operations=(working,)), instance_id="alive")
    await write(store, Writes(instances=(dead,)), instance_id="dead")
    uids = [alive.uid, dead.uid, bound.uid, "nobody"]
    known = await store.knowledge(uids)
    assert known[alive.uid] == Knowledge(alive.state, "instance acme/alive", (working.operation_id,))
    assert known[dead.uid] == Knowledge("DELETED", "instance acme/dead", exempt=True)
    assert known[bound.uid].resource.startswith("binding acme/alive/")
    assert "nobody" not in known

    told: dict[str, Standing] = {}

    def decide(one: Thing, _before: Sighting | None, knowledge: Knowledge, _now: datetime) -> None:
        told[one.uid] = knowledge.standing

    await store.see("main", [thing(f"n{index}", uid) for index, uid in enumerate(uids)], decide)
    assert told == {
        alive.uid: Standing.KNOWN,
        dead.uid: Standing.REMAINS,
        bound.uid: Standing.KNOWN,
        "nobody": Standing.UNKNOWN,
    }
    assert await listed(store) == []


async def test_a_tombstone_that_is_worked_on_is_known(store: Store) -> None:
    dead = records.instance(instance_id="dead", state=InstanceState.DELETED)
    cleaning = records.operation(dead)
    await write(store, Writes(instances=(dead,), operations=(cleaning,)), instance_id="dead")
    assert (await store.knowledge([dead.uid]))[dead.uid].standing is Standing.KNOWN


async def test_a_change_and_its_record_are_one_command_that_sees_what_stands_in_the_way(store: Store) -> None:
    await see(store, thing("a"))
    await store.freeze(Freeze("reaping", "why", "op", START), RECORD)
    seen: list[Glimpse] = []

    def decide(glimpse: Glimpse) -> SightingChange:
        seen.append(glimpse)
        return SightingChange(replace(glimpse.sighting, state=SightingState.IGNORED), (RECORD,))

    changed = await store.change_sighting(key("a"), decide)
    assert changed.state is SightingState.IGNORED
    assert await store.sighting(key("a")) == changed
    (glimpse,) = seen
    assert ([freeze.name for freeze in glimpse.freezes], glimpse.recovering, glimpse.inventory) == (
        ["reaping"], False, None,
    )  # fmt: skip
    assert (glimpse.head, glimpse.knowledge) == (store.head, Knowledge())
    assert len((await store.audit((), AuditLook(10))).records) == 2

    def refuse(glimpse: Glimpse) -> SightingChange:
        raise PurveyorError(Reason.IN_USE, "no")

    with pytest.raises(PurveyorError):
        await store.change_sighting(key("a"), refuse)
    with pytest.raises(PurveyorError) as unknown:
        await store.change_sighting(key("nowhere"), decide)
    assert unknown.value.reason is Reason.ORPHAN_NOT_FOUND
    assert len((await store.audit((), AuditLook(10))).records) == 2


async def test_lists_are_pages_by_provider_and_state(store: Store) -> None:
    await see(store, *(thing(f"t{number}") for number in range(5)))
    await see(store, thing("other"), provider="beside")
    first = await store.sightings(Page(2), "main")
    assert [found.thing.name for _, found in first] == ["t0", "t1"]
    rest = await store.sightings(Page(10, first[-1][0]), "main")
    assert [found.thing.name for _, found in rest] == ["t2", "t3", "t4"]
    assert await listed(store, "beside") == ["other"]
    assert await listed(store, "", SightingState.GONE) == []
    (noted,) = await store.sighted("main", ["uid-t1", "uid-other", "nobody"])
    assert noted.thing.name == "t1"


async def test_what_a_later_sweep_does_not_see_is_gone_page_by_page_and_forgotten(
    store: Store, clock: ManualClock
) -> None:
    await see(store, *(thing(f"t{number}") for number in range(5)))
    clock.advance(HOUR.total_seconds())
    await see(store, thing("t0"), sweep=2)
    assert await store.lose_sightings("main", 2, 3) == 3
    assert await store.lose_sightings("main", 2, 3) == 1
    assert await store.lose_sightings("main", 2, 3) == 0
    assert await listed(store, "main", SightingState.GONE) == ["t1", "t2", "t3", "t4"]
    assert await store.sighted("main", ["uid-t1"]) == ()
    assert await store.forget_sightings(START, 10) == 0
    assert await store.forget_sightings(START + HOUR, 3) == 3
    assert await store.forget_sightings(START + HOUR, 3) == 1
    assert await listed(store) == ["t0"]


async def test_what_is_due_comes_by_how_long_ago_it_was_tried(store: Store, clock: ManualClock) -> None:
    await see(store, *(thing(name) for name in "abc"))

    def try_it(glimpse: Glimpse) -> SightingChange:
        return SightingChange(orphans.done(glimpse.sighting, orphans.Deed.REAP, "no answer", glimpse.now))

    for name in "ba":
        await store.change_sighting(key(name), try_it)
        clock.advance(HOUR.total_seconds())
    due = await store.due_sightings("main", 1, SightingState.SEEN, (-1, 0), 2)
    assert [one.sighting.thing.name for one in due] == ["c", "b"]
    rest = await store.due_sightings("main", 1, SightingState.SEEN, (due[-1].tried, due[-1].seq), 2)
    assert [one.sighting.thing.name for one in rest] == ["a"]
    assert await store.due_sightings("main", 2, SightingState.SEEN, (-1, 0), 2) == ()


async def test_an_inventory_is_remembered_by_provider(open_store: OpenStore) -> None:
    store = await open_store()

    def begin(before: Inventory | None, now: datetime) -> InventoryChange:
        return InventoryChange(orphans.begun(before, "main", InventoryPolicy(), store.epoch, now), (RECORD,))

    assert (await store.change_inventory("main", begin)).sweep == 1
    assert (await store.change_inventory("main", begin)).sweep == 2
    await store.close()
    store = await open_store()
    (kept,) = await store.inventories()
    assert (kept.provider, kept.sweep, kept.epoch) == ("main", 2, 1)
    assert await store.inventory("main") == kept
    assert await store.inventory("beside") is None


async def test_plans_of_every_catalog_are_found_page_by_page(store: Store) -> None:
    plans = [replace(records.plan(), digest=f"d{number}") for number in range(3)]
    await store.apply_catalog("one", "services: []", plans[:2])
    await store.apply_catalog("two", "services: []", plans[2:])
    first = await store.every_plan(Page(2))
    assert [plan.digest for plan in (*first, *await store.every_plan(Page(2, first[-1].digest)))] == ["d0", "d1", "d2"]
