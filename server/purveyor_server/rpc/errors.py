"""Failures as statuses: the one table from reason to code, and the details that go with it.

Guarantee: every refusal becomes a status with exactly one `ErrorInfo` (domain `purveyor.dev`) and at most one of each
other detail; the details stay under `MAX_DETAILS` bytes, since metadata above 16 KiB never arrives.
Limit: texts are cut and violations left out when they would not fit; the reason and the code never are.
Source: AIP-193, google/rpc/error_details.proto.
"""

from __future__ import annotations

from typing import NamedTuple

import grpc
from google.protobuf.message import Message
from google.rpc import error_details_pb2, status_pb2

from purveyor_server.domain.errors import PurveyorError, Reason

DOMAIN = "purveyor.dev"
MAX_DETAILS = 4000
MAX_MESSAGE = 512
STATUS_METADATA = "grpc-status-details-bin"
MAX_ITEMS = 20
# How long texts may be and how many violations are listed, tried in this order until the details fit.
_CUTS = ((256, MAX_ITEMS), (100, MAX_ITEMS), (60, 12), (30, 6))
_Code = grpc.StatusCode


class Row(NamedTuple):
    """The code of a reason, and the seconds after which a retry makes sense when the refusal does not say (None: never)."""

    code: grpc.StatusCode
    retry_after: float | None = None


