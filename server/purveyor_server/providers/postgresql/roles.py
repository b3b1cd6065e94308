"""Ending the access of a role: no new logins, then no open session. A dropped role's session would go on writing.

Guarantee: when `shut_out` returns True nobody is logged in as the role, and nobody can log in as it again.
Limit: a session that is logging in just then and takes longer than STARTING_SECONDS is not waited for.
"""

from __future__ import annotations

import asyncio
import time

from purveyor_server.providers.postgresql.pieces import LOGIN
from purveyor_server.providers.postgresql.sessions import Actor, Session
from purveyor_server.providers.postgresql.sql import ident

# ALTER ROLE may not mention SUPERUSER, REPLICATION and BYPASSRLS without having them: CREATE says it all.
NO_RIGHTS = "NOSUPERUSER NOCREATEDB NOCREATEROLE NOREPLICATION NOBYPASSRLS INHERIT"
STARTING_SECONDS = 2.0  # a session that passed the login check needs milliseconds until it can be seen
POLL_SECONDS = 0.01
# Backends in a transaction that no database is shown for: among them those that log in just now. They are seen by their
# virtual transaction; one that read "may log in" before the change committed has begun it before.
STARTING = """
SELECT l.pid, l.virtualxid FROM pg_locks l
 WHERE l.locktype = 'virtualxid'
   AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.datid IS NOT NULL)
"""
STILL_STARTING = """
SELECT count(*) FROM pg_locks l JOIN unnest($1::int[], $2::text[]) AS s(pid, virtualxid)
    ON (l.pid, l.virtualxid) = (s.pid, s.virtualxid)
   AND NOT EXISTS (SELECT FROM pg_stat_activity a WHERE a.pid = l.pid AND a.datid IS NOT NULL)
"""
OPEN_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"
CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1"
_LEFT_MEMBERS = """
SELECT r.rolname FROM pg_auth_members m
  JOIN pg_roles r ON r.oid = m.member
  JOIN pg_roles g ON g.oid = m.roleid
 WHERE g.rolname = $1 AND starts_with(r.rolname, $2)
 ORDER BY 1
"""


async def left_members(session: Session, group: str) -> list[str]:
    """Logins of bindings that are still members of `group`."""
    return [row["rolname"] for row in await session.ask(_LEFT_MEMBERS, group, f"pv_{LOGIN}_")]


async def shut_out(ctx: Actor, session: Session, role: str, seconds: float) -> bool:
    """Take the login away and terminate what is open; True when nothing is left within `seconds`."""
    await session.change(ctx, "lock_login", f"ALTER ROLE {ident(role)} NOLOGIN")
    await wait_for_starting(session)
    if not await session.value(OPEN_SESSIONS, role):
        return True
    ctx.outside("terminate_sessions")
    end = time.monotonic() + seconds
    while await session.value(CUT, role):  # counts those that it told to end: none means that all are gone
        if time.monotonic() > end:
            return False
        await asyncio.sleep(POLL_SECONDS)
    return True


async def wait_for_starting(session: Session) -> None:
    """Wait until every session that was logging in when this was called can be seen, or is gone; at most STARTING_SECONDS."""
    rows = await session.ask(STARTING)
    noted = [row["pid"] for row in rows], [row["virtualxid"] for row in rows]
    end = time.monotonic() + STARTING_SECONDS
    while rows and time.monotonic() < end and await session.value(STILL_STARTING, *noted):  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(POLL_SECONDS)
