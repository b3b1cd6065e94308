"""Inventories of platforms: what is marked, what is looked at again in the command, what a change of the record keeps."""

from __future__ import annotations

from datetime import timedelta

import pytest
from msgspec.structs import replace

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import Instance
from purveyor_server.domain.platforms import InventoryReport, PlatformRules, Verdict, claimed
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import BindingState, InstanceState
from purveyor_server.kit.clock import ManualClock
from purveyor_server.store.contract import SYSTEM, Page, Store, Writes
from purveyor_server.store.operating import AuditLook
from tests.store_contract.records import START, binding, instance, log_of, write

RECORD = AuditRecord(at=START, principal="cf", action="SyncInventory", resource="inventory/s")
ALL = Page(10)


async def ordered(store: Store, name: str, owner: str = "cf") -> Instance:
    made = instance(instance_id=name, state=InstanceState.READY, owner=owner)
    await write(store, Writes(instances=(made,)), instance_id=name)
    return made


def verdict(snapshot_id: str, *, orphaned: tuple[str, ...] = (), missing: tuple[str, ...] = (),
            healed: tuple[str, ...] = ()) -> Verdict:  # fmt: skip
    report = InventoryReport(
        tenant="acme", owner="cf", snapshot_id=snapshot_id, digest=snapshot_id, taken_at=START, received_at=START,
        named=1, known=1,
    )  # fmt: skip
    return Verdict(report, orphaned, missing, healed)


async def now(store: Store, made: Instance) -> Instance:
    found = await store.instance(SYSTEM, "acme", made.instance_id)
    assert found is not None
    return found


async def test_what_a_platform_has_is_read_by_page_without_others(store: Store) -> None:
    mine = [await ordered(store, name) for name in ("a", "b", "c")]
    await ordered(store, "other", "k8s")
    await ordered(store, "nobody", "")
    first = await store.placed("acme", "cf", Page(2))
    rest = await store.placed("acme", "cf", Page(2, first[-1].uid))
    assert [one.uid for one in (*first, *rest)] == [one.uid for one in mine]
    assert await store.placed("acme", "", ALL) == ()
    assert await store.placed("else", "cf", ALL) == ()
    gone = touch(mine[0], START, state=InstanceState.DELETED, deleted_at=START)
    leaving = touch(mine[1], START, state=InstanceState.DEPROVISIONING)
    await write(store, Writes(instances=(gone,)), instance_id="a")
    await write(store, Writes(instances=(leaving,)), instance_id="b")
    assert [(one.instance_id, one.leaving) for one in await store.placed("acme", "cf", ALL)] == [
        ("b", True), ("c", False),
    ]  # fmt: skip


async def test_marks_their_report_and_their_record_are_one_command(store: Store, clock: ManualClock) -> None:
    made = await ordered(store, "a")
    head = store.head
    kept = await store.take_inventory(verdict("s1", orphaned=(made.uid,)), RECORD)
    assert await store.last_inventory("acme", "cf") == kept
    assert (await now(store, made)).platform_orphan_since == clock.now()
    assert [event.uid for event in await log_of(store, head)] == [made.uid]
    assert len((await store.audit((), AuditLook(10))).records) == 1
    again = await store.take_inventory(verdict("s1", healed=(made.uid,)), RECORD)
    assert again == kept
    assert (await now(store, made)).platform_orphan_since is not None
    await store.take_inventory(verdict("s2", healed=(made.uid,)), RECORD)
    assert (await now(store, made)).platform_orphan_since is None


async def test_one_that_was_overtaken_by_a_newer_one_changes_nothing(store: Store) -> None:
    """Two are judged at once: the older comes to its end last, and does not know what the newer one names."""
    made = await ordered(store, "a")
    newer = verdict("s2")
    newer = replace(newer, report=replace(newer.report, taken_at=START + timedelta(minutes=1)))
    kept = await store.take_inventory(newer, RECORD)
    with pytest.raises(PurveyorError, match="is older than the one before it") as refused:
        await store.take_inventory(verdict("s1", orphaned=(made.uid,)), RECORD)
    assert refused.value.reason == Reason.INVENTORY_REFUSED
    assert await store.last_inventory("acme", "cf") == kept
    assert (await now(store, made)).platform_orphan_since is None


async def test_a_grace_is_counted_between_two_inventories(store: Store, clock: ManualClock) -> None:
    made = await ordered(store, "a")
    bound = binding(made, state=BindingState.ACTIVE)
    await write(store, Writes(bindings=(bound,)), instance_id="a")
    await store.take_inventory(verdict("s1", orphaned=(made.uid,)), RECORD)
    clock.advance(3600)
    (found,) = await store.platform_orphans(ALL)
    assert (found.seen_at, found.bindings) == (START, 1)
    assert await store.platform_orphans(ALL, timedelta(0)) == ()
    head = store.head
    await store.take_inventory(verdict("s2", missing=(made.uid,)), RECORD)
    assert store.head == head
    assert len(await store.platform_orphans(ALL, timedelta(hours=1))) == 1
    assert await store.platform_orphans(ALL, timedelta(hours=2)) == ()
    changed = touch(await now(store, made), clock.now(), labels={"a": "b"})
    await write(store, Writes(instances=(changed,)), instance_id="a")
    assert len(await store.platform_orphans(ALL, timedelta(hours=1))) == 1  # what else changes does not count
    assert await store.platform_orphan_count() == 1
    free = claimed(changed, clock.now(), PlatformRules())
    await write(store, Writes(instances=(free,)), instance_id="a")
    assert await store.platform_orphans(ALL) == ()
    assert (await store.facts()).platform_orphans == 0


async def test_what_has_gone_or_belongs_to_another_is_left_alone(store: Store) -> None:
    foreign, made = await ordered(store, "other", "k8s"), await ordered(store, "a")
    gone = touch(made, START, state=InstanceState.DELETED, deleted_at=START)
    await write(store, Writes(instances=(gone,)), instance_id="a")
    await store.take_inventory(verdict("s1", orphaned=(foreign.uid, made.uid, "nothing")), RECORD)
    assert await store.platform_orphans(ALL) == ()
