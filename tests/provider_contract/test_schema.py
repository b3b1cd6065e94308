"""Plan `schema`: one database, many instances. What each may do in its own schema, and that it goes without a trace."""

from __future__ import annotations

import asyncio
import secrets
import uuid
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from purveyor_server.domain.model import Json
from purveyor_server.domain.states import Drift, Make, Verb
from purveyor_server.providers.contract import Owned, Permanent, PlannedStep, RightsMissing, Work
from purveyor_server.providers.postgresql import PostgresProvider
from purveyor_server.providers.postgresql.common import CommonDatabasePiece
from purveyor_server.providers.postgresql.own_schema import OwnSchemaPiece
from tests.postgres_server import COMMON, SESSION_ENDED, TestServer
from tests.provider_contract.shop import SCHEMA_PLAN, Shop, Stopped, until

pytestmark = pytest.mark.postgres


def find(shop: Shop, work: Work, name: str) -> PlannedStep:
    return next(step for step in shop.provider.plan(work, {}) if step.piece.name == name)


async def test_a_round_trip_leaves_nothing(schema_shop: Shop) -> None:
    shop, before = schema_shop, await schema_shop.server.listing()

    uid = await shop.provision()
    binding, credentials = await shop.bind(uid)
    during = await shop.server.listing()
    await shop.unbind(uid, binding.uid)
    await shop.deprovision(uid)

    assert await shop.server.listing() == before
    changed = {name for name in before if during[name] != before[name]}
    assert changed == {"roles", "memberships", "comments", "settings", COMMON}
    assert (credentials["database"], credentials["schema"]) == (COMMON, shop.context(_made(shop, uid)).name("sch"))


def _made(shop: Shop, uid: str) -> Work:
    return shop.work(Verb.PROVISION, uid)


async def test_everything_twice_is_the_same(schema_shop: Shop) -> None:
    shop = schema_shop
    uid = await shop.provision()
    binding, _ = await shop.bind(uid)
    once = await shop.server.listing()

    await shop.run(_made(shop, uid))
    await shop.run(shop.work(Verb.BIND, uid, binding=binding))

    assert await shop.server.listing() == once
    assert (await shop.observe(uid)).drift is Drift.IN_SYNC
    for _ in range(2):
        await shop.unbind(uid, binding.uid)
    for _ in range(2):
        await shop.deprovision(uid)


async def test_what_never_was_can_be_removed(schema_shop: Shop) -> None:
    shop, uid, before = schema_shop, str(uuid.uuid4()), await schema_shop.server.listing()

    for step in reversed(list(shop.provider.plan(_made(shop, uid), {}))):
        await shop.step(step.piece, Make.ABSENT, _made(shop, uid))
    await shop.unbind(uid, str(uuid.uuid4()))
    await shop.deprovision(uid)

    assert await shop.server.listing() == before


@pytest.mark.parametrize("die_at", range(3))
async def test_an_interrupted_provision_is_undone_or_finished(schema_shop: Shop, die_at: int) -> None:
    shop, before = schema_shop, await schema_shop.server.listing()
    for finish in (False, True):
        work = shop.work_of_new()
        begun, calls = [], 0
        for step in shop.provider.plan(work, {}):
            begun.append(step)
            ctx = shop.context(work, die_at - calls)
            try:
                await step.piece.ensure(ctx)
            except Stopped:
                break
            calls += len(ctx.calls)
        last = begun[-1].piece
        await until(lambda last=last, work=work: last.settle(shop.context(work)))  # type: ignore[misc]
        if finish:
            await shop.run(work)
            assert (await shop.observe(work.instance_uid)).drift is Drift.IN_SYNC
            continue
        for step in reversed(begun):
            await shop.step(step.piece, Make.ABSENT, work)
        assert await shop.server.listing() == before


