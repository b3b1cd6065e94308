"""`make verify-year`: a year in a minute. Whole brokers in simulated time, any action after any other, thousands of stories.

Guarantee: the exit code is 0 only if no story went wrong (a live resource lost, an access that outlives its end, an operation
that does not end, a record that differs from the backend, ...) and every planted fault was found.
Limit: chance decides which stories are told; `--seed` and `--runs` make them others or more.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Sequence
from pathlib import Path

if os.environ.get("PYTHONHASHSEED") != "0":  # the order of sets is part of a story
    os.environ["PYTHONHASHSEED"] = "0"
    os.execv(sys.executable, [sys.executable, *sys.argv])  # noqa: S606 - this very program again

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from tests.year.suite import Options, Suite


def main(argv: Sequence[str] | None = None) -> int:
    """Run; 0 clean, 1 not, 130 interrupted."""
    suite = Suite(read_options(argv), lambda line: print(line, flush=True))
    try:
        suite.run()
    except KeyboardInterrupt:
        return 130
    print(suite.summary)
    return 0 if suite.clean else 1


def read_options(argv: Sequence[str] | None) -> Options:
    """The command line."""
    defaults = Options()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=defaults.runs, help="stories (%(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="of the first batch (%(default)s)")
    parser.add_argument("--processes", type=int, default=defaults.processes, help="(%(default)s)")
    parser.add_argument(
        "--hunt", type=int, default=defaults.hunt, help="stories for each mutant, at most (%(default)s)"
    )
    given = parser.parse_args(argv)
    return Options(runs=given.runs, seed=given.seed, processes=given.processes, hunt=given.hunt)


if __name__ == "__main__":
    sys.exit(main())
