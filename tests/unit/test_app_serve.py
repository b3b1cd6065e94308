"""A broker in a process of its own: it starts, answers, stops gracefully, and survives being killed."""

from __future__ import annotations

import asyncio
import os
import signal
import stat
from pathlib import Path

import grpc
import pytest
import structlog
from structlog.testing import capture_logs

from purveyor.admin import AdminClient
from purveyor.v1.broker_service_pb2 import GetCatalogRequest
from purveyor.v1.broker_service_pb2_grpc import BrokerServiceStub
from purveyor_server.app import commands
from purveyor_server.app.refusals import Exit, StartRefusedError
from purveyor_server.config.settings import Settings
from purveyor_server.kit import failpoints
from purveyor_server.kit.clock import ManualClock
from tests.unit.app_process import CATALOG, TIMEOUT, Process, Site, serving


@pytest.fixture
def site(tmp_path: Path) -> Site:
    return Site(tmp_path)


def test_it_serves_and_says_where(site: Site) -> None:
    with Process(site):
        assert (site.data / "endpoint").read_text() == f"{site.socket}\n"
        assert serving(site.socket)
        assert stat.S_IMODE(site.data.stat().st_mode) == 0o700


def test_a_first_start_with_a_provider_that_keeps_its_things_in_the_data_folder(tmp_path: Path) -> None:
    providers = "providers:\n  main: {kind: directory}\n"
    services = CATALOG[CATALOG.index("services:") :].replace("{kind: shared}", "{quota_bytes: 1000}")

    with Process(Site(tmp_path, catalog=providers + services)) as process:
        assert process.send(signal.SIGTERM) == 0


async def test_the_catalog_of_the_file_is_what_callers_see(site: Site) -> None:
    with Process(site):
        async with grpc.aio.insecure_channel(site.socket) as channel:
            answer = await BrokerServiceStub(channel).GetCatalog(GetCatalogRequest(tenant="acme"), timeout=TIMEOUT)

    (service,) = answer.catalog.services
    assert (service.id, [plan.id for plan in service.plans], answer.catalog.version) == ("s1", ["p1"], 1)


def test_sigterm_ends_it_with_zero_and_frees_everything(site: Site) -> None:
    with Process(site) as first:
        assert first.send(signal.SIGTERM) == 0
        assert [first.wait_for(event)["event"] for event in ("stopping", "drained", "stopped")]
        assert not (site.data / "endpoint").exists()

    with Process(site) as second:
        assert second.wait_for("store opened")["epoch"] == 2
        assert second.send(signal.SIGINT) == 0


async def test_an_operator_stops_it_as_sigterm_does(site: Site) -> None:
    with Process(site) as running:
        async with AdminClient(f"unix:{site.data / 'admin.sock'}") as admin:
            await admin.drain("a try", validate_only=True)
            await admin.drain("a new version")

        assert running.wait_for("stopped")
        assert await asyncio.to_thread(running.ended) == 0
        assert running.wait_for("stopping")["signal"] == "drain"


def test_a_killed_broker_starts_again(site: Site) -> None:
    with Process(site) as first:
        assert first.send(signal.SIGKILL) == -signal.SIGKILL

    with Process(site) as second:
        assert serving(site.socket)
        assert second.send(signal.SIGTERM) == 0


def test_an_unreachable_backend_is_named_and_does_not_stop_the_start(site: Site) -> None:
    with Process(site) as process:
        line = process.wait_for("provider does not reach its backend")

    assert (line["provider"], line["level"]) == ("main", "warning")


def test_a_port_that_the_system_chose_is_noted(tmp_path: Path) -> None:
    site = Site(tmp_path, '[listen]\naddresses = ["127.0.0.1:0"]\n')

    with Process(site):
        address = (site.data / "endpoint").read_text().strip()
        assert serving(address)


def test_the_same_catalog_makes_no_new_version_and_a_changed_one_does(site: Site) -> None:
    versions = []
    for text in (site.catalog.read_text(), site.catalog.read_text(), site.catalog.read_text() + "# changed\n"):
        site.catalog.write_text(text)
        with Process(site) as process:
            versions.append(process.wait_for("catalog applied")["version"])
            process.send(signal.SIGTERM)

    assert versions == [1, 1, 2]


async def test_a_second_signal_ends_the_process_at_once_but_not_its_echo(monkeypatch: pytest.MonkeyPatch) -> None:
    codes: list[int] = []
    monkeypatch.setattr(os, "_exit", codes.append)
    clock = ManualClock()
    signals = commands.StopSignals(clock.monotonic)

    signals.take(signal.SIGTERM)
    signals.take(signal.SIGTERM)
    await asyncio.wait_for(signals.wait(), 5)
    assert codes == []

    clock.advance(commands.SECOND_AFTER)
    signals.take(signal.SIGINT)
    assert codes == [128 + signal.SIGINT]


async def test_armed_failpoints_are_told(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    class Refusing:
        def __init__(self, _settings: object, **_more: object) -> None:
            structlog.get_logger().info("made")

        async def start(self) -> None:
            raise StartRefusedError(Exit.LISTEN, "no")

    monkeypatch.setattr(commands, "Broker", Refusing)
    monkeypatch.setattr(failpoints, "armed", True)
    with capture_logs() as lines:
        code = await commands.serve(Settings(data_dir=tmp_path))

    assert code == Exit.LISTEN
    assert lines[0]["event"].startswith("failpoints are armed")
