"""`make verify-watch`: watchers of a real server under writes, kills, stops, compaction, disconnects and slow reading.

Guarantee: the exit code is 0 only if no watcher missed an event, had one twice, out of order or unasked for, and every planted
fault was found; what was committed is read from the store's own table. Nothing is left running, also after Ctrl-C.
Limit: chance decides what meets what; `--seed` and `--seconds` make it another or a longer storm.
"""

from __future__ import annotations

import argparse
import logging
import os
import sys
from collections.abc import Sequence
from pathlib import Path

import structlog

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault(
    "GRPC_ENABLE_FORK_SUPPORT", "0"
)  # said before grpc is imported: programs are started, never forked
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a killed server is what this is about

from tests.stopping import ran_to_its_end
from tests.watching.suite import Options, Suite


def main(argv: Sequence[str] | None = None) -> int:
    """Run; 0 clean, 1 not, 130 interrupted."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    suite = Suite(read_options(argv), lambda line: print(line, flush=True))
    if not ran_to_its_end(suite.run):
        return 130
    print(suite.summary)
    return 0 if suite.clean else 1


def read_options(argv: Sequence[str] | None) -> Options:
    """The command line."""
    defaults = Options()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=defaults.seconds, help="how long to write (%(default)s)")
    parser.add_argument("--watchers", type=int, default=defaults.watchers, help="(%(default)s)")
    parser.add_argument("--writers", type=int, default=defaults.writers, help="(%(default)s)")
    parser.add_argument("--seed", type=int, default=defaults.seed, help="(%(default)s)")
    given = parser.parse_args(argv)
    return defaults._replace(
        seconds=given.seconds, watchers=given.watchers, writers=given.writers, seed=given.seed
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
