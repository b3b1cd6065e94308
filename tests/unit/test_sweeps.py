"""Sweeps over a real store on a simulated clock: what is remembered, what is done, what stops them."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.model import ProviderRef
from purveyor_server.domain.orphans import SightingKey, SightingState, Standing
from purveyor_server.domain.policies import InventoryPolicy, OrphanMode
from purveyor_server.domain.recovery import Recovery
from purveyor_server.domain.states import InstanceState
from purveyor_server.lifecycle.admin.contract import Act
from purveyor_server.lifecycle.admin.rebuilding import Finding
from purveyor_server.lifecycle.contract import ITSELF
from purveyor_server.monitor.metrics import Metrics, Sizes
from purveyor_server.providers.contract import Ability, Ambiguous, Unreachable
from purveyor_server.store.contract import Store, Writes
from purveyor_server.store.operating import AuditLook
from purveyor_server.store.sqlite import rows
from tests.fakes.sweeping import ACT, REF, START, Rig, rig
from tests.store_contract import records

GRACE = timedelta(days=1)
REAP = InventoryPolicy(mode=OrphanMode.REAP, grace=GRACE, cap=2)


@pytest.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Rig]:
    """Reaping, among twenty things that are known."""
    async with rig(tmp_path, REAP) as made:
        await made.crowd()
        yield made


def key(name: str) -> SightingKey:
    return SightingKey("main", "database", name)


async def acts(store: Store, *actions: str) -> list[tuple[str, str]]:
    """Audit records of these actions, the oldest first, with the phase they tell of."""
    found = (await store.audit((), AuditLook(100, newest_first=False))).records
    return [
        (one.record.action, str(one.record.details.get("phase", "")))
        for one in found
        if not actions or one.record.action in actions
    ]


async def test_an_orphan_is_seen_quarantined_and_reaped_each_a_grace_period_apart(bench: Rig) -> None:
    bench.stray("lost")
    for _ in range(3):
        await bench.sweep()
        await bench.later(timedelta(minutes=1))
    assert await bench.states() == {"lost": SightingState.SEEN}  # sweeps within a minute count as one
    await bench.restart()
    await bench.later(GRACE)
    assert (await bench.sweep()).quarantined == 1
    assert (bench.backends.quarantined, len(bench.backends.things)) == ({"lost"}, 21)
    await bench.later(GRACE - timedelta(seconds=1))
    assert (await bench.sweep()).reaped == 0
    await bench.restart()
    await bench.later(timedelta(seconds=1))
    assert (await bench.sweep()).reaped == 1
    assert bench.backends.calls == ["quarantine lost", "reclaim lost"]
    assert await bench.states() == {"lost": SightingState.REAPED}
    assert await acts(bench.store, "QuarantineOrphan", "ReapOrphan") == [
        ("QuarantineOrphan", "begun"), ("QuarantineOrphan", "ended"), ("ReapOrphan", "begun"), ("ReapOrphan", "ended"),
    ]  # fmt: skip


async def test_the_record_of_a_deed_is_there_before_the_deed(bench: Rig) -> None:
    bench.stray("lost")
    await bench.sweep()
    await bench.later(GRACE)
    bench.backends.faults["quarantine"] = Ambiguous("the connection broke")
    found = await bench.sweep()
    assert (found.quarantined, found.failed) == (0, 1)
    kept = await bench.sighting("lost")
    assert (kept.state, kept.failure) == (SightingState.CONFIRMED, "the connection broke")
    assert await acts(bench.store, "QuarantineOrphan") == [("QuarantineOrphan", "begun"), ("QuarantineOrphan", "ended")]
    bench.backends.faults.clear()
    await bench.later(timedelta(minutes=1))
    assert (await bench.sweep()).quarantined == 1


async def test_at_most_a_share_is_done_and_what_fails_does_not_keep_others_waiting(bench: Rig) -> None:
    bench.policy = replace(REAP, brake_percent=90.0)
    await bench.restart()
    for name in ("a", "b", "c"):
        bench.stray(name)
    await bench.sweep()
    await bench.later(GRACE)
    bench.backends.faults["quarantine"] = Ambiguous("no")
    assert (await bench.sweep()).failed == 2
    await bench.later(timedelta(minutes=1))
    await bench.sweep()
    assert bench.backends.calls == ["quarantine a", "quarantine b", "quarantine c", "quarantine a"]


async def test_what_comes_to_be_known_in_the_meantime_is_left(bench: Rig) -> None:
    """A record that appears after the list was read and before the deed."""
    lost = bench.stray("lost")
    await bench.sweep()
    await bench.later(GRACE)
    due = bench.store.due_sightings

    async def appears(*arguments: object) -> object:
        made = records.instance(instance_id="late", uid=lost.uid)
        await records.write(bench.store, Writes(instances=(made,)), instance_id="late")
        bench.store.due_sightings = due  # type: ignore[method-assign] # once
        return await due(*arguments)  # type: ignore[arg-type] # handed on

    bench.store.due_sightings = appears  # type: ignore[method-assign,assignment] # the seam of this test
    assert (await bench.sweep()).quarantined == 0
    assert bench.backends.calls == []
    await bench.sweep()
    assert await bench.states() == {"lost": SightingState.ADOPTED}


async def test_remains_of_what_is_deleted_are_told_apart_and_cleaned_up_the_same_way(bench: Rig) -> None:
    await bench.known("gone", InstanceState.DELETED)
    await bench.sweep()
    assert (await bench.sighting("of-gone")).standing is Standing.REMAINS
    await bench.later(GRACE)
    assert (await bench.sweep()).quarantined == 1


@pytest.mark.parametrize("flag", [{"adopted": True}, {"deletion_protected": True}])
async def test_remains_of_what_was_adopted_or_protected_are_never_touched(bench: Rig, flag: dict[str, bool]) -> None:
    await bench.known("gone", InstanceState.DELETED, **flag)
    for _ in range(3):
        await bench.sweep()
        await bench.later(GRACE)
    assert bench.backends.calls == []
    assert (await bench.sighting("of-gone")).state is SightingState.CONFIRMED


@pytest.mark.parametrize("name", ["reaping", "deletes", "all", "provider:main"])
async def test_a_freeze_stops_every_deed(bench: Rig, name: str) -> None:
    record = records_of_freeze(name)
    bench.stray("lost")
    await bench.sweep()
    await bench.store.freeze(*record)
    await bench.later(GRACE)
    assert (await bench.sweep()).quarantined == 0
    await bench.store.thaw(name, record[1])
    assert (await bench.sweep()).quarantined == 1


def records_of_freeze(name: str) -> tuple[Freeze, AuditRecord]:
    return Freeze(name, "why", "op", START), AuditRecord(at=START, principal="op", action="Freeze", resource=name)


async def test_too_many_orphans_stop_the_sweeps_until_an_operator_says_go_on(bench: Rig) -> None:
    for number in range(5):
        bench.stray(f"lost{number}")
    with capture_logs() as lines:
        found = await bench.sweep()
    assert found.brake is not None
    assert "5 orphans of 25 things" in found.brake.reason
    assert [line["event"] for line in lines if line["log_level"] == "error"] == ["sweeps are stopped"]
    await bench.later(GRACE)
    await bench.restart()
    await bench.sweep()
    assert bench.backends.calls == []
    (shown,) = (await bench.admin.status(ITSELF)).inventories
    assert shown.brake == found.brake

    assert (await bench.admin.resume_sweep(ITSELF, "main", replace(ACT, validate_only=True)))[1]
    assert (await bench.admin.resume_sweep(ITSELF, "main", ACT))[1]
    assert not (await bench.admin.resume_sweep(ITSELF, "main", ACT))[1]
    assert (await bench.sweep()).quarantined == REAP.cap
    bench.stray("one more")
    stopped = await bench.sweep()
    assert stopped.brake is not None
    assert (stopped.quarantined, await acts(bench.store, "ResumeSweep")) == (0, [("ResumeSweep", "")])


async def test_a_list_that_has_shrunk_by_half_or_breaks_off_stops_the_sweeps(bench: Rig) -> None:
    await bench.sweep()
    kept = list(bench.backends.things)
    del bench.backends.things[10:]
    shrunk = (await bench.sweep()).brake
    assert shrunk is not None
    assert "shrunk from 20 to 10" in shrunk.reason

    bench.backends.things = kept
    await bench.admin.resume_sweep(ITSELF, "main", ACT)
    await bench.sweep()
    bench.backends.breaks = (7, Unreachable("the server is gone"))
    broken = await bench.sweep()
    assert not broken.complete
    assert broken.brake is not None
    assert broken.brake.reason == "the list broke off after 7 things: the server is gone"


async def test_a_backend_that_does_not_answer_stops_one_sweep_and_calls_nothing_gone(bench: Rig) -> None:
    bench.stray("lost")
    await bench.sweep()
    bench.backends.breaks = (0, Unreachable("no answer"))
    silent = await bench.sweep()
    assert (silent.brake, silent.complete, silent.problem) == (None, False, "no answer")
    assert await bench.states() == {"lost": SightingState.SEEN}
    bench.backends.breaks = None
    await bench.later(GRACE)
    assert (await bench.sweep()).quarantined == 1


async def test_a_store_without_its_records_deletes_nothing(tmp_path: Path) -> None:
    """An empty store beside a full backend: the brake, and markers that are later than the store."""
    async with rig(tmp_path, REAP) as bench:
        for number in range(12):
            bench.stray(f"lost{number}", revision=1000 + number)
        before = list(bench.backends.things)
        for _ in range(4):
            await bench.sweep()
            await bench.later(GRACE)
        assert (bench.backends.things, bench.backends.calls) == (before, [])
        report = await bench.admin.status(ITSELF)
        assert [freeze.name for freeze in report.freezes] == ["deletes", "reaping"]
        assert "put back to an older state" in report.freezes[0].reason
        assert report.inventories[0].brake is not None


async def test_a_marker_later_than_the_store_freezes_every_deletion_once(bench: Rig) -> None:
    bench.stray("old")
    late = bench.stray("late", revision=10_000)
    with capture_logs() as lines:
        await bench.sweep()
    assert "store is older than its resources" in [line["event"] for line in lines if line["log_level"] == "error"]
    await bench.later(GRACE)
    assert (await bench.sweep()).quarantined == 0
    for name in ("deletes", "reaping"):
        await bench.admin.thaw(ITSELF, name, ACT)
    found = await bench.sweep()
    assert (found.quarantined, bench.backends.calls) == (1, ["quarantine old"])  # the late one is still too late
    assert await bench.store.freezes() == ()
    bench.backends.things.append(replace(late, name="later", revision=10_001))
    await bench.sweep()
    assert [freeze.name for freeze in await bench.store.freezes()] == ["deletes", "reaping"]


async def test_a_sweep_that_only_looks_remembers_nothing(bench: Rig) -> None:
    bench.stray("lost", revision=10_000)
    found = await bench.sweep(Act(reason="try", validate_only=True))
    assert (found.owned, found.orphans) == (21, 1)
    assert (await bench.store.inventories(), await bench.states(), await bench.store.freezes()) == ((), {}, ())


async def test_what_is_gone_is_told_so_and_begins_anew_when_it_is_back(bench: Rig) -> None:
    lost = bench.stray("lost")
    await bench.sweep()
    bench.backends.things.remove(lost)
    await bench.later(GRACE)
    await bench.sweep()
    assert await bench.states() == {"lost": SightingState.GONE}
    bench.backends.things.append(lost)
    await bench.later(GRACE)
    await bench.sweep()
    assert await bench.states() == {"lost": SightingState.SEEN}


async def test_a_provider_that_cannot_quarantine_reaps_and_one_that_cannot_reap_keeps(bench: Rig) -> None:
    bench.stray("lost")
    bench.backends.able = frozenset({Ability.LIST_OWNED})
    await bench.sweep()
    await bench.later(GRACE)
    assert (await bench.sweep()).quarantined == 0
    bench.backends.able = frozenset({Ability.LIST_OWNED, Ability.RECLAIM})
    assert (await bench.sweep()).reaped == 1
    bench.backends.able = frozenset()
    with pytest.raises(PurveyorError) as refused:
        await bench.sweep()
    assert refused.value.reason is Reason.WRONG_STATE


async def test_the_loop_sweeps_soon_after_a_start_and_then_as_often_as_the_policy_says(bench: Rig) -> None:
    bench.stray("lost")
    assert await bench.loop.once() == 10.0
    await bench.later(timedelta(seconds=10))
    await bench.loop.once()
    assert (await bench.sighting("lost")).sweeps == 1
    assert await bench.loop.once() == REAP.every.total_seconds()
    await bench.later(REAP.every)
    await bench.loop.once()
    assert (await bench.sighting("lost")).sweeps == 2
    await bench.restart()
    await bench.later(timedelta(seconds=10))
    await bench.loop.once()
    assert (await bench.sighting("lost")).sweeps == 3
    await bench.store.freeze(*records_of_freeze("all"))
    await bench.later(REAP.every)
    assert await bench.loop.once() == bench.loop.interval
    assert (await bench.sighting("lost")).sweeps == 3


async def test_a_backend_that_does_not_answer_is_asked_again_before_its_time(bench: Rig) -> None:
    bench.backends.breaks = (0, Unreachable("no answer"))
    await bench.later(timedelta(seconds=10))
    await bench.loop.once()
    assert await bench.loop.once() == 300.0


async def test_by_hand_what_is_in_use_is_refused_with_the_list(bench: Rig) -> None:
    lost = bench.stray("lost")
    await bench.sweep()
    made = records.instance(instance_id="late", uid=lost.uid)
    working = records.operation(made)
    await records.write(bench.store, Writes(instances=(made,), operations=(working,)), instance_id="late")
    for call in (bench.admin.reap_orphan, bench.admin.quarantine_orphan):
        with pytest.raises(PurveyorError) as refused:
            await call(ITSELF, key("lost"), ACT)
        assert refused.value.reason is Reason.IN_USE
        assert [one.subject for one in refused.value.preconditions] == [
            "instance acme/late (PROVISIONING)", f"operation {working.operation_id}",
        ]  # fmt: skip
    assert bench.backends.calls == []
    with pytest.raises(PurveyorError) as unknown:
        await bench.admin.reap_orphan(ITSELF, key("nowhere"), ACT)
    assert unknown.value.reason is Reason.ORPHAN_NOT_FOUND
    with pytest.raises(PurveyorError) as nobody:
        await bench.admin.reap_orphan(ITSELF, SightingKey("nobody", "database", "lost"), ACT)
    assert nobody.value.reason is Reason.INVALID_REQUEST


async def test_the_report_tells_every_thing_and_what_is_missing_by_uid(bench: Rig) -> None:
    missing = await bench.known("missing")
    bench.backends.things.pop()
    alive = (await bench.known("alive")).uid
    bench.stray("second", uid=alive, kind="role")
    bench.stray("lost", revision=10_000)
    await bench.known("gone", InstanceState.DELETED)
    lines = [line async for line in bench.admin.rebuild_report(ITSELF)]
    assert [(line.kind, line.first) for line in lines if line.uid == alive] == [("database", True), ("role", False)]
    (lost,) = [line for line in lines if line.finding is Finding.UNKNOWN]
    assert (lost.name, lost.later) == ("lost", True)
    (gone,) = [line for line in lines if line.finding is Finding.REMAINS]
    assert (gone.name, gone.resource) == ("of-gone", "instance acme/gone")
    assert await bench.store.inventories() == ()
    # Records of this rig are of no plan: whose provider is unknown is not called missing.
    assert not [line for line in lines if line.uid == missing.uid]
    bench.backends.breaks = (1, Unreachable("no answer"))
    assert [line.problem async for line in bench.admin.rebuild_report(ITSELF)][-1] == "no answer"


async def test_a_deed_that_a_crash_cuts_off_is_begun_again_and_both_are_recorded(bench: Rig) -> None:
    bench.stray("lost")
    await bench.sweep()
    await bench.later(GRACE)
    called, never = asyncio.Event(), asyncio.Event()
    quarantine = bench.backends.quarantine

    async def hangs(*_: object) -> None:
        called.set()
        await never.wait()

    bench.backends.quarantine = hangs
    sweeping = asyncio.create_task(bench.sweep())
    await called.wait()
    sweeping.cancel()
    with pytest.raises(asyncio.CancelledError):
        await sweeping
    assert await acts(bench.store, "QuarantineOrphan") == [("QuarantineOrphan", "begun")]
    await bench.restart()
    bench.backends.quarantine = quarantine
    await bench.later(timedelta(minutes=1))
    assert (await bench.sweep()).quarantined == 1
    phases = [phase for _, phase in await acts(bench.store, "QuarantineOrphan")]
    assert phases == ["begun", "begun", "ended"]


async def test_a_long_list_is_read_and_remembered_in_pages(bench: Rig) -> None:
    bench.policy = replace(REAP, brake_count=1000, brake_percent=99.0)
    await bench.restart()
    for number in range(450):
        bench.stray(f"lost{number:03}")
    kept = bench.backends.things[:20]
    first = await bench.sweep()
    assert (first.owned, first.orphans) == (470, 450)
    assert await bench.store.count_sightings() == {("main", SightingState.SEEN): 450}
    bench.backends.things = [*kept, *bench.backends.things[-240:]]
    await bench.later(GRACE)
    await bench.sweep()
    assert await bench.store.count_sightings() == {
        ("main", SightingState.GONE): 210,
        ("main", SightingState.CONFIRMED): 238,
        ("main", SightingState.QUARANTINED): REAP.cap,
    }


async def test_a_provider_that_left_the_catalog_is_only_reported_about(bench: Rig) -> None:
    bench.stray("lost")
    await bench.sweep()
    bench.ref = ProviderRef("another", "listed")
    await bench.restart()
    assert [one.ref.name for one in await bench.admin.watched(ITSELF)] == ["another", "main"]
    bench.ref = REF
    await bench.later(GRACE)
    found = await bench.sweep()
    assert (found.mode, found.orphans, found.quarantined) == (OrphanMode.REPORT, 1, 0)
    assert bench.backends.calls == []


async def test_what_a_restored_store_sees_before_it_is_reviewed_has_its_grace_afterwards(bench: Rig) -> None:
    """What was made in the time that was lost is in use: it had been confirmed while it was looked at, and gone with the finish."""
    await bench.store.close()
    with closing(sqlite3.connect(bench.folder / "store.db")) as connection, connection:
        told = rows.encode(Recovery(taken_at=START, restored_at=START, revision=0)).decode()
        connection.execute("INSERT INTO settings (name, value) VALUES ('recovery', ?)", (told,))
    await bench.open()
    bench.stray("lost")
    for _ in range(3):
        await bench.later(GRACE)
        await bench.sweep()
    assert await bench.states() == {"lost": SightingState.SEEN}
    await bench.store.finish_recovery(
        AuditRecord(at=START, principal="op", action="FinishRecovery", resource="recovery")
    )
    await bench.sweep()
    assert bench.backends.calls == []
    await bench.later(GRACE)
    await bench.sweep()
    assert bench.backends.calls == ["quarantine lost"]


async def test_the_loop_leaves_out_who_cannot_list_for_a_while(bench: Rig) -> None:
    bench.backends.able = frozenset()
    await bench.later(timedelta(seconds=10))
    assert await bench.loop.once() == bench.loop.interval
    assert await bench.loop.once() == 3600.0
    bench.backends.able = frozenset({Ability.LIST_OWNED})
    await bench.later(timedelta(hours=1))
    await bench.loop.once()
    assert (await bench.store.inventories())[0].complete
    assert await bench.loop.once() == REAP.every.total_seconds()  # else it were due for ever, before everybody else


async def test_metrics_tell_orphans_by_state_and_stopped_sweeps(bench: Rig) -> None:
    for number in range(5):
        bench.stray(f"lost{number}")
    await bench.sweep()
    text = (await Metrics(Sizes(lambda: 0, dict)).text(bench.parts)).decode()
    assert 'purveyor_orphans{provider="main",state="SEEN"} 5.0' in text
    assert 'purveyor_inventory_stopped{provider="main"} 1.0' in text
    assert 'purveyor_inventory_incomplete{provider="main"} 0.0' in text
