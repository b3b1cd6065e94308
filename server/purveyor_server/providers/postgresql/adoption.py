"""An existing database that becomes an instance: `Work.adopt = {"database": NAME}`.

Guarantee: until the last step the database carries a note of what it was (see `notes`). While that is there no undo, no deprovision and no removal drops it: it gets its name, comment, settings and rights back. The last step gives what is
in it to the instance's group and takes the note away, in one transaction: from then on it is an instance as any other.
Limit: it is renamed to the opaque name, so that everything else finds it by names alone; whoever was logged in is logged out, and
must bind. The broker's role must own it and be a member of every role that owns something in it: what is missing is said with
the statements that an administrator runs before.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import msgspec
from pydantic import Field

from purveyor_server.domain.model import Json
from purveyor_server.domain.names import outside_name
from purveyor_server.providers.contract import Context, Done, NotYet, Owned, Permanent, Retryable, RightsMissing
from purveyor_server.providers.postgresql import notes
from purveyor_server.providers.postgresql.config import LimitsConfig
from purveyor_server.providers.postgresql.custody import end_sessions
from purveyor_server.providers.postgresql.database import DatabasePiece, opening
from purveyor_server.providers.postgresql.pieces import (
    DATABASE,
    GROUP,
    LockedPiece,
    enter,
    find_database,
    read_wanted,
    role_exists,
)
from purveyor_server.providers.postgresql.sessions import Actor, Session, Sessions
from purveyor_server.providers.postgresql.sql import ident, literal
from purveyor_server.providers.strict import Strict, read_values

ADOPTING = "adopting"  # in a note
# Settings whose value is a list of names, quoted already where it is kept.
LISTS = frozenset({"search_path", "temp_tablespaces", "local_preload_libraries", "session_preload_libraries"})
FACTS = """
SELECT pg_get_userbyid(datdba) AS owner, pg_get_userbyid(datdba) = current_user AS ours, datallowconn AS open,
       datconnlimit AS "limit", datistemplate AS template, datname = current_database() AS admin,
       shobj_description(oid, 'pg_database') AS comment,
       ARRAY(SELECT privilege_type FROM aclexplode(coalesce(datacl, acldefault('d', datdba))) WHERE grantee = 0) AS public,
       coalesce((SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = pg_database.oid AND setrole = 0), '{}') AS config
  FROM pg_database WHERE datname = $1
"""
MARKED = """
SELECT datname AS database, shobj_description(oid, 'pg_database') AS comment FROM pg_database
 WHERE datdba = (SELECT oid FROM pg_roles WHERE rolname = current_user)
   AND starts_with(shobj_description(oid, 'pg_database'), $1) AND strpos(shobj_description(oid, 'pg_database'), '"adopting"') > 0
"""
OWNERS = """
SELECT DISTINCT r.rolname AS role, pg_has_role(current_user, r.oid, 'USAGE') AS ours,
       EXISTS (SELECT FROM pg_shdepend o WHERE o.dbid = 0 AND o.deptype = 'o' AND o.refobjid = r.oid) AS more
  FROM pg_shdepend s JOIN pg_roles r ON r.oid = s.refobjid AND s.refclassid = 'pg_authid'::regclass
 WHERE s.deptype = 'o' AND s.dbid = (SELECT oid FROM pg_database WHERE datname = $1) AND r.rolname <> current_user
 ORDER BY 1
"""
# The owner that no dependency is recorded of, and who may hand out rights in the schema that consumers use.
INSIDE = """
SELECT (SELECT count(*) FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace
         WHERE c.relowner = 10 AND c.oid >= 16384 AND n.nspname !~ '^pg_' AND n.nspname <> 'information_schema'
           AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                            AND d.deptype = 'e')) AS superuser,
       coalesce((SELECT pg_has_role(current_user, nspowner, 'USAGE') FROM pg_namespace WHERE nspname = 'public'), false) AS public
