"""What one tenant's login can do to others: nothing."""

from __future__ import annotations

import asyncpg
import pytest

from purveyor_server.domain.states import Verb
from tests.provider_contract.shop import Shop, until

pytestmark = pytest.mark.postgres
DENIED = (asyncpg.InsufficientPrivilegeError,)


async def test_a_login_enters_its_own_database_only(shop: Shop) -> None:
    _, mine = await shop.bind(await shop.provision())
    _, theirs = await shop.bind(await shop.provision())

    for database in (theirs["database"], "postgres", "template1"):
        with pytest.raises(asyncpg.InsufficientPrivilegeError, match="permission denied for database"):
            async with shop.server.connect(mine["username"], mine["password"], database):
                pytest.fail("came in")


async def test_a_login_gains_no_right(shop: Shop) -> None:
    other = await shop.provision()
    uid = await shop.provision()
    binding, mine = await shop.bind(uid)
    _, sibling = await shop.bind(uid)
    _, theirs = await shop.bind(other)
    group, stranger = (name["database"].replace("_db_", "_grp_") for name in (mine, theirs))
    admin = shop.server.running.user
    session = await shop.server.login(mine)
    await session.execute("RESET ROLE")

    for statement in (
        "CREATE DATABASE mine",
        "CREATE ROLE mine",
        "CREATE SCHEMA mine",
        "CREATE EXTENSION pg_trgm",
        "CREATE EXTENSION dblink",
        f"SET ROLE {stranger}",
        f"SET ROLE {admin}",
        f"SET ROLE {theirs['username']}",
        f"SET ROLE {sibling['username']}",
        f"SET SESSION AUTHORIZATION {theirs['username']}",
        f"GRANT {group} TO {theirs['username']}",
        f"GRANT {mine['username']} TO {theirs['username']}",
        f"GRANT {stranger} TO {mine['username']}",
        f"ALTER ROLE {mine['username']} VALID UNTIL 'infinity'",
        f"ALTER ROLE {mine['username']} CONNECTION LIMIT -1",
        f"ALTER ROLE {mine['username']} CREATEDB",
        f"ALTER ROLE {sibling['username']} PASSWORD 'x'",
        f"ALTER ROLE {group} LOGIN",
        f"ALTER DATABASE {mine['database']} CONNECTION LIMIT -1",
        f"ALTER DATABASE {mine['database']} OWNER TO {mine['username']}",
        f"DROP DATABASE {mine['database']}",
        f"DROP DATABASE {theirs['database']}",
        f"COMMENT ON DATABASE {mine['database']} IS 'purveyor:{shop.store}:x:9'",
        f"COMMENT ON ROLE {mine['username']} IS 'purveyor:{shop.store}:x:9'",
        "SELECT rolpassword FROM pg_authid",
        "SELECT pg_read_file('postgresql.conf')",
        "COPY (SELECT 1) TO PROGRAM 'true'",
        "LOAD 'auto_explain'",
        "ALTER SYSTEM SET work_mem = 1",
        "CREATE TABLE extensions.mine (a int)",
    ):
        with pytest.raises((asyncpg.PostgresError,)) as refused:
            await session.execute(statement)
        assert refused.value.sqlstate in {"42501", "42809"}, (statement, str(refused.value))
    await session.close()
    assert binding.uid


async def test_a_login_cannot_let_others_in(shop: Shop) -> None:
    """GRANT without the grant option is a warning, not an error: what counts is who can come in."""
    _, mine = await shop.bind(await shop.provision())
    _, theirs = await shop.bind(await shop.provision())
    session = await shop.server.login(mine)

    await session.execute("CREATE TABLE secret (a int)")
    for grantee in ("PUBLIC", theirs["username"]):
        await session.execute(f"GRANT ALL ON TABLE secret TO {grantee}")
        try:
            await session.execute(f"GRANT CONNECT ON DATABASE {mine['database']} TO {grantee}")
        except DENIED:
            continue

    with pytest.raises(DENIED):
        async with shop.server.connect(theirs["username"], theirs["password"], mine["database"]):
            pytest.fail("came in")
    await session.close()


