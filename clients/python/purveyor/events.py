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

import grpc.aio

from purveyor import decode, encode
from purveyor.errors import InvalidRequestError, PurveyorError, Violation
from purveyor.failures import client_closed, from_rpc
from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1.event_pb2 import Event as EventMessage
from purveyor.values import Event, EventKind, EventType
from purveyor.watch import SILENCE_SLACK_SECONDS, can_go_on, lost

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Iterable

    from purveyor.connection import Connection
    from purveyor.places import EventPlace

STARTS = ("now", "earliest", "snapshot")
STEADY_SECONDS = 5.0  # a stream that lived so long was no failed attempt


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


async def follow_events(
    connection: Connection, request: messages.WatchEventsRequest, place: EventPlace | None, *, follow: bool
) -> AsyncGenerator[Event, None]:
    """The events as they come; without `follow`, those that are there. Raises PurveyorError; see the module for when."""
    reader = _Reader(request, place)
    await reader.load()
    clock = asyncio.get_running_loop().time
    heard, attempt = clock(), 0
    while True:
        if connection.closed:
            raise client_closed(connection.address)
        opened = clock()
        failure: PurveyorError = lost(f"the broker at {connection.address} ended the watch early")
        try:
            async with aclosing(_stream(connection, reader.request)) as stream:
                async for answer in stream:
                    for event in reader.take(answer):
                        attempt = 0
                        yield event
                    await reader.keep(answer.resume_token)
                    heard = clock()  # after the yields: a slow reader is not an outage
                    if answer.synced and not follow:
                        return
        except PurveyorError as error:
            if not can_go_on(error):
                raise
            failure = error
        attempt = 0 if heard - opened > STEADY_SECONDS else attempt
        delay = connection.backoff.delay(attempt, failure.retry_after)
        if clock() + delay > heard + connection.limits.outage:
            raise failure
        attempt += 1
        await asyncio.sleep(delay)


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


async def _stream(
    connection: Connection, request: messages.WatchEventsRequest
) -> AsyncGenerator[messages.WatchEventsResponse, None]:
    """One stream. Raises PurveyorError; UnavailableError also when it falls silent."""
    call = connection.stub.WatchEvents(request)
    limit = 2 * connection.limits.heartbeat + SILENCE_SLACK_SECONDS
    try:
        while True:
            async with asyncio.timeout(limit):
                answer = await call.read()
            if not isinstance(answer, messages.WatchEventsResponse):
                return  # grpc.aio.EOF
            yield answer
    except asyncio.CancelledError:
        connection.tell_closing_from_cancelling()
        raise
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, connection.address) from error
    except TimeoutError as error:
        raise lost(f"the broker at {connection.address} fell silent for {limit:.0f} s") from error
    finally:
        call.cancel()
