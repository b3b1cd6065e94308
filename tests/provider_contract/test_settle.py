"""Settled means that no earlier run can still take effect. A broker is really killed here, and its backend outlives it.

The trap is real: a CREATE DATABASE whose client was killed appears later, also after a DROP DATABASE IF EXISTS that found
nothing. The backend is held up by a lock and frozen by a signal, so that "later" comes when the test says so.
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from purveyor_server.domain.states import Make
from purveyor_server.providers.contract import Done, NotYet, Piece, Work
from tests.postgres_server import SESSION_ENDED, Connection
from tests.provider_contract.shop import PATIENCE, Shop, until

pytestmark = [pytest.mark.postgres, pytest.mark.crash]
ROOT = Path(__file__).resolve().parents[2]
# Runs one piece of a provision, as a broker that will be killed.
BROKER = """
import asyncio, json, sys
from purveyor_server.domain.states import Verb
from purveyor_server.providers.postgresql import PostgresProvider
from tests.postgres_server import TestEnvironment
from tests.provider_contract.shop import Shop
from pathlib import Path

async def main(config, keep, store, uid, name, parameters):
    provider = PostgresProvider(config, TestEnvironment(Path(keep), store))
    shop = Shop(None, provider, store)
    work = shop.work(Verb.PROVISION, uid, parameters)
    piece = next(step.piece for step in provider.plan(work, {}) if step.piece.name == name)
    await piece.ensure(shop.context(work))

asyncio.run(main(*json.loads(sys.argv[1])))
"""
BUSY = """
SELECT pid FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock' AND starts_with(query, $2)
"""


def find(shop: Shop, work: Work, name: str) -> Piece:
    return next(step.piece for step in shop.provider.plan(work, {}) if step.piece.name == name)


@asynccontextmanager
async def killed_broker(shop: Shop, superuser: Connection, work: Work, name: str, query: str) -> AsyncIterator[int]:
    """A broker that was killed while its backend waits for a lock; the backend is frozen and thawed at the end."""
    assert work.want is not None
    arguments = [shop.server.config, str(shop.server.keep), shop.store, work.instance_uid, name, work.want.parameters]
    broker = await asyncio.create_subprocess_exec(sys.executable, "-c", BROKER, json.dumps(arguments), cwd=ROOT)
    found: list[int] = []

    async def busy() -> bool:
        assert broker.returncode is None, "the broker ended before it was killed"
        found[:] = [row[0] for row in await superuser.fetch(BUSY, shop.server.running.user, query)]
        return bool(found)

    await until(busy)
    os.kill(found[0], signal.SIGSTOP)
    try:
        broker.kill()
        await asyncio.wait_for(broker.wait(), PATIENCE)
        yield found[0]
    finally:
        os.kill(found[0], signal.SIGCONT)


async def test_the_trap_is_real(shop: Shop) -> None:
    """Without our precautions: the client is gone, DROP IF EXISTS finds nothing, and then the database appears."""
    admin = shop.server.running
    exists = "SELECT count(*) FROM pg_database WHERE datname = 'trap'"

    async with shop.server.superuser() as blocker, shop.server.superuser() as witness:
        await blocker.execute("BEGIN")
        await blocker.execute("ALTER DATABASE template0 RENAME TO template_zero")
        async with shop.server.connect(admin.user, admin.password.reveal(), "postgres") as doomed:
            running = shop.start(doomed.execute("CREATE DATABASE trap TEMPLATE template0"))
            await until(shop.waits_for_lock)
            doomed.terminate()
            with pytest.raises(SESSION_ENDED):
                await running
        await witness.execute("DROP DATABASE IF EXISTS trap")
        assert not await witness.fetchval(exists)
        await blocker.execute("ROLLBACK")

        async def appeared() -> bool:
            return bool(await witness.fetchval(exists))

        await until(appeared)
        await witness.execute("DROP DATABASE trap WITH (FORCE)")


async def test_a_create_database_outlives_its_broker(shop: Shop) -> None:
    work = shop.work_of_new()
    await shop.step(find(shop, work, "group"), Make.ENSURE, work)
    piece, ctx = find(shop, work, "database"), shop.context(work)

    async with shop.server.superuser() as superuser, shop.server.superuser() as witness:
        # CREATE DATABASE takes a lock on the template that this one keeps from it.
        await superuser.execute("BEGIN")
        await superuser.execute("ALTER DATABASE template0 RENAME TO template_zero")
        async with killed_broker(shop, witness, work, "database", "CREATE DATABASE"):
            await superuser.execute("ROLLBACK")
            assert not await piece.settle(ctx)
            assert isinstance(await piece.ensure(ctx), NotYet)
            assert isinstance(await piece.absent(ctx), NotYet)
            assert ctx.calls == []

    await until(lambda: piece.settle(ctx))
    await shop.step(piece, Make.ABSENT, work)
    assert ctx.instance_name("db") not in {row[0] for row in (await shop.server.listing())["databases"]}


async def test_work_inside_a_database_outlives_its_broker(shop: Shop) -> None:
    """The lock is in the admin database and its session ends with the broker: the working session is found by its name."""
    work = shop.work_of_new(extensions=["hstore"])
    for name in ("group", "database", "schema"):
        await shop.step(find(shop, work, name), Make.ENSURE, work)
    piece, ctx = find(shop, work, "extensions"), shop.context(work)

    async with shop.server.superuser(ctx.instance_name("db")) as superuser, shop.server.superuser() as witness:
        await superuser.execute("BEGIN; LOCK TABLE pg_extension IN EXCLUSIVE MODE")
        async with killed_broker(shop, witness, work, "extensions", "CREATE EXTENSION"):
            await superuser.execute("ROLLBACK")
            locks = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory'"

            async def lock_is_free() -> bool:
                return not await witness.fetchval(locks)

            await until(lock_is_free)
            assert not await piece.settle(ctx)

    await until(lambda: piece.settle(ctx))
    await shop.step(piece, Make.ENSURE, work)


async def test_one_run_of_a_piece_at_a_time(shop: Shop) -> None:
    """Two brokers that both believe in their lease: one works, the other does nothing and asks again."""
    work = shop.work_of_new()
    for name in ("group", "database", "schema"):
        await shop.step(find(shop, work, name), Make.ENSURE, work)
    piece, first, second = find(shop, work, "database"), shop.context(work), shop.context(work)

    async with shop.server.superuser() as superuser:
        await superuser.execute("BEGIN")
        await superuser.execute(f"ALTER DATABASE {first.instance_name('db')} SET work_mem = '5MB'")
        await superuser.execute(f"COMMENT ON DATABASE {first.instance_name('db')} IS 'held'")
        running = shop.start(piece.ensure(first))
        await until(shop.waits_for_lock)
        assert isinstance(await piece.ensure(second), NotYet)
        assert not await piece.settle(second)
        await superuser.execute("ROLLBACK")

    assert isinstance(await running, Done)
    assert second.calls == []
    assert await piece.settle(second)


async def test_an_idle_provider_is_settled(shop: Shop) -> None:
    work = shop.work_of_new(extensions=["hstore"])
    await shop.run(work)

    for step in shop.provider.plan(work, {}):
        assert await step.piece.settle(shop.context(work))
