"""Messages that cannot be served: too large, or not what the method takes.

Guarantee: a request above the limit is refused as MESSAGE_TOO_LARGE and bytes that are no such message as
INVALID_REQUEST, both by the error boundary, so both carry a reason.
Limit: above `receive_bytes` the core refuses by itself, RESOURCE_EXHAUSTED without details; a client takes a
RESOURCE_EXHAUSTED without ErrorInfo for MESSAGE_TOO_LARGE.
"""

from __future__ import annotations

from typing import Any

from google.protobuf.message import DecodeError

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.rpc.calls import Call
from purveyor_server.rpc.interceptors.around import Decode, Proceed


class Unreadable:
    """Stands in for a request that could not be decoded."""

    def __init__(self, error: PurveyorError) -> None:
        self.error = error

    def HasField(self, name: str) -> bool:  # noqa: ARG002 - asked like a message
        """It has no field."""
        return False


def bounded(decode: Decode, limit: int) -> Decode:
    """`decode` that answers `Unreadable` instead of raising; `limit` in bytes."""

    def decoded(data: bytes) -> Any:
        if len(data) > limit:
            return Unreadable(too_large("request", limit))
        try:
            return decode(data)
        except DecodeError:
            return Unreadable(
                PurveyorError(
                    Reason.INVALID_REQUEST, "the request is not a message of this method, or is nested too deeply"
                )
            )

    return decoded


def too_large(what: str, limit: int) -> PurveyorError:
    """The refusal of a message above `limit` bytes."""
    text = f"the {what} is larger than {limit} bytes"
    return PurveyorError(Reason.MESSAGE_TOO_LARGE, text, metadata={"limit_bytes": str(limit)})


async def around(call: Call, proceed: Proceed) -> Any:
    """Refuse what could not be decoded."""
    if type(call.request) is Unreadable:
        raise call.request.error
    return await proceed(call)
