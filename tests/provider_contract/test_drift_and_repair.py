"""Drift and repair on a real PostgreSQL server: what is dropped or changed by hand is told, and made good on request."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import NamedTuple

import asyncpg
import pytest

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import FailedPreconditionError
from purveyor_server.domain.catalog import Plan, PlanSchemas, Service
from purveyor_server.domain.drift import Pace
from purveyor_server.domain.model import ProviderRef
from purveyor_server.providers.contract import Done, Permanent
from purveyor_server.providers.postgresql import PostgresProvider
from purveyor_server.providers.postgresql.adoption import TakenPiece
from purveyor_server.providers.postgresql.contents import SchemaPiece
from purveyor_server.reconcile.drift import DriftLoop
from tests.postgres_server import TestServer
from tests.rpc.whole import Whole, whole_broker

ANY = {"type": "object"}


class Ground(NamedTuple):
    """A broker over the server, its clients, its loop of looks, and how an instance's database is called."""

    postgres: TestServer
    broker: Whole
    client: purveyor.Client
    admin: AdminClient
    loop: DriftLoop

    async def rounds(self, count: int = 1) -> str:
        """The drift after so many looks."""
        for _ in range(count):
            await self.loop.once()
        return (await self.client.instance("db")).drift

    async def repaired(self, reason: str) -> int:
        """Repair it, and wait until its bindings have their access again; how many had."""
        assert (await self.admin.repair("t", "db", reason, wait=20)).state == "SUCCEEDED"
        following = [o.operation_id async for o in self.client.operations() if o.verb == "REISSUE"]
        for operation_id in following:
            await (await self.client.operation(operation_id)).result(20)
        return len(following)

    async def database(self) -> str:
        uid = (await self.client.instance("db")).uid.replace("-", "")
        async with self.postgres.superuser() as session:
            name: str = await session.fetchval("SELECT datname FROM pg_database WHERE strpos(datname, $1) > 0", uid)
        return name


@pytest.fixture
async def ground(postgres: TestServer) -> AsyncIterator[Ground]:
    plan = Plan(
        id="small", name="small", description="A database.", plan_updateable=True,
        provider=ProviderRef("pg", "postgresql", postgres.config),
        settings={"kind": "shared", "connection_limit": 7}, schemas=PlanSchemas(ANY, ANY, ANY),
    )  # fmt: skip
    service = Service(id="svc", name="service", description="Databases.", plans=(plan,))
    with tempfile.TemporaryDirectory(prefix="pv-") as folder:
        async with (
            whole_broker(Path(folder), service=service, factories={"postgresql": PostgresProvider}) as broker,
            purveyor.Client(broker.address, tenant="t") as client,
            AdminClient(broker.address) as admin,
        ):
            object.__setattr__(broker.admin_parts, "pace", Pace(timedelta(0), timedelta(0)))
            await (await client.provision("svc", "small", instance_id="db", wait=20)).result()
            bound = await (await client.bind("db", binding_id="app", wait=20)).result()
            assert bound.credentials
            yield Ground(postgres, broker, client, admin, DriftLoop(broker.admin_parts, 10))
            await (await client.deprovision("db", cascade=True, wait=20)).result()


async def queried(ground: Ground, statement: str = "SELECT 1") -> object:
    credentials = await ground.client.credentials("db", "app")
    session = await ground.postgres.login(dict(credentials))
    try:
        return await session.fetchval(statement)
    finally:
        await session.close()


async def test_a_dropped_database_is_missing_then_repaired_and_usable(ground: Ground) -> None:
    assert await ground.rounds() == "IN_SYNC"
    await queried(ground, "CREATE TABLE kept (n int)")
    name = await ground.database()
    async with ground.postgres.superuser() as session:
        await session.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
    head = ground.broker.store.head

    assert await ground.rounds() == "UNKNOWN"
    assert await ground.rounds() == "MISSING"
    assert len(await ground.broker.store.events(head, 100)) == 2
    (report,) = [report async for report in ground.admin.drift()]
    assert report.differences == (f"database {name} does not exist",)

    await ground.repaired("dropped by hand")
    assert await ground.rounds() == "IN_SYNC"
    assert (await ground.client.instance("db")).usable
    assert await queried(ground, "SELECT count(*) FROM pg_tables WHERE tablename = 'kept'") == 0  # not brought back
    await queried(ground, "CREATE TABLE fresh (n int)")


async def test_an_altered_limit_is_drift_and_put_right(ground: Ground) -> None:
    assert await ground.rounds() == "IN_SYNC"
    name = await ground.database()
    async with ground.postgres.superuser() as session:
        await session.execute(f'ALTER DATABASE "{name}" CONNECTION LIMIT 3')

    assert await ground.rounds() == "DRIFTED"
    (report,) = [report async for report in ground.admin.drift()]
    assert report.differences == ("connection limit is 3, not 7",)
    assert await queried(ground) == 1

    await ground.repaired("put right")
    assert await ground.rounds() == "IN_SYNC"
    async with ground.postgres.superuser() as session:
        assert await session.fetchval("SELECT datconnlimit FROM pg_database WHERE datname = $1", name) == 7


