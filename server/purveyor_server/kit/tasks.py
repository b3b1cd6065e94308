"""Supervised background tasks.

Guarantee: every task has a name, its failure is logged once and reported to `on_failure`, and `close()` cancels and
awaits all of them; a task's exception never disappears.
Limit: a task that ignores cancellation for longer than `grace` seconds is abandoned with a log line.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import structlog

_log = structlog.get_logger(__name__)


def is_cancelled(error: BaseException) -> bool:
    """True when `error` is the cancellation of the running task, not one that called code has raised by itself."""
    if not isinstance(error, asyncio.CancelledError):
        return False
    try:
        task = asyncio.current_task()
    except RuntimeError:  # no loop runs here
        return False
    return task is not None and task.cancelling() > 0


class TaskGroup:
    """A set of named tasks that live until `close()`."""

    def __init__(self, name: str, on_failure: Callable[[BaseException], None] | None = None) -> None:
        self._name = name
        self._tasks: set[asyncio.Task[Any]] = set()
        self._on_failure = on_failure

    def __len__(self) -> int:
        return len(self._tasks)

    def start(self, name: str, work: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Run `work` as a task called `name` until it ends or the group closes."""
        task = asyncio.create_task(work, name=f"{self._name}/{name}")
        self._tasks.add(task)
        task.add_done_callback(self._ended)
        return task

    def _ended(self, task: asyncio.Task[Any]) -> None:
        self._tasks.discard(task)
        if task.cancelled() or (failure := task.exception()) is None:
            return
        _log.error("background task failed", task=task.get_name(), exc_info=failure)
        if self._on_failure is not None:
            self._on_failure(failure)

    async def close(self, grace: float = 10.0) -> None:
        """Cancel every task and wait for them, at most `grace` seconds."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace)
            for task in late:
                _log.error("background task ignored its cancellation", task=task.get_name())
