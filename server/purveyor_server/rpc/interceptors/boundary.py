"""The error boundary: whatever a handler raises becomes a status that may be shown.

Guarantee: `PurveyorError` becomes its status, any other exception INTERNAL with constant text; its traceback goes to the
log under the request id and never to the caller. CancelledError and the core's own exceptions pass untouched: the client is
gone or has its answer, and swallowing them leaks.
Limit: a status that the client does not take within the abort time-out is given up.
"""

from __future__ import annotations

import asyncio
from typing import Any, Protocol

import grpc
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined] # published nowhere else

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.rpc.calls import Call
from purveyor_server.rpc.errors import MAX_MESSAGE, STATUS_METADATA, code_of, cut, internal, to_status
from purveyor_server.rpc.interceptors.around import Proceed
from purveyor_server.rpc.interceptors.context import REQUEST_ID

_log = structlog.get_logger(__name__)
_NOT_ALLOWED = frozenset({grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED})
# Raised by a write or read on a call whose client has gone; the core ignores it then.
ClientGoneError: type[Exception] = cygrpc.ExecuteBatchError


class Refused(Protocol):
    """Told of calls that were refused for want of a right or a name; `lifecycle.denials.Denials.denied` has this shape."""

    def __call__(self, reason: Reason, *, principal: str, origin: str, method: str, tenant: str) -> None: ...


class Boundary:
    """Turns exceptions into statuses; `refused` is told of those that say who may not call."""

    def __init__(self, abort_seconds: float, refused: Refused | None = None) -> None:
        self._seconds = abort_seconds
        self._refused = refused

    async def around(self, call: Call, proceed: Proceed) -> Any:
        """Serve the call; never raises anything but AbortError, CancelledError and ClientGoneError."""
        try:
            return await proceed(call)
        except (grpc.aio.AbortError, asyncio.CancelledError, ClientGoneError):
            raise
        except PurveyorError as error:
            refusal = error
        except Exception:  # noqa: BLE001 - the boundary is where defects end
            _log.exception("call failed by a defect")
            refusal = internal(call.request_id)
        try:
            self._tell(call, refusal.reason)
            await self._abort(call, refusal)
        finally:
            del refusal  # its traceback holds this frame: without this every refusal is a cycle for the collector

    def _tell(self, call: Call, reason: Reason) -> None:
        code = code_of(reason)
        if self._refused is None or code not in _NOT_ALLOWED:
            return
        unknown = code is grpc.StatusCode.UNAUTHENTICATED
        self._refused(
            reason,
            principal="" if unknown else call.principal.subject,
            origin=call.origin,
            method=call.method.name.rpartition("/")[2],
            tenant=getattr(call.request, "tenant", ""),
        )

    async def _abort(self, call: Call, refusal: PurveyorError) -> None:
        code = code_of(refusal.reason)
        call.code = code.name
        details = to_status(refusal, call.request_id).SerializeToString()
        metadata = ((STATUS_METADATA, details), (REQUEST_ID, call.request_id))
        try:
            async with asyncio.timeout(self._seconds):
                await call.context.abort(code, cut(refusal.message, MAX_MESSAGE), metadata)
        except (TimeoutError, ClientGoneError):
            # Not taken in time, or a write is still in flight to a client that does not read: the call ends with its
            # connection. CancelledError is the end that the core takes without noise.
            _log.info("client did not take its status", code=code.name)
            raise asyncio.CancelledError from None
