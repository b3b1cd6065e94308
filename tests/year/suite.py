"""The whole of `verify-year`: batches of stories in several processes, the planted faults, one line of figures.

Guarantee: `clean` is true only if no story went wrong and every planted fault was found. A batch is told again by its seed.
Limit: which mutants random stories catch is told, and is no part of `clean`: chance decides it.
"""

from __future__ import annotations

import gc
import multiprocessing
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from functools import cache
from typing import NamedTuple

from hypothesis import HealthCheck, Phase, seed, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.year import controls
from tests.year.actions import Story
from tests.year.controls import Verdict
from tests.year.house import SOUND, Spoil
from tests.year.machine import WrongError, Year, told
from tests.year.mutants import MUTANTS
from tests.year.shrinking import shortest
from tests.year.teller import Figures
from tests.year.telling import tell

HUNTED = 50  # stories of one seed
COLLECT = (50_000, 20, 20)
STEPS = 18  # at most, of one story: each is an action, often with a pause behind it


class Options(NamedTuple):
    """How many stories in all, in batches of `batch` by seeds from `seed` on, in how many processes."""

    runs: int = 2000
    seed: int = 1
    batch: int = 50
    processes: int = 2
    hunt: int = 0  # stories for each mutant, at most


class Batch(NamedTuple):
    """What became of a batch: figures, and words for a story that went wrong."""

    seed: int
    figures: dict[str, int]
    wrong: str = ""


def run_batch(number: int, runs: int) -> Batch:
    """`runs` stories that follow from the seed `number`."""
    failure = tell_batch(number, runs, SOUND)
    return Batch(number, dict(Year.figures), shortened(failure) if failure is not None else "")


class Hunt(NamedTuple):
    """What random stories say of a mutant: the words of the finding ("" for none), and how many stories it took."""

    name: str
    words: str
    stories: int


def hunt(mutant: int, number: int, runs: int) -> Hunt:
    """Tell stories with `MUTANTS[mutant]`, from the seed `number` on, until one is found to go wrong."""
    name, spoil = MUTANTS[mutant]
    told = 0
    while told < runs:
        failure = tell_batch(number, min(HUNTED, runs - told), spoil)
        told, number = told + Year.figures["begun"], number + 1
        if failure is not None:
            return Hunt(name, failure.found[0], told)
    return Hunt(name, "", told)


def tell_batch(number: int, runs: int, spoil: Spoil) -> WrongError | None:
    """`runs` stories that follow from the seed `number`; the first that goes wrong, if any does. Figures are left in `Year`."""
    Year.figures, Year.spoil = Figures(), spoil
    calm_collector()
    try:
        run_state_machine_as_test(
            seed(number)(Year),
            settings=settings(
                max_examples=runs,
                stateful_step_count=STEPS,
                deadline=None,
                database=None,
                suppress_health_check=list(HealthCheck),
                phases=[Phase.generate],
                report_multiple_bugs=False,
                print_blob=False,
            ),
        )
    except WrongError as failure:
        return failure
    return None


@cache
def calm_collector() -> None:
    """What is imported stays: it need not be looked through for every story again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(*COLLECT)


def shortened(failure: WrongError) -> str:
    """The story, and a shorter one that goes wrong in the same way."""
    words = failure.found[0].split(": ", 1)[1][:25]

    def is_wrong(story: Story) -> bool:
        return any(words in line for line in tell(story, failure.seed))

    if not is_wrong(failure.story):
        return f"{failure}\n(told again it goes well)"
    short = shortest(failure.story, is_wrong)
    return f"{failure}\nshorter:\n{told(tell(short, failure.seed), short, failure.seed)}"


class Suite:
    """One run; `say` takes a line at a time."""

    def __init__(self, options: Options, say: Callable[[str], None]) -> None:
        self.options = options
        self.figures = Figures()
        self.wrong: list[str] = []
        self.verdicts: list[Verdict] = []
        self.hunts: list[Hunt] = []
        self._say = say
        self._began = time.monotonic()

    @property
    def clean(self) -> bool:
        """Whether everything was as it must be."""
        return not self.wrong and self.figures["runs"] > 0 and all(verdict.found for verdict in self.verdicts)

    @property
    def summary(self) -> str:
        """The last line."""
        names = ("operations", "calls", "logins", "sweeps", "expiries", "rotations", "moved", "reaped", "crashes")
        counts = " ".join(f"{name}={self.figures[name]}" for name in names)
        found = sum(verdict.found for verdict in self.verdicts)
        return (
            f"verify-year: runs={self.figures['runs']} days={self.figures['hours'] // 24} {counts} "
            f"violations={len(self.wrong)} planted={len(self.verdicts)} found={found} {self._hunted}"
            f"seconds={time.monotonic() - self._began:.0f}"
        )

    @property
    def _hunted(self) -> str:
        if not self.hunts:
            return ""
        return f"mutants={len(self.hunts)} caught={sum(bool(one.words) for one in self.hunts)} "

    def run(self) -> None:
        """Stories in all processes, then the planted faults."""
        options = self.options
        seeds = range(options.seed, options.seed + -(-options.runs // options.batch))
        # Processes of their own from the start: a forked one would have this one's hypothesis.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(options.processes, mp_context=context) as pool:
            jobs = [pool.submit(run_batch, number, min(options.batch, options.runs)) for number in seeds]
            planted = [pool.submit(controls.check_number, number) for number in range(len(controls.CONTROLS))]
            mutants = range(len(MUTANTS) if options.hunt else 0)
            hunted = [pool.submit(hunt, mutant, options.seed, options.hunt) for mutant in mutants]
            for job in as_completed(jobs):
                self._take(job.result())
            for check in planted:
                self._hear(check.result())
            for found in hunted:
                self._catch(found.result())
        for name in sorted(name for name in self.figures if name.startswith("refused")):
            self._say(f"{name}: {self.figures[name]}")

    def _take(self, batch: Batch) -> None:
        self.figures.update(batch.figures)
        if batch.wrong:
            self.wrong.append(batch.wrong)
            again = f'make verify-year YEAR_ARGS="--seed {batch.seed} --runs {self.options.batch}"'
            self._say(f"{batch.wrong}\nagain: {again}")

    def _catch(self, found: Hunt) -> None:
        self.hunts.append(found)
        how = f"found after {found.stories} stories: {found.words}" if found.words else f"not found by {found.stories}"
        self._say(f"mutant: {found.name}: {how}")

    def _hear(self, verdict: Verdict) -> None:
        self.verdicts.append(verdict)
        said = "; ".join(verdict.planted[:2])
        self._say(f"planted: {verdict.name}: {'found' if verdict.found else 'NOT FOUND'}: {said}")
        for line in verdict.sound:
            self._say(f"{verdict.name}, with the safeguard: {line}")
