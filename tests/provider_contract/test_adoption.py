"""A database that was there before becomes an instance, or is what it was, with every row, whatever happens on the way."""

from __future__ import annotations

import asyncio
import re
import uuid
from collections.abc import AsyncIterator
from typing import Any

import asyncpg
import pytest
import pytest_asyncio
from msgspec.structs import replace

from purveyor_server.domain.names import outside_name
from purveyor_server.domain.states import Drift, Make, Verb
from purveyor_server.providers.contract import Owned, Permanent, RightsMissing, Work, WorkSettings
from tests.postgres_server import SESSION_ENDED
from tests.provider_contract.shop import SCHEMA_PLAN, Shop

pytestmark = pytest.mark.postgres
LOOK = """
SELECT datname, datdba::regrole::text, datallowconn, datconnlimit, datacl::text, shobj_description(oid, 'pg_database'),
       (SELECT setconfig FROM pg_db_role_setting WHERE setdatabase = pg_database.oid AND setrole = 0)
  FROM pg_database WHERE datname = 'crm'
"""
OWNERS = "SELECT relname::text, relowner::regrole::text FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'S', 'v') ORDER BY 1"


class Crm:
    """An application's database with its owner."""

    def __init__(self, shop: Shop) -> None:
        self.shop = shop

    async def make(self) -> None:
        async with self.shop.server.superuser() as superuser:
            await superuser.execute("CREATE ROLE crm_app LOGIN PASSWORD 'crm'")
            await superuser.execute("CREATE DATABASE crm TEMPLATE template0 OWNER purveyor_admin CONNECTION LIMIT 17")
            await superuser.execute(
                "COMMENT ON DATABASE crm IS 'the crm of 2019'; GRANT crm_app TO purveyor_admin;"
                "ALTER DATABASE crm SET search_path = app, \"$user\", public; ALTER DATABASE crm SET work_mem = '5MB';"
                "REVOKE ALL ON DATABASE crm FROM PUBLIC; GRANT CONNECT, CREATE ON DATABASE crm TO crm_app"
            )
        async with self.shop.server.superuser("crm") as superuser:
            await superuser.execute("GRANT CREATE ON SCHEMA public TO crm_app")
        session = await self.session()
        await session.execute(
            "CREATE SCHEMA app; CREATE TABLE app.customers (id serial PRIMARY KEY, name text);"
            "INSERT INTO app.customers (name) SELECT 'customer ' || i FROM generate_series(1, 500) i;"
            "CREATE VIEW app.names AS SELECT name FROM app.customers; SELECT lo_from_bytea(4711, 'large')"
        )
        await session.close()
        async with self.shop.server.connect("purveyor_admin", self.password, "crm") as admin:
            await admin.execute("CREATE TABLE made_by_the_admin (i int); CREATE TYPE mood AS ENUM ('ok')")

    @property
    def password(self) -> str:
        return self.shop.server.running.password.reveal()

    async def session(self) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect(
            host="127.0.0.1", port=self.shop.server.port, user="crm_app", password="crm", database="crm", timeout=30
        )

    async def look(self) -> Any:
        """What the server says of it, and its rows."""
        async with self.shop.server.superuser() as superuser:
            facts = await superuser.fetch(LOOK)
        if not facts:
            return None
        session = await self.session()
        rows = await session.fetch("SELECT * FROM app.customers ORDER BY id")
        owners = await session.fetch(OWNERS)
        await session.close()
        return [tuple(row) for row in (*facts, *rows, *owners)]

    def work(self, **source: Any) -> Work:
        """A provision that adopts it."""
        return replace(self.shop.work_of_new(connection_limit=4), adopt=source or {"database": "crm"})

    async def remove(self) -> None:
        async with self.shop.server.superuser() as superuser:
            await superuser.execute("DROP DATABASE IF EXISTS crm WITH (FORCE)")
            await superuser.execute("DROP ROLE IF EXISTS crm_app")


