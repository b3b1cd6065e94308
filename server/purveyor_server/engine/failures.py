"""Why operations fail, in words for callers: one place that makes `Failure` values."""

from __future__ import annotations

from purveyor_server.domain.errors import Reason
from purveyor_server.domain.model import Failure, Operation
from purveyor_server.kit import hiding
from purveyor_server.providers.contract import (
    Ambiguous,
    Permanent,
    PoolExhausted,
    ProviderError,
    RightsMissing,
    Unreachable,
)

UNSETTLED = "waiting until an interrupted call can no longer take effect"


def cancelled() -> Failure:
    """The caller asked for it."""
    return Failure(reason=Reason.CANCELLED_BY_CALLER, message="the operation was cancelled")


def deadline(operation: Operation) -> Failure:
    """The time of the operation is over."""
    message = f"the operation did not finish within {operation.budget:g} s"
    detail = f"it waited: {operation.waiting_detail}" if operation.waiting_detail else ""
    return Failure(reason=Reason.OPERATION_DEADLINE_EXCEEDED, message=message, operator_message=detail, retryable=True)


def taken_over(by: str) -> Failure:
    """A removal was accepted while it ran; the removal is its undo."""
    return Failure(reason=Reason.TAKEN_OVER, message=f"taken over by operation {by}")


def provider(error: ProviderError, step: str) -> Failure:
    """A provider's failure; the kind of error decides the reason."""
    reasons: dict[type[ProviderError], Reason] = {
        Unreachable: Reason.PROVIDER_UNREACHABLE,
        RightsMissing: Reason.PROVIDER_RIGHTS_MISSING,
        PoolExhausted: Reason.POOL_EXHAUSTED,
    }
    reason = reasons.get(type(error), Reason.PROVIDER_FAILED)
    if isinstance(error, Ambiguous) and error.detail == "time-out":
        reason = Reason.PROVIDER_TIMEOUT
    return Failure(
        reason=reason,
        message=hiding.masked(error.message),
        operator_message=hiding.masked(error.detail),
        retryable=not isinstance(error, Permanent),
        step=step,
    )
