"""Prometheus metrics of TLS listeners, read when they are asked for.

Guarantee: the labels are addresses of the settings and problems of a fixed list; nothing of a client is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class ListenerFacts:
    """One listener: when its certificate and its revocation list end, and how its files do."""

    address: str
    not_after: datetime
    next_update: datetime | None
    broken: bool
    reloads: int


@dataclass(frozen=True, slots=True)
class TlsFacts:
    """All listeners, and the refusals of client certificates by problem."""

    listeners: Sequence[ListenerFacts] = ()
    refused: Sequence[tuple[str, int]] = ()


class TlsCollector(Collector):
    """Asks `facts` at every scrape."""

    def __init__(self, facts: Callable[[], TlsFacts]) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        """Every family, without a sample where there is no TLS."""
        facts, label = self._facts(), ["listener"]
        ends = GaugeMetricFamily("purveyor_tls_certificate_expiry_timestamp_seconds", "End of it.", labels=label)
        due = GaugeMetricFamily("purveyor_tls_revocation_list_due_timestamp_seconds", "A newer is due.", labels=label)
        broken = GaugeMetricFamily("purveyor_tls_files_broken", "1 while changed files cannot be used.", labels=label)
        reloads = CounterMetricFamily("purveyor_tls_reloads", "Changed files that are used.", labels=label)
        refused = CounterMetricFamily("purveyor_tls_refused", "Calls refused or ended.", labels=["problem"])
        for listener in facts.listeners:
            ends.add_metric([listener.address], listener.not_after.timestamp())
            if listener.next_update is not None:
                due.add_metric([listener.address], listener.next_update.timestamp())
            broken.add_metric([listener.address], listener.broken)
            reloads.add_metric([listener.address], listener.reloads)
        for problem, count in facts.refused:
            refused.add_metric([problem], count)
        yield from (ends, due, broken, reloads, refused)
