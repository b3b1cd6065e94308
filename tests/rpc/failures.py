"""What a caller sees of a failure."""

from __future__ import annotations

from typing import Any, NamedTuple

import grpc
import pytest
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

TYPES: dict[str, type[Message]] = {
    f"type.googleapis.com/google.rpc.{name}": getattr(error_details_pb2, name)
    for name in (
        "ErrorInfo",
        "BadRequest",
        "ResourceInfo",
        "PreconditionFailure",
        "QuotaFailure",
        "RetryInfo",
        "RequestInfo",
    )
}


class Failure(NamedTuple):
    """Code, message, reason and metadata of the ErrorInfo, the other details by their name, and the trailing metadata."""

    code: grpc.StatusCode
    message: str
    reason: str
    metadata: dict[str, str]
    details: dict[str, Any]
    trailers: dict[str, Any]


async def failure_of(call: Any) -> Failure:
    """The failure that `call` ends with; there must be one, with exactly one ErrorInfo, and no detail twice."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    return read_failure(caught.value)


def read_failure(error: grpc.aio.AioRpcError) -> Failure:
    trailers = {str(key): value for key, value in error.trailing_metadata() or ()}
    status = status_pb2.Status.FromString(trailers["grpc-status-details-bin"])
    assert (status.code, status.message) == (error.code().value[0], error.details())
    details = unpacked(status)
    info = details.pop("ErrorInfo")
    assert info.domain == "purveyor.dev"
    return Failure(error.code(), status.message, info.reason, dict(info.metadata), details, trailers)


def unpacked(status: Any) -> dict[str, Any]:
    """The details by the last part of their type's name."""
    details = {any_.type_url.rpartition(".")[2]: TYPES[any_.type_url].FromString(any_.value) for any_ in status.details}
    assert len(details) == len(status.details)
    return details
