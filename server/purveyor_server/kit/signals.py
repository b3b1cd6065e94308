"""Awaitable marks that code passes, for tests that must not sleep.

Guarantee: `emit` does nothing but count unless somebody waits; `wait(name, count)` returns as soon as the mark was passed
`count` times since the `Signals` object was made.
Source: the idea of River's `testsignal`.
"""

from __future__ import annotations

import asyncio
from collections import Counter


class Signals:
    """Counters with waiters; one object per component, on one event loop."""

    def __init__(self) -> None:
        self._counts: Counter[str] = Counter()
        self._pulse: asyncio.Event = asyncio.Event()

    def emit(self, name: str) -> None:
        """Pass the mark `name` once."""
        self._counts[name] += 1
        self._pulse.set()

    def count(self, name: str) -> int:
        """How often the mark was passed so far."""
        return self._counts[name]

    async def wait(self, name: str, count: int = 1, timeout: float = 10.0) -> None:  # noqa: ASYNC109 - a test helper
        """Wait until `name` was passed `count` times; raises TimeoutError after `timeout` seconds."""
        async with asyncio.timeout(timeout):
            while self._counts[name] < count:
                self._pulse.clear()
                await self._pulse.wait()
