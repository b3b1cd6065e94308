"""The judge of a long run: a planted fault in its samples is found, and nothing in a run that is well."""

from __future__ import annotations

import sqlite3
import xml.etree.ElementTree as ET
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks.sustained import flood, judge, plot

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
        ({"provision_refused": 0}, None),  # the callers beside the flood may be lucky
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


GOOD = {
    "OK": {"calls": 5, "p99_ms": 3000.0},
    "RESOURCE_EXHAUSTED": {"calls": 5, "p99_ms": 2.0},
    "GONE": {"calls": 1, "p99_ms": 1.0},
}


@pytest.mark.parametrize(
    ("change", "bad", "found"),
    [
        ({}, 0, None),
        ({"RESOURCE_EXHAUSTED": None}, 0, "nothing was refused"),
        ({"RESOURCE_EXHAUSTED": {"calls": 5, "p99_ms": 9000.0}}, 0, "a refusal took 9000 ms"),
        ({"INTERNAL": {"calls": 2, "p99_ms": 1.0}}, 0, "2 orders ended with INTERNAL"),
        ({}, 3, "3 accepted operations"),
    ],
)
def test_a_fault_of_the_flood_is_found(change: dict[str, Any], bad: int, found: str | None) -> None:
    shown = {code: seen for code, seen in (GOOD | change).items() if seen is not None}
    faults = list(judge.flood_faults(shown, bad))

    assert faults == [] if found is None else len(faults) == 1 and faults[0].startswith(found)


def test_the_flood_is_told_from_the_log_behind_a_place(tmp_path: Path) -> None:
    log = tmp_path / "broker.log"
    line = '{"event":"call ended","method":"/purveyor.v1.BrokerService/%s","code":"%s","milliseconds":%s}\n'
    log.write_text(line % ("Provision", "OK", 999))
    since = log.stat().st_size
    with log.open("a") as file:
        file.write(
            line % ("Provision", "OK", 5) + line % ("Provision", "OK", 7) + line % ("Bind", "OK", 1) + "no json\n"
        )
        file.write(line % ("Provision", "RESOURCE_EXHAUSTED", 2))
    shown = flood.summary(flood.told(log, since))

    assert {code: seen["calls"] for code, seen in shown.items()} == {"OK": 2, "RESOURCE_EXHAUSTED": 1}
    assert shown["OK"]["max_ms"] == 7


def test_late_operations_are_counted(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE operations (state TEXT, backlog INTEGER, body BLOB)")
        for state, ended in (
            ("SUCCEEDED", "2026-01-01T00:00:01Z"),
            ("SUCCEEDED", "2026-01-01T00:09:00Z"),
            ("FAILED", "2026-01-01T00:00:01Z"),
        ):
            body = f'{{"ended_at":"{ended}","deadline":"2026-01-01T00:05:00Z"}}'
            connection.execute("INSERT INTO operations VALUES (?, 0, ?)", (state, body.encode()))
    connection.close()

    assert flood.late(path) == (3, 2)
    assert flood.drained(path) < 1


def test_the_plot_is_an_image_with_every_series() -> None:
    picture = ET.fromstring(plot.svg(run(late_p99_ms=lambda n: n)))  # noqa: S314 - our own

    lines = [line for line in picture.iter("{http://www.w3.org/2000/svg}polyline") if line.get("stroke") == "#06c"]
    assert len(lines) == len(plot.SERIES)
    assert len((lines[0].get("points") or "").split()) == 40
