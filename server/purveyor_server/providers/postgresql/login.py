"""The piece of a binding: a login role of its own.

Guarantee: the server never sees the password in clear; the role can do nothing but what the instance's group can; what it
makes belongs to the group, so it outlives the binding and every other binding can use it. Taking it away ends in this
order: no new logins, no open session, nothing owned, no role. A dropped role's session would go on writing.
Limit: a consumer that leaves the group's role in its session (SET ROLE NONE, DISCARD ALL) makes objects of its own; they go to
the group when it unbinds. VALID UNTIL ends password logins, not open sessions.
"""

from __future__ import annotations

from typing import NamedTuple

from purveyor_server.domain.model import Json
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import Context, Done, NotYet, Permanent
from purveyor_server.providers.postgresql.config import LimitsConfig
from purveyor_server.providers.postgresql.grants import HOLDERS, release
from purveyor_server.providers.postgresql.own_schema import login_settings
from purveyor_server.providers.postgresql.pieces import (
    DATABASE,
    GROUP,
    LOGIN,
    SCHEMA,
    LockedPiece,
    enter,
    find_database,
    login_limit,
    login_parameters,
    role_exists,
)
from purveyor_server.providers.postgresql.roles import NO_RIGHTS, shut_out
from purveyor_server.providers.postgresql.scram import make_verifier
from purveyor_server.providers.postgresql.sessions import Session, Sessions
from purveyor_server.providers.postgresql.settings import SchemaSettings, read_settings, settings_of
from purveyor_server.providers.postgresql.sql import ident, literal

ENDING_SECONDS = 1.0
# Measured with PostgreSQL 18: a GRANT that waits for a DROP ROLE of the group succeeds afterwards, with a group that is gone.
IS_MEMBER = """
SELECT count(*) FROM pg_auth_members m JOIN pg_roles u ON u.oid = m.member JOIN pg_roles g ON g.oid = m.roleid
 WHERE u.rolname = $1 AND g.rolname = $2
"""
GONE = "the instance's database or group role is gone from the server"


class LoginPiece(LockedPiece):
    """A login role in the instance's group."""

    name = "login"
    mints = ("password",)

    def __init__(self, sessions: Sessions, limits: LimitsConfig, endpoint: tuple[str, int | None, str]) -> None:
        super().__init__(sessions, limits)
        self._host, self._port, self._sslmode = endpoint

    async def _ensure(self, ctx: Context, session: Session) -> Done:
        role, home = ctx.name(LOGIN), home_of(ctx)
        await _check_instance(ctx, session, home)
        exists = await role_exists(session, role)
        proof = await self._proof(ctx, session, role)
        ctx.report(30, "making the login role")
        await session.change(ctx, "make_login", *_make(ctx, role, home, proof, exists=exists))
        if not await session.value(IS_MEMBER, role, ctx.instance_name(GROUP)):
            raise Permanent(GONE, "the group role was dropped while the login was made")
        address = await self._sessions.address()
        where = {"database": home.database} | ({"schema": home.schema} if home.schema else {})
        return Done(
            {
                "host": self._host or address.host,
                "port": self._port or address.port,
                "username": role,
                "sslmode": self._sslmode,
                **where,
                **proof.outputs,
            },
            proof.secrets,
        )

    async def _proof(self, ctx: Context, session: Session, role: str) -> Proof:  # noqa: ARG002 - others ask the server
        """How the login proves itself: by the password that the core has minted."""
        if login_parameters(ctx).credentials != "password":
            raise Permanent("credentials: this plan offers passwords only")
        return by_password(ctx, role)

    async def _absent(self, ctx: Context, session: Session) -> Done | NotYet:
        role = ctx.name(LOGIN)
        if not await role_exists(session, role):
            return Done()
        ctx.report(10, "closing the login")
        if not await shut_out(ctx, session, role, self._limits.terminate_timeout_seconds):
            return NotYet(ENDING_SECONDS, "open sessions are ending")
        ctx.report(50, "handing over what the login made")
        await self._hand_over(ctx, session, role)
        ctx.report(90, "removing the login role")
        await release(self._sessions, session, ctx, self.name, role)
        await session.change(ctx, "drop_login", f"DROP ROLE IF EXISTS {ident(role)}")
        return Done()

    async def _hand_over(self, ctx: Context, session: Session, role: str) -> None:
        """To the group; where somebody dropped that, to the broker's role: a tenant's data is never dropped here."""
        group, home = ctx.instance_name(GROUP), home_of(ctx)
        heir = ident(group) if await role_exists(session, group) else "CURRENT_USER"
        async with enter(self._sessions, session, ctx, self.name, home.database) as inside:
            if inside is not None:
                statements = (f"REASSIGN OWNED BY {ident(role)} TO {heir}", f"DROP OWNED BY {ident(role)}")
                await inside.change(ctx, "reassign_owned", *statements)


