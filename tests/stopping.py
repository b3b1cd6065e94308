"""Suites that run for minutes as programs: to their end, or until somebody stops them.

Guarantee: SIGTERM ends a suite as Ctrl-C does: it is cancelled, and stops what it has started before this returns.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Callable, Coroutine
from typing import Any


def ran_to_its_end(work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    """Run `work()` in a loop of its own; False when it was stopped, which is printed. What it raises is raised."""
    try:
        finished = asyncio.run(_until_stopped(work))
    except KeyboardInterrupt:
        finished = False
    if not finished:
        print("stopped")
    return finished


async def _until_stopped(work: Callable[[], Coroutine[Any, Any, None]]) -> bool:
    task = asyncio.create_task(work())
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    await asyncio.wait({task})
    if task.cancelled():
        return False
    task.result()
    return True
