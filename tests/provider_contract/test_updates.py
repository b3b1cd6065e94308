"""Updates of limits and extensions, and what `observe` and `list_owned` say."""

from __future__ import annotations

import uuid
from collections.abc import Sequence

import pytest
from msgspec.structs import replace

from purveyor_server.domain.model import Json
from purveyor_server.domain.states import Drift, Verb
from purveyor_server.providers.contract import Owned, Permanent, Work, WorkSettings
from tests.provider_contract.shop import Shop

pytestmark = pytest.mark.postgres


async def differences(shop: Shop, uid: str) -> Sequence[str]:
    observed = await shop.observe(uid)
    assert (observed.drift is Drift.IN_SYNC) == (not observed.differences)
    return observed.differences


async def test_limits_and_extensions_follow_an_update(shop: Shop) -> None:
    uid = await shop.provision(extensions=["hstore"], connection_limit=3)
    _, credentials = await shop.bind(uid)

    await shop.update(uid, extensions=["pg_trgm"], connection_limit=4)

    assert await differences(shop, uid) == ()
    session = await shop.server.login(credentials)
    assert await session.fetchval("SELECT array_agg(extname::text ORDER BY extname) FROM pg_extension") == [
        "pg_trgm",
        "plpgsql",
    ]
    assert await session.fetchval("SELECT similarity('word', 'word')") == 1
    assert await session.fetchval("SELECT datconnlimit FROM pg_database WHERE datname = current_database()") == 4
    await session.close()


async def test_an_extension_in_use_stays_and_nothing_is_changed(shop: Shop) -> None:
    uid = await shop.provision(extensions=["hstore"], connection_limit=3)
    _, credentials = await shop.bind(uid)
    session = await shop.server.login(credentials)
    await session.execute("CREATE TABLE t (h hstore, i int)")
    before = await shop.server.listing()

    with pytest.raises(Permanent, match="hstore is in use"):
        await shop.update(uid, extensions=["pg_trgm"], connection_limit=4)

    assert await shop.server.listing() == before
    assert await differences(shop, uid) == ()
    await session.execute("DROP TABLE t")
    await session.close()
    await shop.update(uid, extensions=[])
    assert await differences(shop, uid) == ()


@pytest.mark.parametrize(
    "use", ["CREATE INDEX ON t USING gin (w gin_trgm_ops)", "CREATE VIEW v AS SELECT similarity(w, 'x') FROM t"]
)
async def test_any_use_of_an_extension_counts(shop: Shop, use: str) -> None:
    uid = await shop.provision(extensions=["pg_trgm"])
    _, credentials = await shop.bind(uid)
    session = await shop.server.login(credentials)
    await session.execute("CREATE TABLE t (w text)")
    await session.execute(use)
    await session.close()

    with pytest.raises(Permanent, match="pg_trgm is in use"):
        await shop.update(uid)


@pytest.mark.parametrize(
    ("name", "why"),
    [("dblink", "not a trusted extension"), ("vector", "not offered by this plan"), ("plpython", "not offered")],
)
async def test_an_extension_must_be_offered_and_trusted(shop: Shop, name: str, why: str) -> None:
    with pytest.raises(Permanent, match=why):
        await shop.provision(extensions=[name])


async def test_a_limit_above_the_plan_is_refused(shop: Shop) -> None:
    uid = await shop.provision()

    with pytest.raises(Permanent, match="connection_limit"):
        await shop.update(uid, connection_limit=500)

    assert await differences(shop, uid) == ()


async def test_every_drift_is_seen_and_mended_by_ensure(shop: Shop) -> None:
    uid = await shop.provision(extensions=["hstore"])
    work = shop.work(Verb.PROVISION, uid, {"extensions": ["hstore"]})
    database, group = (shop.context(work).instance_name(kind) for kind in ("db", "grp"))

    async with shop.server.superuser() as superuser:
        for statement, words in (
            (f"ALTER DATABASE {database} CONNECTION LIMIT 77", "connection limit is 77, not 5"),
            (f"GRANT CONNECT ON DATABASE {database} TO PUBLIC", "PUBLIC has CONNECT"),
            (f"REVOKE CONNECT ON DATABASE {database} FROM {group}", f"{group} lacks CONNECT"),
            (f"ALTER DATABASE {database} ALLOW_CONNECTIONS false", "takes no connections"),
        ):
            await superuser.execute(statement)
            assert [sentence for sentence in await differences(shop, uid) if words in sentence], statement
            await shop.run(work)
            assert await differences(shop, uid) == (), statement
        await superuser.execute(f"ALTER ROLE {group} LOGIN CREATEDB")
        assert len(await differences(shop, uid)) == 2
        await superuser.execute(f"ALTER ROLE {group} NOLOGIN NOCREATEDB")
    async with shop.server.superuser(database) as superuser:
        await superuser.execute("DROP EXTENSION hstore")
        assert await differences(shop, uid) == ("extension hstore is missing",)
    await shop.run(work)
    assert await differences(shop, uid) == ()


