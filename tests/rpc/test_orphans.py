"""Orphans through AdminService, its client and the command line, over a whole broker with a scripted backend."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from msgspec.structs import replace

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import FailedPreconditionError, InvalidRequestError, NotFoundError
from purveyor.sync import SyncAdminClient
from purveyor.v1 import orphan_pb2 as pb
from purveyor.v1.admin_service_pb2_grpc import AdminServiceStub
from purveyor_server.domain.policies import InventoryPolicy, OrphanMode
from purveyor_server.domain.states import InstanceState
from purveyor_server.kit.ids import new_id
from purveyor_server.providers.contract import Ambiguous, Unreachable
from purveyor_server.store.contract import Writes
from tests.rpc.whole import Whole, whole_broker
from tests.store_contract import records

RUN_SECONDS = 30
RUNNER = """
import json, sys
from typer.testing import CliRunner
from purveyor.cli.app import app
_, address, *commands = sys.argv
ran = [CliRunner().invoke(app, command.split(), env={"PURVEYOR_ADMIN_ADDRESS": address}) for command in commands]
print(json.dumps([(int(one.exit_code), one.output) for one in ran]))
"""
NOW = InventoryPolicy(mode=OrphanMode.REAP, grace=timedelta(0), brake_percent=90.0)


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[Whole]:
    """Without a grace period: two sweeps are enough."""
    async with whole_broker(folder) as running:
        running.admin_parts.catalog().inventories = {"main": NOW}
        yield running


def stray(broker: Whole, name: str = "pv_space_lost") -> str:
    """A thing with our marker that the broker knows nothing of."""
    broker.world.things[name] = {}
    broker.world.markers[name] = f"purveyor:{broker.store.store_id}:{new_id()}:0"
    return name


async def ready(client: purveyor.Client, instance_id: str = "orders") -> None:
    await (await client.provision("svc", "big", instance_id=instance_id, wait=20)).result()


async def sweep(admin: AdminClient, **more: Any) -> Any:
    return [status async for status in admin.sweep("main", "a test", **more)][-1]


async def test_an_orphan_from_the_first_sweep_to_its_end(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    await ready(client)
    name = stray(broker)
    assert (await sweep(admin, validate_only=True)).orphans == 1
    assert [o async for o in admin.orphans()] == []

    first = await sweep(admin)
    assert (first.mode, first.sweep, first.owned, first.orphans, first.quarantined) == ("REAP", 1, 4, 1, 0)
    (orphan,) = [o async for o in admin.orphans(page_size=1)]
    assert (orphan.kind, orphan.name, orphan.state, orphan.standing, orphan.sweeps) == (
        "space", name, "SEEN", "UNKNOWN", 1,
    )  # fmt: skip
    assert (await sweep(admin)).quarantined == 1
    assert broker.world.quarantined == {name}
    assert (await sweep(admin)).reaped == 1
    assert name not in broker.world.things
    assert [o async for o in admin.orphans()] == []
    assert [o.state async for o in admin.orphans("main", states=["reaped"])] == ["REAPED"]
    (shown,) = (await admin.status()).inventories
    assert (shown.provider, shown.reaped, shown.complete, shown.brake_reason) == ("main", 1, True, "")
    actions = [r.action async for r in admin.audit() if r.resource.startswith(("orphan/", "provider/"))]
    assert actions == [
        *("ReapOrphan", "ReapOrphan", "SweepInventory", "QuarantineOrphan", "QuarantineOrphan"),
        *("SweepInventory", "SweepInventory"),
    ]


async def test_by_hand(admin: AdminClient, client: purveyor.Client, broker: Whole) -> None:
    await ready(client)
    name = stray(broker)
    await sweep(admin)
    tried = await admin.quarantine_orphan("main", "space", name, "try", validate_only=True)
    assert (tried.state, broker.world.quarantined) == ("SEEN", set())
    held = await admin.quarantine_orphan("main", "space", name, "looks lost")
    assert held.state == "QUARANTINED"
    assert held.quarantine_time is not None
    with pytest.raises(FailedPreconditionError):
        await admin.ignore_orphan("main", "space", name, "it is quarantined")
    freed = await admin.release_orphan("main", "space", name, "somebody asked")
    assert (freed.state, broker.world.quarantined) == ("IGNORED", set())
    await sweep(admin)
    assert (await sweep(admin)).orphans == 0
    assert (await admin.ignore_orphan("main", "space", name, "again", undo=True)).state == "SEEN"
    assert (await admin.ignore_orphan("main", "space", name, "again", undo=True)).state == "SEEN"

    broker.world.plant("reclaim", Ambiguous("the connection broke"))
    failed = await admin.reap_orphan("main", "space", name, "gone for good")
    assert (failed.state, failed.failure) == ("SEEN", "the connection broke")
    await admin.freeze("provider:main", "a disk is being changed")
    with pytest.raises(FailedPreconditionError) as frozen:
        await admin.reap_orphan("main", "space", name, "gone for good")
    assert frozen.value.reason == "WRONG_STATE"
    await admin.thaw("provider:main", "done")
    assert (await admin.reap_orphan("main", "space", name, "gone for good")).state == "REAPED"
    with pytest.raises(FailedPreconditionError):
        await admin.reap_orphan("main", "space", name, "again")


async def test_what_is_in_use_unknown_or_nobody_s_is_refused(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    await ready(client)
    uid = (await client.instance("orders")).uid
    space = f"pv_space_{uid.replace('-', '')}"
    with pytest.raises(FailedPreconditionError) as alive:
        await admin.reap_orphan("main", "space", space, "it is the wrong one")
    assert alive.value.reason == "IN_USE"
    assert "instance t/orders (READY)" in str(alive.value)
    early = stray(broker, "pv_space_early")
    for name in (early, "pv_space_nowhere"):
        with pytest.raises(NotFoundError) as unseen:
            await admin.reap_orphan("main", "space", name, "no sweep has called it an orphan")
        assert unseen.value.reason == "ORPHAN_NOT_FOUND"
    # One that a sweep had seen before its record was there.
    name = stray(broker)
    await sweep(admin)
    late = broker.world.markers[name].split(":")[2]
    made = records.instance("t", "late", uid=late, state=InstanceState.READY)
    await records.write(broker.store, Writes(instances=(made,)), "t", "late")
    with pytest.raises(FailedPreconditionError) as used:
        await admin.reap_orphan("main", "space", name, "why not")
    assert used.value.reason == "IN_USE"
    assert "instance t/late (READY)" in str(used.value)
    for call in (admin.sweep("nobody", "x"), admin.orphans(states=["LOST"])):
        with pytest.raises(InvalidRequestError):
            [one async for one in call]
    assert {space, name} <= broker.world.things.keys()


async def test_a_brake_is_shown_and_taken_off(admin: AdminClient, client: purveyor.Client, broker: Whole) -> None:
    broker.admin_parts.catalog().inventories = {"main": replace(NOW, brake_percent=10.0)}
    await ready(client)
    stray(broker)
    assert "1 orphans of 4 things" in (await sweep(admin)).brake_reason
    await sweep(admin)
    (shown,) = (await admin.status()).inventories
    assert shown.brake_time is not None
    assert broker.world.quarantined == set()
    assert (await admin.resume_sweep("main", "one is meant", validate_only=True))[1]
    status, resumed = await admin.resume_sweep("main", "one is meant")
    assert (resumed, getattr(status, "brake_reason", None)) == (True, "")
    assert (await sweep(admin)).quarantined == 1
    with pytest.raises(InvalidRequestError):
        await admin.resume_sweep("nobody", "x")


async def test_the_report_of_what_the_store_should_hold(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    await ready(client)
    await ready(client, "lost")
    lost, kept = (await client.instance("lost")).uid, (await client.instance("orders")).uid
    for name in [name for name, marker in broker.world.markers.items() if lost in marker]:
        del broker.world.things[name]
    name = stray(broker)
    lines = [line async for line in admin.rebuild_report()]
    assert [(line.finding, line.uid, line.resource) for line in lines if line.finding == "MISSING"] == [
        ("MISSING", lost, "instance t/lost")
    ]
    assert [line.first for line in lines if line.uid == kept] == [True, False, False]
    assert [(line.name, line.later) for line in lines if line.finding == "UNKNOWN"] == [(name, False)]


async def run(broker: Whole, *commands: str) -> list[tuple[int, str]]:
    """The code and the output of each command; all in one other process, for a start takes longer than they do."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", RUNNER, broker.address, *commands), stdout=asyncio.subprocess.PIPE
    )
    out, _ = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
    return [(code, text) for code, text in json.loads(out)]