"""
# What is the broker's own: REASSIGN OWNED would give the database itself away.
OWN = """
WITH me AS (SELECT oid FROM pg_roles WHERE rolname = current_user), own AS (
    SELECT n.oid, n.nspname FROM pg_namespace n WHERE n.nspname !~ '^pg_' AND n.nspname NOT IN ('information_schema', 'extensions'))
SELECT format('ALTER %s %s OWNER TO ', CASE c.relkind WHEN 'v' THEN 'VIEW' WHEN 'm' THEN 'MATERIALIZED VIEW' WHEN 'S' THEN 'SEQUENCE'
              WHEN 'f' THEN 'FOREIGN TABLE' ELSE 'TABLE' END, c.oid::regclass)
  FROM pg_class c JOIN own ON own.oid = c.relnamespace JOIN me ON me.oid = c.relowner
 WHERE c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_class'::regclass AND d.objid = c.oid
                    AND (d.deptype = 'e' OR d.deptype IN ('a', 'i') AND d.refobjsubid > 0))
UNION ALL
SELECT format('ALTER ROUTINE %s OWNER TO ', p.oid::regprocedure) FROM pg_proc p JOIN own ON own.oid = p.pronamespace
  JOIN me ON me.oid = p.proowner
 WHERE NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype IN ('e', 'i'))
UNION ALL
SELECT format('ALTER TYPE %s OWNER TO ', format_type(t.oid, NULL)) FROM pg_type t JOIN own ON own.oid = t.typnamespace
  JOIN me ON me.oid = t.typowner
 WHERE t.typtype IN ('d', 'e', 'r')
   AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.classid = 'pg_type'::regclass AND d.objid = t.oid AND d.deptype IN ('e', 'i'))
UNION ALL
SELECT format('ALTER LARGE OBJECT %s OWNER TO ', l.oid) FROM pg_largeobject_metadata l JOIN me ON me.oid = l.lomowner
UNION ALL
SELECT format('ALTER SCHEMA %I OWNER TO ', n.nspname) FROM pg_namespace n JOIN own USING (oid) JOIN me ON me.oid = n.nspowner
 WHERE n.nspname <> 'public'
"""
STRANGERS = """
SELECT DISTINCT CASE WHEN grantee = 0 THEN 'PUBLIC' ELSE quote_ident(pg_get_userbyid(grantee)) END AS who
  FROM pg_database, aclexplode(datacl) WHERE datname = $1 AND grantee <> datdba AND pg_get_userbyid(grantee) <> $2
