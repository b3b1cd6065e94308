"""Quarantine and removal of each kind of thing that `list_owned` finds.

Guarantee: see `custody`. A database that is being adopted is given back instead of dropped. A role goes with what it owns handed
over, never dropped: a login's to its group, and a group that still owns something stays.
Limit: that of `custody`; what lies in a dedicated server is only reached while that runs.
"""

from __future__ import annotations

from purveyor_server.domain.names import outside_name
from purveyor_server.providers.contract import Done, NotYet, Owned, Permanent, Retryable, RightsMissing
from purveyor_server.providers.postgresql import notes
from purveyor_server.providers.postgresql.adoption import give_back
from purveyor_server.providers.postgresql.cluster_custody import ClusterCustody
from purveyor_server.providers.postgresql.common import common_databases
from purveyor_server.providers.postgresql.config import LimitsConfig
from purveyor_server.providers.postgresql.custody import (
    WORKED_ON,
    Thing,
    busy,
    change,
    end_sessions,
    find,
    reserved,
    thing_of,
)
from purveyor_server.providers.postgresql.database import drop_closed
from purveyor_server.providers.postgresql.grants import HOLDERS, release
from purveyor_server.providers.postgresql.host import Host
from purveyor_server.providers.postgresql.own_schema import OwnSchemaPiece, empty_schema
from purveyor_server.providers.postgresql.pieces import GROUP, LOGIN, enter, find_database, role_exists
from purveyor_server.providers.postgresql.roles import left_members, shut_out
from purveyor_server.providers.postgresql.sessions import Session, Sessions
from purveyor_server.providers.postgresql.sql import ident, literal

QUARANTINE = "quarantine"  # in a note: what `release` makes of the thing again
MAY_LOG_IN = "SELECT rolcanlogin FROM pg_roles WHERE rolname = $1"
GROUPS = """
SELECT g.rolname FROM pg_auth_members m JOIN pg_roles g ON g.oid = m.roleid JOIN pg_roles r ON r.oid = m.member
 WHERE r.rolname = $1 AND starts_with(g.rolname, $2) ORDER BY 1
"""
MORE = NotYet(0.05, "dropping what the schema holds")


