"""The judge of a long run: a planted fault in its samples is found, and nothing in a run that is well."""

from __future__ import annotations

import xml.etree.ElementTree as ET
from typing import Any

import pytest

from tests.benchmarks.sustained import judge, plot

LIMIT = 1000


def run(**planted: Any) -> list[dict[str, Any]]:
    """Forty samples that are well; `planted` are functions of a sample's number."""
    well = {"at": 0.0, "rss_bytes": 100.0, "accept_p99_ms": 10.0, "wal_bytes": 900, "lives_per_second": 5.0}
    samples = [well | {"at": 10.0 * number} for number in range(1, 41)]
    for name, value in planted.items():
        for number, sample in enumerate(samples):
            sample[name] = value(number)
    return samples


@pytest.mark.parametrize(
    ("planted", "found"),
    [
        ({}, None),
        ({"rss_bytes": lambda n: 50.0 if n < 9 else 100.0}, None),  # the warm-up
        ({"accept_p99_ms": lambda n: 500.0 if n == 39 else 10.0}, None),  # one bad moment
        ({"rss_bytes": lambda n: 100.0 + n}, "rss_bytes grew"),
        ({"accept_p99_ms": lambda n: 10.0 + 2 * n}, "accept_p99_ms grew"),
        ({"wal_bytes": lambda n: 1001 if n == 20 else 1}, "the WAL had 1001"),
        ({"failed": lambda n: int(n == 3)}, "1 failed"),
        ({"late": lambda n: int(n == 3)}, "1 late"),
        ({"refused": lambda n: int(n == 3)}, "1 refused"),
        ({"repeated": lambda n: int(n == 3)}, "1 repeated"),
        ({"not_sent": lambda n: int(n == 3)}, "1 not_sent"),
    ],
)
def test_a_fault_of_the_sustained_part_is_found(planted: dict[str, Any], found: str | None) -> None:
    faults = list(judge.faults(run(**planted), LIMIT))

    assert faults == [] if found is None else len(faults) == 1 and faults[0].startswith(found)


def test_a_run_without_samples_shows_nothing() -> None:
    assert list(judge.faults([], LIMIT)) == ["too few samples of rss_bytes", "too few samples of accept_p99_ms"]


@pytest.mark.parametrize(
    ("change", "found"),
    [
        ({}, None),
        ({"provision_refused": 0}, "nothing was refused"),
        ({"provision_UNAVAILABLE_without_retry": 2}, "2 provision_UNAVAILABLE_without_retry"),
        ({"deprovision_refused": 1}, "1 deprovision_refused"),
        ({"late": 1}, "1 late"),
        ({"failed": 1}, "1 failed"),
    ],
)
def test_a_fault_of_the_overload_is_found(change: dict[str, int], found: str | None) -> None:
    total = {"provision_accepted": 9, "provision_refused": 5, "deprovision_accepted": 9} | change
    faults = list(judge.overload_faults(total, 10.0, 1000.0))

    assert faults == [] if found is None else len(faults) == 1 and faults[0].startswith(found)
    assert list(judge.overload_faults({"provision_refused": 1}, 2000.0, 1000.0)) == [
        "refusals took 2000 ms (p99), of 1000 allowed"
    ]


def test_the_plot_is_an_image_with_every_series() -> None:
    picture = ET.fromstring(plot.svg(run(late_p99_ms=lambda n: n)))  # noqa: S314 - our own

    lines = [line for line in picture.iter("{http://www.w3.org/2000/svg}polyline") if line.get("stroke") == "#06c"]
    assert len(lines) == len(plot.SERIES)
    assert len((lines[0].get("points") or "").split()) == 40
