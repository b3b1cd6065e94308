"""Following an operation to its end, whatever happens to the server meanwhile.

Guarantee: `follow` ends only after a terminal state, or by an error. A stream that breaks, ends early, falls silent for
more than twice its heartbeat, or is refused because the server is full, is opened again with backoff and jitter; since the
contract's first message is always the present state, nothing is missed but what the contract may leave out anyway.
Limit: after `Limits.outage` seconds without one message the last failure is raised; the operation goes on without us.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING

import grpc
import grpc.aio

from purveyor import decode, encode
from purveyor.connection import is_passing
from purveyor.errors import PurveyorError, ResourceExhaustedError, TransportReason, UnavailableError
from purveyor.failures import client_closed, from_rpc
from purveyor.v1 import broker_service_pb2 as messages

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator

    from purveyor.connection import Connection
    from purveyor.v1.operation_pb2 import OperationView
    from purveyor.values import OperationStatus

SILENCE_SLACK_SECONDS = 10.0


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
    clock = asyncio.get_running_loop().time
    heard, attempt = clock(), 0
    last: OperationStatus | None = None
    while True:
        if connection.closed:
            raise client_closed(connection.address)
        failure: PurveyorError = lost(f"the broker at {connection.address} ended the watch early")
        try:
            async with aclosing(_stream(connection, request)) as stream:
                async for status in stream:
                    if status != last:
                        last, attempt = status, 0  # without news the delays go on growing
                        yield status
                    heard = clock()  # after the yield: a slow reader is not an outage
                    if status.done:
                        return
        except PurveyorError as error:
            if not can_go_on(error):
                raise
            failure = error
        delay = connection.backoff.delay(attempt, failure.retry_after)
        if clock() + delay > heard + connection.limits.outage:
            raise failure
        attempt += 1
        await asyncio.sleep(delay)


def lost(message: str) -> UnavailableError:
    """A stream that broke without a status."""
    return UnavailableError(message, transport_reason=TransportReason.CONNECTION_LOST)


def can_go_on(failure: PurveyorError) -> bool:
    """Whether a stream that ended so is opened again."""
    return is_passing(failure) or (isinstance(failure, ResourceExhaustedError) and failure.retry_after is not None)


async def _stream(
    connection: Connection, request: messages.WatchOperationRequest
) -> AsyncGenerator[OperationStatus, None]:
    """One stream, heartbeats included. Raises PurveyorError; UnavailableError also when it falls silent."""
    call = connection.stub.WatchOperation(request)
    limit = 2 * connection.limits.heartbeat + SILENCE_SLACK_SECONDS
    try:
        while True:
            async with asyncio.timeout(limit):
                answer = await call.read()
            if not isinstance(answer, messages.WatchOperationResponse):
                return  # grpc.aio.EOF
            yield decode.operation(answer.operation)
    except asyncio.CancelledError:
        connection.tell_closing_from_cancelling()
        raise
    except grpc.aio.AioRpcError as error:
        raise from_rpc(error, connection.address) from error
    except TimeoutError as error:
        raise lost(f"the broker at {connection.address} fell silent for {limit:.0f} s") from error
    finally:
        call.cancel()
