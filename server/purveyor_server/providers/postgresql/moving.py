"""An instance moves from the shared server into one of its own: an update from a plan `shared` to a plan `dedicated`.

Guarantee: until the pivot the old database is what is used, whole: every step before it is undone by `ensure` with the previous
settings, which here means that nothing of the new server is left and the old database lets its group in again. Between the
standstill and the pivot nobody writes: what was acknowledged before is in the dump, what comes after is refused. The old
database and its logins go last. A binding that ends meanwhile ends in both servers.
Limit: nobody is let in from the standstill until the new credentials are given out. A superuser of the server is not kept out.
Rows of tables that are larger than COUNTED are not counted again after the move, their names are compared.
"""

from __future__ import annotations

from typing import NamedTuple

from purveyor_server.domain.names import outside_name
from purveyor_server.providers.contract import Context, Done, NotYet, Permanent, Piece, Retryable
from purveyor_server.providers.postgresql import notes
from purveyor_server.providers.postgresql.cluster import ADMIN
from purveyor_server.providers.postgresql.config import LimitsConfig
from purveyor_server.providers.postgresql.custody import end_sessions
from purveyor_server.providers.postgresql.dedicated import BUSY
from purveyor_server.providers.postgresql.host import Cluster
from purveyor_server.providers.postgresql.pieces import DATABASE, GROUP, LockedPiece, find_database, role_exists
from purveyor_server.providers.postgresql.roles import NO_RIGHTS, left_members, wait_for_starting
from purveyor_server.providers.postgresql.sessions import Session, Sessions
from purveyor_server.providers.postgresql.sql import ident, literal

COUNTED = 1_000_000  # rows
PREPARED = "SELECT count(*) FROM pg_prepared_xacts WHERE database = $1"
MARKER = "SELECT shobj_description(oid, 'pg_authid') FROM pg_roles WHERE rolname = $1"
# Who is named in the database: owners, holders of rights, those of policies.
NAMED = """
SELECT DISTINCT r.rolname FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_authid'::regclass
 WHERE s.dbid = (SELECT oid FROM pg_database WHERE datname = $1) ORDER BY 1
"""
# A login that was unbound meanwhile may be left in neither list: it is none of those that log in.
STRANGE = """
SELECT rolname FROM pg_roles WHERE oid >= 16384 AND rolname <> $2
   AND (rolcanlogin OR rolsuper OR rolcreaterole OR rolcreatedb OR rolreplication OR rolbypassrls
        OR rolname <> ALL($1) AND NOT starts_with(rolname, 'pv_usr_') AND rolname <> 'purveyor_certificates')
"""
CONTENTS = """
SELECT format('%I.%I', n.nspname, c.relname) AS name, c.relkind::text AS kind, pg_get_userbyid(c.relowner) AS owner,
       c.reltuples AS rows
  FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f') AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
UNION ALL SELECT lomowner::regrole::text, 'large objects', count(*)::text, 0 FROM pg_largeobject_metadata GROUP BY lomowner
ORDER BY 1, 2
"""


def is_move(ctx: Context) -> bool:
    """Whether this run works towards the new server; False when the move is undone."""
    return ctx.want is not None and ctx.want.plan.get("kind") == "dedicated"


class Moved:
    """A piece of the new server: made on the way there, removed on the way back."""

    def __init__(self, inner: Piece) -> None:
        self._inner = inner
        self.name = inner.name
        self.weight = inner.weight
        self.mints = inner.mints

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """There, or gone when the move is undone."""
        return await (self._inner.ensure(ctx) if is_move(ctx) else self._inner.absent(ctx))

    async def absent(self, ctx: Context) -> Done | NotYet:
        """Gone."""
        return await self._inner.absent(ctx)

    async def settle(self, ctx: Context) -> bool:
        """As the piece says."""
        return await self._inner.settle(ctx)


