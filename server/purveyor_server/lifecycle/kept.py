"""Answers about instances that were encoded once and are given again until what they show changes.

Guarantee: an answer that was read before a commit about its instance is never given after that commit was answered or told
to anybody; one that is being read meanwhile is not kept. No caller is served from here who did not pass the door.
Limit: holds for a store that this process alone writes; between COMMIT and its notice (the same turn of the event loop as
its answers) a list may already show what this does not. An answer is kept for `SECONDS` at most, since retention removes
old operations without notice.
"""

from __future__ import annotations

import time
from collections import OrderedDict
from collections.abc import Awaitable, Callable
from typing import NamedTuple

from purveyor_server.store.contract import Commit

SECONDS = 60.0
LARGEST = 64 * 1024  # bytes of one answer
Key = tuple[str, str]  # tenant and instance id
Kind = Callable[..., bytes]  # how it was encoded


class _Answer(NamedTuple):
    encoded: bytes
    expires: float


class Kept:
    """The answers, at most `limit` bytes of them; the one that was not asked for longest goes first."""

    def __init__(self, limit: int, now: Callable[[], float] = time.monotonic) -> None:
        self._limit = limit
        self._now = now
        self._size = 0
        self._answers: OrderedDict[tuple[Key, Kind], _Answer] = OrderedDict()
        self._kinds: set[Kind] = set()
        self._reading: dict[Key, object] = {}

    def __len__(self) -> int:
        return len(self._answers)

    def on_commit(self, commit: Commit) -> None:
        """Listener of the store."""
        for event in commit.events:
            self._forget((event.tenant, event.instance_id))
        for operation in commit.operations:  # those of which no event is made too
            self._forget((operation.tenant, operation.instance_id))

    async def answer(self, key: Key, kind: Kind, read: Callable[[], Awaitable[tuple[bytes, bool]]]) -> bytes:
        """What is kept, or what `read` gives: an answer and whether it may be kept."""
        found = self._answers.get((key, kind))
        if found is not None and self._now() < found.expires:
            self._answers.move_to_end((key, kind))
            return found.encoded
        mine = self._reading.setdefault(key, object())
        lasting = False
        try:
            encoded, lasting = await read()
        finally:
            unchanged = self._reading.get(key) is mine
            if unchanged:
                del self._reading[key]
        if unchanged and lasting and len(encoded) <= LARGEST:
            self._keep((key, kind), encoded)
        return encoded

    def _keep(self, name: tuple[Key, Kind], encoded: bytes) -> None:
        self._drop(name)
        self._kinds.add(name[1])
        self._answers[name] = _Answer(encoded, self._now() + SECONDS)
        self._size += len(encoded)
        while self._size > self._limit:
            self._drop(next(iter(self._answers)))

    def _forget(self, key: Key) -> None:
        self._reading.pop(key, None)
        for kind in self._kinds:
            self._drop((key, kind))

    def _drop(self, name: tuple[Key, Kind]) -> None:
        gone = self._answers.pop(name, None)
        self._size -= len(gone.encoded) if gone is not None else 0
