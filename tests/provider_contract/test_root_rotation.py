"""New passwords for the broker's own accounts, cut off at every point, while a client queries all the time."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from purveyor_server.providers.abilities import RootRotated
from purveyor_server.providers.contract import Permanent, Retryable, RightsMissing
from purveyor_server.providers.postgresql import PostgresProvider
from purveyor_server.providers.postgresql.cluster import ADMIN, SUPERUSER
from purveyor_server.providers.postgresql.passwords import PasswordFile
from tests.postgres_server import TestEnvironment, TestServer, make_root
from tests.provider_contract.estate import estate
from tests.provider_contract.shop import Shop, Stopped

pytestmark = pytest.mark.postgres


@pytest.fixture(scope="module")
def own() -> Iterator[TestServer]:
    """A server of these tests' own: its passwords change."""
    server = TestServer(make_root())
    try:
        yield server
    finally:
        server.close()


@pytest_asyncio.fixture
async def shop(own: TestServer) -> AsyncIterator[Shop]:
    store = secrets.token_hex(8)
    made = Shop(own, PostgresProvider(own.config, own.environment(store)), store)
    yield made
    await made.clear()
    await made.provider.close()


def password(server: TestServer, file: str = "admin.password") -> str:
    return (server.keep / file).read_text(encoding="utf-8").strip()


async def lets_in(server: TestServer, user: str, word: str) -> bool:
    try:
        async with server.connect(user, word, "postgres"):
            return True
    except asyncpg.InvalidPasswordError:
        return False


@asynccontextmanager
async def querying(shop: Shop) -> AsyncIterator[list[int]]:
    """A client with a session that it keeps, and one that it opens anew for every query; it must never fail."""
    uid = await shop.provision(connection_limit=4)
    _, credentials = await shop.bind(uid)
    kept, answered = await shop.server.login(credentials), [0]
    again, stop = asyncio.Event(), asyncio.Event()

    async def ask() -> None:
        while not stop.is_set():
            session = await shop.server.login(credentials)
            answered[0] += await session.fetchval("SELECT 1") + await kept.fetchval("SELECT 0")
            await session.close()
            again.set()
        await kept.close()

    async with asyncio.TaskGroup() as tasks:
        tasks.create_task(ask())
        try:
            await again.wait()
            yield answered
            again.clear()
            await again.wait()
        finally:
            stop.set()


async def test_the_password_is_another_one_and_nobody_notices(shop: Shop) -> None:
    other = PostgresProvider(shop.server.config, shop.server.environment(shop.store))
    await other.check()
    old = password(shop.server)

    async with querying(shop) as answered:
        assert await shop.facade.rotate_root() == RootRotated((ADMIN,))

    assert answered[0] >= 2
    assert password(shop.server) != old
    assert not await lets_in(shop.server, ADMIN, old)
    assert await lets_in(shop.server, ADMIN, password(shop.server))
    assert not (shop.server.keep / "admin.password.next").exists()
    await shop.bind(next(iter(shop.instances)))
    other._sessions.renew()
    await other.check()  # who has read the password before reads it again
    await other.close()


async def test_a_provider_that_still_has_the_old_one_reads_the_file_again(shop: Shop) -> None:
    other = PostgresProvider(shop.server.config, shop.server.environment(shop.store))
    address = await other._sessions.address()

    await shop.facade.rotate_root()

    assert (await other._sessions.address()).password.reveal() == address.password.reveal(), "it does not know yet"
    await other.check()
    await other.close()


@pytest.mark.parametrize("point", ["keep_next", "promote"])
async def test_cut_off_at_any_point_one_of_the_two_lets_the_broker_in(
    shop: Shop, point: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cut off when the new one is on the disk and not in the server; when it is in the server and not yet the password."""
    real = getattr(PasswordFile, point)

    def cut(self: PasswordFile, *given: Any) -> None:
        if point == "keep_next":
            real(self, *given)
        raise Stopped

    with monkeypatch.context() as patch:
        patch.setattr(PasswordFile, point, cut)
        await shop.stopped(shop.provider.rotate_root())
    assert (shop.server.keep / "admin.password.next").exists()

    again = PostgresProvider(shop.server.config, shop.server.environment(shop.store))
    await again.check()
    assert await lets_in(shop.server, ADMIN, password(shop.server))
    async with querying(shop):
        assert await again.rotate_root() == RootRotated((ADMIN,))
    assert not (shop.server.keep / "admin.password.next").exists()
    await shop.provider.check()
    await again.close()


async def test_one_at_a_time(shop: Shop, monkeypatch: pytest.MonkeyPatch) -> None:
    entered, gate = asyncio.Event(), asyncio.Event()

    async def slow(*_given: Any) -> None:
        entered.set()
        await gate.wait()

    monkeypatch.setattr("purveyor_server.providers.postgresql.root_rotation.rotate", slow)
    first = shop.start(shop.provider.rotate_root())
    await entered.wait()
    with pytest.raises(Retryable, match="already"):
        await shop.facade.rotate_root()
    gate.set()
    await first


async def test_a_wrong_password_is_told(own: TestServer, tmp_path: Path) -> None:
    file = tmp_path / "password"
    file.write_text("wrong\n", encoding="utf-8")
    config = {"server": own.server_config(password={"file": str(file)})}
    provider = PostgresProvider(config, own.environment())

    with pytest.raises(RightsMissing, match="does not let the broker in"):
        await provider.rotate_root()

    assert file.read_text(encoding="utf-8") == "wrong\n"
    await provider.close()


async def test_a_password_of_the_environment_is_rotated_outside(own: TestServer) -> None:
    class Variables(TestEnvironment):
        def reference(self, value: Any) -> Any:
            return own.running.password if value == {"env": "PGPASS"} else super().reference(value)

    provider = PostgresProvider(
        {"server": own.server_config(password={"env": "PGPASS"})}, Variables(own.keep, secrets.token_hex(8))
    )

    with pytest.raises(Permanent, match="rotated outside") as refused:
        await provider.rotate_root()

    assert "restart" in refused.value.detail
    await provider.close()


async def test_a_server_of_the_brokers_own_gets_both_anew(own: TestServer) -> None:
    embedded = {"embedded": {"cluster_dir": str(own.root / "cluster")}}
    provider = PostgresProvider(embedded, own.environment())
    old = [password(own, file) for file in ("admin.password", "superuser.password")]

    assert await provider.rotate_root() == RootRotated((ADMIN, SUPERUSER))

    await provider.check()
    new = [password(own, file) for file in ("admin.password", "superuser.password")]
    assert not set(old) & set(new)
    assert await lets_in(own, SUPERUSER, new[1])
    assert not await lets_in(own, SUPERUSER, old[1])
    await provider.close()


async def test_dedicated_servers_get_theirs_and_one_that_does_not_run_is_named(own: TestServer) -> None:
    async with estate(own, secrets.token_hex(8)) as made:
        uid, stopped = await made.provision(), await made.provision()
        _, credentials = await made.bind(uid)
        (still,) = [
            thing async for thing in made.facade.owned(made.store) if (thing.kind, thing.uid) == ("cluster", stopped)
        ]
        await made.facade.quarantine(still)
        session = await own.login(credentials)
        name = made.cluster(uid).name

        rotated = await made.facade.rotate_root()

        assert rotated == RootRotated((ADMIN, f"{name}/{ADMIN}", f"{name}/{SUPERUSER}"), (still.name,))
        assert await session.fetchval("SELECT 1") == 1
        await session.close()
        await made.bind(uid)
