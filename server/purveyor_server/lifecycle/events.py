"""Watching the changes of a tenant: where to begin, the snapshot, the stream, its end.

Guarantee: every message carries the token of the place behind it; what a filter leaves out is behind it too. A stream ends
by a failure only, and by DRAINING or STREAM_EXPIRED only after a message with the newest place.
Limit: a snapshot is read in short pages while others write, so its records may already hold what the events after it tell
again; their versions say so. They are a consistent whole when the log was read as far as it went at the snapshot's end, and
only then the stream says that it is synced.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Sequence
from contextlib import aclosing
from typing import NamedTuple

from purveyor_server.domain.errors import PurveyorError, Reason, invalid
from purveyor_server.domain.filters import Comparator, Condition, Filter
from purveyor_server.domain.model import Event, EventKind, Operation
from purveyor_server.domain.names import check_id
from purveyor_server.lifecycle.contract import Caller, Following, Start, Told
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.places import FIELD, Place, Places, refused
from purveyor_server.lifecycle.running import Parts
from purveyor_server.store.contract import Page, Scope
from purveyor_server.store.log import CompactedError
from purveyor_server.watch.events import EVERY_KIND, Cursor, Message, Wanted
from purveyor_server.watch.ring import Record

EXPIRED_RETRY = 0.1  # seconds; the next stream may be opened at once


async def watch_events(parts: Parts, caller: Caller, request: Following) -> AsyncGenerator[Told, None]:
    """What happened and happens; the first message comes at once. Raises INVALID_REQUEST, INVALID_RESUME_TOKEN,
    SCOPE_CHANGED, COMPACTED, STREAM_EXPIRED, DRAINING, STORE_UNAVAILABLE.
    """
    scope = parts.door.enter(caller, Action.WATCH_EVENTS, request.tenant)
    wanted = _wanted(request)
    stream = _Stream(parts, scope, wanted, request)
    place = await stream.begin()
    with parts.log.cursor(wanted, place.position) as cursor:
        if place.kind:
            async with aclosing(stream.snapshot(place)) as snapshot:
                async for told in snapshot:
                    yield told
            if not stream.snapshot_done:
                raise stream.end()
        stream.aim()
        yield await stream.next(cursor, 0)
        while not stream.over:
            yield await stream.next(cursor, stream.patience)
    raise stream.end()


def _wanted(request: Following) -> Wanted:
    if request.instance_id:
        check_id(request.instance_id, "instance_id")
    return Wanted(request.tenant, request.kinds or EVERY_KIND, request.instance_id)


class _Read(NamedTuple):
    """A page of one kind, and the key of its last row, "" when it is the last page."""

    records: Sequence[Record]
    next_key: str


class _Stream:
    """One watch, from its beginning to its end."""

    def __init__(self, parts: Parts, scope: Scope, wanted: Wanted, request: Following) -> None:
        self._parts = parts
        self._log = parts.log
        self._scope = scope
        self._wanted = wanted
        self._request = request
        self._places = Places(parts.token_key, parts.store.store_id, wanted)
        self._clock = asyncio.get_running_loop().time
        settings = parts.log.settings
        jitter = 1 + settings.age_jitter * random.uniform(-1, 1)  # noqa: S311 - spreads reconnections, no secret
        self._age = settings.max_age * jitter
        self._until = self._clock() + self._age
        self._target: int | None = None
        self.snapshot_done = False
        self._heartbeat = max(request.heartbeat.total_seconds(), parts.settings.shortest_heartbeat)

    @property
    def over(self) -> bool:
        """Whether the stream has to end."""
        return self._log.closing or self._clock() >= self._until

    @property
    def patience(self) -> float:
        """Seconds until the next message has to be sent."""
        return max(0.0, min(self._heartbeat, self._until - self._clock()))

    def aim(self) -> None:
        """What is in the log by now has to be told before the stream is synced."""
        self._target = self._log.last

    def end(self) -> PurveyorError:
        """Why it ended."""
        if self._log.closing:
            return PurveyorError(Reason.DRAINING, "the server is stopping")
        text = f"the watch was open for {self._age:.0f} s: open it again"
        metadata = {"limit_seconds": f"{self._age:.0f}"}
        return PurveyorError(Reason.STREAM_EXPIRED, text, metadata=metadata, retry_after=EXPIRED_RETRY)

    async def begin(self) -> Place:
        """The place to begin behind."""
        request = self._request
        if request.token:
            if request.start is not Start.AFTER:
                raise invalid("start", f"must be AFTER, or absent, when there is a {FIELD}")
            place = self._places.read(request.token)
            if place.position > self._log.last:
                raise refused("is ahead of the log: it belongs to a store that is no more")
            return place
        if request.start is Start.AFTER:
            raise invalid(FIELD, "is required to go on after it")
        if request.start is Start.EARLIEST:
            return Place(await self._parts.store.earliest() - 1)
        if request.start is Start.SNAPSHOT:
            return Place(self._log.last, min(self._wanted.kinds, key=_ORDER.index))
        return Place(self._log.last)

    async def next(self, cursor: Cursor, seconds: float) -> Told:
        """The next message, after `seconds` an empty one. Raises COMPACTED."""
        try:
            parts = await cursor.read(seconds)
        except CompactedError as error:
            raise self._compacted(error) from None
        synced = self._target is not None and cursor.position >= self._target
        if synced:
            self._target = None
        return Told(parts, self._places.write(Place(cursor.position)), synced)

    def _compacted(self, error: CompactedError) -> PurveyorError:
        token = self._places.write(Place(error.earliest - 1))
        metadata = {"earliest_revision": str(error.earliest), "earliest_token": token}
        return PurveyorError(Reason.COMPACTED, str(error), metadata=metadata)

    async def snapshot(self, place: Place) -> AsyncGenerator[Told, None]:
        """What is there, from `place` on; less when the stream has to end."""
        kinds = [kind for kind in _ORDER[_ORDER.index(EventKind(place.kind)) :] if kind in self._wanted.kinds]
        key = place.key
        for kind in kinds:
            more = True
            while more:
                read = await self._page(kind, key)
                for told in self._messages(place.position, kind, read):
                    yield told
                    if self.over:
                        return
                key, more = read.next_key, bool(read.next_key)
        self.snapshot_done = True

    def _messages(self, position: int, kind: EventKind, read: _Read) -> list[Told]:
        """Records as messages, each within its bounds and with the place behind its last record."""
        records = read.records
        if not records and read.next_key:  # a long stretch of ended operations
            return [Told((), self._places.write(Place(position, kind, read.next_key)))]
        messages, message = [], Message(self._log.settings)
        for record in records:
            message.add(self._log.encode(_event(position, kind, record), record))
            if message.full or record is records[-1]:
                token = self._places.write(Place(position, kind, _key(record)))
                messages.append(Told(tuple(message.parts), token))
                message = Message(self._log.settings)
        return messages

    async def _page(self, kind: EventKind, key: str) -> _Read:
        limit = self._log.settings.page_events
        tenant, instance_id = self._wanted.tenant, self._wanted.instance_id
        of = (Condition("instance_id", Comparator.EQUAL, instance_id),) if instance_id else ()
        found = await self._read(kind, tenant, of, Page(limit, key))
        next_key = _key(found[-1]) if len(found) == limit else ""
        return _Read([record for record in found if not (isinstance(record, Operation) and record.done)], next_key)

    async def _read(self, kind: EventKind, tenant: str, of: Filter, page: Page) -> Sequence[Record]:
        store = self._parts.store
        if kind is EventKind.INSTANCE:
            return await store.instances(self._scope, tenant, of, page)
        if kind is EventKind.BINDING:
            return await store.bindings(self._scope, tenant, self._wanted.instance_id, (), page)
        return await store.operations(self._scope, tenant, of, page)


_ORDER = (EventKind.INSTANCE, EventKind.BINDING, EventKind.OPERATION)


def _key(record: Record) -> str:
    return record.operation_id if isinstance(record, Operation) else record.uid


def _event(position: int, kind: EventKind, record: Record) -> Event:
    """A record of a snapshot in the form of an event, without its body."""
    return Event(
        revision=position,
        kind=kind,
        tenant=record.tenant,
        instance_id=record.instance_id,
        binding_id=getattr(record, "binding_id", ""),
        operation_id=record.operation_id if isinstance(record, Operation) else record.last_operation,
        uid=_key(record),
        state=record.state,
        body=b"",
        at=record.created_at if isinstance(record, Operation) else record.updated_at,
    )