TABLE: dict[Reason, Row] = {
    Reason.INVALID_REQUEST: Row(_Code.INVALID_ARGUMENT),
    Reason.INVALID_PARAMETERS: Row(_Code.INVALID_ARGUMENT),
    Reason.INVALID_PAGE_TOKEN: Row(_Code.INVALID_ARGUMENT),
    Reason.INVALID_FILTER: Row(_Code.INVALID_ARGUMENT),
    Reason.REQUEST_ID_REUSED: Row(_Code.INVALID_ARGUMENT),
    Reason.UNKNOWN_SERVICE: Row(_Code.NOT_FOUND),
    Reason.UNKNOWN_PLAN: Row(_Code.NOT_FOUND),
    Reason.INSTANCE_NOT_FOUND: Row(_Code.NOT_FOUND),
    Reason.BINDING_NOT_FOUND: Row(_Code.NOT_FOUND),
    Reason.OPERATION_NOT_FOUND: Row(_Code.NOT_FOUND),
    Reason.TOKEN_NOT_FOUND: Row(_Code.NOT_FOUND),
    Reason.CAMPAIGN_NOT_FOUND: Row(_Code.NOT_FOUND),
    Reason.ORPHAN_NOT_FOUND: Row(_Code.NOT_FOUND),
    Reason.CATALOG_NOT_FOUND: Row(_Code.NOT_FOUND),
    Reason.INSTANCE_ALREADY_EXISTS: Row(_Code.ALREADY_EXISTS),
    Reason.BINDING_ALREADY_EXISTS: Row(_Code.ALREADY_EXISTS),
    Reason.OPERATION_IN_PROGRESS: Row(_Code.ABORTED, 1.0),
    Reason.ETAG_MISMATCH: Row(_Code.ABORTED),
    Reason.WRONG_STATE: Row(_Code.FAILED_PRECONDITION),
    Reason.BINDINGS_EXIST: Row(_Code.FAILED_PRECONDITION),
    Reason.PLAN_NOT_UPDATABLE: Row(_Code.FAILED_PRECONDITION),
    Reason.NOT_BINDABLE: Row(_Code.FAILED_PRECONDITION),
    Reason.NOT_ROTATABLE: Row(_Code.FAILED_PRECONDITION),
    Reason.CREDENTIALS_NOT_AVAILABLE: Row(_Code.FAILED_PRECONDITION),
    Reason.MAINTENANCE_INFO_CONFLICT: Row(_Code.FAILED_PRECONDITION),
    Reason.DELETION_PROTECTED: Row(_Code.FAILED_PRECONDITION),
    Reason.IN_USE: Row(_Code.FAILED_PRECONDITION),
    Reason.CAMPAIGN_CONFLICT: Row(_Code.FAILED_PRECONDITION),
    Reason.CATALOG_REFUSED: Row(_Code.FAILED_PRECONDITION),
    Reason.INVENTORY_REFUSED: Row(_Code.FAILED_PRECONDITION),
    Reason.ADOPTION_REFUSED: Row(_Code.FAILED_PRECONDITION),
    Reason.NOT_CANCELLABLE: Row(_Code.FAILED_PRECONDITION),
    Reason.MESSAGE_TOO_LARGE: Row(_Code.RESOURCE_EXHAUSTED),
    Reason.TOO_MANY_OPERATIONS: Row(_Code.RESOURCE_EXHAUSTED, 5.0),
    Reason.RATE_LIMITED: Row(_Code.RESOURCE_EXHAUSTED, 1.0),
    Reason.QUOTA_EXCEEDED: Row(_Code.RESOURCE_EXHAUSTED),
    Reason.TOO_MANY_CALLS: Row(_Code.RESOURCE_EXHAUSTED, 1.0),
    Reason.TOO_MANY_STREAMS: Row(_Code.RESOURCE_EXHAUSTED, 5.0),
    Reason.STORE_FULL: Row(_Code.RESOURCE_EXHAUSTED, 60.0),
    Reason.DEADLINE_EXCEEDED: Row(_Code.DEADLINE_EXCEEDED),
    Reason.UNAUTHENTICATED: Row(_Code.UNAUTHENTICATED),
    Reason.CREDENTIAL_REVOKED: Row(_Code.UNAUTHENTICATED),
    Reason.CREDENTIAL_EXPIRED: Row(_Code.UNAUTHENTICATED),
    Reason.IDENTITY_UNAVAILABLE: Row(_Code.UNAVAILABLE, 5.0),
    Reason.PERMISSION_DENIED: Row(_Code.PERMISSION_DENIED),
    Reason.UNKNOWN_METHOD: Row(_Code.UNIMPLEMENTED),
    Reason.STORE_UNAVAILABLE: Row(_Code.UNAVAILABLE, 1.0),
    Reason.OUTCOME_UNKNOWN: Row(_Code.UNAVAILABLE, 1.0),
    Reason.DRAINING: Row(_Code.UNAVAILABLE, 1.0),
    Reason.COMPACTED: Row(_Code.OUT_OF_RANGE),
    Reason.SCOPE_CHANGED: Row(_Code.OUT_OF_RANGE),
    Reason.INVALID_RESUME_TOKEN: Row(_Code.INVALID_ARGUMENT),
    Reason.STREAM_EXPIRED: Row(_Code.UNAVAILABLE, 0.1),
    Reason.INTERNAL: Row(_Code.INTERNAL),
    # Recorded in Operation.error.
    Reason.PROVIDER_FAILED: Row(_Code.FAILED_PRECONDITION),
    Reason.PROVIDER_TIMEOUT: Row(_Code.DEADLINE_EXCEEDED),
    Reason.PROVIDER_UNREACHABLE: Row(_Code.UNAVAILABLE),
    Reason.PROVIDER_CHANGED: Row(_Code.FAILED_PRECONDITION),
    Reason.PROVIDER_RIGHTS_MISSING: Row(_Code.FAILED_PRECONDITION),
    Reason.OPERATION_DEADLINE_EXCEEDED: Row(_Code.DEADLINE_EXCEEDED),
    Reason.CANCELLED_BY_CALLER: Row(_Code.CANCELLED),
    Reason.TAKEN_OVER: Row(_Code.CANCELLED),
    Reason.CHILD_FAILED: Row(_Code.FAILED_PRECONDITION),
    Reason.CLEANUP_INCOMPLETE: Row(_Code.FAILED_PRECONDITION),
    Reason.CREDENTIALS_NOT_UNIQUE: Row(_Code.INTERNAL),
    Reason.POOL_EXHAUSTED: Row(_Code.RESOURCE_EXHAUSTED),
    Reason.PURGED: Row(_Code.CANCELLED),
    Reason.ABANDONED: Row(_Code.CANCELLED),
}