@pytest_asyncio.fixture
async def crm(shop: Shop) -> AsyncIterator[Crm]:
    made = Crm(shop)
    await made.make()
    try:
        yield made
    finally:
        await shop.clear()
        await made.remove()


async def test_what_was_there_serves_its_bindings_with_every_row(crm: Crm) -> None:
    shop, old = crm.shop, await crm.session()
    work = crm.work()
    assert await shop.facade.adoptable({"database": "crm"}) is None

    done = await shop.run(work)

    with pytest.raises(SESSION_ENDED):
        await old.fetchval("SELECT 1")
    assert done["adopted"]["database"] == outside_name("db", work.instance_uid)
    _, credentials = await shop.bind(work.instance_uid)
    session = await shop.server.login(credentials)
    assert await session.fetchval("SELECT count(*) FROM app.customers") == 500
    await session.execute(
        "INSERT INTO app.customers (name) VALUES ('new'); ALTER TABLE app.customers ADD city text;"
        "INSERT INTO app.made_by_the_admin VALUES (1); DROP TYPE app.mood; CREATE TABLE more (i int)"
    )
    assert await session.fetchval("SELECT lo_get(4711)") == b"large"
    await session.close()
    with pytest.raises(asyncpg.PostgresError):
        await asyncpg.connect(
            host="127.0.0.1",
            port=shop.server.port,
            user="crm_app",
            password="crm",
            database=done["adopted"]["database"],
        )
    assert (await shop.observe(work.instance_uid)).drift is Drift.IN_SYNC
    found = [thing async for thing in shop.facade.owned(shop.store) if thing.uid == work.instance_uid]
    assert sorted(thing.kind for thing in found) == ["database", "role"]


async def test_an_adopted_instance_is_updated_and_given_back_as_any_other(crm: Crm) -> None:
    work = crm.work()
    await crm.shop.run(work)

    await crm.shop.update(work.instance_uid, extensions=["hstore"], connection_limit=3)
    assert (await crm.shop.observe(work.instance_uid)).differences == ()
    await crm.shop.deprovision(work.instance_uid)

    assert await crm.look() is None


@pytest.mark.parametrize("kept", range(4))
async def test_an_undo_at_every_step_gives_back_what_it_was(crm: Crm, kept: int) -> None:
    shop, before, work = crm.shop, await crm.look(), crm.work()
    steps = shop.provider.plan(work, {})
    assert [(step.piece.name, step.pivot) for step in steps] == [
        ("group", False), ("adopted", False), ("schema", False), ("taken", True),
    ]  # fmt: skip

    for step in steps[:kept]:
        await shop.step(step.piece, Make.ENSURE, work)
    for step in reversed(steps[: kept + 1]):
        if not step.pivot:
            await shop.step(step.piece, Make.ABSENT, work)

    assert await crm.look() == before
    del shop.instances[work.instance_uid]


@pytest.mark.parametrize("die_at", range(5))
async def test_a_broker_that_dies_in_it_finishes_or_gives_back(crm: Crm, die_at: int) -> None:
    shop, before, work = crm.shop, await crm.look(), crm.work()
    group, adopted, *_ = [step.piece for step in shop.provider.plan(work, {})]
    await shop.step(group, Make.ENSURE, work)
    if die_at < 3:
        await shop.stopped(adopted.ensure(shop.context(work, die_at)))

    # Taken over by a deprovision, which sees no `adopt`; the marker of another revision.
    removal = shop.work(Verb.DEPROVISION, work.instance_uid)
    for step in shop.provider.plan(removal, {}):
        await shop.step(step.piece, step.make, removal)
    assert await crm.look() == before

    await shop.run(work)
    assert (await shop.observe(work.instance_uid)).drift is Drift.IN_SYNC


