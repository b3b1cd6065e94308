"""`purveyor audit` as a process of its own, against a whole broker; a rotation of keys under its records."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest

import purveyor
from purveyor.admin import AdminClient
from purveyor_server.security.keyfile import KeyFile
from tests.rpc.whole import Whole, whole_broker

RUN_SECONDS = 30


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[Whole]:
    """With an instance and a binding, both gone again."""
    async with whole_broker(folder) as running, purveyor.Client(running.address, tenant="t") as client:
        await (await client.provision("svc", "big", instance_id="orders", wait=20)).result()
        await (await client.bind("orders", binding_id="app", wait=20)).result()
        await (await client.unbind("orders", "app", wait=20)).result()
        await (await client.deprovision("orders", wait=20)).result()
        yield running


async def audit(broker: Whole, *words: str) -> Ran:
    command = (sys.executable, "-m", "purveyor.cli", "audit", *words, "--admin", broker.address)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


async def test_records_are_listed_filtered_and_limited(broker: Whole) -> None:
    listed = await audit(broker, "--json")
    assert listed.code == 0, listed.err
    assert [record["action"] for record in json.loads(listed.out) if record["outcome"] == "ACCEPTED"] == [
        "Deprovision", "Unbind", "Bind", "Provision",
    ]  # fmt: skip
    shown = await audit(broker, "--limit", "1", "--filter", "action = Bind")
    assert shown.code == 0, shown.err
    assert shown.out.splitlines()[0].split() == [
        "NUMBER", "WHEN", "WHO", "FROM", "ACTION", "RESOURCE", "OUTCOME", "WHY",
    ]  # fmt: skip
    assert "instance/orders/binding/app" in shown.out
    assert (await audit(broker, "list", "--until", "2020-01-01", "--json")).out == "[]\n"
    assert (await audit(broker, "--filter", "colour = red")).code == 2


async def test_records_are_verified_and_a_fault_ends_with_1(broker: Whole, folder: Path) -> None:
    good = await audit(broker, "verify")
    assert good.code == 0, good.err
    assert "records from number 1 on are what was written" in good.out
    anchor = good.err.strip().rpartition("--anchor ")[2]
    assert (await audit(broker, "verify", "--anchor", anchor)).code == 0
    assert (await audit(broker, "verify", "--anchor", "7")).code == 2
    connection = sqlite3.connect(folder / "store.db")
    connection.execute("DELETE FROM audit WHERE number = 2")
    connection.commit()
    connection.close()
    bad = await audit(broker, "verify")
    assert bad.code == 1
    assert bad.out.splitlines()[1].split()[:2] == ["MISSING", "2"]


async def test_records_are_exported_as_lines(broker: Whole) -> None:
    exported = await audit(broker, "export", "--since", "2020-01-01")
    assert exported.code == 0, exported.err
    lines = [json.loads(line) for line in exported.out.splitlines()]
    assert [line["number"] for line in lines] == list(range(1, len(lines) + 1))
    assert lines[0]["record"]["action"] == "Provision"
    assert [line["previous"] for line in lines[1:]] == [line["chain"] for line in lines[:-1]]


async def test_a_rotation_mints_a_new_key_and_old_records_stay_verified(broker: Whole) -> None:
    source = broker.admin_parts.keys.source
    assert isinstance(source, KeyFile)
    source.add()
    async with AdminClient(broker.address) as admin:
        async for _ in admin.rotate_keys("yearly"):
            pass
        assert await admin.retire_key("k1", "over")
        labels = [record.key async for record in admin.audit(oldest_first=True)]
        told = [part async for part in admin.verify_audit()]
    assert set(labels) == {"1", "2"}
    assert labels == sorted(labels)
    assert (told[-1].done, told[-1].faults, told[-1].checked) == (True, 0, len(labels))
