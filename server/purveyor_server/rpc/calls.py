"""One call while it is served: what the interceptors know of it.

Guarantee: a call can be interrupted from outside (drain) only while its handler runs, and ends then with the given
refusal; a client that does not read is noticed after the write time-out and its stream ends when it reads again.
Limit: a write that returned was handed to the transport; about 4 MB fit there before a dead reader is noticed.
"""

from __future__ import annotations

import asyncio
from contextvars import ContextVar
from datetime import timedelta
from typing import Any

import structlog

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.principal import LOCAL
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.rpc.methods import Kind, Method
from purveyor_server.security.tls import PeerCertificate

_log = structlog.get_logger(__name__)


class Call:
    """A call and its bounds. `ends` is a time of the event loop in seconds, None when nothing but the client ends it."""

    __slots__ = (
        "code", "context", "ends", "farewell", "interrupted", "kind", "method", "peer", "principal", "request", "request_id", "scope", "stalled",
        "write_seconds",
    )  # fmt: skip

    def __init__(self, method: Method, context: Any, request: Any, write_seconds: float) -> None:
        self.method = method
        self.context = context
        self.request = request
        self.write_seconds = write_seconds
        self.kind: Kind = method.kind
        self.request_id = ""
        self.principal = LOCAL
        self.peer: PeerCertificate | None = None  # set where a listener asks for client certificates
        self.code = "OK"
        self.ends: float | None = None
        self.farewell = False  # ends by itself when the server drains, after a last message
        self.stalled = False
        self.scope: asyncio.Timeout | None = None
        self.interrupted: PurveyorError | None = None

    @property
    def origin(self) -> str:
        """The other end of the connection, as the core names it: `ipv4:127.0.0.1:4711`, `unix:`."""
        peer: str = self.context.peer()
        return peer

    def interrupt(self, error: PurveyorError) -> None:
        """End the handler with `error`, if it runs and was not interrupted before."""
        if self.scope is not None and self.interrupted is None and not self.scope.expired():
            self.interrupted = error
            self.scope.reschedule(asyncio.get_running_loop().time())

    async def write(self, message: Any) -> None:
        """Send one message of a stream. Raises DEADLINE_EXCEEDED when the client left it unread for `write_seconds`.

        The write itself is never cancelled for that: grpc.aio cannot end a call under a write that is still in flight
        (measured: the status is refused as one operation too many, and the client hangs when it reads again). So the
        refusal follows when the client reads again; one that never does is ended by keepalive or by closing.
        """
        stalled = asyncio.get_running_loop().call_later(self.write_seconds, self._stalled)
        try:
            await self.context.write(message)
        finally:
            stalled.cancel()
        if self.stalled:
            raise _unread(self.write_seconds)

    def _stalled(self) -> None:
        self.stalled = True
        _log.info("client does not read", request_id=self.request_id, method=self.method.name)


def _unread(seconds: float) -> PurveyorError:
    text = f"the client did not read for {seconds:g} s"
    return PurveyorError(Reason.DEADLINE_EXCEEDED, text, metadata={"limit_seconds": f"{seconds:g}"})


CURRENT: ContextVar[Call] = ContextVar("purveyor_rpc_call")


def current_call() -> Call:
    """The call that this task serves."""
    return CURRENT.get()


def current_caller() -> Caller:
    """Who calls, as the use-cases want it."""
    call = CURRENT.get()
    left = None
    if call.ends is not None:
        left = timedelta(seconds=max(0.0, call.ends - asyncio.get_running_loop().time()))
    return Caller(call.principal, call.request_id, left, call.origin)
