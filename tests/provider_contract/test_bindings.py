"""Bindings: what they can use, how they end, and that the password stays a secret."""

from __future__ import annotations

import uuid
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qs, urlsplit

import asyncpg
import pytest

from purveyor_server.domain.states import Make, Verb
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import BindingWork, Permanent
from purveyor_server.providers.postgresql.scram import make_verifier
from tests.postgres_server import SESSION_ENDED
from tests.provider_contract.shop import Shop, until

pytestmark = pytest.mark.postgres


async def test_objects_of_one_binding_serve_the_next(shop: Shop) -> None:
    uid = await shop.provision()
    first, one = await shop.bind(uid)
    session = await shop.server.login(one)
    await session.execute(
        "CREATE TABLE notes (id serial PRIMARY KEY, text text); INSERT INTO notes (text) VALUES ('a')"
    )
    await session.execute("DISCARD ALL")  # what a pooler sends: the group's role stays
    await session.execute("CREATE TABLE after_discard (a int)")
    await session.close()

    _, two = await shop.bind(uid)
    session = await shop.server.login(two)
    await session.execute("INSERT INTO notes (text) VALUES ('b'); ALTER TABLE notes ADD COLUMN more int")
    await shop.unbind(uid, first.uid)
    await session.execute("CREATE INDEX ON notes (text)")
    assert await session.fetchval("SELECT count(*) FROM notes") == 2
    await session.execute("DROP TABLE notes, after_discard")
    await session.close()


async def test_objects_made_outside_the_group_are_handed_over(shop: Shop) -> None:
    uid = await shop.provision()
    first, one = await shop.bind(uid)
    _, two = await shop.bind(uid)
    session = await shop.server.login(one)
    await session.execute("SET ROLE NONE; CREATE TABLE own (a int); INSERT INTO own VALUES (1)")
    await session.execute("ALTER DEFAULT PRIVILEGES GRANT SELECT ON TABLES TO PUBLIC")
    await session.close()

    await shop.unbind(uid, first.uid)

    session = await shop.server.login(two)
    assert await session.fetchval("SELECT a FROM own") == 1
    await session.execute("DROP TABLE own")
    await session.close()


async def test_unbind_cuts_a_session_in_mid_transaction(shop: Shop) -> None:
    uid = await shop.provision()
    first, one = await shop.bind(uid)
    _, two = await shop.bind(uid)
    session, witness = await shop.server.login(one), await shop.server.login(two)
    await session.execute("CREATE TABLE ledger (a int); INSERT INTO ledger VALUES (1)")
    await session.execute("BEGIN; INSERT INTO ledger VALUES (2)")

    await shop.unbind(uid, first.uid)

    with pytest.raises(SESSION_ENDED):
        await session.execute("INSERT INTO ledger VALUES (3)")
    with pytest.raises(asyncpg.InvalidPasswordError):
        await shop.server.login(one)
    assert [row[0] for row in await witness.fetch("SELECT a FROM ledger")] == [1]
    await witness.close()
    session.terminate()


async def test_expiry_is_enforced_by_the_server(shop: Shop) -> None:
    uid = await shop.provision()
    _, past = await shop.bind(uid, expires_at=datetime.now(UTC) - timedelta(seconds=1))
    _, future = await shop.bind(uid, expires_at=datetime.now(UTC) + timedelta(hours=1))

    with pytest.raises(asyncpg.InvalidPasswordError):
        await shop.server.login(past)
    await (await shop.server.login(future)).close()


async def test_an_expiry_can_be_lifted(shop: Shop) -> None:
    uid = await shop.provision()
    binding, credentials = await shop.bind(uid, expires_at=datetime.now(UTC) - timedelta(seconds=1))

    await shop.run(shop.work(Verb.BIND, uid, binding=BindingWork(binding.uid, {})))

    await (await shop.server.login(credentials)).close()


async def test_limits_of_a_binding_hold(shop: Shop) -> None:
    uid = await shop.provision()
    _, credentials = await shop.bind(uid, connection_limit=1)
    session = await shop.server.login(credentials)

    with pytest.raises(asyncpg.TooManyConnectionsError):
        await shop.server.login(credentials)
    await session.close()


