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
_pool = b""
_BYTES = 10


def new_id() -> str:
    """A new UUIDv7 in its canonical 36-character form, strictly greater than every earlier one of this process."""
    global _last  # noqa: PLW0603 - one counter per process is the point
    with _lock:
        stamp = (time.time_ns() // 1_000_000) << 80 | _random()
        value = stamp & ~(0xF << 76) & ~(0x3 << 62) | 0x7 << 76 | 0x2 << 62
        if value <= _last:
            value = _next_after(_last)
        _last = value
    return _canonical(value)


def _random() -> int:
    """80 random bits from a pool: a system call for each id was the dearest part of accepting a verb."""
    global _pool  # noqa: PLW0603 - guarded by the lock
    if len(_pool) < _BYTES:
        _pool = secrets.token_bytes(_BYTES * 512)
    bits, _pool = _pool[:_BYTES], _pool[_BYTES:]
    return int.from_bytes(bits, "big")


def _next_after(value: int) -> int:
    """The smallest valid UUIDv7 above `value`: the random tail counts up, the version and variant bits stay."""
    tail = (value & ((1 << 62) - 1)) + 1
    if tail >> 62:
        return (value & ~((1 << 62) - 1)) + (1 << 80)
    return (value & ~((1 << 62) - 1)) | tail


def _canonical(value: int) -> str:
    text = f"{value:032x}"
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"
