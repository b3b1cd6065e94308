"""A start with 100,000 unfinished operations: when the first is resumed, and how fast they end.

`resume`: seconds from the start of the process to the committed claim of the first of them. Beside it: the same from the
opening of the store, and the rate up to the first 3,000 that have ended, as a share of what the same engine does with
operations that are accepted one by one (the side of the row `engine`).

Guarantee: every round begins with a copy of the same store, made once per run from a real operation; what is counted has
SUCCEEDED with three finished steps.
Limit: the engine alone, as in the row `engine`: what the face adds to a start is the row `start`. The rate is that of the first
3,000, all 100,000 would take minutes; nineteen in twenty must be left then.
"""

from __future__ import annotations

import shutil
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.benchmarks.processes import SideError
from tests.benchmarks.rows.engine import AT_ONCE, LEAST, RUN_SECONDS, read_rates
from tests.benchmarks.runner import Beside, Row, Run, Sides
from tests.benchmarks.stats import Target
from tests.benchmarks.yardsticks import finish

BACKLOG = 100_000
COUNTED = 3_000
SIDE = "tests.benchmarks.sides.resume"


def copied(store: Path, folder: Path) -> Path:
    """A folder with a copy of the store alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    shutil.copyfile(store / "store.db", folder / "store.db")
    (folder / "store.db").chmod(0o600)
    return folder


@contextmanager
def open_resume(run: Run) -> Iterator[Sides]:
    """See the module."""
    store = run.folder / "made"
    store.mkdir()
    began = time.monotonic()
    finish([sys.executable, "-m", SIDE, "make", str(store), str(BACKLOG)], RUN_SECONDS)
    size = (store / "store.db").stat().st_size / 1e6
    run.tell(f"  {BACKLOG:,} operations made in {time.monotonic() - began:.0f} s, {size:.0f} MB")
    count = max(LEAST, min(COUNTED, run.requests * 3 // 4))

    def ours(number: int) -> tuple[float, ...]:
        folder = copied(store, run.folder / "copy")
        command = [sys.executable, "-m", SIDE, "run", str(folder), str(count), str(time.monotonic()), str(AT_ONCE)]
        said = finish(command, RUN_SECONDS).split()
        first, opened, rate, left = (float(word) for word in said)
        if left < BACKLOG * 95 // 100:
            raise SideError(f"{left:.0f} of {BACKLOG} operations are left after {count}")
        return first, opened, rate

    def theirs(number: int) -> tuple[float | None, ...]:
        folder = run.folder / f"engine-{number}"
        folder.mkdir()
        few = max(LEAST, run.requests // 2)
        command = [sys.executable, "-m", "tests.benchmarks.sides.engine", str(folder), str(few), str(AT_ONCE)]
        return None, None, read_rates(finish(command, RUN_SECONDS))[AT_ONCE]

    yield Sides(ours, theirs)


ROWS = (
    Row(
        name="resume",
        title=f"{BACKLOG:,} unfinished operations: start of the process to the first resumed",
        unit="s",
        yardstick="of the rate: the engine alone with accepted operations",
        target=Target(1, 0.5, better="lower", judged="value"),
        open=open_resume,
        beside=(Beside("resume_opened", "s"), Beside("resume_rate", "operations/s", Target(0.8, 0.9))),
    ),
)