def code_of(reason: Reason) -> grpc.StatusCode:
    """The status code of a reason."""
    return TABLE[reason].code


def internal(request_id: str) -> PurveyorError:
    """The answer to a defect: constant text, and the id under which the log has the rest."""
    return PurveyorError(Reason.INTERNAL, "internal error", metadata={"request_id": request_id})


def to_status(error: PurveyorError, request_id: str = "") -> status_pb2.Status:
    """A refusal as google.rpc.Status, its details under MAX_DETAILS bytes. `request_id` goes with INTERNAL only."""
    status = status_pb2.Status()
    for width, items in _CUTS:
        status = _built(error, request_id, width, items)
        if status.ByteSize() <= MAX_DETAILS:
            break
    return status


def _built(error: PurveyorError, request_id: str, width: int, items: int) -> status_pb2.Status:
    status = status_pb2.Status(code=TABLE[error.reason].code.value[0], message=cut(error.message, MAX_MESSAGE))
    for detail in _details(error, request_id, width, items):
        status.details.add().Pack(detail)
    return status


def _details(error: PurveyorError, request_id: str, width: int, items: int) -> list[Message]:
    entries = list(error.metadata.items())[:items]
    metadata = {cut(key, 64): cut(value, width) for key, value in entries}
    details: list[Message] = [error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=metadata)]
    if error.violations:
        details.append(_bad_request(error, width, items))
    if error.resource is not None:
        kind, name = error.resource.kind, cut(error.resource.name, width)
        details.append(error_details_pb2.ResourceInfo(resource_type=kind, resource_name=name))
    if error.preconditions:
        details.append(_preconditions(error, width, items))
    if error.quota_subject:
        violation = error_details_pb2.QuotaFailure.Violation(
            subject=cut(error.quota_subject, width), description=cut(error.message, width)
        )
        details.append(error_details_pb2.QuotaFailure(violations=[violation]))
    retry_after = error.retry_after if error.retry_after is not None else TABLE[error.reason].retry_after
    if retry_after is not None:
        details.append(_retry_info(retry_after))
    if error.reason is Reason.INTERNAL and request_id:
        details.append(error_details_pb2.RequestInfo(request_id=request_id))
    return details


def _bad_request(error: PurveyorError, width: int, items: int) -> error_details_pb2.BadRequest:
    violations = [
        error_details_pb2.BadRequest.FieldViolation(
            field=cut(violation.field, width), description=cut(violation.description, width), reason=error.reason
        )
        for violation in error.violations[:items]
    ]
    return error_details_pb2.BadRequest(field_violations=violations)


def _preconditions(error: PurveyorError, width: int, items: int) -> error_details_pb2.PreconditionFailure:
    violations = [
        error_details_pb2.PreconditionFailure.Violation(
            type=cut(rule.kind, width), subject=cut(rule.subject, width), description=cut(rule.description, width)
        )
        for rule in error.preconditions[:items]
    ]
    return error_details_pb2.PreconditionFailure(violations=violations)


def _retry_info(seconds: float) -> error_details_pb2.RetryInfo:
    info = error_details_pb2.RetryInfo()
    info.retry_delay.FromNanoseconds(int(seconds * 1_000_000_000))
    return info


def cut(text: str, width: int) -> str:
    """`text`, at most `width` bytes of UTF-8 long; "..." marks what was cut."""
    encoded = text.encode("utf-8", "replace")
    if len(encoded) <= width:
        return encoded.decode("utf-8")
    return encoded[: width - 3].decode("utf-8", "ignore") + "..."
