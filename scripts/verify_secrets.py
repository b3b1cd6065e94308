"""`make verify-secrets`: a whole life of a real broker with a real PostgreSQL, then a search for every secret, everywhere.

Guarantee: the exit code is 0 only if no secret that was issued, given or made is in clear in any place, and every planted
leak was found. Searched are the database with its log and index, backups, the broker's log at level debug, events,
operations, explanations, answers, errors, audit records, status, metrics, the providers' folders, the log of the PostgreSQL
server, and command lines and environments of all processes; the places are listed. Nothing is left running, also after Ctrl-C.
Limit: memory is not searched, nor what the file system keeps of deleted files, nor what PostgreSQL itself stores.
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
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")  # said before grpc is imported
os.environ.setdefault("GRPC_VERBOSITY", "NONE")  # a killed server is part of this

from tests.secrecy.suite import Options, Suite
from tests.stopping import ran_to_its_end


def main(argv: Sequence[str] | None = None) -> int:
    """Run; 0 clean, 1 not, 130 interrupted."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    suite = Suite(read_options(argv), lambda line: print(line, flush=True))
    if not ran_to_its_end(suite.run):
        return 130
    for place, content in suite.places.items():
        print(f"  {len(content):>10} bytes  {place}")
    print(suite.summary)
    return 0 if suite.clean else 1


def read_options(argv: Sequence[str] | None) -> Options:
    """The command line."""
    defaults = Options()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bindings", type=int, default=defaults.bindings, help="per instance (%(default)s)")
    parser.add_argument("--without-postgresql", action="store_true", help="with the gossiping provider alone")
    given = parser.parse_args(argv)
    return Options(postgresql=not given.without_postgresql, bindings=given.bindings)


if __name__ == "__main__":
    sys.exit(main())
