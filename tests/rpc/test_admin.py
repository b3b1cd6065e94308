"""Operators' use-cases through AdminService and its client, over a whole broker with a scripted backend."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest
from structlog.testing import capture_logs

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import (
    AbortedError,
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
    OperationFailedError,
)
from purveyor_server.providers.contract import NotYet, Permanent, Unreachable
from tests.rpc.whole import Whole

TENANT = "t"
ACTS = "outcome = DONE"  # without what consumers did


async def waiting(client: purveyor.Client, operation_id: str, reason: str) -> None:
    """Return once the operation waits for `reason`."""
    handle = await client.operation(operation_id)
    async with asyncio.timeout(10):
        async for status in handle:
            if status.waiting is not None and status.waiting.reason == reason:
                return
    raise AssertionError(f"it never waited for {reason}")


def names(folder: Path) -> list[str]:
    """What is in a folder."""
    return sorted(path.name for path in folder.iterdir())


async def provisioned(client: purveyor.Client, instance_id: str = "orders") -> None:
    await (await client.provision("svc", "big", instance_id=instance_id, wait=20)).result()


async def test_status_tells_what_there_is(admin: AdminClient, client: purveyor.Client) -> None:
    await provisioned(client)
    found = await admin.status()
    assert (found.version, found.epoch, found.pending, found.parked) == ("test", 1, 0, 0)
    assert (found.earliest_revision, found.catalog_version) == (1, 1)
    assert found.head_revision > 0
    assert [(p.name, p.kind, p.state) for p in found.providers] == [("main", "scripted", "UNKNOWN")]
    assert (found.freezes, found.recovery, found.oldest_unfinished_age, found.disk_low) == ((), None, None, False)
    assert found.store_bytes > 0
    assert found.disk_free_bytes > found.disk_low_water_bytes > 0


async def test_a_freeze_is_shown_explained_and_lifted(admin: AdminClient, client: purveyor.Client) -> None:
    frozen = await admin.freeze("provider:main", "a disk is being changed")
    assert (frozen.name, frozen.principal) == ("provider:main", "local")
    assert await admin.freeze("provider:main", "another reason") == frozen

    await admin.freeze("deletes", "holds no provision")
    handle = await client.provision("svc", "big", instance_id="orders")
    await waiting(client, handle.id, "FROZEN")
    why = await admin.explain(handle.id)
    assert why.causes[0].code == "FROZEN"
    assert "a disk is being changed" in why.causes[0].sentence
    assert not [cause for cause in why.causes if "holds no provision" in cause.sentence]
    status = await admin.status()
    assert (status.waiting, status.parked, status.oldest_unfinished_operation_id) == ({"FROZEN": 1}, 1, handle.id)
    assert [f.name for f in status.freezes] == ["deletes", "provider:main"]

    thawed, operations = await admin.thaw("provider:main", "done")
    assert (thawed, operations) == (frozen, 1)
    assert (await handle.result()).state == "READY"
    assert await admin.thaw("provider:main", "again") == (None, 0)
    acts = [(record.action, record.resource, record.reason) async for record in admin.audit(filter=ACTS, page_size=2)]
    assert acts == [
        ("Thaw", "freeze/provider:main", "again"),
        ("Thaw", "freeze/provider:main", "done"),
        ("Freeze", "freeze/deletes", "holds no provision"),
        ("Freeze", "freeze/provider:main", "another reason"),
        ("Freeze", "freeze/provider:main", "a disk is being changed"),
    ]


@pytest.mark.parametrize(
    ("name", "reason", "field"),
    [("everything", "x", "name"), ("provider:", "x", "name"), ("recovery", "x", "name"), ("all", " ", "reason"),
     ("all", "x\ny", "reason"), ("all", "x" * 501, "reason")],
)  # fmt: skip
async def test_a_bad_freeze_is_refused_by_field(admin: AdminClient, name: str, reason: str, field: str) -> None:
    with pytest.raises(InvalidRequestError) as refused:
        await admin.freeze(name, reason)
    assert refused.value.violations[0].field == field


async def test_validate_only_changes_nothing(admin: AdminClient, client: purveyor.Client) -> None:
    await provisioned(client)
    await admin.freeze("all", "try", validate_only=True)
    left = await admin.purge(TENANT, "orders", "try", even_if_in_use=True, validate_only=True)
    await admin.set_log_level("debug", "try", validate_only=True)
    assert left.left_behind
    status = await admin.status()
    assert (status.freezes, status.log_level) == ((), "info")
    assert (await client.instance("orders")).state == "READY"
    assert [record async for record in admin.audit(filter=ACTS)] == []


async def test_a_purge_names_what_is_left_and_touches_no_backend(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    await provisioned(client)
    await (await client.bind("orders", binding_id="app", wait=20)).result()
    with pytest.raises(FailedPreconditionError) as refused:
        await admin.purge(TENANT, "orders", "gone for good")
    assert refused.value.reason == "IN_USE"
    things, calls = dict(broker.world.things), list(broker.world.calls)

    purged = await admin.purge(TENANT, "orders", "gone for good", even_if_in_use=True)
    assert {name.split(" ")[0] for name in purged.left_behind} == {
        "instance/role", "instance/space", "instance/grant", "binding/app/login",
    }  # fmt: skip
    assert (broker.world.things, broker.world.calls) == (things, calls)
    with pytest.raises(NotFoundError):
        await client.instance("orders")
    tombstone = await client.instance("orders", show_deleted=True)
    assert (tombstone.state, tombstone.usable, tombstone.cleanup_required) == ("DELETED", False, purged.left_behind)
    with pytest.raises(NotFoundError):
        await client.credentials("orders", "app")
    assert (await admin.purge(TENANT, "orders", "again")).left_behind == purged.left_behind
    (record,) = [record async for record in admin.audit(filter=ACTS)]
    assert record.details == {"left_behind": list(purged.left_behind)}
    await provisioned(client)  # the id is free again


async def test_only_what_was_done_is_logged_once(admin: AdminClient, client: purveyor.Client) -> None:
    await provisioned(client)
    with capture_logs() as lines:
        with pytest.raises(FailedPreconditionError):
            await admin.purge(TENANT, "orders", "refused")
        await admin.purge(TENANT, "orders", "tried", even_if_in_use=True, validate_only=True)
        await admin.purge(TENANT, "orders", "done", even_if_in_use=True)
        await admin.purge(TENANT, "orders", "of a tombstone", even_if_in_use=True)
    assert [line["reason"] for line in lines if line.get("method") == "PurgeInstance"] == ["done"]


async def test_one_binding_can_be_purged_alone(admin: AdminClient, client: purveyor.Client) -> None:
    await provisioned(client)
    await (await client.bind("orders", binding_id="app", wait=20)).result()
    await (await client.bind("orders", binding_id="other", wait=20)).result()
    purged = await admin.purge(TENANT, "orders", "lost", binding_id="app", even_if_in_use=True)
    assert [name.split(" ")[0] for name in purged.left_behind] == ["binding/app/login"]
    assert [binding.binding_id async for binding in client.bindings("orders")] == ["other"]
    with pytest.raises(NotFoundError):
        await admin.purge(TENANT, "orders", "never was", binding_id="nothing")


async def test_a_purge_waits_for_nobody_and_ends_what_is_parked(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    go_on = asyncio.Event()
    broker.world.plant("space.ensure", go_on)
    handle = await client.provision("svc", "big", instance_id="orders")
    await asyncio.wait_for(broker.world.entered["space.ensure"].wait(), 10)
    with pytest.raises(AbortedError):
        await admin.purge(TENANT, "orders", "in the way")
    await admin.freeze("all", "to purge in peace")
    go_on.set()
    await waiting(client, handle.id, "FROZEN")
    purged = await admin.purge(TENANT, "orders", "in the way")
    assert {name.split(" ")[0] for name in purged.left_behind} == {"instance/role", "instance/space"}
    assert purged.ended_operation_ids == (handle.id,)
    await admin.thaw("all", "done")
    with pytest.raises(OperationFailedError) as failed:
        await handle.result()
    assert failed.value.reason == "PURGED"


async def test_a_step_is_declared_done_by_hand(admin: AdminClient, client: purveyor.Client, broker: Whole) -> None:
    broker.world.plant("space.ensure", *(NotYet(3600, "somebody has to do this by hand") for _ in range(5)))
    handle = await client.provision("svc", "big", instance_id="orders")
    await waiting(client, handle.id, "PARKED")
    why = await admin.explain(handle.id)
    assert (why.causes[0].code, "by hand" in why.causes[0].sentence) == ("PARKED", True)
    with pytest.raises(InvalidRequestError) as unknown:
        await admin.edit_step(handle.id, "nothing", "done", "done by hand")
    assert "role, space" in unknown.value.message
    with pytest.raises(FailedPreconditionError):
        await admin.edit_step(handle.id, "role", "absent", "it is finished and stays so")

    edited = await admin.edit_step(handle.id, "space", "done", "made by hand, ticket 7")
    assert [(s.name, s.state) for s in edited.steps][:2] == [("role", "DONE"), ("space", "DONE")]
    assert (await handle.result()).state == "READY"
    assert broker.world.calls.count("space.ensure") == 1
    with pytest.raises(FailedPreconditionError):
        await admin.edit_step(handle.id, "space", "done", "too late")


async def test_a_step_is_declared_absent_on_the_way_back(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    broker.world.plant("grant.ensure", Permanent("no"))
    broker.world.plant("space.absent", *(NotYet(3600, "stuck") for _ in range(5)))
    handle = await client.provision("svc", "big", instance_id="orders")
    await waiting(client, handle.id, "PARKED")
    with pytest.raises(FailedPreconditionError):
        await admin.edit_step(handle.id, "space", "done", "wrong way")
    await admin.edit_step(handle.id, "space", "absent", "removed by hand")
    with pytest.raises(OperationFailedError):
        await handle.result()
    assert broker.world.calls.count("space.absent") == 1
    assert (await client.instance("orders")).cleanup_required == ()


async def test_nobody_edits_under_a_workers_hands(admin: AdminClient, client: purveyor.Client, broker: Whole) -> None:
    go_on = asyncio.Event()
    broker.world.plant("role.ensure", go_on)
    handle = await client.provision("svc", "big", instance_id="orders")
    await asyncio.wait_for(broker.world.entered["role.ensure"].wait(), 10)
    with pytest.raises(AbortedError):
        await admin.edit_step(handle.id, "role", "done", "impatient")
    assert (await admin.explain(handle.id)).causes[0].code == "RUNNING"
    go_on.set()
    await handle.result()
    (cause,) = (await admin.explain(handle.id)).causes
    assert (cause.code, cause.sentence) == ("ENDED", "it has ended SUCCEEDED")


async def test_why_tells_of_backoff_blockers_and_the_circuit(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    broker.world.plant("role.ensure", *(Unreachable("nobody there") for _ in range(50)))
    handle = await client.provision("svc", "big", instance_id="orders")
    await waiting(client, handle.id, "CIRCUIT")
    codes = [cause.code for cause in (await admin.explain(handle.id)).causes]
    assert codes[0] in {"CIRCUIT", "RUNNING"}
    with pytest.raises(NotFoundError):
        await admin.explain("01900000-0000-7000-8000-000000000000")


async def test_a_backup_is_whole_and_overwrites_nothing(
    admin: AdminClient, client: purveyor.Client, tmp_path: Path, folder: Path
) -> None:
    await provisioned(client)
    target = tmp_path / "copy.db"
    info = await admin.backup(target)
    assert (target.stat().st_size, target.stat().st_mode & 0o777) == (info.bytes, 0o600)
    assert info.revision == (await admin.status()).head_revision
    with pytest.raises(FileExistsError):
        await admin.backup(target)
    assert names(tmp_path) == ["copy.db"]
    assert not [name for name in names(folder) if name.startswith("backup-")]


async def test_the_log_level_changes_while_it_runs(admin: AdminClient) -> None:
    try:
        assert await admin.set_log_level("error", "too loud") == "info"
        assert (await admin.status()).log_level == "error"
        with pytest.raises(InvalidRequestError):
            await admin.set_log_level("loud", "typo")
    finally:
        await admin.set_log_level("info", "as it was")


async def test_without_a_restore_there_is_no_recovery(admin: AdminClient) -> None:
    with pytest.raises(FailedPreconditionError):
        [_ async for _ in admin.review_recovery()]
    with pytest.raises(FailedPreconditionError):
        await admin.finish_recovery("nothing to finish")


async def test_opening_twice_is_refused_and_loses_nothing(admin: AdminClient) -> None:
    with pytest.raises(RuntimeError, match="open already"):
        await admin.__aenter__()
    assert (await admin.status()).version == "test"
    await admin.close()
    with pytest.raises(RuntimeError, match="not open"):
        await admin.status()
