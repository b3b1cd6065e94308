"""An instance with bindings that a test rotates, revokes and hides, behind the methods that a client has."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from purveyor.credentials import Credentials
from purveyor.errors import FailedPreconditionError, NotFoundError, PurveyorError
from purveyor.values import Binding, BindingState, Event, EventKind, EventType

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from datetime import datetime, timedelta


class Handle:
    """An operation that has ended."""

    def __init__(self, found: Any) -> None:
        self._found = found

    async def result(self, timeout: float | None = None) -> Any:  # noqa: ASYNC109 - as the real one
        """What it ended with."""
        return self._found


class ChainedBindings:
    """Its events are the changes that a test makes; `cut` ends every stream with a failure."""

    def __init__(self, *names: str) -> None:
        self.records: dict[str, Binding] = {}
        self.secrets: dict[str, Credentials] = {}
        self.reads: defaultdict[str, int] = defaultdict(int)
        self.refusals = 0
        self.away: PurveyorError | None = None
        self.asked: list[tuple[str, str, timedelta | None]] = []
        self.ends: list[datetime | PurveyorError] = []  # what renewals do, one after the other; then the end stays
        self.rotation: PurveyorError | None = None
        self.watched = asyncio.Event()
        self.refused_again = asyncio.Event()
        self._streams: list[asyncio.Queue[Event | PurveyorError]] = []
        for name in names:
            self.put(name, BindingState.ACTIVE)

    def put(
        self,
        name: str,
        state: str,
        *,
        predecessor: str = "",
        successor: str | None = None,
        password: str | None = None,
        expire_time: datetime | None = None,
        renew_before: datetime | None = None,
        create_time: datetime | None = None,
    ) -> None:
        """Make or change a binding, and tell who watches."""
        old = self.records.get(name)
        version = int(old.etag) + 1 if old is not None else 1
        record = old or Binding(
            tenant="t",
            instance_id="db",
            binding_id=name,
            uid=f"uid-{name}",
            instance_uid="uid-db",
            service_id="s",
            plan_id="p",
            state=state,
            predecessor_binding_id=predecessor,
        )
        changed = replace(
            record,
            state=state,
            etag=str(version),
            expire_time=expire_time or record.expire_time,
            renew_before=renew_before or record.renew_before,
            create_time=create_time or record.create_time,
            successor_binding_id=record.successor_binding_id if successor is None else successor,
        )
        self.records[name] = changed
        if password is not None or name not in self.secrets:
            self.secrets[name] = Credentials({"user": name, "password": password or f"secret of {name}"})
        self._send(self._event(EventType.CHANGED, changed))

    def turn(self, old: str, new: str) -> None:
        """A successor that works; the predecessor works on."""
        self.put(new, BindingState.BINDING, predecessor=old)
        self.put(old, self.records[old].state, successor=new)
        self.put(new, BindingState.ACTIVE)

    async def renew(self, _instance: str, binding_id: str, *, ttl: timedelta | None = None) -> Any:
        """The next of `ends`, else nothing moves."""
        self.asked.append(("renew", binding_id, ttl))
        end = self.ends.pop(0) if self.ends else None
        if isinstance(end, PurveyorError):
            raise end
        if end is not None:
            self.put(binding_id, BindingState.ACTIVE, expire_time=end, renew_before=end)
        return Handle(self.records[binding_id])

    async def rotate(self, _instance: str, binding_id: str) -> Any:
        """A successor without an end, or `rotation`."""
        self.asked.append(("rotate", binding_id, None))
        if self.rotation is not None:
            raise self.rotation
        self.turn(binding_id, f"{binding_id}-next")
        return Handle(None)

    def cut(self, failure: PurveyorError) -> None:
        """End every stream."""
        self._send(failure)

    def _send(self, item: Event | PurveyorError) -> None:
        for queue in self._streams:
            queue.put_nowait(item)

    @staticmethod
    def _event(kind: EventType, record: Binding) -> Event:
        return Event(
            type=kind,
            kind=EventKind.BINDING,
            instance_id="db",
            binding_id=record.binding_id,
            uid=record.uid,
            record=record,
        )

    async def events(
        self, start: str, *, kinds: tuple[EventKind | str, ...], instance_id: str
    ) -> AsyncGenerator[Event, None]:
        """What is there, the end of that, then the changes."""
        assert (start, kinds, instance_id) == ("snapshot", (EventKind.BINDING,), "db")
        if self.away is not None:
            self.refusals += 1
            if self.refusals > 1:
                self.refused_again.set()
            raise self.away
        queue: asyncio.Queue[Event | PurveyorError] = asyncio.Queue()
        self._streams.append(queue)
        try:
            for record in self.records.values():
                yield self._event(EventType.PRESENT, record)
            yield Event(type=EventType.SYNCED)
            self.watched.set()
            while True:
                item = await queue.get()
                if isinstance(item, PurveyorError):
                    raise item
                yield item
        finally:
            self._streams.remove(queue)

    async def binding(self, instance_id: str, binding_id: str, *, show_deleted: bool) -> Binding:
        """One binding, a tombstone too."""
        assert (instance_id, show_deleted) == ("db", True)
        if binding_id not in self.records:
            raise NotFoundError(f"no binding {binding_id}", reason="BINDING_NOT_FOUND")
        return self.records[binding_id]

    async def credentials(self, instance_id: str, binding_id: str) -> Credentials:
        """Its credentials, while it is ACTIVE."""
        assert instance_id == "db"
        self.reads[binding_id] += 1
        if self.records[binding_id].state != BindingState.ACTIVE:
            raise FailedPreconditionError("no credentials", reason="CREDENTIALS_NOT_AVAILABLE")
        return self.secrets[binding_id]
