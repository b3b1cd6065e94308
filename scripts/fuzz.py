"""`make fuzz`: what strangers may send, with any content, to the parsers, to a real broker and through it to a real PostgreSQL server.

Guarantee: the exit code is 0 only if every input was answered or refused with a reason, nothing that a caller may not reach was
touched, nothing is left in the server, and every planted fault was found. Nothing is left running, also after Ctrl-C.
Limit: chance decides what is tried; `--seed` and the counts make it another or a longer trial.
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
# Said before grpc is imported: programs are started, never forked.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from tests.fuzz.suite import Options, Suite
from tests.postgres_server import TestServer, make_root


def main(argv: Sequence[str] | None = None) -> int:
    """Run; 0 clean, 1 not, 130 interrupted."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    suite = Suite(read_options(argv), lambda line: print(line, flush=True))
    postgres = TestServer(make_root())
    try:
        suite.run(postgres)
    except KeyboardInterrupt:
        print("stopped")
        return 130
    finally:
        postgres.close()
    print(suite.summary)
    return 0 if suite.clean else 1


def read_options(argv: Sequence[str] | None) -> Options:
    """The command line."""
    defaults = Options()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    for name, value in defaults._asdict().items():
        parser.add_argument(f"--{name}", type=int, default=value, help="(%(default)s)")
    return Options(**vars(parser.parse_args(argv)))


if __name__ == "__main__":
    sys.exit(main())