"""


class Source(Strict):
    """What `Work.adopt` says."""

    database: str = Field(min_length=1, max_length=63)


class Note(msgspec.Struct, frozen=True):
    """What the database was before."""

    name: str
    open: bool
    limit: int
    comment: str | None
    public: list[str]
    config: list[str]


class Found(NamedTuple):
    """A database on its way to become an instance."""

    database: str
    note: Note


async def adoptable(sessions: Sessions, source: Mapping[str, Json], store_id: str) -> Owned | None:
    """See `abilities.Adopting`."""
    name = read_values(Source, source, "what is to be adopted").database
    async with sessions.admin() as session:
        note, comment = await _look(session, name)
        comment = notes.read(comment).marker
        store, _, rest = comment.removeprefix("purveyor:").partition(":")
        uid, _, revision = rest.partition(":")
        if comment.startswith("purveyor:"):
            if store != store_id or not revision.isdecimal():
                raise Permanent(f"the database {name!r} belongs to another broker")
            return Owned("database", name, uid, int(revision))
        if not note.open:
            raise Permanent(f"the database {name!r} takes no connections")
        await _check_owners(session, name)
    async with sessions.inside(name) as inside:
        await _check_inside(inside, name)
    return None


async def give_back(session: Session, actor: Actor, marker: str, limits: LimitsConfig) -> bool:
    """Make the database that is being adopted under `marker` (or a beginning of it) what it was; False when there is none."""
    found = await find_adopting(session, marker)
    if found is None:
        return False
    name, group = ident(found.database), ident(actor.name(GROUP))
    await session.change(actor, "close_adopted", f"ALTER DATABASE {name} ALLOW_CONNECTIONS false")
    await end_sessions(session, found.database, limits)
    was = found.note
    statements = (
        [f"REVOKE ALL ON DATABASE {name} FROM {group}"] if await role_exists(session, actor.name(GROUP)) else []
    )
    statements += [f"GRANT {right} ON DATABASE {name} TO PUBLIC" for right in was.public]
    statements += [f"ALTER DATABASE {name} CONNECTION LIMIT {was.limit}", f"ALTER DATABASE {name} RESET ALL"]
    statements += [f"ALTER DATABASE {name} SET {_setting(line)}" for line in was.config]
    comment = "NULL" if was.comment is None else literal(was.comment)
    statements.append(f"COMMENT ON DATABASE {name} IS {comment}")
    if found.database != was.name:
        statements.append(f"ALTER DATABASE {name} RENAME TO {ident(was.name)}")
    statements.append(f"ALTER DATABASE {ident(was.name)} ALLOW_CONNECTIONS {'true' if was.open else 'false'}")
    await session.change(actor, "give_back", *statements)
    return True


async def find_adopting(session: Session, marker: str) -> Found | None:
    """The database that is being adopted under `marker`, under whichever name."""
    rows = await session.ask(MARKED, marker)
    if not rows:
        return None
    note = notes.read(rows[0]["comment"]).note.get(ADOPTING)
    return Found(rows[0]["database"], msgspec.convert(note, Note)) if note is not None else None


def of_any_revision(marker: str) -> str:
    """The beginning of every marker with the same store and uid."""
    return marker.rpartition(":")[0] + ":"


class AdoptedPiece(LockedPiece):
    """In place of the piece that creates a database: renames and marks the one that is there. Undone, it is given back."""

    name = "adopted"
    weight = 2.0

    async def _ensure(self, ctx: Context, session: Session) -> Done:
        wanted, database = read_wanted(ctx), ctx.instance_name(DATABASE)
        limit = wanted.connection_limit
        facts = await find_database(session, database)
        if facts is not None and not facts.ours:
            raise Permanent("the database belongs to somebody else", f"{database} belongs to {facts.owner}")
        if facts is None:
            await self._take(ctx, session, database)
        ctx.report(80, "setting rights and limits")
        found = await find_adopting(session, ctx.marker)  # None once it has been taken
        await session.change(ctx, "open_database", *opening(ctx, database, limit, wanted, _comment(ctx.marker, found)))
        return Done({"database": database, "connection_limit": limit})

    async def _take(self, ctx: Context, session: Session, database: str) -> None:
        source = read_values(Source, ctx.work.adopt or {}, "what is to be adopted").database
        name = ident(source)
        if await find_adopting(session, ctx.marker) is None:
            await self._check(session, source)
            note, _ = await _look(session, source)
            ctx.report(10, "closing the database")
            await session.change(
                ctx,
                "mark_adopted",
                f"COMMENT ON DATABASE {name} IS {literal(_comment(ctx.marker, Found(source, note)))}",
                f"ALTER DATABASE {name} ALLOW_CONNECTIONS false",
            )
        await end_sessions(session, source, self._limits)
        await session.change(ctx, "rename_adopted", f"ALTER DATABASE {name} RENAME TO {ident(database)}")

    async def _check(self, session: Session, source: str) -> None:
        note, comment = await _look(session, source)
        if (comment or "").startswith("purveyor:"):
            raise Permanent(f"the database {source!r} is an instance already", comment or "")
        if not note.open:
            raise Permanent(f"the database {source!r} takes no connections")
        await _check_owners(session, source)
        async with self._sessions.inside(source) as inside:
            await _check_inside(inside, source)

    async def _absent(self, ctx: Context, session: Session) -> Done:
        """Never dropped: a database without the note is an instance's, and the deprovision's to remove."""
        ctx.report(20, "giving the database back")
        await give_back(session, _of_instance(ctx), of_any_revision(ctx.marker), self._limits)
        return Done()


class SharedDatabasePiece(DatabasePiece):
    """As `database`; one that is still being adopted is given back: who removes the instance then never had its data."""

    async def _absent(self, ctx: Context, session: Session) -> Done | NotYet:
        if await give_back(session, _of_instance(ctx), of_any_revision(ctx.marker), self._limits):
            return Done()
        return await super()._absent(ctx, session)


class TakenPiece(LockedPiece):
    """The last step of an adoption: what is in the database becomes the group's, and nobody else may enter."""

    name = "taken"

    async def _ensure(self, ctx: Context, session: Session) -> Done:
        database, group = ctx.instance_name(DATABASE), ctx.instance_name(GROUP)
        owners = [row["role"] for row in await session.ask(OWNERS, database) if row["role"] != group]
        strangers = [row["who"] for row in await session.ask(STRANGERS, database, group)]
        async with enter(self._sessions, session, ctx, self.name, database) as inside:
            if inside is None:
                raise Retryable("the database takes no connections")
            ctx.report(20, "giving what is in the database to the group")
            await inside.change(
                ctx,
                "take_over",
                *(f"REASSIGN OWNED BY {ident(owner)} TO {ident(group)}" for owner in owners),
                *(f"{row[0]}{ident(group)}" for row in await inside.ask(OWN)),
                *(f"REVOKE ALL ON DATABASE {ident(database)} FROM {who}" for who in strangers),
                f"COMMENT ON DATABASE {ident(database)} IS {literal(ctx.marker)}",
            )
        return Done()

    async def _absent(self, ctx: Context, session: Session) -> Done:  # noqa: ARG002 - the base's
        """It is the pivot: nothing takes it back."""
        return Done()


