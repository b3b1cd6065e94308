"""Statuses of calls and recorded failures of operations to typed errors.

Guarantee: a status without an ErrorInfo did not come from a Purveyor server but from the transport; `reason` stays empty
then and the message is ours. Damaged details never hide the failure itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from purveyor.errors import OperationCancelledError, OperationFailedError, PurveyorError, Violation, class_of
from purveyor.values import OperationState

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from purveyor.values import OperationStatus

DETAILS_KEY = "grpc-status-details-bin"


def from_rpc(error: grpc.aio.AioRpcError, address: str, request_id: str = "") -> PurveyorError:
    """The typed error of a failed call."""
    details = _details(error)
    info = error_details_pb2.ErrorInfo()
    known = _unpack(details, info)
    code = error.code().name
    message = (error.details() or code) if known else _transport_message(code, error.details() or "", address)
    return class_of(code, info.reason)(
        message,
        code=code,
        reason=info.reason,
        metadata=dict(info.metadata),
        violations=_violations(details),
        retry_after=_retry_after(details),
        request_id=request_id,
    )


def _details(error: grpc.aio.AioRpcError) -> status_pb2.Status:
    for key, value in error.trailing_metadata() or ():
        if key == DETAILS_KEY and isinstance(value, bytes):
            try:
                return status_pb2.Status.FromString(value)
            except DecodeError:
                break
    return status_pb2.Status()


def _unpack(status: status_pb2.Status, message: Message) -> bool:
    """Fill `message` from the first detail of its type. Returns whether there was one."""
    for detail in status.details:
        if detail.Is(message.DESCRIPTOR):
            try:
                return bool(detail.Unpack(message))
            except DecodeError:
                return False
    return False


def _transport_message(code: str, text: str, address: str) -> str:
    if code == "UNAVAILABLE":
        return f"the broker at {address} cannot be reached"
    if code == "DEADLINE_EXCEEDED":
        return f"the broker at {address} did not answer in time"
    return f"the call to {address} failed: {text or code}"


def _violations(status: status_pb2.Status) -> tuple[Violation, ...]:
    """What BadRequest, PreconditionFailure and QuotaFailure name, in that order."""
    request, rules = error_details_pb2.BadRequest(), error_details_pb2.PreconditionFailure()
    quota = error_details_pb2.QuotaFailure()
    _unpack(status, request)
    _unpack(status, rules)
    _unpack(status, quota)
    return (
        *(Violation(found.field, found.description) for found in request.field_violations),
        *(Violation(found.subject or found.type, found.description) for found in rules.violations),
        *(Violation(found.subject, found.description) for found in quota.violations),
    )


def _retry_after(status: status_pb2.Status) -> float | None:
    info = error_details_pb2.RetryInfo()
    if not _unpack(status, info):
        return None
    delay: float = info.retry_delay.ToTimedelta().total_seconds()
    return delay


def from_operation(status: OperationStatus) -> OperationFailedError:
    """The typed error of an operation that ended FAILED or CANCELLED."""
    failure = status.failure
    cancelled = status.state == OperationState.CANCELLED
    kind = OperationCancelledError if cancelled else OperationFailedError
    message = status.error_message or (failure.message if failure else "") or f"the operation ended {status.state}"
    return kind(
        message,
        operation=status,
        code=status.error_code or ("CANCELLED" if cancelled else "UNKNOWN"),
        reason=failure.reason if failure else "",
        metadata=status.error_metadata,
    )
