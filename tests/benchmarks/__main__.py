"""`python -m tests.benchmarks`: measure rows, print the table, write build/bench.json.

Guarantee: the exit code is 0 only if every row that was asked for was measured; a missed target is printed and is no
failure, because a benchmark measures and does not judge.
"""

from __future__ import annotations

import argparse
import os
import shutil
import sys
from collections.abc import Sequence
from pathlib import Path

os.environ.setdefault(
    "GRPC_ENABLE_FORK_SUPPORT", "0"
)  # said before grpc is imported: programs are started, never forked

from tests.benchmarks.machine import describe
from tests.benchmarks.report import table, write_json
from tests.benchmarks.runner import Run, known_rows, run_rows

BUILD = Path(__file__).resolve().parents[2] / "build"
LEAST_ROUNDS = 5


def say(line: str) -> None:
    """Print at once: a run takes minutes."""
    print(line, flush=True)


def main(argv: Sequence[str] | None = None) -> int:
    """Run; 0 when every row was measured."""
    rows = known_rows()
    given = arguments(sorted(rows)).parse_args(argv)
    names = given.row or list(rows)
    folder = BUILD / "bench"
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    say(describe(folder))
    if given.rounds < LEAST_ROUNDS:
        say(f"{given.rounds} rounds are a try, not a measurement: quote at least {LEAST_ROUNDS}")
    run = Run(folder, given.rounds, given.requests, say)
    results, failed = run_rows([rows[name] for name in names], run)
    write_json(results, BUILD / "bench.json")
    say(table(results, failed))
    return 1 if failed else 0


def arguments(names: Sequence[str]) -> argparse.ArgumentParser:
    """The command line."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks", description="Measure Purveyor.")
    parser.add_argument("--row", action="extend", nargs="+", choices=names, help="only these rows")
    parser.add_argument("--rounds", type=int, default=LEAST_ROUNDS, help="of each row (default: %(default)s)")
    parser.add_argument("--requests", type=int, default=4000, help="of a round, unary rows (default: %(default)s)")
    return parser


if __name__ == "__main__":
    sys.exit(main())
