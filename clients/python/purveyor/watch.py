"""Following an operation to its end, whatever happens to the server meanwhile.

Guarantee: `follow` ends only after a terminal state, or by an error. A stream that breaks, ends early, falls silent for
more than twice its heartbeat, is refused because the server is full, or ends with its certificate while there is a newer
one, is opened again with backoff and jitter; since the
contract's first message is always the present state, nothing is missed but what the contract may leave out anyway.
Limit: after `Limits.outage` seconds without one message the last failure is raised; the operation goes on without us.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, TypeVar

import grpc
import grpc.aio

from purveyor import decode, encode
from purveyor.connection import is_passing
from purveyor.errors import PurveyorError, ResourceExhaustedError, TransportReason, UnavailableError
from purveyor.failures import client_closed, from_rpc
from purveyor.v1 import broker_service_pb2 as messages

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, Callable

    from purveyor.connection import Connection
    from purveyor.v1.operation_pb2 import OperationView
    from purveyor.values import OperationStatus

SILENCE_SLACK_SECONDS = 10.0
STEADY_SECONDS = 5.0
Answer = TypeVar("Answer")


async def follow(
    connection: Connection, tenant: str, operation_id: str, view: OperationView.ValueType
) -> AsyncGenerator[OperationStatus, None]:
    """The operation's states as they change, the present one first. Raises PurveyorError; see the module for when."""
    request = messages.WatchOperationRequest(
        tenant=tenant,
        operation_id=operation_id,
        view=view,
        heartbeat_interval=encode.duration("heartbeat", connection.limits.heartbeat),
    )
    pace = Pace(connection)
    last: OperationStatus | None = None
    while True:
        failure = pace.begin()
        try:
            stream = read(connection, connection.stub.WatchOperation, request, messages.WatchOperationResponse)
            async with aclosing(stream) as answers:
                async for answer in answers:
                    status = decode.operation(answer.operation)
                    if status != last:
                        last, pace.attempt = status, 0  # without news the delays go on growing
                        yield status
                    pace.hear()  # after the yield: a slow reader is not an outage
                    if status.done:
                        return
        except PurveyorError as error:
            failure = error
        await pace.rest(failure)


class Pace:
    """When a stream that ended is opened again: with backoff, until nothing was heard for as long as an outage may last."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._clock = asyncio.get_running_loop().time
        self._heard = self._clock()
        self._opened = self._heard
        self._renewals = connection.renewals
        self.attempt = 0

    def begin(self) -> PurveyorError:
        """Before a stream is opened; the failure that it is if it ends without one. Raises UnavailableError when closed."""
        if self._connection.closed:
            raise client_closed(self._connection.address)
        self._opened = self._clock()
        self._renewals = self._connection.renewals
        return lost(f"the broker at {self._connection.address} ended the watch early")

    def hear(self) -> None:
        """A message was taken in."""
        self._heard = self._clock()

    def forgive(self) -> None:
        """A stream that gave messages for so long was no failed attempt, even if it had no news."""
        if self._heard - self._opened > STEADY_SECONDS:
            self.attempt = 0

    async def rest(self, failure: PurveyorError) -> None:
        """Wait before the next stream; raises `failure` when waiting does not help, or no longer."""
        if not (can_go_on(failure) or self._connection.has_newer_files(failure, self._renewals)):
            raise failure
        delay = self._connection.backoff.delay(self.attempt, failure.retry_after)
        if self._clock() + delay > self._heard + self._connection.limits.outage:
            raise failure
        self.attempt += 1
        await asyncio.sleep(delay)


def lost(message: str) -> UnavailableError:
    """A stream that broke without a status."""
    return UnavailableError(message, transport_reason=TransportReason.CONNECTION_LOST)


def can_go_on(failure: PurveyorError) -> bool:
    """Whether a stream that ended so is opened again."""
    return is_passing(failure) or (isinstance(failure, ResourceExhaustedError) and failure.retry_after is not None)


async def read(
    connection: Connection, method: Callable[[Any], Any], request: Any, kind: type[Answer]
) -> AsyncGenerator[Answer, None]:
    """The messages of one stream, heartbeats included. Raises PurveyorError; UnavailableError also when it falls silent."""
    call = method(request)
    limit = 2 * connection.limits.heartbeat + SILENCE_SLACK_SECONDS
    try:
        while True:
            async with asyncio.timeout(limit):
                answer = await call.read()
            if not isinstance(answer, kind):
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
