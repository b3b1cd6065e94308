"""The piece of a binding: a login role of its own.

Guarantee: the server never sees the password in clear; the role can do nothing but what the instance's group can; what it
makes belongs to the group, so it outlives the binding and every other binding can use it. Taking it away ends in this
order: no new logins, no open session, nothing owned, no role. A dropped role's session would go on writing.
Limit: a consumer that leaves the group's role in its session (SET ROLE NONE, DISCARD ALL) makes objects of its own; they go to
the group when it unbinds. VALID UNTIL ends password logins, not open sessions.
"""

from __future__ import annotations

import asyncio
import time

from purveyor_server.providers.contract import Context, Done, NotYet, Permanent
from purveyor_server.providers.postgresql.config import LimitsConfig, read_binding, read_settings
from purveyor_server.providers.postgresql.database import NO_RIGHTS
from purveyor_server.providers.postgresql.grants import release
from purveyor_server.providers.postgresql.pieces import (
    DATABASE,
    GROUP,
    LOGIN,
    SharedPiece,
    enter,
    find_database,
    role_exists,
)
from purveyor_server.providers.postgresql.scram import make_verifier
from purveyor_server.providers.postgresql.sessions import Session, Sessions
from purveyor_server.providers.postgresql.sql import ident, literal

STARTING_SECONDS = 2.0  # a session that passed the login check needs milliseconds until it can be seen
POLL_SECONDS = 0.01
ENDING_SECONDS = 1.0
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
CUT = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1"
# Measured with PostgreSQL 18: a GRANT that waits for a DROP ROLE of the group succeeds afterwards, with a group that is gone.
IS_MEMBER = """
SELECT count(*) FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
 WHERE u.rolname = $1 AND g.rolname = $2
"""
GONE = "the instance's database or group role is gone from the server"
OPEN_SESSIONS = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1"


class LoginPiece(SharedPiece):
    """A login role in the instance's group."""

    name = "login"
    mints = ("password",)

    def __init__(self, sessions: Sessions, limits: LimitsConfig, endpoint: tuple[str, int | None, str]) -> None:
        super().__init__(sessions, limits)
        self._host, self._port, self._sslmode = endpoint

    async def _ensure(self, ctx: Context, session: Session) -> Done:
        role, database = ctx.name(LOGIN), ctx.instance_name(DATABASE)
        await _check_instance(ctx, session)
        exists = await role_exists(session, role)
        ctx.report(30, "making the login role")
        await session.change(ctx, "make_login", *_make(ctx, role, exists=exists))
        if not await session.value(IS_MEMBER, role, ctx.instance_name(GROUP)):
            raise Permanent(GONE, "the group role was dropped while the login was made")
        address = await self._sessions.address()
        return Done(
            {
                "host": self._host or address.host,
                "port": self._port or address.port,
                "database": database,
                "username": role,
                "sslmode": self._sslmode,
            }
        )

    async def _absent(self, ctx: Context, session: Session) -> Done | NotYet:
        role = ctx.name(LOGIN)
        if not await role_exists(session, role):
            return Done()
        ctx.report(10, "closing the login")
        await session.change(ctx, "lock_login", f"ALTER ROLE {ident(role)} NOLOGIN")
        await wait_for_starting(session)
        if not await self._cut(ctx, session, role):
            return NotYet(ENDING_SECONDS, "open sessions are ending")
        ctx.report(50, "handing over what the login made")
        await self._hand_over(ctx, session, role)
        ctx.report(90, "removing the login role")
        await release(self._sessions, session, ctx, self.name, role)
        await session.change(ctx, "drop_login", f"DROP ROLE IF EXISTS {ident(role)}")
        return Done()

    async def _cut(self, ctx: Context, session: Session, role: str) -> bool:
        """Terminate the role's sessions; True when none is left within the time-out."""
        if not await session.value(OPEN_SESSIONS, role):
            return True
        ctx.outside("terminate_sessions")
        end = time.monotonic() + self._limits.terminate_timeout_seconds
        while await session.value(CUT, role):  # counts those that it told to end: none means that all are gone
            if time.monotonic() > end:
                return False
            await asyncio.sleep(POLL_SECONDS)
        return True

    async def _hand_over(self, ctx: Context, session: Session, role: str) -> None:
        """To the group; where somebody dropped that, to the broker's role: a tenant's data is never dropped here."""
        group = ctx.instance_name(GROUP)
        heir = ident(group) if await role_exists(session, group) else "CURRENT_USER"
        async with enter(self._sessions, session, ctx, self.name, ctx.instance_name(DATABASE)) as inside:
            if inside is not None:
                statements = (f"REASSIGN OWNED BY {ident(role)} TO {heir}", f"DROP OWNED BY {ident(role)}")
                await inside.change(ctx, "reassign_owned", *statements)


async def _check_instance(ctx: Context, session: Session) -> None:
    facts = await find_database(session, ctx.instance_name(DATABASE))
    if facts is None or not await role_exists(session, ctx.instance_name(GROUP)):
        raise Permanent(GONE)


def _make(ctx: Context, role: str, *, exists: bool) -> list[str]:
    if ctx.work.binding is None or ctx.want is None:
        raise Permanent("a login belongs to a binding")
    plan = read_settings(ctx.want.plan)
    asked = read_binding(ctx.work.binding.parameters).connection_limit
    limit = plan.binding_connection_limit if asked is None else asked
    if limit > plan.max_connection_limit:
        raise Permanent(f"connection_limit: {limit} is more than the plan allows ({plan.max_connection_limit})")
    expiry = ctx.work.binding.expires_at
    until = literal(expiry.isoformat()) if expiry else "'infinity'"
    verb, rights = ("ALTER", "") if exists else ("CREATE", NO_RIGHTS)
    verifier = literal(make_verifier(role, ctx.secret("password")))
    group = ident(ctx.instance_name(GROUP))
    return [
        f"{verb} ROLE {ident(role)} LOGIN {rights} PASSWORD {verifier} CONNECTION LIMIT {limit} VALID UNTIL {until}",
        f"GRANT {group} TO {ident(role)} WITH ADMIN FALSE, INHERIT TRUE, SET TRUE",
        f"ALTER ROLE {ident(role)} IN DATABASE {ident(ctx.instance_name(DATABASE))} SET role = {group}",
        f"COMMENT ON ROLE {ident(role)} IS {literal(ctx.marker)}",
    ]


async def wait_for_starting(session: Session) -> None:
    """Wait until every session that was logging in when this was called can be seen, or is gone; at most STARTING_SECONDS."""
    rows = await session.ask(STARTING)
    noted = [row["pid"] for row in rows], [row["virtualxid"] for row in rows]
    end = time.monotonic() + STARTING_SECONDS
    while rows and time.monotonic() < end and await session.value(STILL_STARTING, *noted):  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(POLL_SECONDS)
