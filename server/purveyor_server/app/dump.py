"""What every task of the process is doing, into the log, on SIGUSR1: for a broker that seems to hang.

Guarantee: names, files and lines only; no value of a variable. Bounded in tasks and frames.
"""

from __future__ import annotations

import asyncio

import structlog

_log = structlog.get_logger(__name__)
MAX_TASKS = 500
MAX_FRAMES = 12


def dump_tasks() -> int:
    """Log one line per task; returns how many tasks there are."""
    tasks = sorted(asyncio.all_tasks(), key=lambda task: task.get_name())
    _log.warning("task dump", tasks=len(tasks), shown=min(len(tasks), MAX_TASKS))
    for task in tasks[:MAX_TASKS]:
        frames = task.get_stack(limit=MAX_FRAMES)
        places = [f"{frame.f_code.co_qualname}:{frame.f_lineno}" for frame in frames]
        _log.warning("task", name=task.get_name(), at=" > ".join(places) or "not started or done")
    return len(tasks)
