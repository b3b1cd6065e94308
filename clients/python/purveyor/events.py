"""Following the events of a tenant, whatever happens to the server meanwhile.

Guarantee: every event is yielded once and in order, over broken connections and restarts of the broker, as long as the log
keeps it; what it no longer keeps is an `EventsLostError`, never silence. With a place kept (see `places`), over restarts of
the reader too, and then at least once.
Limit: after `Limits.outage` seconds without one message the last failure is raised. Without a place, nothing is known of
what happened before the first message came.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

from purveyor import decode, encode
from purveyor.errors import InvalidRequestError, PurveyorError, Violation
from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1.event_pb2 import Event as EventMessage
from purveyor.values import Event, EventKind, EventType
from purveyor.watch import Pace, read

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable, Iterable

    from purveyor.connection import Connection
    from purveyor.places import EventPlace

STARTS = ("now", "earliest", "snapshot")


def question(
    tenant: str, start: str, kinds: Iterable[EventKind | str], instance_id: str, heartbeat: float
) -> messages.WatchEventsRequest:
    """The request of a watch; `start` is one of STARTS or a token. Raises InvalidRequestError."""
    request = messages.WatchEventsRequest(
        tenant=tenant, instance_id=instance_id, heartbeat_interval=encode.duration("heartbeat", heartbeat)
    )
    for kind in kinds:
        if kind.upper() not in set(EventKind):
            raise _invalid("kinds", f"{kind!r} is none of {', '.join(EventKind)}")
        request.kinds.append(EventMessage.Kind.Value(f"KIND_{kind.upper()}"))
    if not start:
        raise _invalid("start", f"must be one of {', '.join(STARTS)}, or a resume token")
    if start in STARTS:
        request.start = messages.WatchEventsRequest.Start.Value(f"START_{start.upper()}")
    else:
        request.resume_token = start
    return request


def _invalid(field: str, text: str) -> InvalidRequestError:
    return InvalidRequestError(f"{field}: {text}", reason="INVALID_REQUEST", violations=(Violation(field, text),))


def _nobody(_failure: PurveyorError | None) -> None:
    """Nobody wants to know."""


async def follow_events(
    connection: Connection,
    request: messages.WatchEventsRequest,
    place: EventPlace | None,
    *,
    follow: bool,
    reached: Callable[[PurveyorError | None], None] = _nobody,
) -> AsyncGenerator[Event, None]:
    """The events as they come; without `follow`, those that are there. Raises PurveyorError; see the module for when.

    `reached` is told None for each message that came, heartbeats too, and how a stream ended; what it raises ends the watch.
    """
    reader = _Reader(request, place)
    await reader.load()
    pace = Pace(connection)
    while True:
        failure = pace.begin()
        try:
            stream = read(connection, connection.stub.WatchEvents, reader.request, messages.WatchEventsResponse)
            async with aclosing(stream) as answers:
                async for answer in answers:
                    reached(None)
                    for event in reader.take(answer):
                        pace.attempt = 0
                        yield event
                    await reader.keep(answer.resume_token)
                    pace.hear()  # after the yields: a slow reader is not an outage
                    if answer.synced and not follow:
                        return
        except PurveyorError as error:
            failure = error
        pace.forgive()
        reached(failure)
        await pace.rest(failure)


class _Reader:
    """Where the reader stands: the request that goes on from there, and the newest revision that it has."""

    def __init__(self, request: messages.WatchEventsRequest, place: EventPlace | None) -> None:
        self.request = request
        self._place = place
        self._seen = 0
        self._snapshot = request.start == messages.WatchEventsRequest.START_SNAPSHOT

    async def load(self) -> None:
        """Begin where a kept place says, if there is one."""
        token = await asyncio.to_thread(self._place.load) if self._place is not None else ""
        if token:
            self._go_on_after(token)

    def take(self, answer: messages.WatchEventsResponse) -> Iterable[Event]:
        """The events of a message that are new here."""
        for message in answer.events:
            if message.type == EventMessage.TYPE_PRESENT:
                yield decode.event(message)
            elif message.revision > self._seen:
                self._seen = message.revision
                yield decode.event(message)
        if answer.synced and self._snapshot:
            self._snapshot = False
            yield Event(type=EventType.SYNCED)

    async def keep(self, token: str) -> None:
        """Everything before this place was taken in."""
        if token == self.request.resume_token:
            return
        self._go_on_after(token)
        if self._place is not None:
            await asyncio.to_thread(self._place.save, token)

    def _go_on_after(self, token: str) -> None:
        self.request.resume_token = token
        self.request.start = messages.WatchEventsRequest.START_AFTER