async def test_a_limit_that_a_crash_left_raised_is_set_right(shop: Shop) -> None:
    """The broker comes into a full database by raising its limit; it dies before it has lowered it again."""
    uid = await shop.provision(connection_limit=1)
    first, _ = await shop.bind(uid)
    _, other = await shop.bind(uid)
    session = await shop.server.login(other)
    work = shop.work(Verb.UNBIND, uid, binding=first)
    (step,) = shop.provider.plan(work, {})
    ctx = shop.context(work, die_at=2)

    await shop.stopped(step.piece.absent(ctx))
    assert ctx.calls == ["lock_login", "raise_limit"]
    observed = await shop.observe(uid)
    assert "connection limit is 1 (raised for the broker), not 1" in observed.differences
    await until(lambda: step.piece.settle(ctx))
    await shop.unbind(uid, first.uid)

    async with shop.server.superuser() as superuser:
        sql = "SELECT datconnlimit FROM pg_database WHERE datname = $1"
        assert await superuser.fetchval(sql, other["database"]) == 1
    await session.close()


async def test_a_tenant_cannot_pin_the_roles_of_another(shop: Shop) -> None:
    """Whoever is named in a grant or policy of another database cannot be dropped: the broker takes those back first."""
    _, hostile = await shop.bind(await shop.provision())
    victim = await shop.provision()
    before = await shop.server.listing()
    binding, theirs = await shop.bind(victim)
    session = await shop.server.login(hostile)
    await session.execute("CREATE TABLE trap (a int); ALTER TABLE trap ENABLE ROW LEVEL SECURITY")
    for number, role in enumerate((theirs["username"], theirs["database"].replace("_db_", "_grp_"))):
        await session.execute(f"GRANT ALL ON trap TO {role}; GRANT ALL ON SCHEMA public TO {role}")
        await session.execute(f"CREATE POLICY p{number} ON trap TO {role} USING (true)")
        await session.execute(f"ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO {role}")
    await session.close()

    await shop.unbind(victim, binding.uid)
    assert await shop.server.listing() == before
    await shop.deprovision(victim)


async def test_the_world_of_a_login_carries_no_tenant_text(shop: Shop) -> None:
    """Every role can read names and comments of all: they are made of uids and the store's id alone."""
    uid = await shop.provision()
    binding, mine = await shop.bind(uid)
    session = await shop.server.login(mine)

    rows = await session.fetch("SELECT description FROM pg_shdescription WHERE description LIKE 'purveyor:%'")

    shared = {"purveyor: a schema for each instance"}  # of the database that instances share, when it is there already
    assert {row[0] for row in rows} - shared == {
        f"purveyor:{shop.store}:{uid}:7",
        f"purveyor:{shop.store}:{binding.uid}:7",
    }
    await session.close()


async def test_nobody_comes_in_while_a_database_is_made(shop: Shop) -> None:
    """CREATE DATABASE gives CONNECT to everybody: the database is closed until that is taken away."""
    _, theirs = await shop.bind(await shop.provision())
    work, seen = shop.work_of_new(), []
    piece = next(step.piece for step in shop.provider.plan(work, {}) if step.piece.name == "database")
    ctx = shop.context(work, die_at=1)
    await shop.stopped(piece.ensure(ctx))

    try:
        async with shop.server.connect(theirs["username"], theirs["password"], ctx.instance_name("db")):
            pytest.fail("came in")
    except asyncpg.PostgresError as error:
        seen.append(error.sqlstate)

    assert seen == ["55000"]
    assert ctx.calls == ["create_database"]


async def test_a_login_cannot_stop_the_broker_from_removing_it(shop: Shop) -> None:
    """Locks, a full database, traps in functions: none keeps access alive."""
    uid = await shop.provision(connection_limit=2)
    first, mine = await shop.bind(uid, connection_limit=2)
    _, other = await shop.bind(uid)
    sessions = [await shop.server.login(other), await shop.server.login(other)]
    key_holders = "SELECT count(pg_try_advisory_lock(k)) FROM generate_series(1, 1000) k"
    await sessions[0].execute(key_holders)
    await sessions[0].execute(
        "CREATE FUNCTION public.count(boolean) RETURNS bigint LANGUAGE sql AS 'SELECT 1/0';"
        "CREATE FUNCTION public.current_setting(text) RETURNS text LANGUAGE sql AS 'SELECT NULL'"
    )

    await shop.unbind(uid, first.uid)  # the database is full of the other one's sessions

    assert (await shop.observe(uid)).differences in {(), ("the broker cannot connect to the database",)}
    assert await sessions[1].fetchval("SELECT 1") == 1
    with pytest.raises(asyncpg.PostgresError) as refused:
        await shop.server.login(mine)
    assert refused.value.sqlstate == "28P01"
    for session in sessions:
        await session.close()
