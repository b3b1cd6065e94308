"""The newest state of operations, for waiters and watchers: level-triggered, conflated, from memory.

Guarantee: a waiter that reads the store after it subscribed misses no state that is the last one; in between it may see
only the newest. A slow or dead waiter costs one slot and nothing else, and leaving changes nothing.
Limit: percent and sentence between two stored ones live only in this process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager

from msgspec.structs import replace

from purveyor_server.domain.model import Operation
from purveyor_server.store.contract import Commit


class Watcher:
    """One subscription: `newest` is what was last published, `changed` fires on every publication."""

    __slots__ = ("_changed", "_observe", "_published", "newest")

    def __init__(self, observe: Callable[[float], None] = lambda _seconds: None) -> None:
        self.newest: Operation | None = None
        self._changed = asyncio.Event()
        self._observe = observe
        self._published = 0.0

    def publish(self, operation: Operation) -> None:
        """Take the newest state."""
        self.newest = operation
        if not self._changed.is_set():
            self._published = time.monotonic()
            self._changed.set()

    async def changed(self, timeout: float | None) -> bool:  # noqa: ASYNC109 - None waits for ever; callers pass budgets
        """Wait for a publication since the last call; False when `timeout` seconds passed without one."""
        try:
            async with asyncio.timeout(timeout):
                await self._changed.wait()
        except TimeoutError:
            return False
        self._changed.clear()
        self._observe(time.monotonic() - self._published)
        return True


class OperationHub:
    """Publishes operations to those who watch them; fed by the store's commits and by the engine's progress."""

    def __init__(self) -> None:
        self.observe_lag: Callable[[float], None] = lambda _seconds: None
        self._watchers: dict[str, set[Watcher]] = {}

    def __len__(self) -> int:
        return sum(len(watchers) for watchers in self._watchers.values())

    def on_commit(self, commit: Commit) -> None:
        """Listener of the store."""
        for operation in commit.operations:
            self.publish(operation)

    def publish(self, operation: Operation) -> None:
        """Give `operation` to its watchers, unless they have a newer version."""
        for watcher in self._watchers.get(operation.operation_id, ()):
            if watcher.newest is None or operation.version >= watcher.newest.version:
                watcher.publish(operation)

    def progress(self, operation_id: str, percent: float, sentence: str) -> None:
        """Show progress to watchers without storing it."""
        for watcher in self._watchers.get(operation_id, ()):
            if watcher.newest is not None and not watcher.newest.done:
                watcher.publish(replace(watcher.newest, percent=percent, sentence=sentence))

    @asynccontextmanager
    async def watching(self, operation_id: str) -> AsyncIterator[Watcher]:
        """A subscription for the length of the block. Subscribe first, then read the store: nothing falls between."""
        watcher = Watcher(self.observe_lag)
        watchers = self._watchers.setdefault(operation_id, set())
        watchers.add(watcher)
        try:
            yield watcher
        finally:
            watchers.discard(watcher)
            if not watchers:
                self._watchers.pop(operation_id, None)

    async def until(
        self,
        operation_id: str,
        read: Callable[[], Awaitable[Operation]],
        enough: Callable[[Operation], bool],
        seconds: float,
    ) -> Operation:
        """The operation once `enough(operation)`, or as it is after `seconds`; `read` is a committed read of it."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        async with self.watching(operation_id) as watcher:
            newest = await read()
            while not enough(newest) and (left := end - loop.time()) > 0:
                if not await watcher.changed(left):
                    break
                newest = watcher.newest or newest
            return newest