async def test_a_limit_above_the_plan_is_refused_before_anything(shop: Shop) -> None:
    uid = await shop.provision()
    before = await shop.server.listing()

    with pytest.raises(Permanent, match="more than the plan allows"):
        await shop.bind(uid, connection_limit=1000)

    assert await shop.server.listing() == before


async def test_the_password_is_in_no_log_and_no_view(shop: Shop) -> None:
    binding, credentials = await shop.bind(await shop.provision())
    session = await shop.server.login(credentials)
    clear = shop.passwords[binding.uid].reveal()

    async with shop.server.superuser() as superuser:
        queries = [row[0] for row in await superuser.fetch("SELECT query FROM pg_stat_activity")]
        stored = await superuser.fetchval(
            "SELECT rolpassword FROM pg_authid WHERE rolname = $1", credentials["username"]
        )

    assert stored == make_verifier(str(credentials["username"]), Secret(clear))
    assert not [query for query in queries if query and clear in query]
    assert clear not in shop.server.log()
    await session.close()


async def test_our_verifier_is_the_servers(shop: Shop) -> None:
    """The server makes the same one from the clear password, given the same salt: checked by logging in with it."""
    async with shop.server.superuser() as superuser:
        verifier = make_verifier("scram_probe", Secret("probe-password"))
        await superuser.execute(
            f"CREATE ROLE scram_probe LOGIN PASSWORD '{verifier}'; GRANT CONNECT ON DATABASE postgres TO scram_probe"
        )
        try:
            async with shop.server.connect("scram_probe", "probe-password", "postgres") as session:
                assert await session.fetchval("SELECT session_user") == "scram_probe"
            with pytest.raises(asyncpg.InvalidPasswordError):
                async with shop.server.connect("scram_probe", "probe-passwore", "postgres"):
                    pytest.fail("came in")
        finally:
            await superuser.execute("REVOKE CONNECT ON DATABASE postgres FROM scram_probe; DROP ROLE scram_probe")


async def test_credentials_carry_what_client_libraries_expect(shop: Shop) -> None:
    _, credentials = await shop.bind(await shop.provision())

    uri, jdbc = urlsplit(credentials["uri"]), urlsplit(credentials["jdbc_uri"].removeprefix("jdbc:"))

    assert (uri.scheme, uri.hostname, uri.port) == ("postgresql", "127.0.0.1", shop.server.port)
    assert (uri.username, uri.password, uri.path[1:]) == tuple(
        credentials[k] for k in ("username", "password", "database")
    )
    assert parse_qs(jdbc.query) == {
        "user": [credentials["username"]],
        "password": [credentials["password"]],
        "sslmode": [credentials["sslmode"]],
    }
    schema = shop.provider.schemas.credentials
    assert set(credentials) == {*schema["required"], *schema["oneOf"][0]["required"]}


async def test_a_grant_that_fails_leaves_no_role(shop: Shop) -> None:
    """The seed's own case: role created, grant fails, role gone. Role and grant are one transaction here, so the group is
    dropped under the grant's hands; the server then lets it pass, with a group that is gone."""
    uid = await shop.provision()
    work = shop.work(Verb.BIND, uid, binding=BindingWork(str(uuid.uuid4()), {}))
    (step,) = shop.provider.plan(work, {})
    group, login = shop.context(work).instance_name("grp"), shop.context(work).name("usr")

    async with shop.server.superuser(shop.context(work).instance_name("db")) as superuser:
        await superuser.execute("BEGIN")
        await superuser.execute(f"DROP OWNED BY {group}; DROP ROLE {group}")
        failing = shop.start(step.piece.ensure(shop.context(work)))
        await until(shop.waits_for_lock)
        await superuser.execute("COMMIT")
        with pytest.raises(Permanent, match="gone from the server"):
            await failing
    await shop.step(step.piece, Make.ABSENT, work)

    after = await shop.server.listing()
    assert login not in {row[0] for row in after["roles"]}
    assert login not in {row[1] for row in after["memberships"]}


async def test_a_bind_to_a_vanished_instance_is_refused(shop: Shop) -> None:
    uid = str(uuid.uuid4())
    before = await shop.server.listing()

    with pytest.raises(Permanent, match="gone from the server"):
        await shop.bind(uid)

    shop.bindings.clear()
    assert await shop.server.listing() == before
