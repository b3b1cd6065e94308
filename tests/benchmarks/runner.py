"""Runs rows: the two sides in turns, round by round; a row that fails is told and the others still run.

Guarantee: who goes first alternates from round to round, so that a machine which gets slower or faster wrongs nobody.
"""

from __future__ import annotations

import traceback
from collections.abc import Callable, Iterable
from contextlib import AbstractContextManager
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from pkgutil import iter_modules

from tests.benchmarks.stats import Pair, Result, Target, summarize

ROWS = "tests.benchmarks.rows"
Side = Callable[[int], float]
Tell = Callable[[str], None]


@dataclass(frozen=True, slots=True)
class Run:
    """What a row gets: a folder of its own on the disk that is measured, and how much to do."""

    folder: Path
    rounds: int = 5
    requests: int = 4000
    tell: Tell = field(default=print)


@dataclass(frozen=True, slots=True)
class Sides:
    """Both measure once per round and return a figure in the row's unit; the argument is the number of the round."""

    ours: Side
    theirs: Side


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `open` starts what the rounds share; what is measured in it is told in docs/performance.md."""

    name: str
    title: str
    unit: str
    yardstick: str
    target: Target
    open: Callable[[Run], AbstractContextManager[Sides]]


def known_rows() -> dict[str, Row]:
    """Every row of every module in `rows`, by name: each module has a tuple ROWS."""
    folder = str(Path(__file__).parent / "rows")
    modules = [import_module(f"{ROWS}.{found.name}") for found in iter_modules([folder])]
    return {row.name: row for module in modules for row in module.ROWS}


def measure(row: Row, run: Run) -> Result:
    """Run one row; raises whatever goes wrong in it."""
    pairs: list[Pair] = []
    with row.open(run) as sides:
        for number in range(run.rounds):
            pair = _one_round(sides, number)
            run.tell(f"  round {number + 1}: {pair.ours:.4g} and {pair.theirs:.4g} {row.unit}, ratio {pair.ratio:.3g}")
            pairs.append(pair)
    return summarize(row.name, row.unit, row.target, pairs)


def _one_round(sides: Sides, number: int) -> Pair:
    if number % 2:
        theirs = sides.theirs(number)
        return Pair(sides.ours(number), theirs)
    ours = sides.ours(number)
    return Pair(ours, sides.theirs(number))


def run_rows(rows: Iterable[Row], run: Run) -> tuple[list[Result], dict[str, str]]:
    """Results in order, and for each row that failed its reason by name."""
    results: list[Result] = []
    failed: dict[str, str] = {}
    for row in rows:
        run.tell(f"{row.name}: {row.title}; yardstick: {row.yardstick}")
        folder = run.folder / row.name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            results.append(measure(row, Run(folder, run.rounds, run.requests, run.tell)))
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is reported and the other rows run
            trace = folder / "failure.txt"
            trace.write_text(traceback.format_exc(), encoding="utf-8")
            failed[row.name] = f"{type(failure).__name__}: {failure} (more in {trace})"
            run.tell(f"  FAILED {failed[row.name]}")
    return results, failed
