"""Says when the event loop is blocked, by what, and where.

Guarantee: when the loop has not turned for `seconds`, a thread logs it once, with what was announced by `busy_with`, the task
that runs and the stack of the loop's thread (names and lines, no values), and calls `on_blocked`; when the loop turns again
that is logged too.
Limit: it cannot un-block; leases that run out meanwhile are taken over by others. A process that gets no CPU or was stopped
looks the same.
"""

from __future__ import annotations

import asyncio
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import structlog

_log = structlog.get_logger(__name__)
BLOCKED_SECONDS = 5.0
MAX_FRAMES = 20
_busy_with = ""


@contextmanager
def busy_with(what: str) -> Iterator[None]:
    """Announce what the loop's thread does now, where no task has a name for it. For code that does not await."""
    global _busy_with  # noqa: PLW0603 - one loop per process; another thread has to see it
    before, _busy_with = _busy_with, what
    try:
        yield
    finally:
        _busy_with = before


class Watchdog:
    """Watches the running loop from `start` to `stop`; both are called on the loop's thread."""

    def __init__(self, seconds: float = BLOCKED_SECONDS) -> None:
        self.on_blocked: Callable[[], None] = lambda: None  # both are called on the watching thread
        self.on_free: Callable[[], None] = lambda: None
        self._seconds = seconds
        self._stop = threading.Event()
        self._turned = time.monotonic()
        self._loop = asyncio.get_running_loop()
        self._beat: asyncio.TimerHandle | None = None
        self._of = threading.get_ident()
        self._thread = threading.Thread(target=self._watch, name="purveyor-watchdog", daemon=True)

    def start(self) -> None:
        """Begin to watch."""
        self._turn()
        self._thread.start()

    def stop(self) -> None:
        """Watch no more."""
        self._stop.set()
        if self._beat is not None:
            self._beat.cancel()
        self._thread.join(self._seconds)

    def _turn(self) -> None:
        self._turned = time.monotonic()
        self._beat = self._loop.call_later(self._seconds / 4, self._turn)

    def _watch(self) -> None:
        said = False
        while not self._stop.wait(self._seconds / 4):
            late = time.monotonic() - self._turned
            if late >= self._seconds and not said:
                self._say(late)
            elif said and late < self._seconds:
                _log.warning("event loop goes on")
                self.on_free()
            said = late >= self._seconds

    def _say(self, late: float) -> None:
        task = asyncio.current_task(self._loop)
        frame = sys._current_frames().get(self._of)  # noqa: SLF001 - the documented way to another thread's stack
        _log.error(
            "event loop is blocked",
            seconds=round(late, 1),
            busy_with=_busy_with or (task.get_name() if task is not None else ""),
            at=" > ".join(_places(frame)),
        )
        self.on_blocked()


def _places(frame: FrameType | None) -> list[str]:
    """The innermost frames, outermost first."""
    found: list[str] = []
    while frame is not None and len(found) < MAX_FRAMES:
        found.append(f"{frame.f_code.co_qualname}:{frame.f_lineno}")
        frame = frame.f_back
    return found[::-1]