class _Instance(NamedTuple):
    """The actor whose names are the instance's."""

    ctx: Context

    def name(self, kind: str, limit: int = 63) -> str:
        return outside_name(kind, self.ctx.work.instance_uid, limit)

    def outside(self, call: str) -> None:
        self.ctx.outside(call)


def _of_instance(ctx: Context) -> Actor:
    return _Instance(ctx)


async def _look(session: Session, name: str) -> tuple[Note, str | None]:
    """What it is, and its comment. Raises Permanent for what is no tenant's database, RightsMissing for one that is not ours."""
    rows = await session.ask(FACTS, name)
    if not rows:
        raise Permanent(f"there is no database {name!r}")
    row = rows[0]
    if row["template"] or row["admin"] or (row["comment"] or "").startswith("purveyor: "):
        raise Permanent(f"the database {name!r} is the server's or the broker's own")
    if not row["ours"]:
        detail = f"as a superuser run: ALTER DATABASE {ident(name)} OWNER TO the broker's role"
        raise RightsMissing(f"the database {name!r} belongs to {row['owner']}", detail)
    note = Note(name, row["open"], row["limit"], row["comment"], list(row["public"]), list(row["config"]))
    return note, row["comment"]


async def _check_owners(session: Session, name: str) -> None:
    rows = await session.ask(OWNERS, name)
    missing = [row["role"] for row in rows if not row["ours"]]
    if missing:
        statements = " ".join(f"GRANT {ident(role)} TO the broker's role;" for role in missing)
        raise RightsMissing(
            f"the broker may not act for {', '.join(missing)}, who own what is in the database", statements
        )
    more = [row["role"] for row in rows if row["more"]]
    if more:
        raise Permanent(f"{', '.join(more)} also own databases: what is in this one must have owners of its own")


async def _check_inside(inside: Session, name: str) -> None:
    row = (await inside.ask(INSIDE))[0]
    if row["superuser"]:
        detail = f"in {name}: ALTER ... OWNER TO a role that the broker is a member of"
        raise RightsMissing(f"{row['superuser']} tables in the database belong to the superuser", detail)
    if not row["public"]:
        detail = f"in {name}: ALTER SCHEMA public OWNER TO pg_database_owner"
        raise RightsMissing("the database has no schema public, or it is not the database owner's", detail)


def _comment(marker: str, found: Found | None) -> str:
    return notes.write(marker, {} if found is None else {ADOPTING: msgspec.to_builtins(found.note)})


def _setting(line: str) -> str:
    key, _, value = line.partition("=")
    return f"{key} = {value if key in LISTS else literal(value)}"
