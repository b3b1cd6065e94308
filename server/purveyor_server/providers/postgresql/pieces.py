"""What the pieces have in common.

Guarantee: `ensure` and `absent` run under the piece's own advisory lock (see `sessions`); a second run that finds it held
does nothing and asks to be called again.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from typing import NamedTuple

from purveyor_server.providers.contract import Context, Done, NotYet, Permanent, ProviderError
from purveyor_server.providers.postgresql.config import LimitsConfig
from purveyor_server.providers.postgresql.sessions import Actor, FullError, Session, Sessions
from purveyor_server.providers.postgresql.settings import (
    BindingParameters,
    DatabaseSettings,
    PlanSettings,
    SharedParameters,
    read_as,
    settings_of,
)
from purveyor_server.providers.postgresql.sql import ident

BUSY_SECONDS = 0.5
DATABASE, GROUP, LOGIN, SCHEMA = "db", "grp", "usr", "sch"  # kinds of outside names
EXTENSION_SCHEMA = "extensions"
RAISED = 1_000_000  # added to a connection limit while the broker goes in; what it was can be read off after a crash
INVALID_DATABASE = -2  # datconnlimit of a database whose DROP was interrupted


class DatabaseFacts(NamedTuple):
    """What the catalog says of a database; `limit` is as wanted, without RAISED."""

    owner: str
    ours: bool
    open: bool
    limit: int
    raised: bool
    invalid: bool


class Wanted(NamedTuple):
    """Settings of an instance that is a database, read and checked against each other."""

    plan: DatabaseSettings
    parameters: SharedParameters

    @property
    def connection_limit(self) -> int:
        """Most sessions in the database."""
        asked = self.parameters.connection_limit
        limit = self.plan.connection_limit if asked is None else asked
        if limit > self.plan.max_connection_limit:
            raise Permanent(
                f"connection_limit: {limit} is more than the plan allows ({self.plan.max_connection_limit})"
            )
        return limit

    @property
    def extensions(self) -> frozenset[str]:
        """What shall be installed."""
        refused = sorted(set(self.parameters.extensions) - set(self.plan.extensions))
        if refused:
            allowed = ", ".join(self.plan.extensions) or "none"
            raise Permanent(f"extensions: {', '.join(refused)}: not offered by this plan (it offers {allowed})")
        return frozenset(self.parameters.extensions)


class LockedPiece(ABC):
    """Base of the pieces."""

    name = ""
    weight = 1.0
    mints: tuple[str, ...] = ()

    def __init__(self, sessions: Sessions, limits: LimitsConfig) -> None:
        self._sessions = sessions
        self._limits = limits

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Make it as `ctx.want` says."""
        async with self._sessions.work(ctx, self.name) as session:
            if session is None:
                return NotYet(BUSY_SECONDS, "an earlier run is still at work")
            return await self._ensure(ctx, session)

    async def absent(self, ctx: Context) -> Done | NotYet:
        """Make it gone."""
        async with self._sessions.work(ctx, self.name) as session:
            if session is None:
                return NotYet(BUSY_SECONDS, "an earlier run is still at work")
            return await self._absent(ctx, session)

    async def settle(self, ctx: Context) -> bool:
        """True once no earlier interrupted call of this piece can still take effect."""
        return await self._sessions.settled(ctx, self.name)

    @abstractmethod
    async def _ensure(self, ctx: Context, session: Session) -> Done | NotYet:
        """`ensure` under the lock; `session` holds it."""

    @abstractmethod
    async def _absent(self, ctx: Context, session: Session) -> Done | NotYet:
        """`absent` under the lock; `session` holds it."""


def read_wanted(ctx: Context) -> Wanted:
    """What this run works towards. Raises Permanent for settings that cannot be used."""
    plan = settings_of(ctx.want, DatabaseSettings)
    return Wanted(plan, read_as(SharedParameters, ctx.want.parameters if ctx.want else {}))


async def find_database(session: Session, name: str) -> DatabaseFacts | None:
    """What the catalog says of the database `name`."""
    rows = await session.ask(
        "SELECT pg_get_userbyid(datdba) AS owner, pg_get_userbyid(datdba) = current_user AS ours, datallowconn,"
        " datconnlimit FROM pg_database WHERE datname = $1",
        name,
    )
    if not rows:
        return None
    limit = rows[0]["datconnlimit"]
    raised = limit >= RAISED
    return DatabaseFacts(
        rows[0]["owner"], rows[0]["ours"], rows[0]["datallowconn"], limit - RAISED if raised else limit, raised,
        limit == INVALID_DATABASE,
    )  # fmt: skip


async def role_exists(session: Session, name: str) -> bool:
    """Whether there is a role `name`."""
    return bool(await session.value("SELECT count(*) FROM pg_roles WHERE rolname = $1", name))


def login_parameters(ctx: Context) -> BindingParameters:
    """What the binding asked for. Raises Permanent."""
    if ctx.work.binding is None:
        raise Permanent("a login belongs to a binding")
    return read_as(BindingParameters, ctx.work.binding.parameters)


def login_limit(ctx: Context, plan: PlanSettings) -> int:
    """Most sessions at once of the binding's login. Raises Permanent."""
    asked = login_parameters(ctx).connection_limit
    limit = plan.binding_connection_limit if asked is None else asked
    if limit > plan.max_connection_limit:
        raise Permanent(f"connection_limit: {limit} is more than the plan allows ({plan.max_connection_limit})")
    return limit


def default_setting(target: str, key: str, seconds: float | None) -> str:
    """`target` is what ALTER takes: a database, or a role in one. Consumers may change the value in their sessions."""
    if seconds is None:
        return f"ALTER {target} RESET {key}"
    return f"ALTER {target} SET {key} = {seconds * 1000:.0f}"


async def set_limit(session: Session, ctx: Actor, call: str, database: str, limit: int) -> None:
    """Set the connection limit of `database`."""
    await session.change(ctx, call, f"ALTER DATABASE {ident(database)} CONNECTION LIMIT {limit}")


@asynccontextmanager
async def enter(
    sessions: Sessions, session: Session, ctx: Actor, piece: str, database: str
) -> AsyncIterator[Session | None]:
    """A session inside a tenant's database, that its own sessions cannot keep out; None when it is gone or closed.

    The connection limit counts the broker's session too, and a database that is full would keep it from taking access
    away. So a full one has its limit raised for the moment of coming in; what a crash left raised is set right here too.
    """
    facts = await find_database(session, database)
    if facts is None or facts.invalid or not facts.open:
        yield None
        return
    async with AsyncExitStack() as stack:
        try:
            inside = await stack.enter_async_context(sessions.inside(database, ctx, piece))
        except FullError:
            inside = await _enter_full(stack, sessions, session, ctx, piece, database, facts)
        else:
            if facts.raised:
                await set_limit(session, ctx, "lower_limit", database, facts.limit)
        yield inside


async def _enter_full(
    stack: AsyncExitStack,
    sessions: Sessions,
    session: Session,
    ctx: Actor,
    piece: str,
    database: str,
    facts: DatabaseFacts,
) -> Session:
    if facts.limit < 0:
        raise FullError("there are too many sessions in the PostgreSQL server")
    await set_limit(session, ctx, "raise_limit", database, facts.limit + RAISED)
    try:
        inside = await stack.enter_async_context(sessions.inside(database, ctx, piece))
    except ProviderError:
        await set_limit(session, ctx, "lower_limit", database, facts.limit)
        raise
    await set_limit(session, ctx, "lower_limit", database, facts.limit)
    return inside
