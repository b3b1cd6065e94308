"""Every piece may run at any moment, any number of times, and be interrupted anywhere. Judged by listings of the server."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from purveyor_server.domain.names import outside_name
from purveyor_server.domain.states import Drift, Make, Verb
from purveyor_server.providers.contract import BindingWork, PlannedStep, Work
from tests.provider_contract.shop import Shop, Stopped, until

pytestmark = pytest.mark.postgres
RESTFUL = (
    "autovacuum_vacuum_cost_delay = 100, autovacuum_vacuum_cost_limit = 1, autovacuum_vacuum_threshold = 0,"
    " autovacuum_vacuum_scale_factor = 0"
)
WORKERS = "SELECT count(*) FROM pg_stat_activity WHERE datname = $1 AND backend_type = 'autovacuum worker'"
FULL = {"extensions": ["hstore"], "connection_limit": 3}


async def test_a_round_trip_leaves_nothing(shop: Shop) -> None:
    before = await shop.server.listing()

    uid = await shop.provision(**FULL)
    binding, _ = await shop.bind(uid)
    during = await shop.server.listing()
    await shop.unbind(uid, binding.uid)
    await shop.deprovision(uid)

    assert await shop.server.listing() == before
    assert {name for name in before if during[name] != before[name]} == {
        "roles",
        "databases",
        "memberships",
        "comments",
        "settings",
    }


async def test_everything_twice_is_the_same(shop: Shop) -> None:
    uid = await shop.provision(**FULL)
    binding, _ = await shop.bind(uid)
    once = await shop.server.listing()

    await shop.run(shop.work(Verb.PROVISION, uid, FULL))
    await shop.run(shop.work(Verb.BIND, uid, binding=binding))

    assert await shop.server.listing() == once
    assert (await shop.observe(uid)).drift is Drift.IN_SYNC


@pytest.mark.parametrize("times", [1, 2])
async def test_what_never_was_can_be_removed(shop: Shop, times: int) -> None:
    uid, before = str(uuid.uuid4()), await shop.server.listing()
    pieces = {step.piece.name: step.piece for step in _plan(shop, uid)}

    for _ in range(times):
        for piece in reversed(pieces.values()):
            await shop.step(piece, Make.ABSENT, shop.work(Verb.PROVISION, uid))
        await shop.unbind(uid, str(uuid.uuid4()))
        await shop.deprovision(uid)

    assert await shop.server.listing() == before


async def test_removal_twice_is_the_same(shop: Shop) -> None:
    uid = await shop.provision(**FULL)
    binding, _ = await shop.bind(uid)

    for _ in range(2):
        await shop.unbind(uid, binding.uid)
    for _ in range(2):
        await shop.deprovision(uid)


async def test_a_deprovision_takes_left_bindings_along(shop: Shop) -> None:
    uid = await shop.provision()
    binding, credentials = await shop.bind(uid)
    session = await shop.server.login(credentials)
    await session.execute("CREATE TABLE left_here (a int)")

    await shop.deprovision(uid)
    shop.bindings.clear()

    listing = await shop.server.listing()
    assert not [row for row in listing["roles"] if row[0].endswith(binding.uid.replace("-", ""))]
    session.terminate()


@asynccontextmanager
async def vacuumed(shop: Shop, database: str) -> AsyncIterator[None]:
    """A database in which an autovacuum worker is at work for as long as the block lasts: it has little to do and rests a lot."""
    async with shop.server.superuser() as superuser:
        await superuser.execute("ALTER SYSTEM SET autovacuum_naptime = '1s'")
        await superuser.execute("SELECT pg_reload_conf()")
        try:
            async with shop.server.superuser(database) as inside:
                await inside.execute(f"CREATE TABLE wide (a int) WITH ({RESTFUL})")
                await inside.execute("INSERT INTO wide SELECT generate_series(1, 100000)")
                await inside.execute("DELETE FROM wide WHERE a % 2 = 0")
            await until(lambda: superuser.fetchval(WORKERS, database))
            yield
        finally:
            await superuser.execute("ALTER SYSTEM RESET autovacuum_naptime")
            await superuser.execute("SELECT pg_reload_conf()")


async def test_a_database_that_is_being_vacuumed_is_dropped(shop: Shop) -> None:
    uid = await shop.provision()

    async with vacuumed(shop, outside_name("db", uid, 63)):
        await shop.deprovision(uid)


def _plan(shop: Shop, uid: str) -> list[PlannedStep]:
    return list(shop.provider.plan(shop.work(Verb.PROVISION, uid, FULL), {}))


async def _interrupted(shop: Shop, work: Work, die_at: int) -> list[PlannedStep]:
    """Run `work` until outside call number `die_at`, where the broker dies; the steps that were begun."""
    begun, calls = [], 0
    for step in shop.provider.plan(work, {}):
        begun.append(step)
        ctx = shop.context(work, die_at - calls)
        try:
            await (step.piece.ensure(ctx) if step.make is Make.ENSURE else step.piece.absent(ctx))
        except Stopped:
            break
        calls += len(ctx.calls)
    else:
        pytest.fail("the work ended before that call")

    async def settled() -> bool:
        return await begun[-1].piece.settle(shop.context(work))

    await until(settled)
    return begun


@pytest.mark.parametrize("die_at", range(5))
async def test_an_interrupted_provision_is_undone_by_names(shop: Shop, die_at: int) -> None:
    uid, before = str(uuid.uuid4()), await shop.server.listing()
    work = shop.work(Verb.PROVISION, uid, FULL)

    for step in reversed(await _interrupted(shop, work, die_at)):
        await shop.step(step.piece, Make.ABSENT, work)

    assert await shop.server.listing() == before


@pytest.mark.parametrize("die_at", range(5))
async def test_an_interrupted_provision_is_finished(shop: Shop, die_at: int) -> None:
    uid = str(uuid.uuid4())
    work = shop.work(Verb.PROVISION, uid, FULL)
    assert work.want is not None
    shop.instances[uid] = work.want

    await _interrupted(shop, work, die_at)
    await shop.run(work)

    assert (await shop.observe(uid)).drift is Drift.IN_SYNC


@pytest.mark.parametrize("die_at", range(3))
async def test_an_interrupted_deprovision_is_finished(shop: Shop, die_at: int) -> None:
    before = await shop.server.listing()
    uid = await shop.provision(**FULL)

    await _interrupted(shop, shop.work(Verb.DEPROVISION, uid), die_at)
    await shop.deprovision(uid)

    assert await shop.server.listing() == before


@pytest.mark.parametrize("die_at", range(4))
async def test_an_interrupted_unbind_is_finished(shop: Shop, die_at: int) -> None:
    uid = await shop.provision()
    before = await shop.server.listing()
    binding, credentials = await shop.bind(uid)
    session = await shop.server.login(credentials)  # so that there is a session to terminate

    await _interrupted(shop, shop.work(Verb.UNBIND, uid, binding=binding), die_at)
    await shop.unbind(uid, binding.uid)

    assert await shop.server.listing() == before
    session.terminate()


async def test_an_interrupted_bind_is_undone(shop: Shop) -> None:
    uid = await shop.provision()
    before = await shop.server.listing()
    binding = BindingWork(str(uuid.uuid4()), {})

    await _interrupted(shop, shop.work(Verb.BIND, uid, binding=binding), 0)
    await shop.unbind(uid, binding.uid)

    assert await shop.server.listing() == before
