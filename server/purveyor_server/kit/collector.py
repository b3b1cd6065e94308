"""Python's garbage collector, set for a process that serves for months.

Guarantee: within `without_collecting` nothing is searched for garbage, since what a start makes stays. What was there when `calm` was called is never looked through again; cycles are still found, less often.
Limit: a cycle lives a little longer; reference counting frees everything else at once, as ever.
"""

from __future__ import annotations

import gc
from collections.abc import Iterator
from contextlib import contextmanager

YOUNG, MIDDLE, OLD = 20_000, 20, 50  # allocations before a young collection, then collections before the next older one


@contextmanager
def without_collecting() -> Iterator[None]:
    """Make within this block what stays for the life of the process."""
    collecting = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        gc.freeze()
        if collecting:
            gc.enable()


def calm() -> None:
    """Call once what lives as long as the process is there: modules, classes, parts (measured: a tenth of the engine's CPU)."""
    gc.freeze()  # not collected before: the first callers wait already, and what the start left over is little
    gc.set_threshold(YOUNG, MIDDLE, OLD)