class Old(NamedTuple):
    """A piece of the old server, under a name beside the new one's."""

    inner: Piece

    @property
    def name(self) -> str:
        """`old_` and the piece's."""
        return f"old_{self.inner.name}"

    @property
    def weight(self) -> float:
        """As the piece's."""
        return self.inner.weight

    @property
    def mints(self) -> tuple[str, ...]:
        """None: it is only removed."""
        return ()

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Never asked for: the step removes it, and it is past the pivot."""
        return await self.inner.absent(ctx)

    async def absent(self, ctx: Context) -> Done | NotYet:
        """Gone."""
        return await self.inner.absent(ctx)

    async def settle(self, ctx: Context) -> bool:
        """As the piece says."""
        return await self.inner.settle(ctx)


class InBoth:
    """A piece of the shared server whose removal also removes what a move has made of it in the instance's own server."""

    def __init__(self, inner: Piece, other: Piece, cluster: Cluster) -> None:
        self._inner = inner
        self._other = other
        self._cluster = cluster
        self.name = inner.name
        self.weight = inner.weight
        self.mints = inner.mints

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """In the shared server."""
        return await self._inner.ensure(ctx)

    async def absent(self, ctx: Context) -> Done | NotYet:
        """In the shared server first: a move that is under way copies what is there."""
        answer = await self._inner.absent(ctx)
        if isinstance(answer, Done) and self._cluster.there:
            return await self._other.absent(ctx)
        return answer

    async def settle(self, ctx: Context) -> bool:
        """When both say so."""
        return await self._inner.settle(ctx) and (not self._cluster.there or await self._other.settle(ctx))


class StandstillPiece(LockedPiece):
    """Nobody but the broker enters the old database; on the way back its group may again."""

    name = "standstill"

    async def _ensure(self, ctx: Context, session: Session) -> Done | NotYet:
        database, group = ctx.instance_name(DATABASE), ctx.instance_name(GROUP)
        there = await find_database(session, database) is not None and await role_exists(session, group)
        if not is_move(ctx):
            if there:
                opening = f"GRANT CONNECT, TEMPORARY ON DATABASE {ident(database)} TO {ident(group)}"
                await session.change(ctx, "end_standstill", opening)
            return Done()
        if not there:
            raise Permanent("the instance's database or group role is gone from the server")
        if await session.value(PREPARED, database):
            raise Retryable(
                "transactions in the database are prepared and not ended", "COMMIT or ROLLBACK PREPARED them"
            )
        ctx.report(20, "stopping writes")
        await session.change(
            ctx, "begin_standstill", f"REVOKE CONNECT ON DATABASE {ident(database)} FROM {ident(group)}"
        )
        await wait_for_starting(session)
        ctx.outside("end_sessions")
        await end_sessions(session, database, self._limits, but_ours=True)
        return Done()

    async def _absent(self, ctx: Context, session: Session) -> Done:  # noqa: ARG002 - the base's
        """It goes with the database."""
        return Done()


class _Subject(NamedTuple):
    """The actor whose locks are those of the resource `uid`."""

    ctx: Context
    uid: str

    def name(self, kind: str, limit: int = 63) -> str:
        return outside_name(kind, self.uid, limit)

    def outside(self, call: str) -> None:
        self.ctx.outside(call)


