"""Who did what, through the whole broker: each act with its record, credentials behind theirs, and the records judged."""

from __future__ import annotations

import re
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

import purveyor
from purveyor import auditing
from purveyor.admin import AdminClient
from purveyor.admin_values import AuditAnchor, AuditRecord, AuditVerification
from purveyor.cli.app import app
from purveyor.errors import InvalidRequestError, PurveyorError
from purveyor.v1 import broker_service_pb2 as pb
from purveyor_server.app import verify_export_command
from purveyor_server.app.audit import read_keys
from purveyor_server.domain.errors import PurveyorError as Refusal
from purveyor_server.domain.errors import Reason
from purveyor_server.domain.model import Identity
from purveyor_server.lifecycle.recording import on_behalf
from purveyor_server.monitor.metrics import Metrics, Sizes
from purveyor_server.rpc import RpcServer, broker_service
from purveyor_server.security.keyring import AUDIT, chain_keys
from tests.rpc.failures import failure_of
from tests.rpc.scripted import ScriptedDoor
from tests.rpc.whole import Whole

TENANT = "t"


async def records(admin: AdminClient, where: str = "") -> list[AuditRecord]:
    return [record async for record in admin.audit(filter=where, oldest_first=True)]


async def verified(admin: AdminClient, anchors: tuple[AuditAnchor, ...] = ()) -> AuditVerification:
    told = [part async for part in admin.verify_audit(anchors)]
    assert [part.done for part in told] == [False] * (len(told) - 1) + [True]
    return told[-1]


async def life(client: purveyor.Client) -> None:
    await (await client.provision("svc", "big", instance_id="orders", wait=20)).result()
    await (await client.bind("orders", binding_id="app", wait=20)).result()
    await client.credentials("orders", "app")
    await (await client.update("orders", labels={"a": "b"}, wait=20)).result()
    await (await client.unbind("orders", "app", wait=20)).result()
    await (await client.deprovision("orders", wait=20)).result()


async def test_a_life_leaves_one_record_per_act_and_per_reading_of_credentials(
    client: purveyor.Client, admin: AdminClient
) -> None:
    await life(client)
    found = await records(admin)
    told = [(record.action, record.outcome, record.resource) for record in found]
    assert [entry for entry in told if entry[1] == "ACCEPTED"] == [
        ("Provision", "ACCEPTED", "instance/orders"),
        ("Bind", "ACCEPTED", "instance/orders/binding/app"),
        ("UpdateInstance", "ACCEPTED", "instance/orders"),
        ("Unbind", "ACCEPTED", "instance/orders/binding/app"),
        ("Deprovision", "ACCEPTED", "instance/orders"),
    ]
    reads = [entry for entry in told if entry[1] == "READ"]
    assert len(reads) >= 2
    assert set(reads) == {("GetCredentials", "READ", "instance/orders/binding/app")}
    for record in found:
        assert (record.principal, record.means, record.tenant) == ("local", "local", TENANT)
        assert record.call_id
        assert record.origin.startswith("unix:")
        assert record.key == "1"
    accepted = next(record for record in found if record.action == "Provision")
    assert accepted.request_id
    assert accepted.details["operation"]
    assert (await verified(admin)).faults == 0


async def test_what_is_answered_again_validated_or_refused_leaves_no_record(
    client: purveyor.Client, admin: AdminClient
) -> None:
    for _ in range(2):
        await (await client.provision("svc", "big", instance_id="orders", request_id="r-1", wait=20)).result()
    with pytest.raises(PurveyorError):
        await client.provision("svc", "small", instance_id="orders")
    with pytest.raises(PurveyorError):
        await client.credentials("orders", "nothing")
    assert [record.action for record in await records(admin)] == ["Provision"]


async def test_credentials_are_kept_back_when_the_record_cannot_be_written(
    client: purveyor.Client, broker: Whole, monkeypatch: pytest.MonkeyPatch
) -> None:
    await (await client.provision("svc", "big", instance_id="orders", wait=20)).result()
    await (await client.bind("orders", binding_id="app", wait=20)).result()

    async def refuse(*_records: object) -> None:
        raise Refusal(Reason.STORE_FULL, "no room")

    monkeypatch.setattr(broker.store, "note", refuse)
    with pytest.raises(PurveyorError) as refused:
        await client.credentials("orders", "app")
    assert refused.value.reason == "STORE_FULL"


async def test_filters_pages_and_bad_ones(client: purveyor.Client, admin: AdminClient) -> None:
    await life(client)
    whole = await records(admin)
    pages = [record async for record in admin.audit(page_size=2)]
    assert [record.number for record in pages] == [record.number for record in reversed(whole)]
    where = auditing.conditions('outcome = "ACCEPTED"', action="Bind", tenant=TENANT)
    assert [record.action for record in await records(admin, where)] == ["Bind"]
    later = auditing.conditions("", since=whole[2].act_time)
    assert [record.number for record in await records(admin, later)] == [record.number for record in whole[2:]]
    earlier = auditing.conditions("", until=whole[2].act_time)
    assert [record.number for record in await records(admin, earlier)] == [1, 2]
    with pytest.raises(InvalidRequestError):
        await records(admin, "colour = red")


