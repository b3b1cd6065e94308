"""The last handler: every path that no service has.

Guarantee: an unknown method is refused as UNIMPLEMENTED with the reason UNKNOWN_METHOD, by the same chain as the others.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import grpc

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.rpc.interceptors.around import Around, wrap
from purveyor_server.rpc.methods import Kind, Method

_MAX_NAME = 200


class UnknownMethods(grpc.GenericRpcHandler):
    """Answers for methods that do not exist; goes in last."""

    def __init__(self, arounds: Sequence[Around], write_seconds: float, cap_seconds: float) -> None:
        self._arounds = arounds
        self._write_seconds = write_seconds
        self._cap = cap_seconds

    def service(self, handler_call_details: grpc.HandlerCallDetails) -> grpc.RpcMethodHandler[Any, Any]:
        """A handler that takes every kind of call and refuses it."""
        method = Method(handler_call_details.method[:_MAX_NAME], Kind.READ, cap=self._cap)

        async def refuse(*_: Any) -> None:
            raise PurveyorError(Reason.UNKNOWN_METHOD, "no such method", metadata={"method": method.name})

        handler = grpc.stream_stream_rpc_method_handler(refuse)  # type: ignore[var-annotated] # takes any message
        return wrap(handler, method, self._arounds, self._write_seconds)