class LoginsPiece(LockedPiece):
    """Every role that the old database names, in the new server, where none of them logs in yet."""

    name = "logins"

    def __init__(self, source: Sessions, cluster: Cluster, limits: LimitsConfig) -> None:
        super().__init__(cluster.sessions, limits)
        self._source = source
        self._cluster = cluster

    async def _ensure(self, ctx: Context, session: Session) -> Done | NotYet:
        database, group = ctx.instance_name(DATABASE), ctx.instance_name(GROUP)
        async with self._source.admin() as source:
            members = await left_members(source, group)
            named = [row["rolname"] for row in await source.ask(NAMED, database)]
            markers = {login: await source.value(MARKER, login) for login in members}
        for login in members:
            if not await self._copy_login(ctx, session, login, notes.read(markers[login]).marker):
                return BUSY
        for role in named:
            if role not in members and not await role_exists(session, role):
                await session.change(ctx, "make_role", f"CREATE ROLE {ident(role)} NOLOGIN {NO_RIGHTS}")
        return Done()

    async def _copy_login(self, ctx: Context, session: Session, login: str, marker: str) -> bool:
        """Under the login's lock: whoever unbinds it has either been here before, or finds it in both servers."""
        uid = marker.split(":")[2] if marker.count(":") == 3 else ""  # noqa: PLR2004 - purveyor:store:uid:revision
        async with self._source.work(_Subject(ctx, uid), "login") as source:
            if source is None:
                return False
            if not await role_exists(source, login) or await role_exists(session, login):
                return True
            await session.change(
                ctx,
                "copy_login",
                f"CREATE ROLE {ident(login)} NOLOGIN {NO_RIGHTS}",
                f"GRANT {ident(ctx.instance_name(GROUP))} TO {ident(login)} WITH ADMIN FALSE, INHERIT TRUE, SET TRUE",
                f"COMMENT ON ROLE {ident(login)} IS {literal(marker)}",
            )
        return True

    async def _absent(self, ctx: Context, session: Session) -> Done:  # noqa: ARG002 - the base's
        """They go with the server."""
        return Done()


class VerifiedPiece(LockedPiece):
    """What is in the new database is what was in the old one."""

    name = "verified"

    def __init__(self, source: Sessions, cluster: Cluster, limits: LimitsConfig) -> None:
        super().__init__(cluster.sessions, limits)
        self._source = source
        self._cluster = cluster

    async def _ensure(self, ctx: Context, session: Session) -> Done | NotYet:
        database, ours = ctx.instance_name(DATABASE), (await self._source.address()).user
        if ours != ADMIN:
            async with self._sessions.inside(database, ctx, self.name) as inside:
                await inside.change(ctx, "rename_owner", f"REASSIGN OWNED BY {ident(ours)} TO {ident(ADMIN)}")
        await self._check_roles(ctx, session)
        ctx.report(20, "comparing what was moved")
        async with self._source.inside(database, ctx, self.name) as old, self._sessions.inside(database) as new:
            before, after = await _contents(old, {ours: ADMIN}), await _contents(new, {})
        if before != after:
            wrong = sorted(name for name in before.keys() | after.keys() if before.get(name) != after.get(name))
            detail = "; ".join(f"{name}: {before.get(name)} became {after.get(name)}" for name in wrong[:10])
            raise Permanent("the data did not arrive as it was", detail)
        return Done({"relations": len(after)})

    async def _check_roles(self, ctx: Context, session: Session) -> None:
        """While rows are copied their checks ran as the broker's role there: nothing may have come of that."""
        async with self._source.admin() as source:
            known = [row["rolname"] for row in await source.ask(NAMED, ctx.instance_name(DATABASE))]
            known += await left_members(source, ctx.instance_name(GROUP))
        strange = await session.ask(STRANGE, [*known, ctx.instance_name(GROUP)], ADMIN)
        if strange:
            detail = ", ".join(row["rolname"] for row in strange)
            raise Permanent("there are roles in the new server that nobody of ours has made", detail)

    async def _absent(self, ctx: Context, session: Session) -> Done:  # noqa: ARG002 - the base's
        """Nothing was made."""
        return Done()


async def _contents(inside: Session, renamed: dict[str, str]) -> dict[str, tuple[str, str, str]]:
    """Kind, owner and content of everything that holds data, by name."""
    found = {}
    await inside.ask(
        "SELECT set_config('row_security', 'off', false)"
    )  # no policy of a tenant is evaluated, it fails instead
    for row in await inside.ask(CONTENTS):
        name, kind = row["name"], row["kind"]
        content = ""
        if kind in {"r", "m"} and row["rows"] <= COUNTED:
            content = str(await inside.value(f"SELECT count(*) FROM ONLY {name}"))  # noqa: S608 - quoted by the server
        elif kind == "S":
            content = str(await inside.value(f"SELECT (last_value, is_called)::text FROM {name}"))  # noqa: S608
        found[f"{name} {kind}"] = (kind, renamed.get(row["owner"], row["owner"]), content)
    return found