async def test_objects_live_in_the_schema_and_serve_every_binding(schema_shop: Shop) -> None:
    shop = schema_shop
    uid = await shop.provision()
    first, one = await shop.bind(uid)
    _, two = await shop.bind(uid)
    session = await shop.server.login(one)
    await session.execute(
        "CREATE TABLE notes (id serial PRIMARY KEY, text text); INSERT INTO notes (text) VALUES ('a')"
    )
    await session.execute("DISCARD ALL")  # what a pooler sends: role and path stay
    await session.execute("CREATE TEMPORARY TABLE mine (a int); CREATE TABLE after_discard (a int)")
    await session.execute("SET ROLE NONE; CREATE TABLE own (a int); INSERT INTO own VALUES (1); SELECT lo_create(0)")
    assert await session.fetchval("SELECT 'notes'::regclass::oid = to_regclass($1)", f"{one['schema']}.notes")

    await shop.unbind(uid, first.uid)

    with pytest.raises(SESSION_ENDED):
        await session.fetchval("SELECT 1")
    session.terminate()
    session = await shop.server.login(two)
    assert await session.fetchval("SELECT a FROM own") == 1
    await session.execute("DROP TABLE own, notes, after_discard")
    await session.close()


async def test_a_sibling_gets_nowhere(schema_shop: Shop) -> None:
    """Every way in is refused. What the catalogs show (names, definitions) all users of one database can read: documented."""
    shop = schema_shop
    _, mine = await shop.bind(await shop.provision())
    _, theirs = await shop.bind(await shop.provision())
    owner = await shop.server.login(theirs)
    await owner.execute(
        "CREATE TABLE t (a int); CREATE SEQUENCE s; CREATE TYPE e AS ENUM ('x'); CREATE VIEW v AS SELECT a FROM t;"
        "CREATE FUNCTION f() RETURNS int LANGUAGE sql AS 'SELECT 1'; GRANT ALL ON t, v TO PUBLIC;"
        "GRANT EXECUTE ON FUNCTION f() TO PUBLIC; CREATE TEMPORARY TABLE passing (a int)"
    )
    large = await owner.fetchval("SELECT lo_from_bytea(0, 'secret')")
    temporary = await owner.fetchval("SELECT nspname FROM pg_namespace WHERE oid = pg_my_temp_schema()")
    schema, group = theirs["schema"], str(theirs["schema"]).replace("_sch_", "_grp_")
    session = await shop.server.login(mine)

    for role in ("RESET ROLE", "SET ROLE NONE"):
        await session.execute(role)
        for statement in (
            f"SELECT * FROM {schema}.t",
            f"SELECT * FROM {schema}.v",
            f"INSERT INTO {schema}.t VALUES (1)",
            f"DELETE FROM {schema}.t",
            f"TRUNCATE {schema}.t",
            f"DROP TABLE {schema}.t",
            f"ALTER TABLE {schema}.t ADD b int",
            f"SELECT * FROM {schema}.t FOR UPDATE",
            f"SELECT nextval('{schema}.s')",
            f"SELECT {schema}.f()",
            f"SELECT 'x'::{schema}.e",
            f"CREATE TABLE {schema}.mine (a int)",
            f"CREATE FUNCTION {schema}.mine() RETURNS int LANGUAGE sql AS 'SELECT 1'",
            f"CREATE TABLE mine (a {schema}.e)",
            f"ALTER SCHEMA {schema} RENAME TO mine",
            f"DROP SCHEMA {schema} CASCADE",
            f"SELECT * FROM {temporary}.passing",
            f"SELECT lo_get({large})",
            f"SELECT lo_unlink({large})",
            f"SET ROLE {group}",
            f"SET ROLE {theirs['username']}",
            f"SET ROLE {COMMON}_members",
            f"SET SESSION AUTHORIZATION {theirs['username']}",
            f"GRANT {group} TO {mine['username']}",
            f"GRANT {COMMON}_members TO {mine['username']}",
            f"REASSIGN OWNED BY {group} TO {mine['username']}",
            f"DROP OWNED BY {group}",
            f"ALTER DEFAULT PRIVILEGES FOR ROLE {group} GRANT ALL ON TABLES TO {mine['username']}",
            f"ALTER ROLE {theirs['username']} SET search_path = {mine['schema']}",
            f"ALTER ROLE {mine['username']} CONNECTION LIMIT -1",
            f"COMMENT ON SCHEMA {mine['schema']} IS 'purveyor:{shop.store}:x:9'",
            f"DROP SCHEMA {mine['schema']}",
            "CREATE SCHEMA another",
            "CREATE TABLE public.mine (a int)",
            "CREATE EXTENSION hstore",
            "CREATE DATABASE mine",
            "CREATE PUBLICATION everything",
            "CREATE EVENT TRIGGER x ON ddl_command_start EXECUTE FUNCTION now()",
            f"ALTER DATABASE {COMMON} SET search_path = {mine['schema']}",
            f"DROP DATABASE {COMMON}",
        ):
            with pytest.raises(asyncpg.PostgresError) as refused:
                await session.execute(statement)
            assert refused.value.sqlstate in {"42501", "42809"}, (statement, str(refused.value))
    for database in ("postgres", "template1"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
            async with shop.server.connect(mine["username"], mine["password"], database):
                pytest.fail("came in")
    assert await owner.fetchval("SELECT count(*) FROM t") == 0
    await owner.close()
    await session.close()


async def test_a_grant_to_a_sibling_opens_nothing_and_pins_nobody(schema_shop: Shop) -> None:
    """Whoever owns a table may grant it to anybody; without USAGE on the schema that is worth nothing, and it is taken back."""
    shop = schema_shop
    _, hostile = await shop.bind(await shop.provision())
    victim = await shop.provision()
    before = await shop.server.listing()
    binding, theirs = await shop.bind(victim)
    session = await shop.server.login(hostile)
    await session.execute("CREATE TABLE trap (a int); ALTER TABLE trap ENABLE ROW LEVEL SECURITY")
    group = str(theirs["schema"]).replace("_sch_", "_grp_")
    for number, role in enumerate((theirs["username"], group)):
        await session.execute(f"GRANT ALL ON trap TO {role}; CREATE POLICY p{number} ON trap TO {role} USING (true)")
        await session.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}")
        await session.execute(f"GRANT ALL ON SCHEMA {hostile['schema']} TO {role}")  # a warning: no grant option
    visitor = await shop.server.login(theirs)
    with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for schema"):
        await visitor.fetchval(f"SELECT count(*) FROM {hostile['schema']}.trap")
    await visitor.close()

    await shop.unbind(victim, binding.uid)
    await shop.deprovision(victim)

    after = await shop.server.listing()
    assert not [row for rows in after.values() for row in rows if group in str(row)]
    assert len(before["roles"]) == len(after["roles"]) + 1
    assert await session.fetchval("SELECT count(*) FROM trap") == 0
    await session.close()


