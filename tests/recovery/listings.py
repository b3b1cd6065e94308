"""What there is, as lines of text: all of a PostgreSQL server, the broker's files, the processes of a lane.

Guarantee: the listing reads as the superuser, so nothing hides from it; lists inside a line are sorted, so equal states give
equal lines. Passwords appear as present or absent only.
Limit: contents of tables are not read; of a database's inside, what can carry rights or code is.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NamedTuple, TypeAlias

import asyncpg
import psutil

TIMEOUT_SECONDS = 20.0
_SORTED = "coalesce((SELECT string_agg(item::text, ' ' ORDER BY item::text) FROM unnest({0}) AS item), '')"

SERVER_WIDE = (
    f"""SELECT format('database %s owner=%s open=%s template=%s limit=%s acl=[%s] comment=[%s]', datname,
        pg_get_userbyid(datdba), datallowconn, datistemplate, datconnlimit, {_SORTED.format("datacl")},
        shobj_description(oid, 'pg_database')) FROM pg_database""",
    """SELECT format('role %s super=%s inherit=%s createrole=%s createdb=%s login=%s replication=%s bypassrls=%s limit=%s
        until=%s password=%s comment=[%s]', rolname, rolsuper, rolinherit, rolcreaterole, rolcreatedb, rolcanlogin,
        rolreplication, rolbypassrls, rolconnlimit, rolvaliduntil, rolpassword IS NOT NULL,
        shobj_description(oid, 'pg_authid')) FROM pg_authid""",
    """SELECT format('member %s in %s by %s admin=%s inherit=%s set=%s', pg_get_userbyid(member),
        pg_get_userbyid(roleid), pg_get_userbyid(grantor), admin_option, inherit_option, set_option)
        FROM pg_auth_members""",
    f"""SELECT format('setting database=%s role=%s [%s]', coalesce(datname, ''), coalesce(rolname, ''),
        {_SORTED.format("setconfig")}) FROM pg_db_role_setting LEFT JOIN pg_database d ON d.oid = setdatabase
        LEFT JOIN pg_roles r ON r.oid = setrole""",
    f"SELECT format('tablespace %s acl=[%s]', spcname, {_SORTED.format('spcacl')}) FROM pg_tablespace",
    f"SELECT format('parameter %s acl=[%s]', parname, {_SORTED.format('paracl')}) FROM pg_parameter_acl",
    "SELECT format('prepared transaction %s in %s', gid, database) FROM pg_prepared_xacts",
    "SELECT format('replication slot %s', slot_name) FROM pg_replication_slots",
    """SELECT format('dangling reference %s/%s in database %s', classid, objid, dbid) FROM pg_shdepend
        WHERE dbid <> 0 AND dbid NOT IN (SELECT oid FROM pg_database)""",
    """SELECT format('dangling role reference %s from %s/%s', refobjid, classid, objid) FROM pg_shdepend
        WHERE refclassid = 'pg_authid'::regclass AND refobjid NOT IN (SELECT oid FROM pg_authid)""",
)
INSIDE = (
    f"""SELECT format('schema %s owner=%s acl=[%s]', nspname, pg_get_userbyid(nspowner), {_SORTED.format("nspacl")})
        FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%' AND nspname <> 'information_schema'""",
    """SELECT format('extension %s %s in %s', extname, extversion, extnamespace::regnamespace) FROM pg_extension""",
    f"""SELECT format('default rights of %s for %s in %s [%s]', pg_get_userbyid(defaclrole), defaclobjtype,
        defaclnamespace, {_SORTED.format("defaclacl")}) FROM pg_default_acl""",
    f"""SELECT format('relation %s kind=%s owner=%s acl=[%s]', oid::regclass, relkind, pg_get_userbyid(relowner),
        {_SORTED.format("relacl")}) FROM pg_class WHERE oid >= 16384 AND relkind <> 't' AND relkind <> 'i'""",
    """SELECT format('function %s owner=%s', oid::regprocedure, pg_get_userbyid(proowner)) FROM pg_proc
        WHERE oid >= 16384 AND NOT EXISTS (SELECT FROM pg_depend d WHERE d.objid = pg_proc.oid AND d.deptype = 'e')""",
    "SELECT format('event trigger %s', evtname) FROM pg_event_trigger",
    "SELECT format('large object %s', oid) FROM pg_largeobject_metadata",
)
DIRECTORIES = """
SELECT format('directory base/%s without a database', name) FROM pg_ls_dir('base') AS name
 WHERE name <> 'pgsql_tmp' AND name NOT IN (SELECT oid::text FROM pg_database)
"""
OLD_SESSIONS = """
SELECT format('session pid=%s %s in %s: %s, %s', pid, usename, datname, state, left(query, 60)) FROM pg_stat_activity
 WHERE usename = $1 AND backend_start < $2
"""
WAIT = "SELECT pg_sleep($1)"  # waits in the server, for what happens in the server
QUIET_STEP_SECONDS = 0.05

