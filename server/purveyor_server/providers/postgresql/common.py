"""The database that instances of plan `schema` share, and the role through which they may enter it.

Guarantee: it belongs to the broker's role, nobody enters it but members of its role, and there is no moment at which others
could; instances that need it at once make it once.
Limit: it stays when the last instance is gone. What its users share: the catalogs (names, definitions and the source of
functions can be read by all), advisory locks, NOTIFY channels, temporary space, and the server's resources.
"""

from __future__ import annotations

from purveyor_server.providers.contract import Context, Done, NotYet, Permanent, RightsMissing
from purveyor_server.providers.postgresql.pieces import BUSY_SECONDS, DatabaseFacts, LockedPiece, enter, find_database
from purveyor_server.providers.postgresql.roles import NO_RIGHTS
from purveyor_server.providers.postgresql.sessions import Session, common_key, holding
from purveyor_server.providers.postgresql.settings import SchemaSettings, settings_of
from purveyor_server.providers.postgresql.sql import ident, literal

READY = "purveyor: a schema for each instance"  # the comment of a database that is complete; no marker: it is nobody's
COMMENT = """
SELECT shobj_description(oid, 'pg_database') FROM pg_database WHERE datname = $1 AND pg_get_userbyid(datdba) = current_user
"""
COMMON = """
SELECT datname FROM pg_database
 WHERE pg_get_userbyid(datdba) = current_user AND datallowconn AND shobj_description(oid, 'pg_database') = $1 ORDER BY 1
"""
MIGHTY = """
SELECT rolcanlogin OR rolsuper OR rolcreatedb OR rolcreaterole OR rolreplication OR rolbypassrls
  FROM pg_roles WHERE rolname = $1
"""


def members_of(database: str) -> str:
    """The role whose members may enter `database`. One grant to it, instead of one per instance on one row."""
    return f"{database}_members"


async def common_databases(session: Session) -> list[str]:
    """Every such database of the broker's role."""
    return [row["datname"] for row in await session.ask(COMMON, READY)]


class CommonDatabasePiece(LockedPiece):
    """Makes the database where it is missing or was left half made. It is no instance's: `absent` has nothing to do."""

    name = "common_database"

    async def _ensure(self, ctx: Context, session: Session) -> Done | NotYet:
        database = settings_of(ctx.want, SchemaSettings).database
        if not await self._is_ready(session, database):
            async with holding(session, common_key(database)) as locked:
                if not locked:
                    return NotYet(BUSY_SECONDS, "another instance makes the shared database")
                await self._make(ctx, session, database)
        return Done({"database": database})

    async def _absent(self, ctx: Context, session: Session) -> Done | NotYet:  # noqa: ARG002 - the base's
        return Done()

    async def _is_ready(self, session: Session, database: str) -> bool:
        facts = await find_database(session, database)
        return facts is not None and facts.open and await session.value(COMMENT, database) == READY

    async def _make(self, ctx: Context, session: Session, database: str) -> None:
        facts, members = await find_database(session, database), members_of(database)
        mighty = await session.value(MIGHTY, members)
        if mighty:
            raise Permanent(f"the role {members} of the PostgreSQL server has rights that its members must not get")
        _check_owner(facts, database)
        ctx.report(20, "making the database that instances share")
        if facts is not None and facts.invalid:
            await session.change(ctx, "drop_invalid_common", f"DROP DATABASE IF EXISTS {ident(database)}")
        if facts is None or facts.invalid:
            create = f"CREATE DATABASE {ident(database)} TEMPLATE template0 ENCODING 'UTF8' ALLOW_CONNECTIONS false"
            await session.change(ctx, "create_common_database", create)
        make_members = [f"CREATE ROLE {ident(members)} NOLOGIN {NO_RIGHTS}"] if mighty is None else []
        await session.change(
            ctx,
            "open_common_database",
            *make_members,
            f"REVOKE ALL ON DATABASE {ident(database)} FROM PUBLIC",
            f"GRANT CONNECT, TEMPORARY ON DATABASE {ident(database)} TO {ident(members)}",
            f"ALTER DATABASE {ident(database)} ALLOW_CONNECTIONS true",
        )
        async with enter(self._sessions, session, ctx, self.name, database) as inside:
            if inside is not None:
                await inside.change(ctx, "close_public_schema", "REVOKE ALL ON SCHEMA public FROM PUBLIC")
        ready = f"COMMENT ON DATABASE {ident(database)} IS {literal(READY)}"
        await session.change(ctx, "finish_common_database", ready)


def _check_owner(facts: DatabaseFacts | None, database: str) -> None:
    if facts is not None and not facts.ours:
        detail = f"{database} belongs to {facts.owner}: run ALTER DATABASE {ident(database)} OWNER TO the broker's role"
        raise RightsMissing("the database that instances share belongs to somebody else", detail)
