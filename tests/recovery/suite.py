"""The whole suite: traces, runs on two lanes, negative controls, one line of numbers.

Guarantee: every target of every chosen scenario is run, whatever came before it. Nothing that was started outlives `run`.
"""

from __future__ import annotations

import asyncio
import itertools
import random
import re
import shutil
import tempfile
import time
from collections import Counter, deque
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

from tests.recovery import controls, kinds
from tests.recovery.controls import Control, Verdict
from tests.recovery.drive import Outcome
from tests.recovery.lane import Lane
from tests.recovery.points import Target, stratified
from tests.recovery.run import Kind, Problem
from tests.recovery.scenarios import Scenario
from tests.recovery.worker import Worker

BATCH = 12  # runs that share a fixture and end with a look at what appeared late
Job = Callable[[Worker], Awaitable[None]]


class Options(NamedTuple):
    """What to run. `limit`: targets of each scenario, 0 means all; `point`: a regular expression; `settle`: seconds."""

    scenarios: Sequence[type[Scenario]] = kinds.ALL
    controls: Sequence[type[Control]] = controls.ALL
    point: str = ""
    limit: int = 0
    seed: int = 0
    only_list: bool = False
    settle: float = 3.0  # longer than the server needs to notice that a client is gone
    lanes: int = 2


@contextmanager
def base_folder() -> Iterator[Path]:
    """A folder for lanes, removed at the end; the PostgreSQL server's user may pass through."""
    base = Path(tempfile.mkdtemp(prefix="purveyor-crash-"))
    try:
        base.chmod(0o711)
        yield base
    finally:
        shutil.rmtree(base, ignore_errors=True)


class Suite:
    """One pass over everything that `options` choose; `say` gets lines of progress."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self._options = options
        self._tell = say
        self._chance = random.Random(options.seed)
        self._numbers = itertools.count(1)
        self._base = Path()
        self._jobs: deque[Job] = deque()
        self._left: Counter[str] = Counter()
        self._began = time.monotonic()
        self.points = 0
        self.runs = 0
        self.missed: list[str] = []
        self.problems: list[Problem] = []
        self.verdicts: list[Verdict] = []

    @property
    def clean(self) -> bool:
        """Whether nothing is wrong, every point was reached and every planted fault was found."""
        found = sum(verdict.found for verdict in self.verdicts)
        ran = self.runs > 0 or self._options.only_list
        return ran and not self.problems and not self.missed and found == len(self._options.controls)

    @property
    def summary(self) -> str:
        """The last line."""
        counts = Counter(problem.kind for problem in self.problems)
        kinds = " ".join(f"{kind}={counts[kind]}" for kind in Kind)
        found = sum(verdict.found for verdict in self.verdicts)
        planted = len(self._options.controls)
        return f"verify-crash: points={self.points} runs={self.runs} {kinds} planted={planted} found={found}"

    async def run(self) -> None:
        """Everything. What it finds is in `problems`, `missed` and `verdicts`."""
        with base_folder() as self._base:
            await self._work(deque(self._trace_job(kind) for kind in self._options.scenarios))
            if self._options.controls:
                self._jobs.appendleft(self._control_job())
            await self._work(self._jobs)

    async def _work(self, queue: deque[Job]) -> None:
        async with asyncio.TaskGroup() as group:
            for _ in range(min(self._options.lanes, len(queue))):
                group.create_task(self._serve(queue))

    async def _serve(self, queue: deque[Job]) -> None:
        worker = Worker(self._fresh_lane, lambda: f"{next(self._numbers):04d}", self._options.settle)
        try:
            while queue:
                await queue.popleft()(worker)
        finally:
            await worker.give_up()

    async def _fresh_lane(self) -> Lane:
        lane = Lane(self._base, next(self._numbers))
        try:
            await lane.open()
            await lane.begin()
        except BaseException:
            await lane.close()
            raise
        return lane

    # Jobs

    def _trace_job(self, kind: type[Scenario]) -> Job:
        async def job(worker: Worker) -> None:
            found, problems = await worker.trace(kind())
            self._note(f"{kind.name}, without a kill", problems)
            chosen = self._choose(found)
            self.points += len(found)
            self._left[kind.name] = len(chosen)
            self._say(f"{kind.name}: {len(found)} points, {len(chosen)} to run")
            for start in range(0, len(chosen), BATCH):
                self._jobs.append(self._batch_job(kind, chosen[start : start + BATCH]))

        return job

    def _choose(self, found: list[Target]) -> list[Target]:
        options = self._options
        if options.only_list:
            for target in found:
                self._say(f"  {target}")
            return []
        chosen = [target for target in found if re.search(options.point, str(target))]
        if options.limit:
            chosen = stratified(chosen, options.limit, options.seed + len(self._left), self._chance)
        return chosen

    def _batch_job(self, kind: type[Scenario], batch: Sequence[Target]) -> Job:
        async def job(worker: Worker) -> None:
            await worker.batch(kind(), batch, self._take)
            self._say(f"{kind.name}: {self._left[kind.name]} left; {self.runs} runs in all")

        return job

    def _take(self, outcome: Outcome) -> None:
        name = f"{outcome.scenario} {outcome.target or 'at the end of a batch'}"
        if outcome.target is not None:
            self.runs += 1
            self._left[outcome.scenario] -= 1
        if not outcome.reached:
            self.missed.append(name)
            self._say(f"{name}: not reached")
        self._note(name, outcome.problems)

    def _control_job(self) -> Job:
        """All controls, one after the other, in one lane; what they leave behind goes with it."""

        async def job(worker: Worker) -> None:
            for kind in self._options.controls:
                self._hear(await worker.control(kind()))
            await worker.give_up()

        return job

    def _hear(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        said = "; ".join(problem.text for problem in verdict.planted)
        self._say(f"control {verdict.name}: {'found' if verdict.found else 'NOT FOUND'}: {said}")
        self._note(f"control {verdict.name}, without its fault", verdict.sound)

    def _note(self, name: str, problems: Sequence[Problem]) -> None:
        for problem in problems:
            self.problems.append(problem)
            self._say(f"{name}: {problem.kind.upper()}: {problem.text}")

    def _say(self, text: str) -> None:
        self._tell(f"[{time.monotonic() - self._began:6.1f} s] {text}")
