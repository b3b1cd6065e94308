"""Pieces of an instance in the admin database: its group role and its database.

Guarantee: the database belongs to the broker's role (an owner can let others in), nobody but the instance's group may
connect to it, and there is no moment at which others could: it is made closed and opened with its rights in place.
Limit: a prepared transaction left in the database (max_prepared_transactions > 0) keeps it from being dropped until the
server's operator ends it; an ICU or libc locale must exist in the server.
"""

from __future__ import annotations

from purveyor_server.providers.contract import Context, Done, NotYet, Permanent, RightsMissing
from purveyor_server.providers.postgresql.grants import release
from purveyor_server.providers.postgresql.pieces import (
    DATABASE,
    EXTENSION_SCHEMA,
    GROUP,
    DatabaseFacts,
    LockedPiece,
    Wanted,
    default_setting,
    find_database,
    read_wanted,
    role_exists,
)
from purveyor_server.providers.postgresql.roles import NO_RIGHTS, left_members
from purveyor_server.providers.postgresql.sessions import Actor, Session
from purveyor_server.providers.postgresql.settings import DatabaseSettings, PlanSettings, settings_of
from purveyor_server.providers.postgresql.sql import ident, literal


class GroupPiece(LockedPiece):
    """The role that owns what the bindings make. Nobody logs in as it."""

    name = "group"

    async def _ensure(self, ctx: Context, session: Session) -> Done:
        settings_of(ctx.want, PlanSettings)
        group = ctx.instance_name(GROUP)
        statements = [f"COMMENT ON ROLE {ident(group)} IS {literal(ctx.marker)}"]
        if not await role_exists(session, group):
            statements.insert(0, f"CREATE ROLE {ident(group)} NOLOGIN {NO_RIGHTS}")
        ctx.report(50, "making the group role")
        await session.change(ctx, "make_group", *statements)
        return Done({"role": group})

    async def _absent(self, ctx: Context, session: Session) -> Done:
        """Logins that are still members go first: their objects went with the database, their names must not stay."""
        group = ctx.instance_name(GROUP)
        left = await left_members(session, group)
        if not left and not await role_exists(session, group):
            return Done()
        ctx.report(50, "removing the group role")
        roles = [*left, group]
        for role in roles:
            await release(self._sessions, session, ctx, self.name, role)
        await session.change(ctx, "drop_group", *(f"DROP ROLE IF EXISTS {ident(role)}" for role in roles))
        return Done()


class DatabasePiece(LockedPiece):
    """The database with its rights and limits."""

    name = "database"
    weight = 3.0

    async def _ensure(self, ctx: Context, session: Session) -> Done:
        wanted, database = read_wanted(ctx), ctx.instance_name(DATABASE)
        limit = wanted.connection_limit
        facts = await find_database(session, database)
        if facts is not None and facts.invalid:
            await session.change(ctx, "drop_invalid_database", f"DROP DATABASE IF EXISTS {ident(database)}")
            facts = None
        if facts is not None and not facts.ours:
            raise Permanent("the database belongs to somebody else", f"{database} belongs to {facts.owner}")
        if facts is None:
            ctx.report(10, "creating the database")
            await session.change(ctx, "create_database", _create(database, limit, wanted.plan))
        ctx.report(80, "setting rights and limits")
        await session.change(ctx, "open_database", *opening(ctx, database, limit, wanted))
        return Done({"database": database, "connection_limit": limit})

    async def _absent(self, ctx: Context, session: Session) -> Done | NotYet:
        database = ctx.instance_name(DATABASE)
        facts = await find_database(session, database)
        if facts is None:
            return Done()
        _check_owner(facts, database)
        if not facts.invalid:
            ctx.report(10, "closing the database")
            closing = f"ALTER DATABASE {ident(database)} ALLOW_CONNECTIONS false"
            await session.change(ctx, "close_database", closing)
        ctx.report(40, "dropping the database")
        await drop_closed(session, ctx, ident(database))
        return Done()


async def drop_closed(session: Session, ctx: Actor, name: str) -> None:
    """Drop a database that takes no connections any more; `name` is quoted.

    FORCE ends every session first, but is refused as a whole while an autovacuum worker is in the database: it asks for the
    right to end that too. The plain form ends the workers by itself, and is refused while sessions are left: asked again
    later, one of the two gets through.
    """
    try:
        await session.change(ctx, "drop_database", f"DROP DATABASE IF EXISTS {name} WITH (FORCE)")
    except RightsMissing:
        await session.change(ctx, "drop_vacuumed_database", f"DROP DATABASE IF EXISTS {name}")


def _check_owner(facts: DatabaseFacts, database: str) -> None:
    if not facts.ours:
        detail = f"{database} belongs to {facts.owner}: give it back (ALTER DATABASE ... OWNER TO) or drop it"
        raise RightsMissing("the database belongs to somebody else", detail)


def _create(database: str, limit: int, plan: DatabaseSettings) -> str:
    provider = f" LOCALE_PROVIDER {plan.locale_provider}" if plan.locale_provider else ""
    # The builtin and ICU providers have options of their own beside the libc locale.
    option = {"icu": "ICU_LOCALE", "builtin": "BUILTIN_LOCALE"}.get(plan.locale_provider or "", "LOCALE")
    locale = f" {option} {literal(plan.locale)}" if plan.locale else ""
    return (
        f"CREATE DATABASE {ident(database)} TEMPLATE template0 ENCODING 'UTF8'{provider}{locale}"
        f" ALLOW_CONNECTIONS false CONNECTION LIMIT {limit}"
    )


def opening(ctx: Context, database: str, limit: int, wanted: Wanted, comment: str = "") -> list[str]:
    """What gives a database that is there its rights, limits and comment (the marker where none is given), and lets its group in."""
    name, group = ident(database), ident(ctx.instance_name(GROUP))
    return [
        f"REVOKE ALL ON DATABASE {name} FROM PUBLIC",
        f"GRANT CONNECT, TEMPORARY ON DATABASE {name} TO {group}",
        f"ALTER DATABASE {name} CONNECTION LIMIT {limit}",
        f'ALTER DATABASE {name} SET search_path = "$user", public, {EXTENSION_SCHEMA}',
        default_setting(f"DATABASE {name}", "statement_timeout", wanted.plan.statement_timeout_seconds),
        default_setting(
            f"DATABASE {name}",
            "idle_in_transaction_session_timeout",
            wanted.plan.idle_in_transaction_timeout_seconds,
        ),
        f"COMMENT ON DATABASE {name} IS {literal(comment or ctx.marker)}",
        f"ALTER DATABASE {name} ALLOW_CONNECTIONS true",
    ]
