"""Things that carry our marker: put out of use and kept, brought back, removed for good.

Guarantee: a thing is changed only while it carries the marker that was asked about: it is looked at under every lock of its uid,
and the first change is refused by the server when the marker is another one by then. What runs under one of those locks is an
operation at work, and nothing is done. What is in quarantine says in a note how it was before (`notes`).
Limit: between the first change (no new session) and the end of a DROP the marker is not looked at again. A schema in quarantine
is closed by the rights of its group: other rights in it, given by hand, stay.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import NamedTuple

from purveyor_server.domain.names import outside_name
from purveyor_server.kit import failpoints
from purveyor_server.providers.contract import (
    Ambiguous,
    MarkerChanged,
    NotYet,
    Owned,
    Permanent,
    ProviderError,
    Retryable,
    RightsMissing,
    Unreachable,
)
from purveyor_server.providers.postgresql import notes
from purveyor_server.providers.postgresql.config import LimitsConfig
from purveyor_server.providers.postgresql.notes import Comment
from purveyor_server.providers.postgresql.pieces import BUSY_SECONDS
from purveyor_server.providers.postgresql.sessions import LEFT, Session, Sessions, lock_key, tag
from purveyor_server.providers.postgresql.sql import literal

# Every name under which a piece locks: test_custody holds it against the pieces.
LOCKED = (
    "group",
    "database",
    "schema",
    "extensions",
    "common_database",
    "own_schema",
    "login",
    "adopted",
    "taken",
    "standstill",
    "logins",
    "verified",
)
POLL_SECONDS = 0.01
MARKERS = {
    "database": "SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = {name}",
    "role": "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = {name}",
    "schema": "SELECT obj_description(oid, 'pg_namespace') FROM pg_namespace WHERE nspname = {name}",
}
TAKE_ALL = "SELECT count(*) FILTER (WHERE NOT pg_try_advisory_lock(key)) FROM unnest($1::bigint[]) key"
LEFT_OF_ANY = LEFT.replace("= $1", "= ANY($1::text[])")
SESSIONS = """
SELECT count(*) FROM pg_stat_activity
 WHERE datname = $1 AND backend_type = 'client backend' AND NOT ($2 AND usename = current_user)
"""
END_SESSIONS = SESSIONS.replace("count(*)", "count(pg_terminate_backend(pid))")
WORKED_ON = "an operation is at work on it"


class Thing(NamedTuple):
    """What is asked about. It is the actor of the work on it; no step of an operation waits for what it announces."""

    kind: str
    title: str  # its name in its server
    uid: str
    marker: str

    def name(self, kind: str, limit: int = 63) -> str:
        """A name of the same uid."""
        return outside_name(kind, self.uid, limit)

    def outside(self, call: str) -> None:
        """Nobody counts these calls; the recovery suite kills at them."""
        failpoints.send(call)

    @property
    def guard(self) -> str:
        """A statement that fails (division by zero) unless the thing carries the marker."""
        found = MARKERS[self.kind].format(name=literal(self.title))
        return f"SELECT 1 / (CASE WHEN split_part(({found}), ' ', 1) = {literal(self.marker)} THEN 1 ELSE 0 END)"


def thing_of(owned: Owned, store_id: str) -> Thing:
    """The thing of a list; one in a dedicated server is named `<cluster>/<name>`."""
    return Thing(
        owned.kind, owned.name.rpartition("/")[2], owned.uid, f"purveyor:{store_id}:{owned.uid}:{owned.revision}"
    )


@asynccontextmanager
async def reserved(sessions: Sessions, thing: Thing) -> AsyncIterator[Session]:
    """A session that holds every lock of the thing's uid. Raises Retryable while somebody else holds one."""
    keys = [lock_key(thing, piece) for piece in LOCKED]
    async with sessions.admin() as session:
        free = not await session.value(TAKE_ALL, keys)
        try:
            if not free or await session.value(LEFT_OF_ANY, [tag(key) for key in keys]):
                raise Retryable(WORKED_ON)
            yield session
        except (Ambiguous, Unreachable):
            raise  # the session is dropped, and its locks with it
        except ProviderError:
            await session.value("SELECT pg_advisory_unlock_all()")
            raise
        await session.value("SELECT pg_advisory_unlock_all()")


async def find(session: Session, thing: Thing) -> Comment | None:
    """What the thing says, None when there is no such thing. Raises MarkerChanged when it has another marker, or none."""
    rows = await session.ask(MARKERS[thing.kind].format(name="$1"), thing.title)
    if not rows:
        return None
    comment = notes.read(rows[0][0])
    if comment.marker != thing.marker:
        raise changed(thing)
    return comment


def changed(thing: Thing) -> MarkerChanged:
    """What to raise for a thing that is not what was asked about."""
    return MarkerChanged(f"the {thing.kind} {thing.title} does not carry that marker: it was left as it is")


async def change(session: Session, thing: Thing, call: str, *statements: str) -> None:
    """The statements as one transaction, none of them unless the thing carries the marker. Raises MarkerChanged."""
    try:
        await session.change(thing, call, thing.guard, *statements)
    except Permanent as error:
        if "DivisionByZero" in error.detail:
            raise changed(thing) from error
        raise


async def end_sessions(session: Session, database: str, limits: LimitsConfig, *, but_ours: bool = False) -> None:
    """End every session (`but_ours`: but the broker's) in a database that lets nobody in any more. Raises Retryable for one that stays."""
    end = time.monotonic() + limits.terminate_timeout_seconds
    while await session.value(SESSIONS, database, but_ours):
        if time.monotonic() > end:
            raise Retryable("sessions in the database do not end")
        try:
            await session.value(END_SESSIONS, database, but_ours)
        except RightsMissing as error:
            detail = f"{error.detail}: end the sessions of other roles in {database}"
            raise Retryable("sessions in the database are not the broker's to end", detail) from error
        await asyncio.sleep(POLL_SECONDS)


def busy() -> NotYet:
    """The answer while somebody is at work."""
    return NotYet(BUSY_SECONDS, WORKED_ON)
