"""Prometheus metrics of who calls, read when they are asked for.

Guarantee: the labels are names of the settings and problems of a fixed list; nothing of a caller is one.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.registry import Collector


@dataclass(frozen=True, slots=True)
class IssuerFacts:
    """An issuer's keys: how many, seconds since the last good reading, and how many readings failed."""

    name: str
    keys: int
    age: float
    failures: int


@dataclass(frozen=True, slots=True)
class IdentityFacts:
    """All issuers, and refusals by problem."""

    issuers: Sequence[IssuerFacts] = ()
    refused: Sequence[tuple[str, int]] = ()


class IdentityCollector(Collector):
    """Asks `facts` at every scrape."""

    def __init__(self, facts: Callable[[], IdentityFacts]) -> None:
        self._facts = facts

    def collect(self) -> Iterator[Metric]:
        """Every family, without a sample where there is none."""
        facts, label = self._facts(), ["issuer"]
        keys = GaugeMetricFamily("purveyor_identity_keys", "Keys of an issuer.", labels=label)
        age = GaugeMetricFamily("purveyor_identity_keys_age_seconds", "Since they were last read.", labels=label)
        failed = CounterMetricFamily("purveyor_identity_keys_failures", "Readings that failed.", labels=label)
        refused = CounterMetricFamily("purveyor_identity_refused", "Calls refused or ended.", labels=["problem"])
        for issuer in facts.issuers:
            keys.add_metric([issuer.name], issuer.keys)
            age.add_metric([issuer.name], issuer.age)
            failed.add_metric([issuer.name], issuer.failures)
        for problem, count in facts.refused:
            refused.add_metric([problem], count)
        yield from (keys, age, failed, refused)
