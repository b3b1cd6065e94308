"""Identifiers made by the server.

Guarantee: `new_id()` is a UUIDv7 (RFC 9562 section 5.7): unique, and later ones sort after earlier ones of this process,
so the order of ids is the order of creation within one store.
Limit: two processes whose clocks differ interleave by their clocks; nothing may rely on the order for correctness.
"""

from __future__ import annotations

import secrets
import threading
import time

_lock = threading.Lock()
_last = 0


def new_id() -> str:
    """A new UUIDv7 in its canonical 36-character form, strictly greater than every earlier one of this process."""
    global _last  # noqa: PLW0603 - one counter per process is the point
    stamp = (time.time_ns() // 1_000_000) << 80 | secrets.randbits(80)
    value = stamp & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
    with _lock:
        if value <= _last:
            value = _next_after(_last)
        _last = value
    return _canonical(value)


def _next_after(value: int) -> int:
    """The smallest valid UUIDv7 above `value`: the random tail counts up, the version and variant bits stay."""
    tail = (value & ((1 << 62) - 1)) + 1
    if tail >> 62:
        return (value & ~((1 << 62) - 1)) + (1 << 80)
    return (value & ~((1 << 62) - 1)) | tail


def _canonical(value: int) -> str:
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
