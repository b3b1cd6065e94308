"""The contract suite against the PostgreSQL provider on a real server, by kind of plan."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import ClassVar

import pytest

from purveyor_server.domain.model import Json
from purveyor_server.domain.names import outside_name
from purveyor_server.providers.contract import ProviderEnvironment
from purveyor_server.providers.postgresql import PostgresProvider
from purveyor_server.providers.testing import Case, Held, NotOffered, ProviderContract
from tests.postgres_server import Connection, TestServer
from tests.provider_contract.shop import PLAN, SCHEMA_PLAN, until

pytestmark = pytest.mark.postgres
BUSY = "SELECT pid FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock' AND starts_with(query, $2)"


class FrozenBackend:
    """A backend of the broker that waits for a lock, and was frozen so that no cancellation reaches it."""

    def __init__(self, server: TestServer, witness: Connection, blocker: Connection, query: str) -> None:
        self._server, self._witness, self._blocker, self._query = server, witness, blocker, query
        self._pid = 0

    async def reached(self) -> None:
        async def busy() -> bool:
            found = await self._witness.fetchval(BUSY, self._server.running.user, self._query)
            self._pid = found or 0
            return bool(found)

        await until(busy)
        os.kill(self._pid, signal.SIGSTOP)
        await self._blocker.execute("ROLLBACK")  # nothing but the freeze keeps the call from taking effect

    async def release(self) -> None:
        if self._pid:
            os.kill(self._pid, signal.SIGCONT)
            self._pid = 0


EVERY_WAY = "PURVEYOR_KIT_EVERY_WAY" in os.environ  # minutes instead of seconds
QUICK = ("fsync", "full_page_writes", "synchronous_commit")  # off: no test here crashes the server


@pytest.fixture(scope="module", autouse=True)
def quick(postgres: TestServer) -> Iterator[None]:
    """The server without waiting for its disk."""

    async def run(*statements: str) -> None:
        async with postgres.superuser() as superuser:
            for statement in (*statements, "SELECT pg_reload_conf()"):
                await superuser.execute(statement)

    asyncio.run(run(*(f"ALTER SYSTEM SET {setting} = off" for setting in QUICK)))
    yield
    asyncio.run(run(*(f"ALTER SYSTEM RESET {setting}" for setting in QUICK)))


class PostgresCase(Case):
    factory = PostgresProvider
    every_way = EVERY_WAY

    def __init__(self, folder: Path, server: TestServer) -> None:
        super().__init__(folder)
        self.server = server

    @property
    def config(self) -> dict[str, Json]:
        return self.server.config

    def environment(self, store_id: str) -> ProviderEnvironment:
        return self.server.environment(store_id)

    async def listing(self) -> object:
        return await self.server.listing()

    async def use(self, credentials: dict[str, Json]) -> None:
        session = await self.server.login(credentials)
        await session.execute("CREATE TABLE used (a int); INSERT INTO used VALUES (1); DROP TABLE used")
        await session.close()


class SharedCase(PostgresCase):
    name = "postgresql shared"
    settings: ClassVar[dict[str, Json]] = PLAN
    parameters: ClassVar[dict[str, Json]] = {"connection_limit": 4}
    changed: ClassVar[dict[str, Json]] = {"connection_limit": 3, "extensions": ["hstore"]}
    bind_parameters: ClassVar[dict[str, Json]] = {"connection_limit": 2}

    async def destroy(self, uid: str) -> None:
        async with self.server.superuser() as superuser:
            await superuser.execute(f"DROP DATABASE {outside_name('db', uid)} WITH (FORCE)")

    async def stray(self) -> dict[str, Json]:
        async with self.server.superuser() as superuser:
            await superuser.execute("CREATE DATABASE stray TEMPLATE template0 OWNER purveyor_admin")
            await superuser.execute("REVOKE ALL ON DATABASE stray FROM PUBLIC; COMMENT ON DATABASE stray IS 'of 2019'")
        return {"database": "stray"}

    def hold(self, piece: str) -> AbstractAsyncContextManager[Held]:
        if piece != "database":
            raise NotOffered(f"no call of {piece} is held")
        return self._template_locked()

    @asynccontextmanager
    async def _template_locked(self) -> AsyncIterator[Held]:
        """CREATE DATABASE needs a lock on the template that this keeps from it."""
        async with self.server.superuser() as blocker, self.server.superuser() as witness:
            await blocker.execute("BEGIN; ALTER DATABASE template0 RENAME TO template_zero")
            held = FrozenBackend(self.server, witness, blocker, "CREATE DATABASE")
            try:
                yield held
            finally:
                await held.release()


class SchemaCase(PostgresCase):
    name = "postgresql schema"
    settings: ClassVar[dict[str, Json]] = SCHEMA_PLAN
    changed: ClassVar[dict[str, Json]] = {}
    warms_up = True

    async def destroy(self, uid: str) -> None:
        async with self.server.superuser("purveyor_schemas") as superuser:
            await superuser.execute(f"DROP SCHEMA {outside_name('sch', uid)} CASCADE")


class TestShared(ProviderContract):
    @pytest.fixture
    def case(self, tmp_path: Path, postgres: TestServer) -> Case:
        return SharedCase(tmp_path, postgres)


class TestSchema(ProviderContract):
    @pytest.fixture
    def case(self, tmp_path: Path, postgres: TestServer) -> Case:
        return SchemaCase(tmp_path, postgres)
