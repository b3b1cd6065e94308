"""Operations of three steps per second: our engine with 64 at once, and DBOS on SQLite at its best of 1, 16 and 64.

Guarantee: on both sides a step's result is committed (`synchronous=FULL`) before the next step begins, the steps do
nothing outside, and a caller starts its next operation when its last one has ended. Each round has fresh databases.
Limit: DBOS runs fewer operations per round than we do, for it takes longer; a rate does not depend on that for long.
"""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.processes import SideError
from tests.benchmarks.runner import Beside, Row, Run, Sides
from tests.benchmarks.stats import Target
from tests.benchmarks.yardsticks import DBOS, finish, yardstick_python

AT_ONCE = 64
CONCURRENCIES = ("1", "16", "64")
LEAST, THEIR_SHARE = 128, 20  # operations of a round: the run's `requests` halved; theirs a twentieth of that
OWN_LEAST = 64  # of DBOS as it comes, which is slower
RUN_SECONDS = 300


def read_rates(text: str) -> dict[int, float]:
    """Rates by concurrency, as the sides print them: a line each. Raises SideError without any."""
    found = [line.split() for line in text.splitlines() if line.strip()]
    try:
        rates = {int(at_once): float(rate) for at_once, rate in found}
    except ValueError:
        rates = {}
    if not rates:
        raise SideError(f"no rates in what the side said: {text[-300:]!r}")
    return rates


def _empty(folder: Path) -> Path:
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    return folder


@contextmanager
def open_engine(run: Run) -> Iterator[Sides]:
    """See the module."""
    python = yardstick_python()
    count = max(LEAST, run.requests // 2)

    def ours(number: int) -> tuple[float, float]:
        folder = _empty(run.folder / f"ours-{number}")
        command = [sys.executable, "-m", "tests.benchmarks.sides.engine", str(folder), str(count), str(AT_ONCE)]
        rate = read_rates(finish(command, RUN_SECONDS))[AT_ONCE]
        return rate, rate

    def dbos(number: int, journal: str, few: int) -> float:
        folder = _empty(run.folder / f"theirs-{journal}-{number}")
        command = [python, "-m", "tests.benchmarks.sides.workflows", str(folder), str(few), journal, *CONCURRENCIES]
        rates = read_rates(finish(command, RUN_SECONDS))
        said = ", ".join(f"{rate:.1f}/s with {at_once}" for at_once, rate in rates.items())
        run.tell(f"    dbos, journal {journal}: {said}")
        return max(rates.values())

    def theirs(number: int) -> tuple[float, float]:
        return dbos(number, "own", OWN_LEAST), dbos(number, "wal", max(LEAST, count // THEIR_SHARE))

    yield Sides(ours, theirs)


ROWS = (
    Row(
        name="engine",
        title=f"operations of three steps, engine alone, {AT_ONCE} at once",
        unit="operations/s",
        yardstick=f"{DBOS} on SQLite as it comes, at its best of {', '.join(CONCURRENCIES)}",
        target=Target(40, 120),
        open=open_engine,
        beside=(Beside("engine_wal", "operations/s"),),
    ),
)