@pytest.mark.parametrize("batch", [2, 500])
async def test_all_that_an_instance_owns_goes_and_nothing_else(
    schema_shop: Shop, batch: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """In parts that fit into the server's lock table; a left binding with an open session and a lock keeps nothing."""
    shop = schema_shop
    monkeypatch.setattr(OwnSchemaPiece, "batch", batch)
    other = await shop.provision()
    _, theirs = await shop.bind(other)
    session = await shop.server.login(theirs)
    await session.execute("CREATE TABLE t (a int)")
    kept = await session.fetchval("SELECT lo_create(0)")
    before = await shop.server.listing()
    uid = await shop.provision()
    _, mine = await shop.bind(uid)
    holder = await shop.server.login(mine)
    await holder.execute(
        "CREATE TABLE p (a serial, b int GENERATED ALWAYS AS IDENTITY) PARTITION BY RANGE (a);"
        "CREATE TABLE p1 PARTITION OF p FOR VALUES FROM (1) TO (9); CREATE TABLE p2 PARTITION OF p DEFAULT;"
        "CREATE TABLE q (a int PRIMARY KEY); CREATE TABLE r (a int REFERENCES q); CREATE VIEW v AS SELECT * FROM r;"
        "CREATE MATERIALIZED VIEW m AS SELECT * FROM v; CREATE SEQUENCE s; CREATE TYPE c AS (a int);"
        "CREATE DOMAIN d AS int; CREATE TYPE e AS ENUM ('x'); CREATE TYPE g AS RANGE (subtype = int);"
        "CREATE FUNCTION f(e) RETURNS d LANGUAGE sql AS 'SELECT 1'; CREATE AGGREGATE a(int) (sfunc = int4pl, stype = int);"
        "CREATE PROCEDURE x() LANGUAGE sql AS ''; CREATE OPERATOR !! (rightarg = e, function = f);"
        "SELECT lo_create(0), lo_create(0); SET ROLE NONE; SELECT lo_create(0); CREATE TABLE own (a int);"
        "ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC"
    )
    await holder.execute("BEGIN; LOCK TABLE q")

    await shop.deprovision(uid)
    shop.bindings = {binding: instance for binding, instance in shop.bindings.items() if instance == other}

    assert await shop.server.listing() == before
    assert await session.fetchval("SELECT lo_unlink($1)", kept) == 1
    holder.terminate()
    await session.close()


async def test_limits_follow_an_update_for_old_and_new_logins(schema_shop: Shop) -> None:
    shop = schema_shop
    uid = await shop.provision()
    _, old = await shop.bind(uid)
    shop.settings = {**SCHEMA_PLAN, "statement_timeout_seconds": 7, "idle_in_transaction_timeout_seconds": 9}

    await shop.update(uid)

    _, new = await shop.bind(uid, connection_limit=1)
    for credentials in (old, new):
        session = await shop.server.login(credentials)
        assert await session.fetchval("SHOW statement_timeout") == "7s"
        assert await session.fetchval("SHOW idle_in_transaction_session_timeout") == "9s"
        if credentials is new:
            with pytest.raises(asyncpg.TooManyConnectionsError):
                await shop.server.login(new)
        await session.close()
    with pytest.raises(Permanent, match="connection_limit"):
        await shop.bind(uid, connection_limit=101)
    with pytest.raises(Permanent, match="extensions"):
        await shop.provision(extensions=["hstore"])


@pytest.mark.parametrize(
    ("other", "why"),
    [
        ({"kind": "shared"}, "only from shared to dedicated"),
        ({"kind": "schema", "database": "purveyor_x"}, "another database"),
    ],
)
async def test_an_instance_stays_where_it_is(schema_shop: Shop, other: dict[str, Json], why: str) -> None:
    work = schema_shop.work(Verb.UPDATE, str(uuid.uuid4()))
    assert work.want is not None
    was = type(work.want)("service", "plan", other, {})

    with pytest.raises(Permanent, match=why):
        schema_shop.provider.plan(Work(Verb.UPDATE, work.instance_uid, work.want, was, {}), {})


async def test_drift_is_seen_and_mended(schema_shop: Shop) -> None:
    shop = schema_shop
    uid = await shop.provision()
    binding, credentials = await shop.bind(uid)
    schema, group = credentials["schema"], str(credentials["schema"]).replace("_sch_", "_grp_")

    async with shop.server.superuser(COMMON) as superuser:
        for statement, words in (
            (f"REVOKE CREATE ON SCHEMA {schema} FROM {group}", f"{group} lacks CREATE on the schema"),
            (f"GRANT USAGE ON SCHEMA {schema} TO PUBLIC", "PUBLIC has USAGE on the schema"),
            (
                f"REVOKE {COMMON}_members FROM {group} GRANTED BY {shop.server.running.user}",
                "may not enter the shared database",
            ),
        ):
            await superuser.execute(statement)
            assert [text for text in (await shop.observe(uid)).differences if words in text], statement
            await shop.run(_made(shop, uid))
            assert (await shop.observe(uid)).differences == (), statement
        await superuser.execute(f"GRANT CONNECT ON DATABASE {COMMON} TO PUBLIC")
        assert (await shop.observe(uid)).differences == ("PUBLIC has CONNECT on the shared database",)
        await superuser.execute(f"REVOKE CONNECT ON DATABASE {COMMON} FROM PUBLIC")
        await superuser.execute(f"ALTER SCHEMA {schema} RENAME TO away")
        observed = await shop.observe(uid)
        assert (observed.drift, observed.healthy) == (Drift.MISSING, False)
        await superuser.execute(f"REVOKE ALL ON SCHEMA away FROM {group}")
        with pytest.raises(Permanent):
            await shop.bind(uid)
        shop.bindings = {binding.uid: uid}
        await superuser.execute(f"GRANT ALL ON SCHEMA away TO {group}; ALTER SCHEMA away RENAME TO {schema}")


async def test_what_carries_the_marker_is_listed(schema_shop: Shop) -> None:
    shop = schema_shop
    uid = await shop.provision()
    binding, credentials = await shop.bind(uid)
    other = PostgresProvider(shop.server.config, shop.server.environment())

    found = {owned async for owned in shop.provider.list_owned(shop.store)}

    schema = str(credentials["schema"])
    assert found == {
        Owned("role", schema.replace("_sch_", "_grp_"), uid, 7),
        Owned("role", str(credentials["username"]), binding.uid, 7),
        Owned("schema", schema, uid, 7),
    }
    assert [owned async for owned in other.list_owned("x" * 16)] == []
    await other.close()


async def test_an_open_call_is_waited_for(schema_shop: Shop) -> None:
    """A schema is being made in the shared database while the broker is gone: its session is found by its name."""
    shop = schema_shop
    work = shop.work_of_new()
    piece = find(shop, work, "own_schema").piece
    await shop.step(find(shop, work, "group").piece, Make.ENSURE, work)

    async with shop.server.superuser(COMMON) as superuser:
        await superuser.execute("BEGIN; LOCK TABLE pg_namespace IN EXCLUSIVE MODE")
        running = shop.start(piece.ensure(shop.context(work)))
        await until(shop.waits_for_lock)
        assert not await piece.settle(shop.context(work))
        await superuser.execute("ROLLBACK")
    await running
    assert await piece.settle(shop.context(work))


@pytest_asyncio.fixture
async def fresh(postgres: TestServer) -> AsyncIterator[Shop]:
    """A shop whose shared database is not there yet; it is dropped afterwards."""
    store, database = secrets.token_hex(8), f"{COMMON}_{secrets.token_hex(4)}"
    provider = PostgresProvider(postgres.config, postgres.environment(store))
    shop = Shop(postgres, provider, store)
    shop.settings = {**SCHEMA_PLAN, "database": database}
    before = await postgres.listing()
    yield shop
    await shop.clear()
    await provider.close()
    async with postgres.superuser() as superuser:
        await superuser.execute(f"DROP DATABASE IF EXISTS {database} WITH (FORCE)")
        await superuser.execute(f"DROP ROLE IF EXISTS {database}_members")

    async def as_before() -> bool:
        return await postgres.listing() == before

    await until(as_before)


async def test_the_shared_database_is_made_once_and_nobody_else_comes_in(fresh: Shop) -> None:
    shop, database = fresh, str(fresh.settings["database"])
    instances = await asyncio.gather(*(shop.provision() for _ in range(4)))
    _, mine = await shop.bind(instances[0])
    plain = Shop(shop.server, shop.provider, shop.store)
    _, stranger = await plain.bind(await plain.provision())

    assert mine["database"] == database
    await (await shop.server.login(mine)).close()
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        async with shop.server.connect(stranger["username"], stranger["password"], database):
            pytest.fail("came in")
    await shop.provider.check()  # nobody else may enter: nothing to complain of
    await plain.clear()


@pytest.mark.parametrize("die_at", range(4))
async def test_a_half_made_shared_database_is_finished(fresh: Shop, die_at: int) -> None:
    shop = fresh
    work = shop.work_of_new()
    piece, ctx = find(shop, work, "common_database").piece, shop.context(work, die_at)
    await shop.stopped(piece.ensure(ctx))
    await until(lambda: piece.settle(shop.context(work)))

    await shop.run(work)

    assert (await shop.observe(work.instance_uid)).drift is Drift.IN_SYNC
    assert isinstance(piece, CommonDatabasePiece)


async def test_a_database_of_somebody_else_is_not_taken(fresh: Shop) -> None:
    shop, database = fresh, str(fresh.settings["database"])
    async with shop.server.superuser() as superuser:
        await superuser.execute(f"CREATE DATABASE {database}")
        await superuser.execute(f"REVOKE ALL ON DATABASE {database} FROM PUBLIC")
        with pytest.raises(RightsMissing) as refused:
            await shop.provision()
        assert f'ALTER DATABASE "{database}" OWNER TO' in refused.value.detail
        await superuser.execute(f"ALTER DATABASE {database} OWNER TO {shop.server.running.user}")
        await superuser.execute(f"CREATE ROLE {database}_members CREATEDB")
        with pytest.raises(Permanent, match="rights that its members must not get"):
            await shop.provision()
        await superuser.execute(f"DROP ROLE {database}_members")

    uid = await shop.provision()  # made by an administrator, given to the broker: used

    assert (await shop.observe(uid)).drift is Drift.IN_SYNC