async def test_control_a_change_under_a_serving_broker_is_found(
    client: purveyor.Client, admin: AdminClient, broker: Whole, folder: Path
) -> None:
    await life(client)
    kept = (await verified(admin)).last
    assert (await verified(admin, (kept,))).faults == 0
    connection = sqlite3.connect(folder / "store.db")
    connection.execute(
        "UPDATE audit SET body = CAST(replace(CAST(body AS TEXT), 'Bind', 'Bond') AS BLOB) WHERE number = 2"
    )
    connection.commit()
    connection.execute("DELETE FROM audit WHERE number = 4")
    connection.commit()
    connection.close()
    found = await verified(admin)
    print(f"control online: {[(f.fault, f.first_number) for f in found.findings]}")
    assert [(f.fault, f.first_number, f.last_number) for f in found.findings] == [
        ("CHANGED", 2, 2), ("MISSING", 4, 4),
    ]  # fmt: skip
    metrics = (await Metrics(Sizes(int, dict)).text(broker.admin_parts)).decode()
    assert "purveyor_audit_faults 2.0" in metrics
    assert re.search(r"purveyor_audit_verified_timestamp_seconds 1\.\d+e\+09", metrics)
    wrong = AuditAnchor(number=kept.number, chain="00" * 32)
    assert "ANCHOR" in {finding.fault for finding in (await verified(admin, (wrong,))).findings}


async def test_an_export_and_a_backup_are_verified_without_the_broker(
    client: purveyor.Client, admin: AdminClient, broker: Whole, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await life(client)
    lines = [auditing.export_line(record) + "\n" for record in await records(admin)]
    values = await broker.store.metas(AUDIT)
    keys = chain_keys(broker.store.store_id, broker.admin_parts.keys.sealer, values)
    key_file, export = tmp_path / "audit.keys", tmp_path / "export.jsonl"
    await admin.backup(tmp_path / "copy.db")
    environment = {
        "PURVEYOR_DATA_DIR": str(tmp_path / "data"),
        "PURVEYOR_KEY_FILE": str(broker.admin_parts.scratch / "keys"),
    }
    ran = CliRunner().invoke(app, ["audit", "keys", str(tmp_path / "copy.db"), "--dev"], env=environment)
    assert ran.exit_code == 0, ran.output
    key_file.write_text(ran.stdout)
    assert read_keys(key_file.read_text()) == keys
    ran = CliRunner().invoke(app, ["audit", "verify-backup", str(tmp_path / "copy.db"), "--dev"], env=environment)
    assert (ran.exit_code, f"{len(lines)} records are what was written" in ran.stdout) == (0, True), ran.output

    def judge(found: list[str]) -> tuple[int, str]:
        export.write_text("".join(found))
        capsys.readouterr()
        code = verify_export_command(export, key_file, {})
        return code, capsys.readouterr().out.splitlines()[0]

    assert judge(lines) == (0, f"{len(lines)} records are what was written")
    assert judge(lines[2:]) == (0, f"{len(lines) - 2} records are what was written")
    assert judge([*lines[:2], lines[2].replace("orders", "others"), *lines[3:]])[1].startswith("CHANGED 3:")
    assert judge([*lines[:2], *lines[3:]])[1].startswith("MISSING 3:")
    assert verify_export_command(key_file, key_file, {}) == 3


async def test_refused_calls_are_reported_by_the_boundary(tmp_path: Path) -> None:
    import grpc  # noqa: PLC0415 - this test alone speaks to the face itself

    from purveyor.v1 import broker_service_pb2_grpc  # noqa: PLC0415 - as above

    async def ping() -> None:
        pass

    door: Any = ScriptedDoor()
    told: list[tuple[Reason, dict[str, str]]] = []

    def refused(reason: Reason, **said: str) -> None:
        told.append((reason, said))

    server = RpcServer([broker_service(door)], ping, [f"unix:{tmp_path / 's'}"], refused=refused)
    (address,) = await server.start()
    async with grpc.aio.insecure_channel(address) as channel:
        stub: Any = broker_service_pb2_grpc.BrokerServiceStub(channel)
        for reason in (Reason.PERMISSION_DENIED, Reason.UNAUTHENTICATED, Reason.INSTANCE_NOT_FOUND):
            door.script["get_instance"] = Refusal(reason, "no")
            await failure_of(stub.GetInstance(pb.GetInstanceRequest(tenant="t", instance_id="i")))
    await server.drain(1.0)
    assert [(reason, said["principal"], said["method"], said["tenant"]) for reason, said in told] == [
        (Reason.PERMISSION_DENIED, "local", "GetInstance", "t"),
        (Reason.UNAUTHENTICATED, "", "GetInstance", "t"),
    ]


@pytest.mark.parametrize(
    ("value", "told"),
    [
        ({"user_id": "u-1", "mail": "x@y"}, "cloudfoundry/u-1"),
        ({"username": "ann", "uid": "42"}, "cloudfoundry/42"),
        ({}, "cloudfoundry"),
    ],
)
def test_an_end_user_has_a_name(value: dict[str, Any], told: str) -> None:
    assert on_behalf(Identity("cloudfoundry", value), b"k" * 32) == told


def test_an_end_user_without_an_id_is_a_digest() -> None:
    one, other = (on_behalf(Identity("p", {"mail": mail}), b"k" * 32) for mail in ("a@b", "a@c"))
    assert one.startswith("p/#")
    assert len({one, other}) == 2
    assert "a@b" not in one
    assert on_behalf(None, b"k" * 32) == ""
