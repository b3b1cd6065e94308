"""Time that passes only when nothing is left to be done: an event loop, a clock, ids and chance of a simulated world.

Guarantee: one thread, no waiting. When every task waits, the loop's time jumps to the next timer, so what takes a year of
timers takes as long as its callbacks do; the same story gives the same interleaving again.
Limit: whatever waits for another thread or process would never be answered: what such a thread would do is done on the loop.
"""

from __future__ import annotations

import asyncio
import random
import selectors
from collections.abc import Callable, Coroutine, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from types import ModuleType, SimpleNamespace
from typing import Any, TypeVar

from purveyor_server.kit import ids

BEGIN = datetime(2026, 1, 1, tzinfo=UTC)
Result = TypeVar("Result")
FINE = 1e-6  # seconds: two timers nearer to each other than this are one moment


MOST_TURNS = 60_000  # of the loop in one `run`: whoever needs more works without end


class StuckError(Exception):
    """Nothing is ready and no timer is set: the simulated world has come to a halt before its story has. Or it never rests."""


class _Jumper(selectors.DefaultSelector):
    """Instead of waiting, lets the loop's time pass."""

    def __init__(self) -> None:
        super().__init__()
        self.passed = 0.0
        self.turns = 0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        self.turns += 1
        if timeout is None:
            raise StuckError("the broker waits for what never comes")
        if self.turns > MOST_TURNS:
            self.turns = 0
            raise StuckError("the broker works without end")
        self.passed += max(timeout, 0.0)
        return []


class YearLoop(asyncio.SelectorEventLoop):
    """An event loop whose time is simulated. `run_in_executor` and calls from threads are done on the spot."""

    def __init__(self) -> None:
        self._jumper = _Jumper()
        super().__init__(self._jumper)
        self._clock_resolution = FINE

    def time(self) -> float:
        """Simulated seconds since the loop was made."""
        return self._jumper.passed

    def run(self, work: Coroutine[Any, Any, Result]) -> Result:
        """Run `work` to its end. Raises StuckError."""
        self._jumper.turns = 0
        return self.run_until_complete(work)

    def run_in_executor(self, executor: Any, func: Callable[..., Any], *args: Any) -> asyncio.Future[Any]:  # type: ignore[override]
        """What a thread would do, done now."""
        answer: asyncio.Future[Any] = self.create_future()
        try:
            answer.set_result(func(*args))
        except Exception as error:  # noqa: BLE001 - whatever it is, it is its caller's
            answer.set_exception(error)
        return answer

    def call_soon_threadsafe(self, callback: Callable[..., Any], *args: Any, context: Any = None) -> asyncio.Handle:  # type: ignore[override]
        """There are no other threads."""
        return self.call_soon(callback, *args, context=context)


class LoopClock:
    """`kit.clock.Clock` by the time of a loop; `skew` (seconds) is by how much a backend's clock is ahead."""

    def __init__(self, loop: asyncio.AbstractEventLoop, skew: float = 0.0) -> None:
        self._loop = loop
        self._begin = BEGIN + timedelta(seconds=skew)

    def now(self) -> datetime:
        """Simulated wall time."""
        return self._begin + timedelta(seconds=self._loop.time())

    def monotonic(self) -> float:
        """Simulated seconds."""
        return self._loop.time()


async def pass_time(seconds: float) -> None:
    """Return when `seconds` of the loop's time have passed."""
    loop = asyncio.get_running_loop()
    over = loop.create_future()
    timer = loop.call_later(seconds, over.set_result, None)
    try:
        await over
    finally:
        timer.cancel()


@contextmanager
def swapped(module: ModuleType, **parts: Any) -> Iterator[None]:
    """`module` with other parts, for a while."""
    kept = {name: getattr(module, name) for name in parts}
    vars(module).update(parts)
    try:
        yield
    finally:
        vars(module).update(kept)


@contextmanager
def same_again(loop: YearLoop, seed: int) -> Iterator[None]:
    """Ids follow the loop's time, and all chance follows `seed`, so that a story can be told again."""
    chance = random.Random(seed)
    began = int(BEGIN.timestamp() * 1e9)
    time = SimpleNamespace(time_ns=lambda: began + int(loop.time() * 1e9))
    secrets = SimpleNamespace(token_bytes=chance.randbytes)
    before = random.getstate()
    random.seed(seed)
    try:
        with swapped(ids, time=time, secrets=secrets, _pool=b"", _last=0):
            yield
    finally:
        random.setstate(before)
