"""The loop that makes sure that every operation ends: `domain.stuck` says which would not by themselves.

Guarantee: every unfinished operation is judged once per interval, a page a time, whoever lost it. Whoever is woken is ended by
the engine, by the ordinary rules; whoever cannot be is ended here.
Limit: time that the broker was away does not count, so after a start everything has its margin again.
"""

from __future__ import annotations

from collections import Counter

from purveyor_server.domain.stuck import Bounds, Rule
from purveyor_server.lifecycle.admin import unsticking
from purveyor_server.lifecycle.admin.contract import AdminParts

PAGE = 500  # operations per round


class StuckLoop:
    """Walks over unfinished operations."""

    name = "stuck"

    def __init__(self, parts: AdminParts, interval: float, bounds: Bounds) -> None:
        self._parts = parts
        self._interval = interval
        self._bounds = bounds
        self._since = parts.clock.now()
        self._after = ""
        self._found: Counter[Rule] = Counter()

    @property
    def interval(self) -> float:
        """Seconds between two walks."""
        return self._interval

    async def once(self) -> float | None:
        """Judge the next page; at the end of a walk tell how many were stuck."""
        looked = await unsticking.look(self._parts, self._after, PAGE, self._since, self._bounds)
        self._after = looked.after
        self._found += looked.stuck
        for rule, count in looked.stuck.items():
            self._parts.stuck.cured[rule] += count
        if looked.after:
            return 0.0
        self._parts.stuck.now, self._found = self._found.total(), Counter()
        return None
