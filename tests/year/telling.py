"""Runs of stories: each in a loop, a folder and a chance of its own.

Guarantee: what a run finds wrong includes what the broker logged as an error of its own, an exception that left a task, and a
world that stands still.
"""

from __future__ import annotations

import shutil
import tempfile
import traceback
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, contextmanager
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

from structlog.testing import capture_logs

from purveyor_server.kit import failpoints
from tests.year.actions import Action, Story
from tests.year.house import DAY, SOUND, STORE, House, Spoil
from tests.year.inline import open_inline
from tests.year.teller import Teller
from tests.year.virtual import LoopClock, StuckError, YearLoop, same_again, swapped

QUIET = 50 * DAY  # seconds after a story: longer than orphans and drift take
MEMORY = Path("/dev/shm")  # noqa: S108 - a folder of our own is made in it
ALARMS = frozenset({"sweeps are stopped"})  # these are for operators, and no defects
DEFECTS = frozenset({"error", "critical", "exception"})

Result = TypeVar("Result")


class Told:
    """A story while it is told: `do` its actions one by one, then `finish` it; `close` in any case.

    `spoil` is for negative controls.
    """

    def __init__(self, folder: Path, seed: int = 0, spoil: Spoil = SOUND) -> None:
        self._loop = YearLoop()
        self._stack = ExitStack()
        self._stack.callback(self._loop.close)
        self._stack.enter_context(same_again(self._loop, seed))
        self._lines = self._stack.enter_context(capture_logs())
        failpoints.arm(spoil.failpoints)
        self._stack.callback(failpoints.arm, "")
        for module, name, part in spoil.swaps:
            self._stack.enter_context(swapped(module, **{name: part}))
        self.told: list[Action] = []
        try:
            self.teller = self._run(self._open(folder, seed, spoil))
        except BaseException:
            self._stack.close()
            raise
        self._stack.callback(lambda: self._run(self.teller.house.stop()))

    async def _open(self, folder: Path, seed: int, spoil: Spoil) -> Teller:
        teller = Teller(House(folder, seed, spoil))
        await teller.house.start()
        return teller

    def _run(self, work: Coroutine[Any, Any, Result]) -> Result:
        return self._loop.run(work)

    @property
    def wrong(self) -> list[str]:
        """What is wrong so far."""
        return self.teller.judge.wrong

    def do(self, action: Action) -> None:
        """One action; after it applications fetch what they were given."""
        self.told.append(action)
        self._try(self._do(action))

    async def _do(self, action: Action) -> None:
        await self.teller.do(action)
        await self.teller.react()
        await self.teller.look()

    def finish(self, quiet: float = QUIET) -> None:
        """The quiet time after the story, and the verdict."""
        self._try(self.teller.finish(quiet))

    def _try(self, work: Coroutine[Any, Any, None]) -> None:
        try:
            self._run(work)
        except StuckError as halt:
            self.teller.judge.say(str(halt))
        except Exception as error:  # noqa: BLE001 - a call of the broker raised what none may raise
            self.teller.judge.say(f"raised {error!r} {traceback.format_exc(limit=-3)}")
        for line in self._lines:
            if line["log_level"] in DEFECTS and line["event"] not in ALARMS:
                self.teller.judge.say(f"the broker logged: {line}")
        self._lines.clear()

    def close(self) -> None:
        """Let go of everything."""
        self._stack.close()


@cache
def blank_store() -> bytes:
    """The file of a store that nobody has written to."""
    loop, folder = YearLoop(), new_folder()
    try:
        store = loop.run(open_inline(folder / STORE, LoopClock(loop)))
        loop.run(store.close())
        return (folder / STORE).read_bytes()
    finally:
        loop.close()
        shutil.rmtree(folder)


def new_folder() -> Path:
    """In memory, if there is a folder for that."""
    return Path(tempfile.mkdtemp(prefix="pv-year-", dir=MEMORY if MEMORY.is_dir() else None))


@contextmanager
def telling(seed: int = 0, spoil: Spoil = SOUND) -> Iterator[Told]:
    """A broker at the beginning of its year, in a folder that is gone afterwards."""
    folder = new_folder()
    try:
        (folder / STORE).write_bytes(blank_store())
        told = Told(folder, seed, spoil)
        try:
            yield told
        finally:
            told.close()
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def tell(story: Story, seed: int = 0, spoil: Spoil = SOUND) -> list[str]:
    """Tell a story to its end; what is wrong."""
    with telling(seed, spoil) as told:
        for action in story:
            told.do(action)
        told.finish()
        return list(told.wrong)
