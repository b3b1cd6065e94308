"""A flood of Provision calls from h2load, at a rate that does not wait for answers, and what the broker says of them afterwards.

Guarantee: what was accepted and refused, and how long each took inside of the broker, is read from its own log; whether accepted
work ended before its deadline from its store, once nothing is unfinished.
Limit: a flood does not follow its operations, so that the generator is not what is measured; the callers beside it do.
"""

from __future__ import annotations

import json
import sqlite3
import subprocess
import time
from collections import defaultdict
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

from tests.benchmarks import house, load

CLIENTS, STREAMS = 4, 512  # of each process: connections, and calls at once on each
DRAIN_SECONDS = 600.0
LOOK_SECONDS = 1.0
METHOD = f"{house.SERVICE}/Provision"


@contextmanager
def flooding(path: str, rate: float, seconds: float, folder: Path) -> Iterator[None]:
    """`rate` calls a second for `seconds`, of eight tenants; ended with the block."""
    tenants = house.TENANTS[:8]
    folder.mkdir(exist_ok=True)
    each = rate / len(tenants) / CLIENTS
    options = (f"--max-concurrent-streams={STREAMS}", f"--rps={max(1, round(each))}")
    processes: list[subprocess.Popen[bytes]] = []
    try:
        for number, tenant in enumerate(tenants):
            message = house.provision_request(tenant).SerializeToString()
            share = load.Load(path, METHOD, (message,), CLIENTS, round(each * seconds) * CLIENTS)
            body = folder / f"{number}.body"
            body.write_bytes(load.frame(message))
            call = load.command(share, body, *options)
            processes.append(subprocess.Popen(call, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL))
        yield
    finally:
        for process in processes:
            process.terminate()
            process.wait(30)


def told(log: Path, since: int) -> dict[str, list[float]]:
    """Milliseconds of each Provision by its status, from the broker's log behind the byte `since`."""
    found: dict[str, list[float]] = defaultdict(list)
    with log.open("rb") as file:
        file.seek(since)
        for line in file:
            if b'"call ended"' in line and b'/Provision"' in line:
                event: dict[str, Any] = json.loads(line)
                found[event["code"]].append(event["milliseconds"])
    return dict(found)


def summary(found: dict[str, list[float]]) -> dict[str, dict[str, float]]:
    """By status: how many, median, 99th percentile and longest in milliseconds."""
    shown = {}
    for code, times in found.items():
        ordered = sorted(times)
        shown[code] = {
            "calls": len(ordered),
            "p50_ms": ordered[len(ordered) // 2],
            "p99_ms": ordered[int(len(ordered) * 0.99)],
            "max_ms": ordered[-1],
        }
    return shown


def drained(database: Path) -> float:
    """Wait until no operation is unfinished; the seconds it took. Raises TimeoutError after DRAIN_SECONDS."""
    began = time.monotonic()
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        while connection.execute("SELECT 1 FROM operations WHERE backlog > 0 LIMIT 1").fetchone():
            if time.monotonic() - began > DRAIN_SECONDS:
                raise TimeoutError("operations are unfinished for too long")
            time.sleep(LOOK_SECONDS)
    return time.monotonic() - began


def late(database: Path) -> tuple[int, int]:
    """How many operations there are, and how many of them ended after their deadline or not well."""
    with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
        row = connection.execute(
            "SELECT count(*), sum(json_extract(body, '$.ended_at') > json_extract(body, '$.deadline')"
            " OR state <> 'SUCCEEDED') FROM operations"
        ).fetchone()
    return int(row[0]), int(row[1] or 0)
