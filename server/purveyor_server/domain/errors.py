"""Failures as values: every refusal that a caller can see is a `PurveyorError` with one `Reason`.

Guarantee: messages are written for the caller and never carry driver text, exception text or a secret; dynamic parts are
repeated in `metadata` (AIP-193). Which status code a reason becomes is decided in one table in `rpc/errors.py`.
"""

from __future__ import annotations

from enum import StrEnum
from typing import Self

import msgspec


class Reason(StrEnum):
    """Why a call was refused or an operation failed; the wire string of `purveyor.v1.ErrorReason`."""

    INVALID_REQUEST = "INVALID_REQUEST"
    INVALID_PARAMETERS = "INVALID_PARAMETERS"
    INVALID_PAGE_TOKEN = "INVALID_PAGE_TOKEN"
    INVALID_FILTER = "INVALID_FILTER"
    REQUEST_ID_REUSED = "REQUEST_ID_REUSED"
    UNKNOWN_SERVICE = "UNKNOWN_SERVICE"
    UNKNOWN_PLAN = "UNKNOWN_PLAN"
    INSTANCE_NOT_FOUND = "INSTANCE_NOT_FOUND"
    BINDING_NOT_FOUND = "BINDING_NOT_FOUND"
    OPERATION_NOT_FOUND = "OPERATION_NOT_FOUND"
    TOKEN_NOT_FOUND = "TOKEN_NOT_FOUND"
    CAMPAIGN_NOT_FOUND = "CAMPAIGN_NOT_FOUND"
    ORPHAN_NOT_FOUND = "ORPHAN_NOT_FOUND"
    CATALOG_NOT_FOUND = "CATALOG_NOT_FOUND"
    INSTANCE_ALREADY_EXISTS = "INSTANCE_ALREADY_EXISTS"
    BINDING_ALREADY_EXISTS = "BINDING_ALREADY_EXISTS"
    OPERATION_IN_PROGRESS = "OPERATION_IN_PROGRESS"
    ETAG_MISMATCH = "ETAG_MISMATCH"
    WRONG_STATE = "WRONG_STATE"
    BINDINGS_EXIST = "BINDINGS_EXIST"
    PLAN_NOT_UPDATABLE = "PLAN_NOT_UPDATABLE"
    NOT_BINDABLE = "NOT_BINDABLE"
    NOT_ROTATABLE = "NOT_ROTATABLE"
    CREDENTIALS_NOT_AVAILABLE = "CREDENTIALS_NOT_AVAILABLE"
    MAINTENANCE_INFO_CONFLICT = "MAINTENANCE_INFO_CONFLICT"
    DELETION_PROTECTED = "DELETION_PROTECTED"
    IN_USE = "IN_USE"
    CAMPAIGN_CONFLICT = "CAMPAIGN_CONFLICT"
    CATALOG_REFUSED = "CATALOG_REFUSED"
    INVENTORY_REFUSED = "INVENTORY_REFUSED"
    ADOPTION_REFUSED = "ADOPTION_REFUSED"
    NOT_CANCELLABLE = "NOT_CANCELLABLE"
    MESSAGE_TOO_LARGE = "MESSAGE_TOO_LARGE"
    TOO_MANY_OPERATIONS = "TOO_MANY_OPERATIONS"
    RATE_LIMITED = "RATE_LIMITED"
    QUOTA_EXCEEDED = "QUOTA_EXCEEDED"
    TOO_MANY_CALLS = "TOO_MANY_CALLS"
    TOO_MANY_STREAMS = "TOO_MANY_STREAMS"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    UNAUTHENTICATED = "UNAUTHENTICATED"
    CREDENTIAL_REVOKED = "CREDENTIAL_REVOKED"
    CREDENTIAL_EXPIRED = "CREDENTIAL_EXPIRED"
    IDENTITY_UNAVAILABLE = "IDENTITY_UNAVAILABLE"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    UNKNOWN_METHOD = "UNKNOWN_METHOD"
    STORE_UNAVAILABLE = "STORE_UNAVAILABLE"
    STORE_FULL = "STORE_FULL"
    OUTCOME_UNKNOWN = "OUTCOME_UNKNOWN"
    DRAINING = "DRAINING"
    COMPACTED = "COMPACTED"
    SCOPE_CHANGED = "SCOPE_CHANGED"
    INVALID_RESUME_TOKEN = "INVALID_RESUME_TOKEN"
    STREAM_EXPIRED = "STREAM_EXPIRED"
    INTERNAL = "INTERNAL"
    # Recorded in Operation.error, never a status of a call.
    PROVIDER_FAILED = "PROVIDER_FAILED"
    PROVIDER_TIMEOUT = "PROVIDER_TIMEOUT"
    PROVIDER_UNREACHABLE = "PROVIDER_UNREACHABLE"
    PROVIDER_CHANGED = "PROVIDER_CHANGED"
    PROVIDER_RIGHTS_MISSING = "PROVIDER_RIGHTS_MISSING"
    OPERATION_DEADLINE_EXCEEDED = "OPERATION_DEADLINE_EXCEEDED"
    CANCELLED_BY_CALLER = "CANCELLED_BY_CALLER"
    TAKEN_OVER = "TAKEN_OVER"
    CHILD_FAILED = "CHILD_FAILED"
    CLEANUP_INCOMPLETE = "CLEANUP_INCOMPLETE"
    CREDENTIALS_NOT_UNIQUE = "CREDENTIALS_NOT_UNIQUE"
    POOL_EXHAUSTED = "POOL_EXHAUSTED"
    PURGED = "PURGED"
    ABANDONED = "ABANDONED"