async def test_a_removal_by_its_marker_gives_back_too(crm: Crm) -> None:
    shop, before, work = crm.shop, await crm.look(), crm.work()
    for step in shop.provider.plan(work, {})[:3]:
        await shop.step(step.piece, step.make, work)
    found = [thing async for thing in shop.facade.owned(shop.store) if thing.kind == "database"]

    await shop.facade.reclaim(found[0])

    assert await crm.look() == before
    await shop.deprovision(work.instance_uid)


async def test_what_an_instance_owns_is_told_and_refused(crm: Crm) -> None:
    shop = crm.shop
    uid = await shop.provision()
    name = outside_name("db", uid)

    assert await shop.facade.adoptable({"database": name}) == Owned("database", name, uid, 7)
    with pytest.raises(Permanent, match="an instance already"):
        await shop.run(crm.work(database=name))
    assert (await shop.observe(uid)).drift is Drift.IN_SYNC


@pytest.mark.parametrize(
    ("source", "words"),
    [
        ({"database": "postgres"}, "broker's own"),
        ({"database": "template0"}, "broker's own"),
        ({"database": "nowhere"}, "there is no database"),
        ({"database": ""}, "database"),
        ({"database": "crm", "drop": True}, "drop"),
        ({}, "database"),
    ],
)
async def test_what_cannot_be_adopted_is_named(crm: Crm, source: dict[str, Any], words: str) -> None:
    with pytest.raises(Permanent, match=words):
        await crm.shop.facade.adoptable(source)


async def test_another_brokers_database_is_refused(crm: Crm) -> None:
    async with crm.shop.server.superuser() as superuser:
        await superuser.execute(f"COMMENT ON DATABASE crm IS 'purveyor:other:{uuid.uuid4()}:1'")

    with pytest.raises(Permanent, match="another broker"):
        await crm.shop.facade.adoptable({"database": "crm"})


@pytest.mark.parametrize(
    ("database", "statement", "words"),
    [
        ("postgres", "ALTER DATABASE crm OWNER TO postgres", "OWNER TO the broker's role"),
        ("postgres", "REVOKE crm_app FROM purveyor_admin", "GRANT .crm_app. TO"),
        ("crm", "CREATE TABLE of_the_superuser (i int)", "OWNER TO a role"),
        ("crm", "ALTER SCHEMA public OWNER TO postgres", "pg_database_owner"),
    ],
)
async def test_missing_rights_are_named_with_their_statement(
    crm: Crm, database: str, statement: str, words: str
) -> None:
    async with crm.shop.server.superuser(database) as superuser:
        await superuser.execute(statement)
    before = await crm.look()

    with pytest.raises(RightsMissing) as refused:
        await crm.shop.facade.adoptable({"database": "crm"})
    with pytest.raises(RightsMissing):
        await crm.shop.run(crm.work())

    assert re.search(words, refused.value.detail)
    assert await crm.look() == before


async def test_only_plans_with_a_database_in_the_shared_server_adopt(crm: Crm) -> None:
    for plan in (SCHEMA_PLAN, {"kind": "dedicated"}):
        work = Work(Verb.PROVISION, "uid", WorkSettings("s", "p", plan, {}), None, {}, adopt={"database": "crm"})
        with pytest.raises(Permanent, match="kind shared"):
            crm.shop.provider.plan(work, {})


async def test_a_session_that_writes_until_the_end_loses_nothing_that_was_acknowledged(crm: Crm) -> None:
    shop, session, acknowledged = crm.shop, await crm.session(), 500

    async def write() -> None:
        nonlocal acknowledged
        while True:
            try:
                await session.execute("INSERT INTO app.customers (name) VALUES ('late')")
            except SESSION_ENDED:
                return
            acknowledged += 1

    writer = asyncio.create_task(write())
    work = crm.work()
    await shop.run(work)
    await writer

    _, credentials = await shop.bind(work.instance_uid)
    reader = await shop.server.login(credentials)
    # One more may have been committed whose answer was cut off.
    assert await reader.fetchval("SELECT count(*) FROM app.customers") in {acknowledged, acknowledged + 1}
    await reader.close()
