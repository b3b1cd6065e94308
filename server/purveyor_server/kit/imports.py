"""Imports at the start of a process, without what slows them down.

Guarantee: within `without_rich` structlog does not take rich along: we render without it, and it costs as much as gRPC.
Limit: whoever else asks for rich within that block does not find it, unless it was there before.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

_RICH = "rich"


@contextmanager
def without_rich() -> Iterator[None]:
    """Import within this block what takes rich along if it can."""
    hidden = _RICH not in sys.modules
    if hidden:
        sys.modules[_RICH] = None  # type: ignore[assignment] # how a module is said not to exist
    try:
        yield
    finally:
        if hidden:
            del sys.modules[_RICH]
