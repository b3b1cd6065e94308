"""Refusals of this backend, and what an error of SQLite means for the commands it hit.

Guarantee: a caller never sees SQLite's own text; it is logged once per kind, here.
Source: https://www.sqlite.org/lang_transaction.html (automatic rollback), https://www.sqlite.org/rescode.html.
"""

from __future__ import annotations

import sqlite3
from datetime import timedelta
from enum import StrEnum

import structlog

from purveyor_server.domain.errors import PurveyorError, Reason

_log = structlog.get_logger(__name__)

# Kinds of which SQLite rolls the whole transaction back, or may: the innocent commands of the batch are run again.
_BATCH_KINDS = ("SQLITE_FULL", "SQLITE_IOERR", "SQLITE_NOMEM", "SQLITE_BUSY", "SQLITE_INTERRUPT", "SQLITE_LOCKED")
_CORRUPT_KINDS = ("SQLITE_CORRUPT", "SQLITE_NOTADB")
# COMMIT failed before its last frame was in the log (a short or refused write): a rollback is certain. After any other
# failure, fsync above all, the frames may be whole on disk and would be found by a recovery.
_CERTAIN_KINDS = (
    "SQLITE_FULL",
    "SQLITE_BUSY",
    "SQLITE_LOCKED",
    "SQLITE_NOMEM",
    "SQLITE_IOERR_NOMEM",
    "SQLITE_IOERR_WRITE",
    "SQLITE_INTERRUPT",
    "SQLITE_CONSTRAINT",
    "SQLITE_READONLY",
)


class StoreOpenKind(StrEnum):
    """Why a store could not be opened."""

    LOCKED = "LOCKED"
    NEWER = "NEWER"
    CORRUPT = "CORRUPT"
    NOT_A_DATABASE = "NOT_A_DATABASE"
    UNWRITABLE = "UNWRITABLE"


class StoreOpenError(Exception):
    """A start-up refusal: `kind` for programs, `message` for the person who started the server."""

    def __init__(self, kind: StoreOpenKind, message: str) -> None:
        super().__init__(message)
        self.kind = kind
        self.message = message


def kind_of(error: sqlite3.Error) -> str:
    """SQLite's name of the error (`SQLITE_FULL`, `SQLITE_IOERR_FSYNC`), or an empty text."""
    return getattr(error, "sqlite_errorname", None) or ""


def loses_batch(error: sqlite3.Error) -> bool:
    """Whether the transaction is, or may be, lost as a whole."""
    return kind_of(error).startswith((*_BATCH_KINDS, *_CORRUPT_KINDS))


def is_certain(error: sqlite3.Error) -> bool:
    """Whether a COMMIT that failed with `error` certainly wrote nothing once it is rolled back."""
    return kind_of(error).startswith(_CERTAIN_KINDS)


def is_corrupt(error: sqlite3.Error) -> bool:
    """Whether the file itself is damaged."""
    return kind_of(error).startswith(_CORRUPT_KINDS)


def unavailable(retry_after: timedelta) -> PurveyorError:
    """Nothing was written; a retry may help."""
    return PurveyorError(
        Reason.STORE_UNAVAILABLE,
        "the store cannot serve this now; nothing was written",
        retry_after=retry_after.total_seconds(),
    )


def full() -> PurveyorError:
    """Nothing was written; there is no room."""
    return PurveyorError(Reason.STORE_FULL, "the store's disk is full or nearly full; nothing was written")


def unknown() -> PurveyorError:
    """The command may have been written."""
    return PurveyorError(
        Reason.OUTCOME_UNKNOWN,
        "the store did not confirm this; send it again with the same request_id to learn what happened",
    )


def refusal(error: sqlite3.Error, retry_after: timedelta) -> PurveyorError:
    """What callers are told about an error that wrote nothing."""
    return full() if kind_of(error).startswith("SQLITE_FULL") else unavailable(retry_after)


class FaultLog:
    """Logs each kind of SQLite error once until `clear()`: a broken disk must not fill the log as well."""

    def __init__(self) -> None:
        self._seen: set[str] = set()

    def note(self, error: BaseException, doing: str) -> None:
        """Log `error` unless its kind was logged already."""
        kind = kind_of(error) if isinstance(error, sqlite3.Error) else type(error).__name__
        if kind in self._seen:
            return
        self._seen.add(kind)
        damaged = isinstance(error, sqlite3.Error) and is_corrupt(error)
        _log.error("store file is damaged" if damaged else "store failed", doing=doing, kind=kind, error=str(error))

    def clear(self) -> None:
        """Things work again: the next failure is news."""
        self._seen.clear()