class Custodian:
    """The abilities QUARANTINE and RECLAIM of one provider."""

    def __init__(self, sessions: Sessions, host: Host | None, limits: LimitsConfig, store_id: str) -> None:
        self._sessions = sessions
        self._host = host
        self._limits = limits
        self._store_id = store_id
        self._clusters = None if host is None else ClusterCustody(host)

    async def quarantine(self, owned: Owned) -> None:
        """See `abilities.Quarantining`."""
        thing, within = thing_of(owned, self._store_id), self._server_of(owned)
        if within and self._cluster_custody(owned).is_held(within):
            return
        match owned.kind:
            case _ if self._is_gone(owned):
                return
            case "database":
                await self._close_database(thing, self._home(owned))
            case "role":
                await self._close_role(thing, self._home(owned))
            case "schema":
                await self._close_schema(thing)
            case _:
                await self._cluster_custody(owned).quarantine(thing)

    async def release(self, owned: Owned) -> None:
        """See `abilities.Quarantining`."""
        thing = thing_of(owned, self._store_id)
        match owned.kind:
            case _ if self._is_gone(owned):
                return
            case "database":
                await self._open_database(thing, self._home(owned))
            case "role":
                await self._open_role(thing, self._home(owned))
            case "schema":
                await self._open_schema(thing)
            case _:
                await self._cluster_custody(owned).release(thing)

    async def reclaim(self, owned: Owned) -> Done | NotYet:
        """See `abilities.Reclaiming`."""
        thing = thing_of(owned, self._store_id)
        try:
            match owned.kind:
                case _ if self._is_gone(owned):
                    return Done()
                case "database":
                    return await self._drop_database(thing, self._home(owned))
                case "role":
                    return await self._drop_role(thing, self._home(owned))
                case "schema":
                    return await self._drop_schema(thing)
                case _:
                    return await self._cluster_custody(owned).reclaim(thing)
        except Retryable as error:
            if error.message == WORKED_ON:
                return busy()
            raise

    # Where a thing is

    def _server_of(self, owned: Owned) -> str:
        """The dedicated server that it lies in, "" for the shared one."""
        return owned.name.rpartition("/")[0]

    def _is_gone(self, owned: Owned) -> bool:
        """Whether the dedicated server that it lay in is gone, and it with that."""
        within = self._server_of(owned)
        return bool(within) and self._cluster_custody(owned).is_gone(within)

    def _home(self, owned: Owned) -> Sessions:
        cluster = self._server_of(owned)
        return self._cluster_custody(owned).sessions(cluster) if cluster else self._sessions

    def _cluster_custody(self, owned: Owned) -> ClusterCustody:
        if self._clusters is None or (owned.kind != "cluster" and "/" not in owned.name):
            raise Permanent(f"this provider has no things of the kind {owned.kind}")
        return self._clusters

    # Databases

    async def _close_database(self, thing: Thing, home: Sessions) -> None:
        async with reserved(home, thing) as session:
            comment, facts = await find(session, thing), await find_database(session, thing.title)
            if comment is None or facts is None or facts.invalid:
                return
            _check_ours(thing, ours=facts.ours)
            statements = [f"ALTER DATABASE {ident(thing.title)} ALLOW_CONNECTIONS false"]
            if QUARANTINE not in comment.note:
                note = notes.write(thing.marker, {**comment.note, QUARANTINE: {"open": facts.open}})
                statements.append(f"COMMENT ON DATABASE {ident(thing.title)} IS {literal(note)}")
            await change(session, thing, "close_database", *statements)
            await end_sessions(session, thing.title, self._limits)

    async def _open_database(self, thing: Thing, home: Sessions) -> None:
        async with reserved(home, thing) as session:
            comment = await find(session, thing)
            if comment is None or QUARANTINE not in comment.note:
                return
            note = dict(comment.note)
            way = "true" if note.pop(QUARANTINE)["open"] else "false"
            await change(
                session,
                thing,
                "open_database",
                f"COMMENT ON DATABASE {ident(thing.title)} IS {literal(notes.write(thing.marker, note))}",
                f"ALTER DATABASE {ident(thing.title)} ALLOW_CONNECTIONS {way}",
            )

    async def _drop_database(self, thing: Thing, home: Sessions) -> Done | NotYet:
        async with reserved(home, thing) as session:
            if await find(session, thing) is None:
                return Done()
            if await give_back(session, thing, thing.marker, self._limits):
                return Done()
            facts = await find_database(session, thing.title)
            _check_ours(thing, ours=facts is not None and facts.ours)
            if facts is not None and not facts.invalid:
                closing = f"ALTER DATABASE {ident(thing.title)} ALLOW_CONNECTIONS false"
                await change(session, thing, "close_database", closing)
            await drop_closed(session, thing, ident(thing.title))
        return Done()

    # Roles

    async def _close_role(self, thing: Thing, home: Sessions) -> None:
        async with reserved(home, thing) as session:
            if await find(session, thing) is None:
                return
            if await session.value(MAY_LOG_IN, thing.title):
                note = literal(notes.write(thing.marker, {QUARANTINE: {"login": True}}))
                closing = (
                    f"COMMENT ON ROLE {ident(thing.title)} IS {note}",
                    f"ALTER ROLE {ident(thing.title)} NOLOGIN",
                )
                await change(session, thing, "lock_login", *closing)
            if not await shut_out(thing, session, thing.title, self._limits.terminate_timeout_seconds):
                raise Retryable("sessions of the role do not end")

    async def _open_role(self, thing: Thing, home: Sessions) -> None:
        async with reserved(home, thing) as session:
            comment = await find(session, thing)
            if comment is not None and QUARANTINE in comment.note:
                role, marker = ident(thing.title), literal(thing.marker)
                await change(
                    session, thing, "unlock_login", f"COMMENT ON ROLE {role} IS {marker}", f"ALTER ROLE {role} LOGIN"
                )

    async def _drop_role(self, thing: Thing, home: Sessions) -> Done | NotYet:
        async with reserved(home, thing) as session:
            if await find(session, thing) is None:
                return Done()
            await change(session, thing, "lock_login", f"ALTER ROLE {ident(thing.title)} NOLOGIN")
            if not await shut_out(thing, session, thing.title, self._limits.terminate_timeout_seconds):
                return NotYet(1.0, "open sessions are ending")
            if thing.title.startswith(f"pv_{LOGIN}_"):
                await self._hand_over(thing, home, session)
            await release(home, session, thing, "group", thing.title)
            await change(session, thing, "drop_role", f"DROP ROLE {ident(thing.title)}")
        return Done()

    async def _hand_over(self, thing: Thing, home: Sessions, session: Session) -> None:
        """What a login owns becomes its group's, or the broker's where it has none."""
        groups = await session.ask(GROUPS, thing.title, f"pv_{GROUP}_")
        heir = ident(groups[0]["rolname"]) if groups else "CURRENT_USER"
        for row in await session.ask(HOLDERS, thing.title):
            async with enter(home, session, thing, "login", row["datname"]) as inside:
                if inside is None and row["owns"]:
                    raise Retryable("a database in which the role owns something takes no connections", row["datname"])
                if inside is not None:
                    await inside.change(thing, "reassign_owned", f"REASSIGN OWNED BY {ident(thing.title)} TO {heir}")

    # Schemas, in whichever of the shared databases they are

    async def _close_schema(self, thing: Thing) -> None:
        group = outside_name(GROUP, thing.uid)
        async with reserved(self._sessions, thing) as session:
            for database in await common_databases(session):
                async with enter(self._sessions, session, thing, "own_schema", database) as inside:
                    if inside is not None and await find(inside, thing) and await role_exists(session, group):
                        closing = f"REVOKE ALL ON SCHEMA {ident(thing.title)} FROM {ident(group)}"
                        await change(inside, thing, "close_schema", closing)
            for login in await left_members(session, group):  # what is open has looked its names up already
                await session.value(
                    "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = $1", login
                )

    async def _open_schema(self, thing: Thing) -> None:
        group = outside_name(GROUP, thing.uid)
        async with reserved(self._sessions, thing) as session:
            for database in await common_databases(session):
                async with enter(self._sessions, session, thing, "own_schema", database) as inside:
                    if inside is not None and await find(inside, thing) and await role_exists(session, group):
                        opening = f"GRANT USAGE, CREATE ON SCHEMA {ident(thing.title)} TO {ident(group)}"
                        await change(inside, thing, "open_schema", opening)

    async def _drop_schema(self, thing: Thing) -> Done | NotYet:
        async with reserved(self._sessions, thing) as session:
            for database in await common_databases(session):
                async with enter(self._sessions, session, thing, "own_schema", database) as inside:
                    if inside is None:
                        raise Retryable("the database that instances share takes no connections", database)
                    if await find(inside, thing) is None:
                        continue
                    await inside.ask(thing.guard)
                    if not await empty_schema(thing, inside, thing.title, [], OwnSchemaPiece.batch):
                        return MORE
        return Done()


def _check_ours(thing: Thing, *, ours: bool) -> None:
    if not ours:
        detail = f"as a superuser run: ALTER DATABASE {ident(thing.title)} OWNER TO the broker's role"
        raise RightsMissing("the database belongs to somebody else", detail)
