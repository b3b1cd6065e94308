"""`make verify-crash`: kill a real server at every point, restart it, compare listings of the backend.

Guarantee: the exit code is 0 only if every point was reached, nothing was lost, made twice or left behind, and every
planted fault was found; the last line gives the numbers. Nothing is left running, also after Ctrl-C.
Limit: a run takes minutes. One scenario or point: `scripts/verify_crash.py --scenario bind --point make_login --no-controls`.
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

from tests.recovery import controls, kinds
from tests.recovery.suite import Options, Suite
from tests.stopping import ran_to_its_end


def main(argv: Sequence[str] | None = None) -> int:
    """Run; 0 clean, 1 not, 130 interrupted."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    options = read_options(argv)
    suite = Suite(options, lambda line: print(line, flush=True))
    print(f"seed {options.seed}, {options.lanes} lanes", flush=True)
    if not ran_to_its_end(suite.run):
        return 130
    for name in suite.missed:
        print(f"not reached: {name}")
    print(suite.summary)
    return 0 if suite.clean else 1


def read_options(argv: Sequence[str] | None) -> Options:
    """The command line."""
    known = {kind.name: kind for kind in kinds.ALL}
    parser = argparse.ArgumentParser(description="Kill the broker everywhere.")
    parser.add_argument("--scenario", action="append", choices=sorted(known), help="only this one (repeatable)")
    parser.add_argument("--point", default="", help="only points whose name this regular expression matches")
    parser.add_argument(
        "--limit", type=int, default=0, help="at most so many points of each scenario, by chance, moments in turn"
    )
    parser.add_argument("--seed", type=int, default=0, help="of the choice by --limit")
    parser.add_argument("--lanes", type=int, default=2, help="brokers at once")
    parser.add_argument("--list", action="store_true", help="find and print the points, kill at none")
    parser.add_argument("--no-controls", action="store_true", help="without the planted faults")
    given = parser.parse_args(argv)
    return Options(
        scenarios=[known[name] for name in given.scenario] if given.scenario else kinds.ALL,
        controls=() if given.no_controls or given.list else controls.ALL,
        point=given.point,
        limit=given.limit,
        seed=given.seed,
        only_list=given.list,
        lanes=given.lanes,
    )


if __name__ == "__main__":
    sys.exit(main())
