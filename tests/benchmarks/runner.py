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
Figures = float | tuple[float | None, ...]
Side = Callable[[int], Figures]
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
    """Both measure once per round and return a figure in the row's unit, and behind it those of `Row.beside`; the argument
    is the number of the round. A figure without a yardstick is None on their side."""

    ours: Side
    theirs: Side | None = None


@dataclass(frozen=True, slots=True)
class Beside:
    """A further figure of a row, measured along with it; without a target it is told and not judged."""

    name: str
    unit: str
    target: Target | None = None


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table. `open` starts what the rounds share; what is measured in it is told in docs/performance.md."""

    name: str
    title: str
    unit: str
    yardstick: str
    target: Target
    open: Callable[[Run], AbstractContextManager[Sides]]
    beside: tuple[Beside, ...] = ()


def known_rows() -> dict[str, Row]:
    """Every row of every module in `rows`, by name: each module has a tuple ROWS."""
    folder = str(Path(__file__).parent / "rows")
    modules = [import_module(f"{ROWS}.{found.name}") for found in iter_modules([folder])]
    return {row.name: row for module in modules for row in module.ROWS}


def measure(row: Row, run: Run) -> list[Result]:
    """Run one row, with what is measured beside it; raises whatever goes wrong in it."""
    heads = (Beside(row.name, row.unit, row.target), *row.beside)
    pairs: list[list[Pair]] = [[] for _ in heads]
    with row.open(run) as sides:
        for number in range(run.rounds):
            found = _one_round(sides, number, len(heads))
            run.tell(f"  round {number + 1}: " + "; ".join(map(_told, heads, found)))
            for column, pair in zip(pairs, found, strict=True):
                column.append(pair)
    return [summarize(head.name, head.unit, head.target, column) for head, column in zip(heads, pairs, strict=True)]


def _told(head: Beside, pair: Pair) -> str:
    if pair.theirs is None:
        return f"{pair.ours:.4g} {head.unit}"
    return f"{pair.ours:.4g} and {pair.theirs:.4g} {head.unit}, ratio {pair.ratio:.3g}"


def _one_round(sides: Sides, number: int, count: int) -> list[Pair]:
    if sides.theirs is not None and number % 2:
        theirs = _figures(sides.theirs(number), count)
        ours = _figures(sides.ours(number), count)
    else:
        ours = _figures(sides.ours(number), count)
        theirs = (None,) * count if sides.theirs is None else _figures(sides.theirs(number), count)
    found = []
    for our, their in zip(ours, theirs, strict=True):
        if our is None:
            raise ValueError("our own figure is missing")
        found.append(Pair(our, their))
    return found


def _figures(found: Figures, count: int) -> tuple[float | None, ...]:
    figures = found if isinstance(found, tuple) else (found,)
    if len(figures) != count:
        raise ValueError(f"{count} figures were expected, not {len(figures)}")
    return figures


def run_rows(rows: Iterable[Row], run: Run) -> tuple[list[Result], dict[str, str]]:
    """Results in order, and for each row that failed its reason by name."""
    results: list[Result] = []
    failed: dict[str, str] = {}
    for row in rows:
        run.tell(f"{row.name}: {row.title}; yardstick: {row.yardstick}")
        folder = run.folder / row.name
        folder.mkdir(parents=True, exist_ok=True)
        try:
            results.extend(measure(row, Run(folder, run.rounds, run.requests, run.tell)))
        except Exception as failure:  # noqa: BLE001 - whatever it is, it is reported and the other rows run
            trace = folder / "failure.txt"
            trace.write_text(traceback.format_exc(), encoding="utf-8")
            failed[row.name] = f"{type(failure).__name__}: {failure} (more in {trace})"
            run.tell(f"  FAILED {failed[row.name]}")
    return results, failed
