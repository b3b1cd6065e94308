"""How late the event loop is: the delay that everything on it has at present.

Guarantee: `seconds` is known without waiting, also in the middle of a turn of the loop that takes long: a beat that is overdue
counts from when it was due.
Limit: a turn as a whole; what a call takes is several turns.
"""

from __future__ import annotations

import asyncio

BEAT = 0.05  # seconds


class Lateness:
    """Measures the running loop from `start` to `stop`."""

    def __init__(self, beat: float = BEAT) -> None:
        self._beat = beat
        self._loop = asyncio.get_running_loop()
        self._due = self._loop.time()
        self._last = 0.0
        self._timer: asyncio.TimerHandle | None = None

    def start(self) -> None:
        """Begin to measure."""
        self._due = self._loop.time() + self._beat
        self._timer = self._loop.call_at(self._due, self._turn)

    def stop(self) -> None:
        """Measure no more."""
        if self._timer is not None:
            self._timer.cancel()

    @property
    def seconds(self) -> float:
        """How late the last beat was, or how late the next one is already."""
        return max(self._last, self._loop.time() - self._due)

    def _turn(self) -> None:
        self._last = self._loop.time() - self._due
        self.start()
