"""The event log as a stream: a ring that everybody shares, and a cursor for each watcher.

Guarantee: a cursor takes the event right behind its position, from the ring or from the store, and moves on event by event;
only then it leaves out what its watcher does not want. What is no longer kept is `CompactedError`, a hole in the log a
defect; never silence. A watcher that does not read costs its cursor and nothing else. A commit wakes the cursors of the
tenants that it concerns, in rounds with rests between them (`pace`); the others are taken along.
Limit: what fell out of the ring is read and encoded anew for each watcher. A commit whose notice never came (the outcome of
its COMMIT was unknown) is found within two rounds of `keep_up`, or at the next commit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager

import msgspec

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.model import Event, EventKind
from purveyor_server.store.contract import Commit, Store
from purveyor_server.store.log import CompactedError
from purveyor_server.watch.pace import Pace
from purveyor_server.watch.ring import Encode, Ring
from purveyor_server.watch.settings import WatchSettings

EVERY_KIND = frozenset(EventKind)


class Wanted(msgspec.Struct, frozen=True):
    """What a watcher wants, by what never changes in a record. An empty `instance_id` stands for all."""

    tenant: str
    kinds: frozenset[EventKind] = EVERY_KIND
    instance_id: str = ""

    def wants(self, event: Event) -> bool:
        """Whether `event` is for this watcher."""
        return event.tenant == self.tenant and event.kind in self.kinds and self.instance_id in {"", event.instance_id}


class EventLog:
    """The log of one store. `encode` makes the part of a message that one event is."""

    def __init__(self, store: Store, encode: Encode, settings: WatchSettings | None = None) -> None:
        self.settings = settings or WatchSettings()
        self.encode = encode
        self.closing = False
        self.observe_lag: Callable[[float], None] = lambda _seconds: None
        self.ring = Ring(store.head, self.settings.ring_events, self.settings.ring_bytes, encode)
        self._store = store
        self._cursors: set[Cursor] = set()
        self._parked: dict[str, set[Cursor]] = {}
        self._held: dict[str, int] = {}  # tenants whose parked cursors have had no more than up to this revision
        self._pace = Pace(time.monotonic, self.settings.longest_rest, self.settings.rest_each)
        self._timer: asyncio.TimerHandle | None = None
        self._suspect = 0

    @property
    def last(self) -> int:
        """The newest revision that is known here."""
        return self.ring.last

    @property
    def watchers(self) -> int:
        """How many cursors are open."""
        return len(self._cursors)

    @property
    def behind(self) -> int:
        """By how many revisions the slowest of them is behind."""
        return max((self.last - cursor.position for cursor in self._cursors if not cursor.parked), default=0)

    def on_commit(self, commit: Commit) -> None:
        """Listener of the store."""
        before = self.last
        fresh = [event for event in commit.events if event.revision > before]
        if not fresh:
            return
        if fresh[0].revision == before + 1:
            self.ring.append(fresh, time.monotonic())
            self._wake({event.tenant for event in fresh}, before)
        else:
            self._jump(fresh[-1].revision)

    def _jump(self, last: int) -> None:
        """There are events up to `last` that never came here: everybody has to read them from the store."""
        before = self.last
        self.ring.skip_to(last)
        self._wake(list(self._parked), before)

    def _wake(self, tenants: Iterable[str], position: int) -> None:
        """Wake the parked cursors of these tenants, which have had everything up to `position`, when it is their turn."""
        for tenant in tenants:
            if tenant in self._parked:
                self._held.setdefault(tenant, position)
        self._tell()

    def _tell(self) -> None:
        """Wake whose news are held, now or after the rest."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        if not self._held:
            return
        if not self.closing and (wait := self._pace.wait) > 0:
            self._timer = asyncio.get_running_loop().call_later(wait, self._tell)
            return
        held, self._held = self._held, {}
        woken: list[Cursor] = []
        for tenant, position in held.items():
            for cursor in self._parked.pop(tenant, ()):
                cursor.wake(position)
                woken.append(cursor)
        if woken:
            self._pace.begin(woken)

    def had(self, tenant: str) -> int:
        """What a parked cursor of the tenant has had everything up to."""
        return self._held.get(tenant, self.last)

    async def keep_up(self) -> None:
        """Look for commits that were not told of, for ever."""
        while True:
            await asyncio.sleep(self.settings.check_interval)
            try:
                await self.check()
            except PurveyorError:
                continue  # the store has logged it and will be asked again

    async def check(self) -> None:
        """Look for a commit that was not told of: one that was seen here before and is still unknown, since the notice of
        a commit comes a moment after it."""
        unknown = await self._newest()
        if self.last < self._suspect:
            self._jump(unknown)
        self._suspect = unknown

    async def _newest(self) -> int:
        """The newest revision of the store, found from the newest that is known here."""
        newest = self.last
        while True:
            try:
                found = await self._store.events(newest, self.settings.page_events)
            except CompactedError as error:
                newest = error.earliest - 1
                continue
            if not found:
                return newest
            newest = found[-1].revision

    def close(self) -> None:
        """Let every cursor end."""
        self.closing = True
        self._wake(list(self._parked), self.last)

    @contextmanager
    def cursor(self, wanted: Wanted, position: int) -> Iterator[Cursor]:
        """A cursor behind the revision `position`, for the length of the block."""
        cursor = Cursor(self, wanted, position)
        self._cursors.add(cursor)
        try:
            yield cursor
        finally:
            self._cursors.discard(cursor)
            self._back(cursor)

    def park(self, cursor: Cursor) -> None:
        """From now on a commit that concerns it wakes the cursor."""
        self._parked.setdefault(cursor.wanted.tenant, set()).add(cursor)
        self._back(cursor)

    def _back(self, cursor: Cursor) -> None:
        if self._pace.back(cursor):
            self._tell()

    def unpark(self, cursor: Cursor) -> bool:
        """The end of that; False when it was woken before."""
        parked = self._parked.get(cursor.wanted.tenant, set())
        if cursor not in parked:
            return False
        parked.discard(cursor)
        if not parked:
            del self._parked[cursor.wanted.tenant]
        return True

    async def page(self, position: int) -> tuple[Event, ...]:
        """Events behind `position` from the store, none that the ring does not know of. Raises CompactedError."""
        last = self.last
        found = await self._store.events(position, self.settings.page_events)
        return tuple([event for event in found if event.revision <= last])


