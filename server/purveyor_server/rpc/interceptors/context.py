"""Outermost: the call's id, what its log lines are bound to, its line at the end, and the count of live calls.

Guarantee: every call has a request id (the caller's `x-request-id` when that is well formed, else a UUIDv7), echoed in the
trailing metadata; every call leaves one line, at the level that the settings give, with method, code and duration.
Limit: a stream that is opened leaves one more line then. The message itself is never logged.
"""

from __future__ import annotations

import asyncio
import re
import time
from typing import Any

import grpc
import structlog

from purveyor_server.kit.ids import new_id
from purveyor_server.rpc.calls import CURRENT, Call
from purveyor_server.rpc.interceptors.around import Proceed
from purveyor_server.rpc.interceptors.drain import Drain
from purveyor_server.rpc.methods import Kind
from purveyor_server.rpc.settings import RpcSettings

REQUEST_ID = "x-request-id"
_WELL_FORMED = re.compile(r"[\x21-\x7e]{1,64}")
_log = structlog.get_logger(__name__)


class RequestContext:
    """Opens and closes the record of a call."""

    def __init__(self, drain: Drain, settings: RpcSettings) -> None:
        self._drain = drain
        self._read = getattr(_log, settings.read_level)
        self._other = getattr(_log, settings.level)

    async def around(self, call: Call, proceed: Proceed) -> Any:
        """Serve the call with its id bound to the log."""
        started = time.perf_counter()
        self._open(call)
        try:
            return await proceed(call)
        except grpc.aio.AbortError:
            call.code = call.code if call.code != "OK" else _aborted_with(call)
            raise
        except asyncio.CancelledError:
            call.code = "CANCELLED"
            raise
        except Exception:
            call.code = "GONE"
            raise
        finally:
            self._drain.leave(call)
            self._close(call, time.perf_counter() - started)

    def _open(self, call: Call) -> None:
        call.request_id = request_id(call.context) or new_id()
        call.context.set_trailing_metadata(((REQUEST_ID, call.request_id),))
        CURRENT.set(call)
        tenant = getattr(call.request, "tenant", "")
        bound = {"request_id": call.request_id, "method": call.method.name}
        structlog.contextvars.bind_contextvars(**bound, **({"tenant": tenant[:63]} if tenant else {}))
        self._drain.enter(call)
        if call.method.kind is Kind.STREAM:
            self._other("stream opened")

    def _close(self, call: Call, seconds: float) -> None:
        quiet = call.method.kind is Kind.READ and call.code == "OK"
        write = self._read if quiet else self._other
        write("call ended", code=call.code, milliseconds=round(seconds * 1000, 2))


def request_id(context: Any) -> str:
    """The caller's request id, or "" when there is none that may be echoed and logged."""
    for key, value in context.invocation_metadata() or ():
        if key == REQUEST_ID:
            return value if isinstance(value, str) and _WELL_FORMED.fullmatch(value) else ""
    return ""


def _aborted_with(call: Call) -> str:
    code = call.context.code()
    return code.name if isinstance(code, grpc.StatusCode) else str(code)