async def test_drift_of_a_binding_is_seen(shop: Shop) -> None:
    uid = await shop.provision()
    binding, credentials = await shop.bind(uid)
    login, group = credentials["username"], str(credentials["database"]).replace("_db_", "_grp_")

    async with shop.server.superuser() as superuser:
        await superuser.execute(f"REVOKE {group} FROM {login} GRANTED BY {shop.server.running.user}")
        assert await differences(shop, uid) == (f"role {login} is no full member of the group role",)
        await superuser.execute(f"ALTER ROLE {login} NOLOGIN")
        assert len(await differences(shop, uid)) == 2
        await shop.run(shop.work(Verb.BIND, uid, binding=binding))
        await superuser.execute(f"CREATE ROLE stranger IN ROLE {group}")
        assert await differences(shop, uid) == ("role stranger is a member of the group role",)
        await superuser.execute("DROP ROLE stranger")
    assert await differences(shop, uid) == ()


async def test_a_database_that_is_gone_is_missing(shop: Shop) -> None:
    uid = await shop.provision()
    async with shop.server.superuser() as superuser:
        await superuser.execute(f"DROP DATABASE {shop.context(shop.work(Verb.PROVISION, uid)).instance_name('db')}")

    observed = await shop.observe(uid)

    assert (observed.drift, observed.healthy) == (Drift.MISSING, False)


async def test_the_inventory_is_exact(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("purveyor_server.providers.postgresql.inventory.PAGE", 2)
    uids = [await shop.provision() for _ in range(2)]
    binding, credentials = await shop.bind(uids[0])
    async with shop.server.superuser() as superuser:
        await superuser.execute("CREATE ROLE other; COMMENT ON ROLE other IS 'purveyor:another-store:x:1'")
        await superuser.execute(f"CREATE ROLE odd; COMMENT ON ROLE odd IS 'purveyor:{shop.store}:no revision'")
        found = [owned async for owned in shop.provider.list_owned(shop.store)]
        await superuser.execute("DROP ROLE other; DROP ROLE odd")

    names = [shop.context(shop.work(Verb.PROVISION, uid)) for uid in uids]
    expected = [Owned("database", ctx.instance_name("db"), ctx.uid, 7) for ctx in names]
    expected += [Owned("role", ctx.instance_name("grp"), ctx.uid, 7) for ctx in names]
    expected += [Owned("role", str(credentials["username"]), binding.uid, 7)]
    assert sorted(found, key=str) == sorted(expected, key=str)
    assert [owned async for owned in shop.provider.list_owned(str(uuid.uuid4()))] == []


async def test_another_plan_of_the_same_kind_changes_limits_and_is_undone(shop: Shop) -> None:
    small: dict[str, Json] = {"kind": "shared", "connection_limit": 3, "extensions": ["hstore"]}
    big: dict[str, Json] = {
        "kind": "shared",
        "connection_limit": 9,
        "extensions": ["hstore", "citext"],
        "statement_timeout_seconds": 30.0,
        "idle_in_transaction_timeout_seconds": 60.0,
    }
    shop.settings = small
    uid = await shop.provision(extensions=["hstore"])
    _, credentials = await shop.bind(uid)
    before = await shop.server.listing()
    was, want = (WorkSettings("service", "plan", plan, {"extensions": names}) for plan, names in (
        (small, ["hstore"]), (big, ["hstore", "citext"]),
    ))  # fmt: skip
    work = Work(Verb.UPDATE, uid, want, was, {})

    done = await shop.run(work)

    assert done["database"]["connection_limit"] == 9
    session = await shop.server.login(credentials)
    assert await session.fetchval("SHOW statement_timeout") == "30s"
    assert await session.fetchval("SHOW idle_in_transaction_session_timeout") == "1min"
    assert await session.fetchval("SELECT 'A'::citext = 'a'::citext")
    await session.close()
    back = replace(work, want=was, was=want)
    for step in reversed(shop.provider.plan(work, {})):
        await shop.step(step.piece, step.make, back)
    assert await shop.server.listing() == before
    assert await differences(shop, uid) == ()