_SCHEMA = re.compile(r": schema (pv_\w+) ")
_REVISION = re.compile(r"(purveyor:[^\]]*):\d+\]")
Listing = frozenset[str]
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"


class Target(NamedTuple):
    """How the listings' reader reaches a server, as its superuser."""

    port: int
    password: str


class Backend:
    """Reads one PostgreSQL server."""

    def __init__(self, target: Target, broker_role: str) -> None:
        self._target = target
        self._broker_role = broker_role
        self._connection: Connection | None = None

    async def connection(self) -> Connection:
        """The superuser's own session."""
        if self._connection is None or self._connection.is_closed():
            self._connection = await self.connect("postgres")
        return self._connection

    async def connect(self, database: str) -> Connection:
        """Another session of the superuser."""
        return await asyncpg.connect(
            host="127.0.0.1", port=self._target.port, user="postgres", password=self._target.password,
            database=database, timeout=TIMEOUT_SECONDS, command_timeout=TIMEOUT_SECONDS,
        )  # fmt: skip

    async def close(self) -> None:
        """Leave."""
        if self._connection is not None:
            await self._connection.close(timeout=TIMEOUT_SECONDS)

    async def names(self) -> frozenset[str]:
        """`database NAME`, `role NAME` and `schema NAME` of everything that the broker may have made."""
        connection = await self.connection()
        rows = await connection.fetch(
            "SELECT 'database ' || datname FROM pg_database WHERE datname LIKE 'pv\\_%'"
            " UNION ALL SELECT 'role ' || rolname FROM pg_roles WHERE rolname LIKE 'pv\\_%'"
        )
        names = {row[0] for row in rows}
        for row in await connection.fetch("SELECT datname FROM pg_database WHERE datname LIKE 'purveyor\\_%'"):
            lines = await self._inside(row[0])
            names |= {"schema " + found.group(1) for line in lines if (found := _SCHEMA.search(line))}
        return frozenset(names)

    async def listing(self) -> Listing:
        """Everything; the revision in an ownership marker, which every change moves on, is left out."""
        connection = await self.connection()
        lines: set[str] = set()
        for query in (*SERVER_WIDE, DIRECTORIES):
            lines.update(_REVISION.sub(r"\1:N]", row[0]) for row in await connection.fetch(query))
        for row in await connection.fetch("SELECT datname FROM pg_database WHERE datallowconn ORDER BY 1"):
            lines.update(await self._inside(row[0]))
        return frozenset(lines)

    async def _inside(self, database: str) -> set[str]:
        connection = await self.connect(database)
        try:
            rows = await connection.fetch(" UNION ALL ".join(f"({query})" for query in INSIDE))
            return {f"in {database}: {row[0]}" for row in rows}
        finally:
            await connection.close(timeout=TIMEOUT_SECONDS)

    async def become_quiet(self, since: float, seconds: float) -> Listing:
        """Wait until no session of a broker that began before `since` (epoch seconds) is left; those that stay after all."""
        connection = await self.connection()
        left: Listing = frozenset()
        steps = max(int(seconds / QUIET_STEP_SECONDS), 1)
        for _ in range(steps):
            rows = await connection.fetch(OLD_SESSIONS.replace("$2", "to_timestamp($2)"), self._broker_role, since)
            left = frozenset(row[0] for row in rows)
            if not left:
                break
            await connection.fetchval(WAIT, QUIET_STEP_SECONDS)
        return left

    async def pause(self, seconds: float) -> None:
        """Let time pass in the server."""
        connection = await self.connection()
        await connection.fetchval(WAIT, seconds, timeout=seconds + TIMEOUT_SECONDS)


def files(folder: Path) -> Listing:
    """Files of the broker's data directory, by name; the store's own companions count as one with it."""
    names = (str(path.relative_to(folder)) for path in folder.rglob("*"))
    return frozenset(f"file {name}" for name in names if not name.endswith(("-wal", "-shm")))


def processes(folder: Path, allowed: frozenset[int], postmaster: int) -> Listing:
    """Processes started with a path below `folder`, but for those in `allowed`, the PostgreSQL server and its children."""
    found = set()
    for process in psutil.process_iter(["pid", "ppid", "cmdline"]):
        info = process.info
        words = info["cmdline"] or []
        if info["pid"] in allowed | {postmaster} or info["ppid"] == postmaster:
            continue
        if any(str(folder) in word for word in words):
            found.add(f"process {' '.join(words)[:120]}")
    return frozenset(found)


def differences(before: Listing, after: Listing) -> list[str]:
    """Lines of change: `+` came, `-` went."""
    return [f"+ {line}" for line in sorted(after - before)] + [f"- {line}" for line in sorted(before - after)]
