"""The operators' HTTP face: what is served, what is counted, and that nothing of a caller is a label."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import httpx
import pytest

import purveyor
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.kit.listeners import ListenError
from purveyor_server.monitor.http import MonitorServer
from purveyor_server.monitor.metrics import Metrics, Sizes, sample_loop_lag
from purveyor_server.store.contract import Commit
from tests.rpc.whole import whole_broker

ONCE = 10.0  # seconds


class Site:
    """A monitor over scripted answers."""

    def __init__(self) -> None:
        self.failure: PurveyorError | None = None
        self.serving = True
        self.server = MonitorServer("127.0.0.1:0", self.metrics, lambda: self.serving)

    async def metrics(self) -> bytes:
        """The scripted exposition."""
        if self.failure is not None:
            raise self.failure
        return b"purveyor_up 1\n"


@pytest.fixture
async def site() -> AsyncIterator[Site]:
    made = Site()
    await made.server.start()
    yield made
    await made.server.stop()
    await made.server.stop()


async def get(site: Site, path: str) -> httpx.Response:
    async with httpx.AsyncClient(base_url=f"http://{site.server.address}", timeout=ONCE) as client:
        return await client.get(path)


async def test_metrics_health_and_readiness(site: Site) -> None:
    found = await get(site, "/metrics")
    assert (found.status_code, found.text) == (200, "purveyor_up 1\n")
    assert found.headers["content-type"].startswith("text/plain; version=")
    assert (await get(site, "/healthz")).json() == {"status": "alive"}
    assert (await get(site, "/readyz")).status_code == 200
    site.serving = False
    assert (await get(site, "/readyz")).status_code == 503
    assert (await get(site, "/healthz")).status_code == 200
    assert (await get(site, "/other")).status_code == 404


async def test_a_store_that_does_not_answer_is_said(site: Site) -> None:
    site.failure = PurveyorError(Reason.STORE_UNAVAILABLE, "no")
    found = await get(site, "/metrics")
    assert (found.status_code, found.text) == (503, "STORE_UNAVAILABLE\n")


async def test_a_port_in_use_is_refused(site: Site) -> None:
    second = MonitorServer(site.server.address, site.metrics, lambda: True)
    with pytest.raises(ListenError, match="in use"):
        await second.start()


@pytest.fixture
def private(tmp_path: Path) -> Path:
    tmp_path.chmod(0o700)
    return tmp_path


async def test_it_listens_on_a_socket_too(private: Path) -> None:
    made = Site()
    path = private / "m"
    server = MonitorServer(f"unix:{path}", made.metrics, lambda: True)
    await server.start()
    try:
        transport = httpx.AsyncHTTPTransport(uds=str(path))
        async with httpx.AsyncClient(transport=transport, timeout=ONCE) as client:
            assert (await client.get("http://x/metrics")).status_code == 200
    finally:
        await server.stop()


def value(metrics: Metrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def counted() -> Metrics:
    return Metrics(Sizes(lambda: 3, lambda: {"main": 2}))


async def test_a_life_is_counted_without_naming_anybody(private: Path) -> None:
    metrics = counted()
    async with whole_broker(private) as broker, purveyor.Client(broker.address, tenant="secret-tenant") as client:
        broker.store.subscribe(metrics.on_commit)
        await (await client.provision("svc", "big", instance_id="secret-name", wait=20)).result()
        text = (await metrics.text(broker.admin_parts)).decode()
    kind = {"verb": "PROVISION", "service": "svc", "plan": "big"}
    assert value(metrics, "purveyor_operations_accepted_total", **kind) == 1
    assert value(metrics, "purveyor_operations_ended_total", **kind, outcome="SUCCEEDED") == 1
    assert value(metrics, "purveyor_operations_running", provider="main") == 2
    assert value(metrics, "purveyor_watchers") == 3
    assert (value(metrics, "purveyor_log_head_revision") or 0) > 0
    assert (value(metrics, "purveyor_store_commit_seconds_count") or 0) > 0
    assert "purveyor_provider_ready" in text
    assert "secret" not in text


async def test_scrapes_within_a_second_share_one_reading(private: Path) -> None:
    metrics = counted()
    async with whole_broker(private) as broker:
        first, second = await asyncio.gather(*(metrics.text(broker.admin_parts) for _ in range(2)))
    assert first is second


def test_batches_and_commits_are_observed() -> None:
    metrics = counted()
    metrics.on_commit(Commit(1, (), (), due=False, commands=7, seconds=0.003))
    assert value(metrics, "purveyor_store_batch_commands_sum") == 7
    assert value(metrics, "purveyor_store_commit_seconds_bucket", le="0.005") == 1
    assert value(metrics, "purveyor_store_commit_seconds_bucket", le="0.002") == 0


async def test_a_blocked_loop_is_seen() -> None:
    seen: asyncio.Queue[float] = asyncio.Queue()
    task = asyncio.create_task(sample_loop_lag(seen.put_nowait, 0.01))
    await seen.get()
    before = datetime.now(UTC)
    while (datetime.now(UTC) - before).total_seconds() < 0.2:
        pass  # a provider that blocks
    async with asyncio.timeout(ONCE):
        while await seen.get() < 0.1:
            pass
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_every_series_has_a_bounded_set_of_labels() -> None:
    allowed = {"verb", "service", "plan", "outcome", "provider", "reason", "name", "version", "le"}
    names: set[Any] = set()
    for family in counted().registry.collect():
        if family.name.startswith("purveyor_"):
            names |= {label for sample in family.samples for label in sample.labels}
    assert names <= allowed
