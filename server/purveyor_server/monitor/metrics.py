"""Prometheus metrics of a broker.

Guarantee: names and meanings are those of docs/operating.md; labels come from the catalog and from fixed lists, so their
number is bounded; no label holds a tenant, an id or a secret. Counters and histograms are fed by commits, on the event
loop, in a few microseconds; gauges are read from the store when they are asked for, at most once a second.
Source: https://prometheus.io/docs/practices/naming/
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    GCCollector,
    Histogram,
    PlatformCollector,
    ProcessCollector,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from purveyor_server.domain.model import Operation
from purveyor_server.lifecycle.admin.contract import AdminParts, Report
from purveyor_server.lifecycle.admin.reporting import gather
from purveyor_server.monitor.identity import IdentityCollector, IdentityFacts
from purveyor_server.monitor.tls import TlsCollector, TlsFacts
from purveyor_server.providers.inspection import Health
from purveyor_server.store.contract import Commit
from purveyor_server.watch.events import EventLog

disable_created_metrics()  # type: ignore[no-untyped-call] # a series per counter that nobody asks for
FRESH_SECONDS = 1.0  # what was read is served again this long
BATCH_BUCKETS = (1, 2, 4, 8, 16, 32, 64, 128, 256, 512)
COMMIT_BUCKETS = (0.0005, 0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)
LAG_BUCKETS = (0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0)


@dataclass(frozen=True, slots=True)
class Sizes:
    """Numbers that only this process knows, read when they are asked for."""

    watchers: Callable[[], int]
    running: Callable[[], dict[str, int]]
    log: EventLog | None = None
    tls: Callable[[], TlsFacts] = TlsFacts
    identity: Callable[[], IdentityFacts] = IdentityFacts
    refused: Callable[[], Mapping[str, int]] = dict


class Metrics:
    """All of them, in a registry of their own."""

    def __init__(self, sizes: Sizes) -> None:
        self._sizes = sizes
        self.registry = registry = CollectorRegistry()
        ProcessCollector(registry=registry)
        PlatformCollector(registry=registry)
        GCCollector(registry=registry)
        self._text = b""
        self._read_at = float("-inf")
        self._reading = asyncio.Lock()
        kinds = ("verb", "service", "plan")
        self.accepted = Counter("purveyor_operations_accepted", "Operations accepted.", kinds, registry=registry)
        self.ended = Counter("purveyor_operations_ended", "Operations ended.", (*kinds, "outcome"), registry=registry)
        self.batch = Histogram(
            "purveyor_store_batch_commands", "Commands of one commit.", buckets=BATCH_BUCKETS, registry=registry
        )
        self.commit = Histogram(
            "purveyor_store_commit_seconds",
            "From BEGIN to the end of COMMIT.",
            buckets=COMMIT_BUCKETS,
            registry=registry,
        )
        self.loop_lag = Histogram(
            "purveyor_loop_lag_seconds", "How late the event loop was.", buckets=LAG_BUCKETS, registry=registry
        )
        self.loop_blocked = Counter(
            "purveyor_loop_blocked", "Times that the event loop stood still for seconds.", registry=registry
        )
        self.watch_lag = Histogram(
            "purveyor_watch_lag_seconds", "From a commit to its watcher.", buckets=LAG_BUCKETS, registry=registry
        )
        self.event_lag = Histogram(
            "purveyor_event_lag_seconds",
            "From a commit to the message that tells a watcher of it.",
            buckets=LAG_BUCKETS,
            registry=registry,
        )
        self.audit = Counter("purveyor_audit_records", "Audit records written.", ("outcome",), registry=registry)
        registry.register(TlsCollector(sizes.tls))
        registry.register(IdentityCollector(sizes.identity))
        registry.register(RefusedCollector(sizes.refused))
        self._gauges = _Gauges(registry)

    def on_commit(self, commit: Commit) -> None:
        """Listener of the store."""
        self.batch.observe(commit.commands)
        self.commit.observe(commit.seconds)
        for outcome, count in commit.audit.items():
            self.audit.labels(outcome).inc(count)
        for operation in commit.operations:
            if operation.version == 1:
                self.accepted.labels(*_kind(operation)).inc()
            if operation.done:
                self.ended.labels(*_kind(operation), str(operation.state)).inc()

    async def text(self, parts: AdminParts) -> bytes:
        """The exposition, at most FRESH_SECONDS old. Raises STORE_UNAVAILABLE."""
        async with self._reading:
            now = parts.clock.monotonic()
            if now - self._read_at >= FRESH_SECONDS:
                report = await gather(parts)
                self._gauges.fill(report, self._sizes)
                self._gauges.faults.set(parts.verified.faults or bool(parts.keys.chain_trouble))
                if parts.verified.at is not None:
                    self._gauges.verified.set(parts.verified.at.timestamp())
                self._text = generate_latest(self.registry)
                self._read_at = now
            return self._text


class RefusedCollector(Collector):
    """Asks for the refused calls at every scrape."""

    def __init__(self, refused: Callable[[], Mapping[str, int]]) -> None:
        self._refused = refused

    def collect(self) -> Iterator[Metric]:
        """One family."""
        family = CounterMetricFamily(
            "purveyor_denials", "Calls refused for want of a right or a name.", labels=["reason"]
        )
        for reason, count in self._refused().items():
            family.add_metric([reason], count)
        yield family


def _kind(operation: Operation) -> tuple[str, str, str]:
    settings = operation.want or operation.was
    if settings is None:
        return str(operation.verb), "", ""
    return str(operation.verb), settings.service_id, settings.plan_id


class _Gauges:
    """What is read from the store."""

    def __init__(self, registry: CollectorRegistry) -> None:
        def gauge(name: str, text: str, *labels: str) -> Gauge:
            return Gauge(f"purveyor_{name}", text, labels, registry=registry)

        self.info = gauge("build_info", "Always 1; the version is a label.", "version")
        self.waiting = gauge("operations_waiting", "Unfinished operations by what they wait for.", "provider", "reason")
        self.running = gauge("operations_running", "Operations being worked on here.", "provider")
        self.parked = gauge("operations_parked", "Unfinished operations that wait for anything but a slot.")
        self.oldest = gauge("operations_oldest_unfinished_age_seconds", "0 when there is none.")
        self.cleanup = gauge("cleanup_required", "Clean-ups that are not done.")
        self.held = gauge("remains_kept", "Failed operations whose remains are kept for an operator.")
        self.stuck = gauge("operations_stuck", "Operations that the last look found would not end by themselves.")
        self.ready = gauge("provider_ready", "1 while its backend can be worked with.", "provider")
        self.circuit = gauge("provider_circuit_open", "1 while its backend does not answer.", "provider")
        self.frozen = gauge("frozen", "1 for each freeze.", "name")
        self.recovering = gauge("recovery_in_progress", "1 from a restore until the recovery is finished.")
        self.orphans = gauge("orphans", "Things in backends that no record stands for.", "provider", "state")
        self.stopped = gauge("inventory_stopped", "1 while sweeps of a backend wait for an operator.", "provider")
        self.incomplete = gauge("inventory_incomplete", "1 when the last sweep did not see all.", "provider")
        self.catalog = gauge("catalog_version", "Version of the catalog that is served.")
        self.refused = gauge("catalog_refused", "1 while the catalog file is not what is served, for it is not good.")
        self.watchers = gauge("watchers", "Waiters and watchers of operations.")
        self.event_watchers = gauge("event_watchers", "Open streams of events.")
        self.event_behind = gauge("event_behind_revisions", "How far the slowest of them is behind the log.")
        self.event_ring = gauge("event_ring_bytes", "Size of the events in memory.")
        self.head = gauge("log_head_revision", "Newest revision of the event log.")
        self.earliest = gauge("log_earliest_revision", "Earliest revision that is kept.")
        self.faults = gauge("audit_faults", "What the last verification found, else 1 when the start found one.")
        self.verified = gauge(
            "audit_verified_timestamp_seconds", "When a verification last found no fault; 0 for never."
        )
        self.drift = gauge("drift", "Instances whose backend is not what the record says, or cannot be asked.", "drift")
        self.stranded = gauge("platform_orphans", "Instances that their platform no longer names.")
        self.campaigns = gauge("campaigns", "Campaigns that are not over.", "state")
        self.store = gauge("store_bytes", "Size of the store's files.")
        self.free = gauge("disk_free_bytes", "Free on the store's disk.")
        self.low_water = gauge("disk_low_water_bytes", "Below so many free bytes nothing new is accepted.")

    def fill(self, report: Report, sizes: Sizes) -> None:
        """Set every gauge; series that are gone disappear."""
        facts = report.facts
        for several in (self.info, self.waiting, self.running, self.ready, self.circuit, self.frozen, self.drift):
            several.clear()
        self.campaigns.clear()
        self.info.labels(report.version).set(1)
        for queue in facts.queues:
            self.waiting.labels(queue.provider, str(queue.waiting)).set(queue.operations)
        for name, count in sizes.running().items():
            self.running.labels(name).set(count)
        for provider in report.providers:
            self.ready.labels(provider.ref.name).set(provider.health is Health.READY)
            self.circuit.labels(provider.ref.name).set(provider.health is Health.CIRCUIT_OPEN)
        for drift, count in facts.drift.items():
            self.drift.labels(drift).set(count)
        self.stranded.set(facts.platform_orphans)
        for state, count in facts.campaigns.items():
            self.campaigns.labels(state).set(count)
        for freeze in report.freezes:
            self.frozen.labels(freeze.name).set(1)
        self._fill_inventories(report)
        self.parked.set(facts.parked)
        oldest = facts.oldest
        self.oldest.set((report.at - oldest.oldest_at).total_seconds() if oldest is not None else 0)
        self.cleanup.set(facts.cleanups)
        self.held.set(facts.held)
        self.stuck.set(report.stuck)
        self.recovering.set(report.recovery is not None)
        self.catalog.set(report.catalog_version)
        self.refused.set(report.catalog_refused is not None)
        self.watchers.set(sizes.watchers())
        if sizes.log is not None:
            self.event_watchers.set(sizes.log.watchers)
            self.event_behind.set(sizes.log.behind)
            self.event_ring.set(sizes.log.ring.bytes)
        self.head.set(facts.head)
        self.earliest.set(facts.earliest)
        self.store.set(facts.store_bytes)
        self.free.set(facts.free_bytes)
        self.low_water.set(facts.low_water_bytes)

    def _fill_inventories(self, report: Report) -> None:
        for several in (self.orphans, self.stopped, self.incomplete):
            several.clear()
        for (provider, state), count in report.sightings.items():
            self.orphans.labels(provider, str(state)).set(count)
        for inventory in report.inventories:
            self.stopped.labels(inventory.provider).set(inventory.brake is not None)
            self.incomplete.labels(inventory.provider).set(inventory.ended_at is not None and not inventory.complete)


async def sample_loop_lag(observe: Callable[[float], None], interval: float = 0.5) -> None:
    """Sleep `interval` seconds for ever and tell by how much each sleep was longer."""
    loop = asyncio.get_running_loop()
    while True:
        asked = loop.time()
        await asyncio.sleep(interval)
        observe(max(0.0, loop.time() - asked - interval))
