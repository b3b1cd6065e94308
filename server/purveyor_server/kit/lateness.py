"""How late the event loop is: the delay that everything on it has at present.

Guarantee: `seconds` is known without waiting. It is what the last BEATS beats have in common: one turn that takes long, as when the
process gets no CPU for a moment, is no lateness; turn after turn of them is.
Limit: turns as a whole; what a call takes is several of them.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Protocol

BEAT = 0.05  # seconds
BEATS = 3


class Timed(Protocol):
    """What is needed of a loop."""

    def time(self) -> float:
        """Seconds."""
        ...

    def call_at(self, when: float, callback: Callable[[], None], /) -> asyncio.TimerHandle:
        """Call at that time, or as soon after it as the loop gets to it."""
        ...


class Lateness:
    """Measures a loop, the running one, from `start` to `stop`."""

    def __init__(self, loop: Timed | None = None) -> None:
        self._loop: Timed = loop or asyncio.get_running_loop()
        self._due = self._loop.time()
        self._last = deque([0.0] * BEATS, maxlen=BEATS)
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure."""
        self._due = self._loop.time() + BEAT
        self._timer = self._loop.call_at(self._due, self._turn)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def seconds(self) -> float:
        """By how much each of the last beats was late."""
        return min(self._last)

    def _turn(self) -> None:
        self._last.append(self._loop.time() - self._due)
        self.start()
