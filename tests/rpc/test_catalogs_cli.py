"""`purveyor catalog` and `purveyor upgrade` as processes of their own, against a whole broker."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import NamedTuple

import pytest
from msgspec.structs import replace

import purveyor
from purveyor_server.domain.model import MaintenanceInfo
from purveyor_server.lifecycle.catalogs import Refused
from tests.rpc import whole
from tests.rpc.test_catalogs import BIG, ONE, TWO, order, text
from tests.rpc.whole import Whole, whole_broker

RUN_SECONDS = 30


class Ran(NamedTuple):
    """How a command ended."""

    code: int
    out: str
    err: str


async def run(broker: Whole, *words: str, stdin: str = "") -> Ran:
    command = (sys.executable, "-m", "purveyor.cli", "-a", broker.address, "-t", "t", *words)
    process = await asyncio.create_subprocess_exec(
        *command, stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
        env={"PURVEYOR_ADMIN_ADDRESS": broker.address, "PATH": "/usr/bin"},
    )  # fmt: skip
    out, err = await asyncio.wait_for(process.communicate(stdin.encode()), RUN_SECONDS)
    assert process.returncode is not None
    return Ran(process.returncode, out.decode(), err.decode())


@pytest.fixture
def one(folder: Path) -> str:
    """Without the plan `small`."""
    (folder / "one.yaml").write_text(ONE)
    return str(folder / "one.yaml")


async def test_a_danger_is_shown_refused_and_settled(broker: Whole, client: purveyor.Client, one: str) -> None:
    await order(client, "first")
    shown = await run(broker, "catalog", "diff", one)
    assert shown.code == 5
    row = next(line.split() for line in shown.out.splitlines() if "PLAN_REMOVED" in line)
    assert row[:4] == ["DANGEROUS", "!", "PLAN_REMOVED", "plan/svc/small"]
    assert row[-1] == "t/first"
    assert "--policy svc/small=keep" in shown.err

    refused = await run(broker, "catalog", "apply", one, "--reason", "smaller")
    assert refused.code == 5
    assert "t/first" in refused.out
    assert "[CATALOG_REFUSED]" in refused.err
    bad = await run(broker, "catalog", "apply", one, "-r", "smaller", "-p", "svc/smal=keep")
    assert (bad.code, "is the name right" in bad.err) == (2, True)

    applied = await run(
        broker, "--json", "catalog", "apply", one, "-r", "smaller", "-p", "svc/small=keep", "--expect", "1"
    )
    assert applied.code == 0, applied.err
    assert json.loads(applied.out)["catalog"]["version"] == 2
    late = await run(broker, "catalog", "apply", one, "-r", "again", "--expect", "1")
    assert (late.code, "[ETAG_MISMATCH]" in late.err) == (4, True)


async def test_history_and_texts(broker: Whole) -> None:
    done = await run(broker, "catalog", "apply", "-", "-r", "by stdin", stdin=TWO)
    assert done.code == 0, done.err
    listed = await run(broker, "catalog", "history")
    assert [line.split()[0] for line in listed.out.splitlines()] == ["VERSION", "2", "1"]
    assert "by stdin" in listed.out
    newest = await run(broker, "catalog", "history", "--json", "-n", "1")
    assert [found["version"] for found in json.loads(newest.out)] == [2]
    assert (await run(broker, "catalog", "show")).out == TWO
    assert (await run(broker, "catalog", "show", "9")).code == 3


async def test_consumers_still_see_what_can_be_ordered(broker: Whole) -> None:
    shown = await run(broker, "catalog")
    assert shown.code == 0, shown.err
    assert [line.split()[:3] for line in shown.out.splitlines()] == [
        ["SERVICE", "PLAN", "STATE"], ["service", "small", "ACTIVE"], ["service", "big", "ACTIVE"],
    ]  # fmt: skip
    assert json.loads((await run(broker, "catalog", "--json")).out)["version"] == 1
    before = await run(broker, "catalog", "--json", "history")  # options before the command count for it
    assert json.loads(before.out)[0]["version"] == 1


async def test_texts_are_judged_here_and_there(broker: Whole, folder: Path, one: str) -> None:
    good = await run(broker, "catalog", "validate", one)
    assert (good.code, "1 service, 1 plan" in good.out) == (0, True)
    bad = folder / "bad.yaml"
    bad.write_text(text(BIG.replace("name: big", "name: 7")))
    for words in ((), ("--offline",)):
        judged = await run(broker, "catalog", "validate", str(bad), *words)
        assert judged.code == 2
        assert "services[0].plans[0].name" in judged.out
    # Whether a provider is installed is known where it is asked.
    alone = await run(broker, "--json", "catalog", "validate", one, "--offline")
    assert "no provider of the kind 'scripted' is installed" in json.loads(alone.out)["problems"][0]["message"]
    assert (await run(broker, "catalog", "validate", str(folder / "nowhere"))).code == 2


async def test_the_status_says_why_a_file_is_not_taken(broker: Whole) -> None:
    assert "NOT TAKEN" not in (await run(broker, "status")).out
    broker.admin_parts.catalogs.refused = Refused(broker.admin_parts.clock.now(), "d", ("PLAN_REMOVED: gone",))
    shown = await run(broker, "status")
    assert "NOT TAKEN at" in shown.out
    assert "PLAN_REMOVED: gone" in shown.out


class TestUpgrade:
    """Of one instance."""

    @pytest.fixture
    async def broker(self, folder: Path) -> AsyncIterator[Whole]:
        plan = replace(whole.SMALL, maintenance_info=MaintenanceInfo("1.0.0"))
        async with whole_broker(folder, service=replace(whole.SERVICE, plans=(plan,))) as running:
            yield running

    async def test_an_instance_is_upgraded_by_hand(self, broker: Whole, client: purveyor.Client) -> None:
        await order(client, "first")
        nothing = await run(broker, "upgrade", "first")
        assert nothing.code == 0, nothing.err
        newer = whole.SMALL
        catalog = broker.admin_parts.catalogs
        served = replace(newer, maintenance_info=MaintenanceInfo("1.1.0"))
        version = await broker.store.apply_catalog("c2", "services: []", [])
        catalog.serve(replace(catalog.contents, services=(replace(whole.SERVICE, plans=(served,)),)), version)
        await broker.store.apply_catalog("c2", "services: []", list(catalog().snapshots.values()))

        old = await run(broker, "upgrade", "first", "--version", "1.0.0")
        assert (old.code, "[MAINTENANCE_INFO_CONFLICT]" in old.err) == (5, True)
        assert "1.0.0" in (await run(broker, "instance", "first")).out
        done = await run(broker, "upgrade", "first")
        assert (done.code, "from 1.0.0 to 1.1.0" in done.err) == (0, True), done.err
        assert (await client.instance("first")).maintenance_version == "1.1.0"
