"""Our side of the engine row: the engine over the SQLite store with the scripted provider, without face and rules.

Prints operations per second with the given number of callers, each of which accepts an operation of three steps, waits for
its end, and goes on. Afterwards every operation must have SUCCEEDED with three finished steps in its journal.
"""

from __future__ import annotations

import asyncio
import logging
import sys
import time
from pathlib import Path

import structlog

from purveyor_server.domain.model import Operation
from purveyor_server.domain.states import OperationState, StepState
from purveyor_server.engine.settings import EngineSettings
from purveyor_server.kit.collector import calm
from purveyor_server.store.contract import Commit
from tests.engine.bench import Bench

STEPS = 3
WARM_UP = 64
END_SECONDS = 60.0


class Ends:
    """Wakes who waits for the end of an operation."""

    def __init__(self) -> None:
        self._waiting: dict[str, asyncio.Future[Operation]] = {}
        self._early: dict[str, Operation] = {}

    def on_commit(self, commit: Commit) -> None:
        """Note what has ended."""
        for operation in commit.operations:
            if not operation.done:
                continue
            waiting = self._waiting.pop(operation.operation_id, None)
            if waiting is None:
                self._early[operation.operation_id] = operation
            elif not waiting.done():
                waiting.set_result(operation)

    async def of(self, operation_id: str) -> Operation:
        """The operation once it has ended."""
        if operation_id in self._early:
            return self._early.pop(operation_id)
        future: asyncio.Future[Operation] = asyncio.get_running_loop().create_future()
        self._waiting[operation_id] = future
        async with asyncio.timeout(END_SECONDS):
            return await future


async def rate(bench: Bench, ends: Ends, count: int, at_once: int, tag: str) -> float:
    """Operations per second."""
    left = iter(range(count))
    ended: list[Operation] = []

    async def caller(number: int) -> None:
        for index in left:
            operation = await bench.provision(f"{tag}-{index}", tenant=f"tenant-{number:03}")
            ended.append(await ends.of(operation.operation_id))

    started = time.perf_counter()
    await asyncio.gather(*(caller(number) for number in range(at_once)))
    passed = time.perf_counter() - started
    await check(bench, ended, count)
    return count / passed


async def check(bench: Bench, ended: list[Operation], count: int) -> None:
    """Every operation succeeded, step by step."""
    assert len({operation.operation_id for operation in ended}) == count
    for operation in ended:
        assert operation.state is OperationState.SUCCEEDED, operation
        steps = await bench.steps(operation)
        assert [step.state for step in steps] == [StepState.DONE] * STEPS, steps


async def main(folder: Path, count: int, at_once: int) -> None:
    """Measure and print."""
    bench, ends = Bench(folder, EngineSettings(running=at_once, per_provider=at_once, per_tenant=at_once)), Ends()
    await bench.open()
    calm()  # as `purveyor serve` does
    bench.store.subscribe(ends.on_commit)
    await rate(bench, ends, WARM_UP, at_once, "warm")
    print(at_once, await rate(bench, ends, count, at_once, "timed"), flush=True)
    await bench.close()


if __name__ == "__main__":
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
