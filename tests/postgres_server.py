"""A real PostgreSQL server for tests: one per run of pytest, in a folder of its own, gone afterwards.

    from tests.postgres_server import postgres  # noqa: F401 - a fixture

gives a `TestServer`: `environment()` makes a provider's environment, `superuser()` a session of the superuser, `listing()` all that a
provider could leave behind. The folder lies in the system's temporary directory, not in pytest's: those are closed to the
user that the server runs as when the tests run as root.
"""

from __future__ import annotations

import secrets
import shutil
import tempfile
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, TypeAlias

import asyncpg
import pytest

from purveyor_server.domain.model import Json
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.postgresql.cluster import ADMIN, SUPERUSER, State
from purveyor_server.providers.postgresql.embedded import EmbeddedServer

TIMEOUT = 30.0
# What a session raises that the server has ended. The third when the server's last words come between two of our own calls:
# asyncpg takes them for an operation in progress.
SESSION_ENDED = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError)
Connection: TypeAlias = "asyncpg.Connection[asyncpg.Record]"

LISTINGS = {
    "roles": "SELECT rolname, rolcanlogin, rolsuper, rolcreatedb, rolcreaterole, rolconnlimit, rolpassword, rolvaliduntil"
    " FROM pg_authid ORDER BY 1",
    "databases": "SELECT datname, datdba::regrole::text, datconnlimit, datallowconn, datacl::text FROM pg_database ORDER BY 1",
    "memberships": "SELECT roleid::regrole::text, member::regrole::text, grantor::regrole::text, admin_option,"
    " inherit_option, set_option FROM pg_auth_members ORDER BY 1, 2, 3",
    "comments": "SELECT classoid::regclass::text, objoid, description FROM pg_shdescription ORDER BY 1, 2",
    "settings": "SELECT setdatabase, setrole, setconfig FROM pg_db_role_setting ORDER BY 1, 2",
    "locks": "SELECT objid, pid FROM pg_locks WHERE locktype = 'advisory' ORDER BY 1, 2",
}

COMMON = "purveyor_schemas"  # databases that instances share
CONTENTS = """
SELECT 'schema', nspname::text, nspowner::regrole::text, nspacl::text FROM pg_namespace WHERE nspname NOT LIKE 'pg\\_%'
UNION ALL SELECT 'relation', oid::regclass::text, relowner::regrole::text, relacl::text FROM pg_class WHERE oid >= 16384
UNION ALL SELECT 'function', oid::regprocedure::text, proowner::regrole::text, '' FROM pg_proc WHERE oid >= 16384
UNION ALL SELECT 'large object', oid::text, lomowner::regrole::text, '' FROM pg_largeobject_metadata
UNION ALL SELECT 'default', oid::text, defaclrole::regrole::text, '' FROM pg_default_acl
ORDER BY 1, 2
"""


class TestEnvironment:
    """What a provider may use of its host."""

    __test__ = False

    def __init__(self, data_dir: Path, store_id: str) -> None:
        self.name = "postgres"
        self.data_dir = str(data_dir)
        self.store_id = store_id

    def reference(self, value: Json) -> Secret:
        """The secret in a file; `env` is not needed here."""
        return Secret(Path(value["file"]).read_text(encoding="utf-8").strip())


class TestServer:
    """A running server and the ways to look at it."""

    __test__ = False

    def __init__(self, root: Path) -> None:
        self.root = root
        self.keep = root / "keep"
        self.server = EmbeddedServer(self.keep, cluster_dir=str(root / "cluster"))
        self.running = self.server.start()

    @property
    def port(self) -> int:
        """The server's port on 127.0.0.1."""
        return self.running.port

    @property
    def config(self) -> dict[str, Json]:
        """A provider's configuration that names this server as one that is there already."""
        return {"server": self.server_config()}

    def server_config(self, **changes: Json) -> dict[str, Json]:
        """The `server` part, with `changes`."""
        password = {"file": str(self.keep / "admin.password")}
        return {
            "host": "127.0.0.1",
            "port": self.port,
            "user": ADMIN,
            "password": password,
            "sslmode": "disable",
            **changes,
        }

    def environment(self, store_id: str = "") -> TestEnvironment:
        """An environment with a store id of its own."""
        return TestEnvironment(self.keep, store_id or secrets.token_hex(8))

    @asynccontextmanager
    async def connect(self, user: str, password: str, database: str, **more: Any) -> AsyncIterator[Connection]:
        """A session as anybody; broken off at the end, whatever state it is in."""
        connection = await asyncpg.connect(
            host="127.0.0.1", port=self.port, user=user, password=password, database=database, ssl=False,
            timeout=TIMEOUT, command_timeout=TIMEOUT, **more,
        )  # fmt: skip
        try:
            yield connection
        finally:
            connection.terminate()

    @asynccontextmanager
    async def superuser(self, database: str = "postgres") -> AsyncIterator[Connection]:
        """A session of the superuser: it sees everything."""
        password = (self.keep / "superuser.password").read_text(encoding="utf-8").strip()
        async with self.connect(SUPERUSER, password, database) as connection:
            yield connection

    async def login(self, credentials: Mapping[str, Json]) -> Connection:
        """A session with what a binding got. The caller closes it."""
        return await asyncpg.connect(credentials["uri"], timeout=TIMEOUT, command_timeout=TIMEOUT)

    async def listing(self) -> dict[str, list[tuple[Any, ...]]]:
        """All that a provider could leave behind in the server, and the files of its data directory."""
        async with self.superuser() as connection:
            found = {name: [tuple(row) for row in await connection.fetch(sql)] for name, sql in LISTINGS.items()}
        for database in [row[0] for row in found["databases"] if row[0].startswith(COMMON)]:
            async with self.superuser(database) as connection:
                found[database] = [tuple(row) for row in await connection.fetch(CONTENTS)]
        found["files"] = [(str(path),) for path in sorted(self.keep.rglob("*"))]
        return found

    def log(self) -> str:
        """What the server wrote."""
        return (self.root / "cluster" / "server.log").read_text(encoding="utf-8")

    def close(self) -> None:
        """Stop it and remove its folder."""
        self.server.remove()
        shutil.rmtree(self.root)


def make_root(prefix: str = "pvt") -> Path:
    """A folder in the system's temporary directory that every user may pass through."""
    root = Path(tempfile.mkdtemp(prefix=prefix))
    root.chmod(0o711)
    return root


def running(server: EmbeddedServer) -> State | None:
    """Where `server` runs, None when it does not."""
    return server.status()


@pytest.fixture(scope="session")
def postgres() -> Iterator[TestServer]:
    """One server for the whole run."""
    server = TestServer(make_root())
    try:
        yield server
    finally:
        server.close()
