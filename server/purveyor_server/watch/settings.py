"""The numbers of the event stream, each with its unit.

Source of the defaults: a message of many events costs about what one event does, so messages are large and few; a page of
the store is short, since its events are decoded on the event loop.
"""

from __future__ import annotations

import msgspec


class WatchSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Sizes in bytes, times in seconds, the rest are counts."""

    ring_events: int = 8192
    ring_bytes: int = 32 * 1024 * 1024
    message_events: int = 512
    message_bytes: int = 512 * 1024
    page_events: int = 64
    max_age: float = 1800.0
    age_jitter: float = 0.1  # share of `max_age` by which streams opened together end apart
    check_interval: float = 5.0
    longest_rest: float = 0.1  # between two rounds of waking watchers, when some of them do not come back
    rest_each: float = 0.0015  # on top, for every watcher of a round: serving one takes 0.1 to 0.4 ms
