"""`make verify-cancel`: client cancels of every kind of RPC against a real server process, and the slope of its memory.

Guarantee: the exit code is 0 only if no kind leaks and the planted leak was found; the last line gives the numbers.
Limit: takes a few minutes. `--calls` makes it shorter, and its word weaker.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
# Said before grpc is imported: programs are started, never forked.
os.environ.setdefault("GRPC_ENABLE_FORK_SUPPORT", "0")

from tests.rpc.cancelling import KINDS, LIMIT, Result, measure


def main(argv: Sequence[str] | None = None) -> int:
    """Run; 0 clean, 1 not."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--calls", type=int, default=20_000, help="cancels per kind")
    parser.add_argument("--kind", choices=KINDS, action="append", help="only this kind")
    options = parser.parse_args(argv)
    early, bare = asyncio.run(_early(options.calls))
    results, planted = asyncio.run(_run(options.kind or list(KINDS), options.calls))
    print(f"cancelled before the handler: {early.slope:+.1f} B/call here, {bare.slope:+.1f} with grpc.aio alone")
    told = "; ".join(f"{result.kind} {result.calls} calls {result.slope:+.1f} B/call" for result in results)
    found = f"planted leak {planted.slope:+.1f} B/call {'found' if planted.leaks else 'NOT FOUND'}"
    print(f"verify-cancel: {told}; limit {LIMIT:.0f} B/call; {found}")
    return 0 if planted.leaks and not any(result.leaks for result in results) else 1


async def _run(kinds: list[str], calls: int) -> tuple[list[Result], Result]:
    results = [await measure(kind, calls, tell=_tell) for kind in kinds]
    return results, await measure("stream", calls, mode="leaky", tell=_tell)


async def _early(calls: int) -> tuple[Result, Result]:
    """What grpc.aio itself keeps of calls that never reach a handler, with our server and without it."""
    return await measure("early", calls, tell=_tell), await measure("early", calls, mode="bare", tell=_tell)


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
