"""`python -m tests.benchmarks.sustained`: a long run at 70 percent of the capacity, then three times the capacity.

The broker is what `purveyor serve` runs, its provider does nothing. 1,000 watches of events are open throughout, ten of them
are closed and opened again every second. A life is Provision, its end, Deprovision, its end.

Guarantee: exit code 0 only if the sustained part kept flat memory, a bounded write-ahead log and a stable p99, and the overload
refused at once, with RetryInfo, what it did not take, took every removal, and ended all it took before its deadline.
Limit: generator, watchers and broker share the machine; the capacity is theirs together. Above it the generator is h2load, since one
in Python would be behind before the broker is.
"""

from __future__ import annotations

import argparse
import json
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks import house
from tests.benchmarks.machine import describe
from tests.benchmarks.processes import ROOT, Server, environment
from tests.benchmarks.sustained import flood, judge, plot

WATCHERS, CHURN = 1000, 10
SHARE, OVERLOAD = 0.7, 3.0
ORDERS = 2  # of a life: one to make, one to give back
PROBES = 5  # lives a second beside the flood
CAPACITY_SECONDS, OVERLOAD_SECONDS = 40.0, 60.0
WAL_LIMIT = 128 * 1024 * 1024
REFUSAL_MS = 5000.0
SETTINGS = house.SETTINGS.replace("[limits]\nmax_pending = 1000000\n", "")


def say(line: str) -> None:
    """Print at once: a run takes half an hour."""
    print(line, flush=True)


@contextmanager
def started(module: str, *arguments: object, log: Path) -> Iterator[subprocess.Popen[str]]:
    """`python -m tests.benchmarks.sustained.MODULE`; ended with the block."""
    command = [sys.executable, "-m", f"tests.benchmarks.sustained.{module}", *map(str, arguments)]
    with log.open("w") as output:
        process = subprocess.Popen(
            command, cwd=ROOT, env=environment(), stdout=output, stderr=subprocess.STDOUT, text=True
        )
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(30)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait(30)


def lines(log: Path) -> list[dict[str, Any]]:
    """What a helper has printed so far. Raises ValueError for what is no JSON: its traceback."""
    found = log.read_text(encoding="utf-8")
    complete = found[: found.rfind("\n") + 1].splitlines()
    for line in complete:
        if not line.startswith("{"):
            raise ValueError(f"{log}: {found[-600:]}")
    return [json.loads(line) for line in complete]


