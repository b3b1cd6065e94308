"""Statuses of calls and recorded failures of operations to typed errors.

Guarantee: a status without an ErrorInfo did not come from a Purveyor server but from the transport; `reason` stays empty
then, `transport_reason` says what happened, and the message is ours. Damaged details never hide the failure itself.
Limit: gRPC tells some transport failures apart by their English text alone; what is not recognised is CONNECTION_LOST,
which promises least.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

import grpc
from google.protobuf.message import DecodeError
from google.rpc import error_details_pb2, status_pb2

from purveyor.errors import (
    OperationCancelledError,
    OperationFailedError,
    PurveyorError,
    TransportReason,
    UnavailableError,
    Violation,
    class_of,
)
from purveyor.values import OperationState

if TYPE_CHECKING:
    from google.protobuf.message import Message

    from purveyor.values import OperationStatus

DETAILS_KEY = "grpc-status-details-bin"

# Codes that a transport makes up when a connection breaks; what else has no reason came from something in between.
_LOST = frozenset({"UNAVAILABLE", "CANCELLED", "UNKNOWN", "INTERNAL"})
_UNREACHABLE = re.compile("failed to connect|errors resolving|DNS resolution failed|name resolution", re.IGNORECASE)
_TOO_LARGE = re.compile("message larger than max|metadata size exceeds", re.IGNORECASE)
_CAUSES = re.compile(
    "No such file or directory|Connection refused|Permission denied|No route to host|not found", re.IGNORECASE
)
# What went wrong in a handshake, by the words of BoringSSL and gRPC.
_HANDSHAKE = re.compile("handshake failed|verification check failed", re.IGNORECASE)
_HANDSHAKES = {
    "certificate has expired": "its certificate has expired",
    "certificate is not yet valid": "its certificate is not yet valid",
    "Hostname Verification": "its certificate is for another name",
    "WRONG_VERSION_NUMBER": "what answers there speaks no TLS",
    "CERTIFICATE_VERIFY_FAILED": "its certificate is of an authority that is not trusted here",
}
# A server that refuses the client's certificate only hangs up (TLS 1.3), as one that wants TLS does with a plain client.
_HUNG_UP = re.compile("Socket closed|Connection reset|Handshake read failed|Broken pipe", re.IGNORECASE)
_HUNG_UP_CAUSE = "it hangs up at once: it wants TLS, or another client certificate"
_MESSAGES = {
    TransportReason.TLS_FAILED: "no secure connection to the broker at {address}",
    TransportReason.UNREACHABLE: "the broker at {address} cannot be reached",
    TransportReason.CONNECTION_LOST: "the connection to the broker at {address} broke",
    TransportReason.CALL_TIMED_OUT: "the broker at {address} did not answer in time",
    TransportReason.CALL_TOO_LARGE: "the request to the broker at {address}, or its answer, is too large",
    TransportReason.CLIENT_CLOSED: "the client was closed before the broker at {address} answered",
    TransportReason.NOT_A_BROKER: "what answers at {address} is not a Purveyor broker, or stands in front of it",
}


def from_rpc(error: grpc.aio.AioRpcError, address: str, request_id: str = "") -> PurveyorError:
    """The typed error of a failed call."""
    details = _details(error)
    info = error_details_pb2.ErrorInfo()
    code = error.code().name
    if not (_unpack(details, info) and info.reason):
        return _from_transport(code, error.details() or "", address, request_id)
    return class_of(code, info.reason)(
        error.details() or code,
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


def _from_transport(code: str, text: str, address: str, request_id: str) -> PurveyorError:
    """A status that no Purveyor server made: each of those carries a reason."""
    reason = _transport_reason(code, text)
    message = _MESSAGES[reason].format(address=address)
    cause = _cause(reason, text)
    kind = UnavailableError if reason == TransportReason.CONNECTION_LOST else class_of(code, "")
    return kind(
        f"{message} ({cause})" if cause else message,
        code=code,
        transport_reason=reason,
        request_id=request_id,
    )


def _cause(reason: TransportReason, text: str) -> str:
    """What is known of the cause, in a few words."""
    if reason == TransportReason.TLS_FAILED:
        return next((words for mark, words in _HANDSHAKES.items() if mark in text), "the handshake failed")
    if reason != TransportReason.UNREACHABLE:
        return ""
    found = _CAUSES.search(text)
    if found is not None:
        return found[0].lower()
    return _HUNG_UP_CAUSE if _HUNG_UP.search(text) else ""


def _transport_reason(code: str, text: str) -> TransportReason:
    if code == "UNAVAILABLE" and _UNREACHABLE.match(text):
        return TransportReason.TLS_FAILED if _HANDSHAKE.search(text) else TransportReason.UNREACHABLE
    if code == "DEADLINE_EXCEEDED":
        return TransportReason.CALL_TIMED_OUT
    if code == "RESOURCE_EXHAUSTED" and _TOO_LARGE.search(text):
        return TransportReason.CALL_TOO_LARGE
    return TransportReason.CONNECTION_LOST if code in _LOST else TransportReason.NOT_A_BROKER


def connection_lost(address: str, request_id: str = "") -> UnavailableError:
    """The failure of a call whose channel was closed under it."""
    reason = TransportReason.CONNECTION_LOST
    message = _MESSAGES[reason].format(address=address)
    return UnavailableError(message, transport_reason=reason, request_id=request_id)


def client_closed(address: str, request_id: str = "") -> UnavailableError:
    """The failure of a call whose client was closed under it."""
    reason = TransportReason.CLIENT_CLOSED
    message = _MESSAGES[reason].format(address=address)
    return UnavailableError(message, transport_reason=reason, request_id=request_id)


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
