"""Exit codes that a script can use.

0 done · 1 the operation failed or was cancelled · 2 usage, or the request was refused as invalid · 3 not found ·
4 conflict (taken id, operation in progress, etag) · 5 refused in this state · 6 the broker cannot be reached or is stopping ·
7 a quota or bound is reached · 8 not allowed · 9 time-out · 10 a defect · 11 the result could not be written (what was asked for happened) · 130, 143 interrupted ·
141 the reader of stdout went away.
"""

from __future__ import annotations

from enum import IntEnum

from purveyor import errors


class Exit(IntEnum):
    """Why the command ended."""

    OK = 0
    OPERATION_FAILED = 1
    USAGE = 2
    NOT_FOUND = 3
    CONFLICT = 4
    REFUSED = 5
    UNAVAILABLE = 6
    EXHAUSTED = 7
    NOT_ALLOWED = 8
    TIMED_OUT = 9
    DEFECT = 10
    OUTPUT = 11
    INTERRUPTED = 130
    READER_GONE = 141


# The first class that fits counts; an operation's failure before the families.
TABLE: tuple[tuple[type[errors.PurveyorError], Exit], ...] = (
    (errors.OperationFailedError, Exit.OPERATION_FAILED),
    (errors.InvalidRequestError, Exit.USAGE),
    (errors.NotFoundError, Exit.NOT_FOUND),
    (errors.ConflictError, Exit.CONFLICT),
    (errors.FailedPreconditionError, Exit.REFUSED),
    (errors.UnavailableError, Exit.UNAVAILABLE),
    (errors.ResourceExhaustedError, Exit.EXHAUSTED),
    (errors.PermissionDeniedError, Exit.NOT_ALLOWED),
    (errors.DeadlineExceededError, Exit.TIMED_OUT),
)


def code_of(error: errors.PurveyorError) -> Exit:
    """The exit code of a failure."""
    return next((code for kind, code in TABLE if isinstance(error, kind)), Exit.DEFECT)
