"""When waiting operations become due, as far as this process has heard.

Guarantee: bounded; a time that is not on the agenda (dropped, or written by another replica) is found by polling.
"""

from __future__ import annotations

import heapq
from datetime import datetime

MAX_TIMES = 10_000


class Agenda:
    """A bounded heap of times."""

    def __init__(self) -> None:
        self._times: list[datetime] = []

    def add(self, due: datetime) -> None:
        """Remember `due`; when the agenda is full the poll will find it."""
        if len(self._times) < MAX_TIMES:
            heapq.heappush(self._times, due)

    def drop_until(self, now: datetime) -> None:
        """Forget the times that have come."""
        while self._times and self._times[0] <= now:
            heapq.heappop(self._times)

    def seconds_from(self, now: datetime) -> float:
        """Seconds until the earliest time (negative when it has passed); infinity when there is none."""
        if not self._times:
            return float("inf")
        return (self._times[0] - now).total_seconds()