async def test_bindings_work_again_where_their_logins_went_too(ground: Ground) -> None:
    credentials = await ground.client.credentials("db", "app")
    name = await ground.database()
    async with ground.postgres.superuser() as session:
        await session.execute(f'DROP DATABASE "{name}" WITH (FORCE)')
        members = (
            "SELECT rolname FROM pg_roles WHERE rolname = $1 OR pg_has_role($1, oid, 'MEMBER') AND rolname LIKE 'pv%'"
        )
        for role in [row[0] for row in await session.fetch(members, credentials["username"])]:
            await session.execute(f'DROP OWNED BY "{role}"; DROP ROLE "{role}"')
    with pytest.raises(asyncpg.InvalidPasswordError):
        await queried(ground)

    assert await ground.repaired("all of it is gone") == 1
    assert await ground.client.credentials("db", "app") == credentials
    assert await queried(ground) == 1
    assert await ground.rounds() == "IN_SYNC"


async def test_a_repair_takes_no_data_away(ground: Ground) -> None:
    await queried(ground, "CREATE TABLE kept AS SELECT 42 AS n")
    assert (await ground.admin.repair("t", "db", "nothing is wrong", wait=20)).state == "SUCCEEDED"
    assert await queried(ground, "SELECT n FROM kept") == 42


@pytest.fixture
async def legacy(ground: Ground) -> AsyncIterator[str]:
    """A database with data that nobody manages."""
    async with ground.postgres.superuser() as session:
        await session.execute("CREATE DATABASE legacy TEMPLATE template0 OWNER purveyor_admin")
    password = ground.postgres.running.password.reveal()
    async with ground.postgres.connect("purveyor_admin", password, "legacy") as session:
        await session.execute("CREATE TABLE customers AS SELECT i AS id FROM generate_series(1, 500) i")
    yield "legacy"
    async with ground.postgres.superuser() as session:
        await session.execute("DROP DATABASE IF EXISTS legacy WITH (FORCE)")


async def rows(ground: Ground, database: str) -> int:
    async with ground.postgres.superuser(database) as session:
        count: int = await session.fetchval("SELECT count(*) FROM customers")
    return count


async def test_an_existing_database_is_adopted_bound_and_queried(ground: Ground, legacy: str) -> None:
    found = await ground.admin.adopt("t", "crm", "svc", "small", {"database": legacy}, "it was there", wait=20)
    assert found.state == "SUCCEEDED", found.failure
    bound = await (await ground.client.bind("crm", binding_id="app", wait=20)).result()
    session = await ground.postgres.login(dict(bound.credentials))
    try:
        assert await session.fetchval("SELECT count(*) FROM customers") == 500
        await session.execute("INSERT INTO customers VALUES (501)")
    finally:
        await session.close()
    await ground.loop.once()
    assert (await ground.client.instance("crm")).drift == "IN_SYNC"
    with pytest.raises(FailedPreconditionError):
        await ground.client.deprovision("crm", cascade=True)
    await ground.client.update("crm", deletion_protected=False, wait=20)
    await (await ground.client.deprovision("crm", cascade=True, wait=20)).result()


@pytest.mark.parametrize("piece", [SchemaPiece, TakenPiece])
async def test_a_failed_adoption_leaves_the_data(
    ground: Ground, legacy: str, piece: type[SchemaPiece | TakenPiece], monkeypatch: pytest.MonkeyPatch
) -> None:
    """One is undone; the last step is the pivot: what failed there is protected, and given back once somebody says so."""

    async def refuse(*_: object) -> Done:
        raise Permanent("not today")

    with monkeypatch.context() as patched:
        patched.setattr(piece, "_ensure", refuse)
        found = await ground.admin.adopt("t", "crm", "svc", "small", {"database": legacy}, "it was there", wait=20)
    assert found.state == "FAILED"
    if piece is SchemaPiece:
        assert await rows(ground, legacy) == 500
    with pytest.raises(FailedPreconditionError) as refused:
        await ground.admin.adopt("t", "else", "svc", "small", {"database": await ground.database()}, "stolen")
    assert refused.value.metadata["cause"] == "OWNED"
    if piece is TakenPiece:
        with pytest.raises(FailedPreconditionError, match="DELETION_PROTECTED"):
            await ground.client.deprovision("crm")
        await (await ground.client.update("crm", deletion_protected=False, wait=20)).result()
    await (await ground.client.deprovision("crm", wait=20)).result()
    assert await rows(ground, legacy) == 500
