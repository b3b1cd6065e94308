"""Failures as the caller meets them: one class per family, the reason inside.

Guarantee: every failure of a call is a `PurveyorError`; decide by class, or by `reason` and `transport_reason`, of which a
failed call has exactly one, never by message. Messages hold no secret, since the server puts none into them.
Limit: a reason of a newer server is passed on as it is; its class follows from the status code.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import StrEnum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

    from purveyor.values import Failure, OperationStatus


@dataclass(frozen=True)
class Violation:
    """One thing that is wrong: `field` is a path in the request (or the subject of a rule), `description` says what is wrong."""

    field: str
    description: str


class TransportReason(StrEnum):
    """Why a call failed on its way, without an answer of a Purveyor server. No name of the contract's `ErrorReason`."""

    UNREACHABLE = "UNREACHABLE"
    """Nobody listens at the address, or its name is not known."""
    TLS_FAILED = "TLS_FAILED"
    """No secure connection: the broker's certificate is not good, is for another name, or what answers speaks no TLS."""
    CONNECTION_LOST = "CONNECTION_LOST"
    """The connection broke while the call was on its way: a change may have been accepted."""
    CALL_TIMED_OUT = "CALL_TIMED_OUT"
    """No answer within the call's time: a change may have been accepted."""
    CALL_TOO_LARGE = "CALL_TOO_LARGE"
    """The request, or its answer, is larger than a side takes; sending it again does not help."""
    CLIENT_CLOSED = "CLIENT_CLOSED"
    """This client was closed while the call was on its way: a change may have been accepted."""
    NOT_A_BROKER = "NOT_A_BROKER"
    """Something answers at the address that is no Purveyor broker, or stands in front of it (a proxy)."""


class PurveyorError(Exception):
    """A refusal or a failure.

    `code`: the gRPC status code's name. `reason`: a name of `purveyor.v1.ErrorReason` without its prefix; empty when the
    failure did not come from a Purveyor server, and then `transport_reason` is a `TransportReason`. `metadata`: the parts
    of the message that vary. `retry_after`: seconds, or None when the server named none. `request_id`: of the mutating
    request, to send it again.
    """

    code = "UNKNOWN"

    def __init__(
        self,
        message: str,
        *,
        code: str = "",
        reason: str = "",
        transport_reason: TransportReason | None = None,
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        retry_after: float | None = None,
        request_id: str = "",
    ) -> None:
        super().__init__(message)
        self.message = message
        self.code = code or type(self).code
        self.reason = reason
        self.transport_reason = transport_reason
        self.metadata = dict(metadata or {})
        self.violations = violations
        self.retry_after = retry_after
        self.request_id = request_id

    def __str__(self) -> str:
        return f"{self.message} [{self.name}]"

    def __reduce__(self) -> tuple[object, ...]:
        """Copied and pickled whole, so that a worker process can raise it to its parent."""
        return _restored, (type(self), self.args, self.__dict__)

    @property
    def name(self) -> str:
        """The most telling of reason, transport_reason and code: never empty."""
        return self.reason or self.transport_reason or self.code


def _restored(kind: type[PurveyorError], args: tuple[object, ...], values: dict[str, object]) -> PurveyorError:
    made = kind.__new__(kind, *args)
    made.args = args
    made.__dict__.update(values)
    return made


class InvalidRequestError(PurveyorError):
    """The request is malformed or does not fit the plan's schema; `violations` names each field."""

    code = "INVALID_ARGUMENT"


class EventsLostError(PurveyorError):
    """A watch cannot go on at its place: the events behind it are no longer kept (COMPACTED), or it was given for another
    question (SCOPE_CHANGED). Begin with a snapshot. `metadata["earliest_token"]` goes on with what is still kept.
    """

    code = "OUT_OF_RANGE"


class NotFoundError(PurveyorError):
    """No such service, plan, instance, binding or operation."""

    code = "NOT_FOUND"


class ConflictError(PurveyorError):
    """The request meets something else: see the subclasses."""

    code = "ABORTED"


class AlreadyExistsError(ConflictError):
    """The id is taken by a resource that was asked for otherwise."""

    code = "ALREADY_EXISTS"


class AbortedError(ConflictError):
    """Another operation is in progress (`metadata["operation"]`), or the etag is not the present one."""


class FailedPreconditionError(PurveyorError):
    """The resource's state does not allow this; `violations` names each rule."""

    code = "FAILED_PRECONDITION"


class PermissionDeniedError(PurveyorError):
    """The caller is not known, or lacks the role or the tenant."""

    code = "PERMISSION_DENIED"


class ResourceExhaustedError(PurveyorError):
    """A quota or a bound is reached, or the message is too large."""

    code = "RESOURCE_EXHAUSTED"


class UnavailableError(PurveyorError):
    """The server cannot be reached, is stopping, its store does not answer, or the connection broke.

    The same request can be sent again.
    """

    code = "UNAVAILABLE"


class OutcomeUnknownError(UnavailableError):
    """It is not known whether the change was accepted: send it again with the same `request_id`."""


class DeadlineExceededError(PurveyorError):
    """The call took too long; a change may have been accepted all the same: send it again with the same `request_id`."""

    code = "DEADLINE_EXCEEDED"


class UnimplementedError(PurveyorError):
    """The server does not have this method."""

    code = "UNIMPLEMENTED"


class InternalError(PurveyorError):
    """A defect in the server; its log has the rest under `metadata["request_id"]`."""

    code = "INTERNAL"


class OperationFailedError(PurveyorError):
    """An accepted operation did not succeed. `operation` is its last state, `failure` its failure taken apart."""

    def __init__(
        self, message: str, *, operation: OperationStatus, code: str, reason: str, metadata: Mapping[str, str]
    ) -> None:
        super().__init__(message, code=code, reason=reason, metadata=metadata, request_id=operation.request_id)
        self.operation = operation

    @property
    def failure(self) -> Failure | None:
        """The failure taken apart: step, whether it can be retried, messages."""
        return self.operation.failure


class OperationCancelledError(OperationFailedError):
    """An accepted operation was cancelled by a caller, or taken over by a later one."""


CLASSES: Mapping[str, type[PurveyorError]] = {
    "INVALID_ARGUMENT": InvalidRequestError,
    "OUT_OF_RANGE": EventsLostError,
    "NOT_FOUND": NotFoundError,
    "ALREADY_EXISTS": AlreadyExistsError,
    "ABORTED": AbortedError,
    "FAILED_PRECONDITION": FailedPreconditionError,
    "PERMISSION_DENIED": PermissionDeniedError,
    "UNAUTHENTICATED": PermissionDeniedError,
    "RESOURCE_EXHAUSTED": ResourceExhaustedError,
    "UNAVAILABLE": UnavailableError,
    "DEADLINE_EXCEEDED": DeadlineExceededError,
    "UNIMPLEMENTED": UnimplementedError,
    "INTERNAL": InternalError,
}
REASON_CLASSES: Mapping[str, type[PurveyorError]] = {"OUTCOME_UNKNOWN": OutcomeUnknownError}


def class_of(code: str, reason: str) -> type[PurveyorError]:
    """The class of a failure; PurveyorError itself for a code without a family (CANCELLED, UNKNOWN, DATA_LOSS)."""
    return REASON_CLASSES.get(reason) or CLASSES.get(code, PurveyorError)