class Cursor:
    """A place in the log: every event up to `position` was given out, or is not wanted."""

    __slots__ = ("_log", "_news", "position", "wanted")

    def __init__(self, log: EventLog, wanted: Wanted, position: int) -> None:
        self._log = log
        self._news: asyncio.Future[None] | None = None
        self.wanted = wanted
        self.position = position

    @property
    def parked(self) -> bool:
        """Whether it waits at the end of the log."""
        return self._news is not None

    async def read(self, seconds: float) -> tuple[bytes, ...]:
        """Wanted events behind the position, in order, as many as one message may hold; () when `seconds` passed without
        one, or the log closes. The position moves on in every case. Raises CompactedError, STORE_UNAVAILABLE."""
        loop = asyncio.get_running_loop()
        end = loop.time() + seconds
        while not self._log.closing:
            if self.position < self._log.last:
                if found := await self._take():
                    return found
                await asyncio.sleep(0)  # a long stretch without anything wanted must not hold the loop
            elif loop.time() < end:
                await self._wait(end)
            if loop.time() >= end:
                break
        return ()

    async def _take(self) -> tuple[bytes, ...]:
        if self.position + 1 >= self._log.ring.first:
            return self._from_ring()
        return self._from_page(await self._log.page(self.position))

    def _from_ring(self) -> tuple[bytes, ...]:
        log, ring, wanted = self._log, self._log.ring, self.wanted
        message = Message(log.settings)
        for revision in range(self.position + 1, ring.last + 1):
            entry = ring[revision]
            if wanted.wants(entry.event):
                if not message.parts:
                    log.observe_lag(time.monotonic() - entry.noted)
                message.add(ring.encoded(entry))
            self.position = revision
            if message.full:
                break
        return tuple(message.parts)

    def _from_page(self, events: tuple[Event, ...]) -> tuple[bytes, ...]:
        message = Message(self._log.settings)
        if not events:
            raise RuntimeError("the event log ends before its head")
        for event in events:
            if event.revision != self.position + 1:
                raise RuntimeError("the event log has a hole")
            if self.wanted.wants(event):
                message.add(self._log.encode(event))
            self.position = event.revision
            if message.full:
                break
        return tuple(message.parts)

    async def _wait(self, end: float) -> None:
        """Wait for news of the tenant until `end`, a time of the loop. Whoever was not woken has missed nothing."""
        loop = asyncio.get_running_loop()
        self._news = news = loop.create_future()
        timer = loop.call_at(end, _settle, news)
        self._log.park(self)
        try:
            await news
        finally:
            timer.cancel()
            self._news = None
            if self._log.unpark(self):
                self.position = max(self.position, self._log.had(self.wanted.tenant))

    def wake(self, position: int) -> None:
        """There is news behind `position`; nothing up to there was for this watcher."""
        self.position = max(self.position, position)
        if self._news is not None:
            _settle(self._news)


class Message:
    """Parts of one message, up to its bounds; never less than one."""

    def __init__(self, settings: WatchSettings) -> None:
        self.parts: list[bytes] = []
        self._bytes = 0
        self._settings = settings

    def add(self, part: bytes) -> None:
        """One more part."""
        self.parts.append(part)
        self._bytes += len(part)

    @property
    def full(self) -> bool:
        """Whether nothing more belongs into it."""
        return self._bytes >= self._settings.message_bytes or len(self.parts) >= self._settings.message_events


def _settle(news: asyncio.Future[None]) -> None:
    if not news.done():
        news.set_result(None)