async def test_the_command_line(client: purveyor.Client, broker: Whole) -> None:
    await ready(client)
    name = stray(broker)
    broker.world.plant("reclaim", Unreachable("no answer"))
    thing, why = f"main space {name}", "--reason why"
    swept, plain, listed, report, bare, status, held, freed, again, resumed, failed, reaped = await run(
        broker,
        f"orphans sweep main {why} --json",
        "orphans",
        "orphans list --provider main --state seen --json",
        "rebuild --report",
        "rebuild",
        "status",
        f"orphans quarantine {thing} {why}",
        f"orphans release {thing} {why}",
        f"orphans ignore {thing} {why} --undo",
        f"orphans resume main {why}",
        f"orphans reap {thing} {why}",
        f"orphans reap {thing} {why}",
    )
    assert (swept[0], json.loads(swept[1])["orphans"]) == (0, 1)
    assert plain[0] == 0
    assert name in plain[1]
    assert json.loads(listed[1])[0]["name"] == name
    assert "3 KNOWN, 1 UNKNOWN" in report[1]
    assert bare[0] == 2
    assert "SWEEPS OF" in status[1]
    assert "QUARANTINED" in held[1]
    assert "IGNORED" in freed[1]
    assert "SEEN" in again[1]
    assert "were not stopped" in resumed[1]
    assert failed[0] == 1
    assert "not done: no answer" in failed[1]
    assert (reaped[0], "REAPED" in reaped[1]) == (0, True)


async def test_the_blocking_client_has_it_too(broker: Whole) -> None:
    stray(broker)

    def all_of_it() -> list[str]:
        with SyncAdminClient(broker.address) as admin:
            list(admin.sweep("main", "why"))
            return [orphan.state for orphan in admin.orphans()]

    assert await asyncio.to_thread(all_of_it) == ["SEEN"]


async def test_a_page_token_belongs_to_its_question(admin: AdminClient, broker: Whole) -> None:
    for number in range(3):
        stray(broker, f"pv_space_{number}")
    await sweep(admin)
    assert [o.name async for o in admin.orphans(page_size=2)] == [f"pv_space_{n}" for n in range(3)]
    async with grpc.aio.insecure_channel(broker.address) as channel:
        stub = AdminServiceStub(channel)
        first = await stub.ListOrphans(pb.ListOrphansRequest(page_size=2))
        again = pb.ListOrphansRequest(provider="main", page_token=first.next_page_token)
        with pytest.raises(grpc.aio.AioRpcError) as refused:
            await stub.ListOrphans(again)
    assert "page_token" in str(refused.value.details())
