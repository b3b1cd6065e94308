"""What the driver's errors mean for the engine.

Guarantee: driver and server text goes to `detail` only, for the operator; `message` is ours. An error that the server
answered is certain; a connection that broke after a change was sent is `Ambiguous`.
Source: PostgreSQL documentation, appendix A (error codes); asyncpg raises one class per code.
"""

from __future__ import annotations

import asyncio

import asyncpg

from purveyor_server.providers.contract import (
    Ambiguous,
    Permanent,
    ProviderError,
    Retryable,
    RightsMissing,
    Unreachable,
)

DETAIL_LIMIT = 500  # characters
INVALID_PASSWORD = {"28P01", "28000"}
GOES_AWAY = {"57P01", "57P02", "57P03", "57P05"}  # the server ends sessions or is not up yet
TRY_AGAIN = {
    "40001",  # serialization_failure
    "40P01",  # deadlock_detected
    "53000",
    "53100",  # disk_full
    "53200",
    "53300",  # too_many_connections
    "53400",
    "55006",  # object_in_use: other users of the database or its source
    "55P03",  # lock_not_available
    "57014",  # query_canceled: statement_timeout
    "42710",  # duplicate_object: another run was quicker
    "42P04",  # duplicate_database
    "23505",  # unique_violation in a system catalog: the same race, seen later
}
CONCURRENT = ("tuple concurrently updated", "tuple concurrently deleted")  # XX000, told apart by its text alone


def explain(error: BaseException, doing: str, *, changing: bool) -> ProviderError:
    """The failure to raise for `error` met while doing `doing` (a constant name); `changing`: a change was sent."""
    detail = f"{doing}: {type(error).__name__}: {error}"[:DETAIL_LIMIT]
    if isinstance(error, asyncpg.PostgresError) and error.sqlstate:
        return _answered(error, error.sqlstate, detail, changing=changing)
    if changing:
        return Ambiguous("the PostgreSQL server broke off; it is being looked into", detail)
    if isinstance(error, asyncpg.InterfaceError | asyncpg.InternalClientError | OSError | asyncio.TimeoutError):
        return Unreachable("the PostgreSQL server does not answer", detail)
    return Ambiguous("the PostgreSQL server gave an answer that was not expected", detail)


def _answered(error: asyncpg.PostgresError, state: str, detail: str, *, changing: bool) -> ProviderError:
    if state in GOES_AWAY or state.startswith("08"):
        kind = Ambiguous if changing else Unreachable
        return kind("the PostgreSQL server is going away or coming up", detail)
    if state in INVALID_PASSWORD:
        return RightsMissing("the PostgreSQL server does not let the broker in", detail)
    if state == "2BP01":  # dependent_objects_still_exist
        return Retryable("something in the PostgreSQL server still depends on it", detail)
    if state == "42501":
        return RightsMissing("the broker's role lacks a right in the PostgreSQL server", detail)
    if state in TRY_AGAIN or (state == "XX000" and any(text in str(error) for text in CONCURRENT)):
        return Retryable("the PostgreSQL server is busy with the same thing", detail)
    if state.startswith(("XX", "58", "F0")):
        return Retryable("the PostgreSQL server reports a fault of its own", detail)
    return Permanent("the PostgreSQL server refused", detail)
