"""Grants that other tenants made to a role of ours.

Role names can be read by all, so any tenant may grant rights on its own objects to the login or group of another. Such a
grant gives nothing (nobody gets into the other database to use it), but a role that is named in one cannot be dropped.

Guarantee: `release` takes those grants back, wherever they are, and never drops what somebody owns.
Limit: it waits for the lock of a table that is named in a policy, at most the lock time-out; the role can no longer log in by
then. In databases that are not the broker's an administrator must do it.
"""

from __future__ import annotations

from purveyor_server.providers.contract import Retryable
from purveyor_server.providers.postgresql.pieces import enter
from purveyor_server.providers.postgresql.sessions import Actor, Session, Sessions
from purveyor_server.providers.postgresql.sql import ident

HOLDERS = """
SELECT d.datname, bool_or(s.deptype = 'o') AS owns FROM pg_shdepend s
  JOIN pg_database d ON d.oid = s.dbid
  JOIN pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_authid'::regclass
 WHERE r.rolname = $1 GROUP BY d.datname ORDER BY d.datname
"""


async def release(sessions: Sessions, session: Session, ctx: Actor, piece: str, role: str) -> None:
    """Take back what was granted to `role` in any database. Raises Retryable when it owns something there."""
    for row in await session.ask(HOLDERS, role):
        if row["owns"]:
            detail = f"{role} owns objects in database {row['datname']}: REASSIGN OWNED there"
            raise Retryable("a role of the PostgreSQL server still owns something", detail)
        async with enter(sessions, session, ctx, piece, row["datname"]) as inside:
            if inside is not None:
                await inside.change(ctx, "release_grants", f"DROP OWNED BY {ident(role)}")
