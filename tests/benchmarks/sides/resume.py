"""`python -m tests.benchmarks.sides.resume make FOLDER COUNT`, then `... run FOLDER COUNT STARTED`: a start with a full backlog.

`make` accepts one operation of three steps that nothing works on, and copies it COUNT times. `run` opens that store, starts
the engine and prints seconds from STARTED (monotonic) to the first operation that was taken up again, seconds from the opening of the
store to it, the operations per second up to COUNT that have ended, and how many are left.

Guarantee: the COUNT operations that are counted have SUCCEEDED with three finished steps each.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from pathlib import Path

import structlog

from purveyor_server.domain.model import Operation
from purveyor_server.engine.settings import EngineSettings
from purveyor_server.kit.ids import new_id
from purveyor_server.store.contract import Commit
from tests.benchmarks.populate import copy_records
from tests.benchmarks.sides.engine import check
from tests.engine.bench import TENANT, Bench

END_SECONDS = 240.0


class Ends:
    """Notes when the first operation was resumed, and when `count` have ended."""

    def __init__(self, count: int) -> None:
        self.first = 0.0
        self.ended: dict[str, Operation] = {}
        self.last = 0.0
        self.enough = asyncio.Event()
        self._count = count

    def on_commit(self, commit: Commit) -> None:
        """Listener of the store. A claim is committed before anything is done for an operation."""
        for operation in commit.operations:
            if not self.first and operation.lease_owner:
                self.first = time.monotonic()
            if operation.done and len(self.ended) < self._count:
                self.ended[operation.operation_id] = operation
                self.last = time.monotonic()
        if len(self.ended) >= self._count:
            self.enough.set()


async def make(folder: Path, count: int) -> None:
    """A store with one unfinished operation, and `count` like it."""
    bench, instance_id = Bench(folder), new_id()
    await bench.open(work=False)
    await bench.provision(instance_id, budget=86_400.0)  # a deadline that no round of a run meets
    await bench.store.close()
    copy_records(folder / "store.db", TENANT, instance_id, count)


async def run(folder: Path, count: int, started: float, at_once: int) -> None:
    """Measure and print."""
    began = time.monotonic()
    bench, ends = Bench(folder, EngineSettings(running=at_once, per_provider=at_once, per_tenant=at_once)), Ends(count)
    await bench.open(work=False)
    bench.store.subscribe(ends.on_commit)
    await bench.engine.start()
    async with asyncio.timeout(END_SECONDS):
        await ends.enough.wait()
    left = (await bench.store.backlog()).pending
    await check(bench, list(ends.ended.values()), count)
    rate = count / (ends.last - ends.first)
    print(ends.first - started, ends.first - began, rate, left, flush=True)
    await bench.close()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    word, place, number, *more = sys.argv[1:]
    if word == "make":
        asyncio.run(make(Path(place), int(number)))
    else:
        asyncio.run(run(Path(place), int(number), float(more[0]), int(more[1])))
