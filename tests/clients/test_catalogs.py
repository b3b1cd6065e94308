"""`client.catalogs`: the catalog as it is and as it becomes, over streams that end in every way and restarts of the broker."""

from __future__ import annotations

import asyncio
import json
import signal
import threading
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import purveyor
from purveyor import errors
from purveyor.cli.exits import Exit
from purveyor.v1.catalog_pb2 import Catalog
from tests.clients.scripted import CATALOG, HANG, Refusal, ScriptedBroker, retry_after
from tests.clients.test_cli import start
from tests.unit.app_process import CATALOG as REAL_CATALOG
from tests.unit.app_process import Process, Site

if TYPE_CHECKING:
    from pathlib import Path

    from purveyor import Client

WAIT_SECONDS = 30
DRAINING = Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING", details=(retry_after(0.01),))
FULL = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", details=(retry_after(0.01),))
FORBIDDEN = Refusal(grpc.StatusCode.PERMISSION_DENIED, "PERMISSION_DENIED")
CHANGED = REAL_CATALOG.replace("name: small", "name: large")


def numbered(version: int) -> Catalog:
    found = Catalog()
    found.CopyFrom(CATALOG)
    found.version, found.etag = version, f"c{version}"
    return found


async def test_each_change_once_over_streams_that_end_in_every_way(client: Client, broker: ScriptedBroker) -> None:
    broker.script["WatchCatalog"] = [
        [numbered(1), None, DRAINING],
        FULL,
        [numbered(1), numbered(2)],  # ended OK, which the contract never does
        [numbered(2), None, numbered(3), HANG],
    ]
    async with aclosing(client.catalogs()) as found, asyncio.timeout(WAIT_SECONDS):
        assert [(await anext(found)).version for _ in range(3)] == [1, 2, 3]

    assert [request.tenant for request in broker.seen["WatchCatalog"]] == ["t"] * 4
    await asyncio.wait_for(broker.left.wait(), WAIT_SECONDS)  # leaving ends the stream


async def test_one_that_came_back_is_told(client: Client, broker: ScriptedBroker) -> None:
    broker.script["WatchCatalog"] = [[numbered(1), numbered(2), numbered(1), HANG]]
    async with aclosing(client.catalogs()) as found, asyncio.timeout(WAIT_SECONDS):
        assert [(await anext(found)).version for _ in range(3)] == [1, 2, 1]


async def test_a_refusal_that_does_not_pass_is_raised(client: Client, broker: ScriptedBroker) -> None:
    broker.script["WatchCatalog"] = [[numbered(1), FORBIDDEN]]
    with pytest.raises(errors.PermissionDeniedError):
        async for _ in client.catalogs():
            pass


async def test_a_broker_that_stays_away_is_an_error_in_the_end(folder: Path) -> None:
    async with purveyor.Client(f"unix:{folder / 's'}", outage_limit=0.2) as client:
        with pytest.raises(errors.UnavailableError):
            await anext(client.catalogs())


def plans(catalog: purveyor.Catalog) -> list[str]:
    return [plan.name for service in catalog.services for plan in service.plans]


@pytest.mark.crash
@pytest.mark.parametrize("end", [signal.SIGTERM, signal.SIGKILL])
async def test_a_restart_with_another_catalog_is_told(folder: Path, end: signal.Signals) -> None:
    site = Site(folder)
    async with purveyor.Client(site.socket) as client, aclosing(client.catalogs()) as found:
        with Process(site) as broker:
            first = await asyncio.wait_for(anext(found), WAIT_SECONDS)
            await asyncio.to_thread(broker.send, end)
        with Process(site) as broker:  # the same one again is no news
            waiting = asyncio.ensure_future(anext(found))
            assert (await client.catalog()).version == first.version
            await asyncio.to_thread(broker.send, end)
        site.catalog.write_text(CHANGED)
        with Process(site):
            second = await asyncio.wait_for(waiting, WAIT_SECONDS)

    assert (plans(first), plans(second)) == (["small"], ["large"])
    assert second.version > first.version


@pytest.mark.crash
def test_the_blocking_iterator_does_the_same(folder: Path) -> None:
    site = Site(folder)
    told: list[list[str]] = []
    first = threading.Event()

    def follow() -> None:
        with purveyor.SyncClient(site.socket) as client, client.catalogs() as found:
            for catalog in found:
                told.append(plans(catalog))
                first.set()
                if len(told) == 2:
                    return

    with Process(site) as broker:
        thread = threading.Thread(target=follow)
        thread.start()
        assert first.wait(WAIT_SECONDS)
        broker.send(signal.SIGTERM)
    site.catalog.write_text(CHANGED)
    with Process(site):
        thread.join(WAIT_SECONDS)

    assert not thread.is_alive()
    assert told == [["small"], ["large"]]


@pytest.mark.parametrize("form", ["table", "json"])
async def test_the_command_shows_each(broker: ScriptedBroker, folder: Path, form: str) -> None:
    more = numbered(2)
    more.services[0].plans.add(id="plan-new", name="brand-new")
    broker.script["WatchCatalog"] = [[numbered(1), DRAINING], [more, HANG]]
    process = await start(folder, "catalog", "--watch", *(["--json"] if form == "json" else []))
    assert process.stdout
    lines: list[Any] = []
    async with asyncio.timeout(WAIT_SECONDS):
        while not lines or b"brand-new" not in lines[-1]:
            lines.append(await process.stdout.readline())
        process.send_signal(signal.SIGINT)
        await process.communicate()

    assert process.returncode == Exit.INTERRUPTED
    if form == "json":
        assert [json.loads(line)["version"] for line in lines] == [1, 2]
    else:
        assert [line.split()[:2] for line in lines if b"SERVICE" in line] == [[b"SERVICE", b"PLAN"]] * 2
