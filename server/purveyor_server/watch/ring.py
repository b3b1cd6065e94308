"""The newest events in memory, each encoded at most once, for every watcher.

Guarantee: `first` to `last` are there without a gap; what does not fit falls out at the old end.
Limit: bounded by a count and by bytes, of which the newest event may be more than all.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from purveyor_server.domain.model import Binding, Event, Instance, Operation

Record = Instance | Binding | Operation


class Encode(Protocol):
    """Makes the part of a message that one event is."""

    def __call__(self, event: Event, record: Record | None = None) -> bytes:
        """`record` is given in a snapshot, whose events carry no body of their own."""
        ...


class Entry:
    """An event in the ring. `noted` is when it came (monotonic seconds)."""

    __slots__ = ("_encoded", "event", "noted")

    def __init__(self, event: Event, noted: float) -> None:
        self.event = event
        self.noted = noted
        self._encoded: bytes | None = None

    @property
    def size(self) -> int:
        """Bytes that it holds."""
        return len(self.event.body) + len(self._encoded or b"")

    def encoded(self, encode: Encode) -> bytes:
        """Its encoded form, made at the first asking."""
        if self._encoded is None:
            self._encoded = encode(self.event)
        return self._encoded


class Ring:
    """Entries by revision. `last` is the newest revision that is known, whether or not the ring has it."""

    def __init__(self, last: int, max_events: int, max_bytes: int, encode: Encode) -> None:
        self.last = last
        self.bytes = 0
        self._max_events = max_events
        self._max_bytes = max_bytes
        self._encode = encode
        self._entries: dict[int, Entry] = {}

    def __len__(self) -> int:
        return len(self._entries)

    @property
    def first(self) -> int:
        """The oldest revision that it has; one behind `last` when it is empty."""
        return self.last - len(self._entries) + 1

    def __getitem__(self, revision: int) -> Entry:
        return self._entries[revision]

    def encoded(self, entry: Entry) -> bytes:
        """The encoded form of one of its entries."""
        before = entry.size
        encoded = entry.encoded(self._encode)
        self.bytes += entry.size - before
        return encoded

    def append(self, events: Sequence[Event], noted: float) -> None:
        """Take events that follow on `last`."""
        for event in events:
            entry = Entry(event, noted)
            self._entries[event.revision] = entry
            self.bytes += entry.size
            self.last = event.revision
        while len(self) > self._max_events or (self.bytes > self._max_bytes and len(self) > 1):
            self.bytes -= self._entries.pop(self.first).size

    def skip_to(self, last: int) -> None:
        """Forget everything: the events up to `last` never came here, and are the store's to tell."""
        self._entries.clear()
        self.bytes = 0
        self.last = last
