"""Sweeps over a real PostgreSQL server: what is behind the broker's back goes step by step, everything else stays as it was."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from purveyor_server.domain.model import ProviderRef
from purveyor_server.domain.orphans import SightingKey, SightingState
from purveyor_server.domain.policies import InventoryPolicy, OrphanMode
from purveyor_server.domain.states import InstanceState
from purveyor_server.kit.clock import SystemClock
from purveyor_server.lifecycle.contract import ITSELF
from purveyor_server.providers.inspection import Inspector
from purveyor_server.providers.postgresql import PostgresProvider
from purveyor_server.providers.registry import ProviderRegistry
from purveyor_server.store.contract import Writes
from tests.fakes.sweeping import ACT, Rig
from tests.postgres_server import TestServer
from tests.provider_contract.shop import Shop
from tests.store_contract import records

pytestmark = pytest.mark.postgres
GRACE = timedelta(days=1)
# Half of what is here is orphaned, so that few things are enough.
REAP = InventoryPolicy(mode=OrphanMode.REAP, grace=GRACE, cap=10, brake_percent=60.0)
STRANGERS = ("nobodys", "another_stores")
Listing = dict[str, list[tuple[Any, ...]]]


@asynccontextmanager
async def swept(folder: Path, server: TestServer, policy: InventoryPolicy = REAP) -> AsyncIterator[tuple[Rig, Shop]]:
    """Sweeps with a provider on the server, and a way to make things there under the same store's marker."""
    rig = Rig(folder, policy)
    await rig.open()
    provider = PostgresProvider(server.config, server.environment(rig.store.store_id))
    shop = Shop(server, provider, rig.store.store_id)
    registry = ProviderRegistry(
        {"postgresql": lambda _config, _environment: provider}, folder, rig.store.store_id, SystemClock()
    )
    rig.ref = ProviderRef("postgres", "postgresql")
    rig.backends = Inspector(registry)
    await rig.restart()
    try:
        yield rig, shop
    finally:
        await shop.clear()
        await registry.close()
        await rig.store.close()


async def record(rig: Rig, shop: Shop, instance_id: str) -> None:
    """An instance with a binding, and their records."""
    uid = await shop.provision()
    binding, _ = await shop.bind(uid)
    made = records.instance(instance_id=instance_id, uid=uid, state=InstanceState.READY)
    bound = records.binding(made, uid=binding.uid)
    await records.write(rig.store, Writes(instances=(made,), bindings=(bound,)), instance_id=instance_id)


async def fill(rig: Rig) -> None:
    """Revisions until the log is past the marker that things are made with."""
    for number in range(10):
        made = records.instance(instance_id=f"other{number}")
        await records.write(rig.store, Writes(instances=(made,)), instance_id=made.instance_id)


async def is_let_in(shop: Shop, credentials: dict[str, Any]) -> bool:
    try:
        session = await shop.server.login(credentials)
    except (asyncpg.PostgresError, OSError):
        return False
    await session.close()
    return True


@asynccontextmanager
async def strangers(server: TestServer) -> AsyncIterator[None]:
    """A database without a marker, and one with another store's."""
    async with server.superuser() as superuser:
        for name in STRANGERS:
            await superuser.execute(f"CREATE DATABASE {name}")
        marker = f"purveyor:{'0' * 16}:01890000-0000-7000-8000-000000000000:0"
        await superuser.execute(f"COMMENT ON DATABASE another_stores IS '{marker}'")
    try:
        yield
    finally:
        async with server.superuser() as superuser:
            for name in STRANGERS:
                await superuser.execute(f"DROP DATABASE {name}")


async def test_a_database_behind_the_brokers_back_is_reported_quarantined_and_reaped(
    tmp_path: Path, postgres: TestServer
) -> None:
    async with strangers(postgres), swept(tmp_path, postgres) as (rig, shop):
        await record(rig, shop, "orders")
        await fill(rig)
        before = await postgres.listing()
        uid = await shop.provision()
        binding, credentials = await shop.bind(uid)
        session = await postgres.login(credentials)
        await session.execute("CREATE TABLE t AS SELECT generate_series(1, 9) AS i")
        await session.close()

        found = await rig.sweep()
        assert (found.owned, found.orphans, found.brake) == (6, 3, None)
        states = await rig.states()
        assert set(states.values()) == {SightingState.SEEN}
        assert await is_let_in(shop, credentials)

        await rig.restart()
        await rig.later(GRACE)
        assert (await rig.sweep()).quarantined == 3
        assert not await is_let_in(shop, credentials)
        assert len((await postgres.listing())["databases"]) == len(before["databases"]) + 1

        for name in states:
            thing = (await rig.sighting(name)).thing
            key = SightingKey("postgres", thing.kind, name)
            assert (await rig.admin.release_orphan(ITSELF, key, ACT)).failure == ""
            await rig.admin.ignore_orphan(ITSELF, key, ACT, undo=True)
        session = await postgres.login(credentials)
        assert await session.fetchval("SELECT count(*) FROM t") == 9
        await session.close()

        await rig.restart()
        await reaped(rig)
        assert await postgres.listing() == before
        del shop.instances[uid], shop.bindings[binding.uid]


async def reaped(rig: Rig) -> None:
    """Sweeps a grace period apart until everything is gone: what depends on something else takes one more."""
    for _ in range(6):
        await rig.later(GRACE)
        await rig.sweep()
        if set((await rig.states()).values()) == {SightingState.REAPED}:
            return
    raise AssertionError({name: (await rig.sighting(name)).failure for name in await rig.states()})


@pytest.mark.parametrize("loss", ["an older store", "no records"])
async def test_a_store_that_has_lost_its_records_deletes_nothing(
    loss: str, tmp_path: Path, postgres: TestServer
) -> None:
    policy = InventoryPolicy(mode=OrphanMode.REAP, grace=GRACE)
    async with strangers(postgres), swept(tmp_path, postgres, policy) as (rig, shop):
        await rig.store.close()
        shutil.copy(tmp_path / "store.db", tmp_path / "older.db")
        await rig.open()
        await record(rig, shop, "orders")
        await fill(rig)
        assert (await rig.sweep()).orphans == 0
        before = await postgres.listing()

        await rig.store.close()
        if loss == "an older store":
            (tmp_path / "older.db").replace(tmp_path / "store.db")
        else:
            with sqlite3.connect(tmp_path / "store.db") as connection:
                connection.execute("DELETE FROM instances")
                connection.execute("DELETE FROM bindings")
            connection.close()
        await rig.open()
        for _ in range(3):
            found = await rig.sweep()
            assert (found.owned, found.orphans) == (3, 3)
            await rig.later(GRACE)
            await rig.restart()
        assert await postgres.listing() == before
        report = await rig.admin.status(ITSELF)
        (inventory,) = report.inventories
        assert inventory.brake is not None
        frozen = ["deletes", "reaping"] if loss == "an older store" else []
        assert [freeze.name for freeze in report.freezes] == frozen