class Run:
    """One run on one broker."""

    def __init__(self, server: Server, folder: Path) -> None:
        self._server, self._folder = server, folder
        self._process = psutil.Process(server.pid)
        self.samples: list[dict[str, Any]] = []

    def phase(self, name: str, rate: float | str, seconds: float) -> list[dict[str, Any]]:
        """Lives at a rate; samples are taken at each line that the generator prints. Returns its lines."""
        log = self._folder / f"{name}.jsonl"
        with started("lives", self._server.address, rate, seconds, log=log) as generator:
            seen = 0
            while generator.poll() is None:
                time.sleep(0.2)
                found = lines(log)
                for line in found[seen:]:
                    self._sample(name, line)
                seen = len(found)
            if generator.returncode:
                raise RuntimeError(log.read_text(encoding="utf-8")[-600:])
        return lines(log)

    def overload(self, capacity: float) -> tuple[dict[str, int], list[str]]:
        """Three times as many orders as the capacity has, from a flood that waits for nothing, and a few callers beside it
        whose answers are judged. Returns their counts, and what was not kept."""
        log, data = self._folder / "broker" / "broker.log", self._folder / "broker" / "data" / "purveyor.db"
        since = log.stat().st_size
        rate = capacity * ORDERS * OVERLOAD
        with flood.flooding(self._server.path, rate, OVERLOAD_SECONDS, self._folder / "flood"):
            over = self.phase("overload", PROBES, OVERLOAD_SECONDS)
        drained = flood.drained(data)
        shown = flood.summary(flood.told(log, since))
        operations, bad = flood.late(data)
        say(
            f"flood: {rate:.0f} orders/s for {OVERLOAD_SECONDS:.0f} s; by status inside of the broker {json.dumps(shown)}"
        )
        say(
            f"flood: everything ended {drained:.0f} s later; {operations} operations in all, {bad} of them late or failed"
        )
        total, refusals = summed(over), [line["refusal_ms"][1] for line in over if "refusal_ms" in line]
        faults = list(judge.overload_faults(total, max(refusals, default=0.0), REFUSAL_MS))
        return total, faults + list(judge.flood_faults(shown, bad))

    def _sample(self, phase: str, line: Mapping[str, Any]) -> None:
        data = self._folder / "broker" / "data"
        watched = lines(self._folder / "watchers.jsonl")
        last = watched[-1] if watched else {}
        sample = {
            "phase": phase,
            "at": line["at"],
            "rss_bytes": self._process.memory_info().rss,
            "wal_bytes": (data / "purveyor.db-wal").stat().st_size,
            "store_bytes": (data / "purveyor.db").stat().st_size,
            "lives_per_second": round(line.get("lives", 0) / 10, 1),
            "open": line["open"],
            "refused": line.get("provision_refused", 0) + line.get("deprovision_refused", 0),
            "repeated": last.get("repeated", 0),
        } | {name: line[name] for name in ("failed", "late", "not_sent") if name in line}
        for name, values in (
            ("accept", line.get("accept_ms")),
            ("end", line.get("end_ms")),
            ("late", last.get("late_ms")),
        ):
            if values:
                sample |= {f"{name}_p50_ms": values[0], f"{name}_p99_ms": values[1]}
        self.samples.append(sample)
        say(f"  {phase} {json.dumps({key: value for key, value in sample.items() if key != 'phase'})}")


def summed(found: list[dict[str, Any]]) -> dict[str, int]:
    """The counts of all intervals."""
    total: Counter[str] = Counter()
    for line in found:
        total.update({name: value for name, value in line.items() if isinstance(value, int) and name != "open"})
    return dict(total)


def main() -> int:
    """Run; 0 when everything was kept."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.sustained", description="A long run under load.")
    parser.add_argument("--minutes", type=float, default=30.0, help="of the sustained part (default: %(default)s)")
    parser.add_argument("--watchers", type=int, default=WATCHERS)
    parser.add_argument("--plot", type=Path, help="where the plot goes (default: build/sustained.svg)")
    given = parser.parse_args()
    folder = ROOT / "build" / "sustained"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    say(describe(folder))
    problems = []
    with (
        house.broker(folder / "broker", "quick", SETTINGS) as server,
        started("watchers", server.address, given.watchers, CHURN, log=folder / "watchers.jsonl"),
    ):
        run = Run(server, folder)
        ended = summed(run.phase("capacity", "max", CAPACITY_SECONDS))["lives"]
        capacity = ended / CAPACITY_SECONDS
        say(f"capacity: {capacity:.1f} lives/s with {given.watchers} watches")
        run.phase("sustained", round(capacity * SHARE, 2), given.minutes * 60)
        samples = [sample for sample in run.samples if sample["phase"] == "sustained"][:-1]  # the last one only empties
        problems += [f"sustained: {fault}" for fault in judge.faults(samples, WAL_LIMIT)]
        total, faults = run.overload(capacity)
        problems += [f"overload: {fault}" for fault in faults]
    (folder / "samples.json").write_text(json.dumps(run.samples, indent=1) + "\n")
    (given.plot or ROOT / "build" / "sustained.svg").write_text(plot.svg(samples))
    say(f"overload: {json.dumps(total)}")
    for problem in problems:
        say(f"not kept: {problem}")
    say(
        f"sustained: minutes={given.minutes:g} watchers={given.watchers} capacity={capacity:.1f}/s "
        f"lives={sum(round(s['lives_per_second'] * 10) for s in samples)} refused={total.get('provision_refused', 0)} "
        f"not_kept={len(problems)}"
    )
    return 1 if problems else 0


if __name__ == "__main__":
    sys.exit(main())