class Proof(NamedTuple):
    """What a role's password is set to, statements that go with it, and what the binding gets besides."""

    password: str
    statements: tuple[str, ...] = ()
    secrets: dict[str, Secret] = {}  # noqa: RUF012 - never changed
    outputs: dict[str, Json] = {}  # noqa: RUF012 - never changed


def by_password(ctx: Context, role: str) -> Proof:
    """The verifier of the binding's password."""
    return Proof(literal(make_verifier(role, ctx.secret("password"))))


class Home(NamedTuple):
    """Where the instance of a binding lives in the server; `schema` is empty where the database is its own."""

    database: str
    schema: str = ""


def home_of(ctx: Context) -> Home:
    """By the settings that the binding's instance has."""
    if ctx.want is not None:
        settings = read_settings(ctx.want.plan)
        if isinstance(settings, SchemaSettings):
            return Home(settings.database, ctx.instance_name(SCHEMA))
    return Home(ctx.instance_name(DATABASE))


async def _check_instance(ctx: Context, session: Session, home: Home) -> None:
    group = ctx.instance_name(GROUP)
    if await find_database(session, home.database) is None or not await role_exists(session, group):
        raise Permanent(GONE)
    # The group's rights in its schema are all that is seen of the schema from here.
    if home.schema and home.database not in {row["datname"] for row in await session.ask(HOLDERS, group)}:
        raise Permanent(GONE, f"{group} has no schema in {home.database}")


def _make(ctx: Context, role: str, home: Home, proof: Proof, *, exists: bool) -> list[str]:
    if ctx.work.binding is None or ctx.want is None:
        raise Permanent("a login belongs to a binding")
    limit = login_limit(ctx, read_settings(ctx.want.plan))
    expiry = ctx.work.binding.expires_at
    until = literal(expiry.isoformat()) if expiry else "'infinity'"
    verb, rights = ("ALTER", "") if exists else ("CREATE", NO_RIGHTS)
    limits = f"CONNECTION LIMIT {limit} VALID UNTIL {until}"
    group = ident(ctx.instance_name(GROUP))
    return [
        f"{verb} ROLE {ident(role)} LOGIN {rights} PASSWORD {proof.password} {limits}",
        f"GRANT {group} TO {ident(role)} WITH ADMIN FALSE, INHERIT TRUE, SET TRUE",
        f"ALTER ROLE {ident(role)} IN DATABASE {ident(home.database)} SET role = {group}",
        *_in_schema(ctx, role, home),
        *proof.statements,
        f"COMMENT ON ROLE {ident(role)} IS {literal(ctx.marker)}",
    ]


def _in_schema(ctx: Context, role: str, home: Home) -> list[str]:
    if not home.schema:
        return []
    path = f"ALTER ROLE {ident(role)} IN DATABASE {ident(home.database)} SET search_path = {ident(home.schema)}"
    return [path, *login_settings(role, home.database, settings_of(ctx.want, SchemaSettings))]