class Violation(msgspec.Struct, frozen=True):
    """One bad field: its path as the caller wrote it, what is wrong, and what would be right."""

    field: str
    description: str


class Resource(msgspec.Struct, frozen=True):
    """What an error is about: kind (`instance`, `binding`, `operation`, `service`, `plan`) and the caller's name of it."""

    kind: str
    name: str


class Precondition(msgspec.Struct, frozen=True):
    """A rule that does not hold: its kind, its subject, and what to do."""

    kind: str
    subject: str
    description: str


class PurveyorError(Exception):
    """A refusal with a reason. `retry_after` is in seconds; None means that a retry alone will not help."""

    def __init__(
        self,
        reason: Reason,
        message: str,
        *,
        metadata: dict[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
        resource: Resource | None = None,
        preconditions: tuple[Precondition, ...] = (),
        quota_subject: str = "",
        retry_after: float | None = None,
    ) -> None:
        super().__init__(f"{reason}: {message}")
        self.reason = reason
        self.message = message
        self.metadata = metadata or {}
        self.violations = violations
        self.resource = resource
        self.preconditions = preconditions
        self.quota_subject = quota_subject
        self.retry_after = retry_after

    def again(self) -> Self:
        """A fresh copy to raise for another waiter: a traceback is not shared between tasks."""
        return type(self)(
            self.reason,
            self.message,
            metadata=dict(self.metadata),
            violations=self.violations,
            resource=self.resource,
            preconditions=self.preconditions,
            quota_subject=self.quota_subject,
            retry_after=self.retry_after,
        )


def invalid(field: str, description: str, reason: Reason = Reason.INVALID_REQUEST) -> PurveyorError:
    """A refusal that names one bad field."""
    return PurveyorError(reason, f"{field}: {description}", violations=(Violation(field, description),))


def instance_not_found(tenant: str, instance_id: str) -> PurveyorError:
    """NOT_FOUND for an instance; the same words whether it never was or belongs to somebody else."""
    return PurveyorError(
        Reason.INSTANCE_NOT_FOUND,
        f"there is no instance {instance_id!r} in tenant {tenant!r}",
        metadata={"tenant": tenant, "instance_id": instance_id},
        resource=Resource("instance", instance_id),
    )


def binding_not_found(tenant: str, instance_id: str, binding_id: str) -> PurveyorError:
    """NOT_FOUND for a binding."""
    return PurveyorError(
        Reason.BINDING_NOT_FOUND,
        f"there is no binding {binding_id!r} of instance {instance_id!r} in tenant {tenant!r}",
        metadata={"tenant": tenant, "instance_id": instance_id, "binding_id": binding_id},
        resource=Resource("binding", binding_id),
    )


def operation_not_found(operation_id: str) -> PurveyorError:
    """NOT_FOUND for an operation: it never was, is past its retention, or belongs to somebody else."""
    return PurveyorError(
        Reason.OPERATION_NOT_FOUND,
        f"there is no operation {operation_id!r}",
        metadata={"operation_id": operation_id},
        resource=Resource("operation", operation_id),
    )
