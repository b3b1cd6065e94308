"""Quarantine and removal of what carries our marker, on a real server."""

from __future__ import annotations

import uuid
from typing import Any

import asyncpg
import pytest

from purveyor_server.domain.names import outside_name
from purveyor_server.domain.states import Drift, Make, Verb
from purveyor_server.providers.contract import (
    BindingWork,
    Done,
    MarkerChanged,
    NotYet,
    Owned,
    Permanent,
    Retryable,
    RightsMissing,
)
from purveyor_server.providers.postgresql import custody
from purveyor_server.providers.postgresql.pieces import LockedPiece
from tests.postgres_server import SESSION_ENDED
from tests.provider_contract.shop import Shop

pytestmark = pytest.mark.postgres


async def owned(shop: Shop, kind: str, uid: str) -> Owned:
    (found,) = [thing async for thing in shop.facade.owned(shop.store) if (thing.kind, thing.uid) == (kind, uid)]
    return found


async def is_let_in(shop: Shop, credentials: dict[str, object]) -> bool:
    try:
        session = await shop.server.login(credentials)
    except (asyncpg.PostgresError, OSError):
        return False
    await session.close()
    return True


@pytest.mark.parametrize("kind", ["database", "role"])
async def test_quarantine_ends_what_is_open_keeps_all_and_is_taken_back(shop: Shop, kind: str) -> None:
    uid = await shop.provision(connection_limit=3)
    binding, credentials = await shop.bind(uid)
    session = await shop.server.login(credentials)
    await session.execute("CREATE TABLE t AS SELECT generate_series(1, 9) AS i")
    thing = await owned(shop, kind, uid if kind == "database" else binding.uid)

    await shop.facade.quarantine(thing)
    await shop.facade.quarantine(thing)

    with pytest.raises(SESSION_ENDED):
        await session.fetchval("SELECT 1")
    assert not await is_let_in(shop, credentials)
    assert thing in [found async for found in shop.facade.owned(shop.store)], "it is found as before"

    await shop.facade.release(thing)
    await shop.facade.release(thing)

    session = await shop.server.login(credentials)
    assert await session.fetchval("SELECT count(*) FROM t") == 9
    await session.close()
    assert (await shop.observe(uid)).drift is Drift.IN_SYNC


async def test_what_never_was_in_quarantine_is_released_as_it_is(shop: Shop) -> None:
    uid = await shop.provision()
    await shop.bind(uid)
    before = await shop.server.listing()

    for thing in [found async for found in shop.facade.owned(shop.store)]:
        await shop.facade.release(thing)

    assert await shop.server.listing() == before


async def test_an_operation_on_it_ends_the_quarantine_and_its_note(shop: Shop) -> None:
    uid = await shop.provision(connection_limit=3)
    thing = await owned(shop, "database", uid)
    await shop.facade.quarantine(thing)

    await shop.run(shop.work(Verb.PROVISION, uid, {"connection_limit": 4}))
    await shop.facade.release(thing)

    _, credentials = await shop.bind(uid)
    assert await is_let_in(shop, credentials)
    limit = "SELECT datconnlimit FROM pg_database WHERE datname = $1"
    async with shop.server.superuser() as superuser:
        assert await superuser.fetchval(limit, outside_name("db", uid)) == 4


async def test_everything_of_an_instance_can_be_reclaimed_thing_by_thing(shop: Shop) -> None:
    uid = await shop.provision(extensions=["hstore"])
    binding, credentials = await shop.bind(uid)
    session = await shop.server.login(credentials)
    await session.execute("CREATE TABLE t (i int); SET ROLE NONE; CREATE TABLE own (i int)")
    other = await shop.provision()
    kept = [found async for found in shop.facade.owned(shop.store) if found.uid == other]
    login, group = await owned(shop, "role", binding.uid), await owned(shop, "role", uid)

    assert await shop.facade.reclaim(login) == Done()
    with pytest.raises(Retryable, match="owns something"):
        await shop.facade.reclaim(group)
    assert await shop.facade.reclaim(await owned(shop, "database", uid)) == Done()
    assert await shop.facade.reclaim(group) == Done()
    assert await shop.facade.reclaim(group) == Done(), "gone is gone"

    with pytest.raises(SESSION_ENDED):
        await session.fetchval("SELECT 1")
    assert [found async for found in shop.facade.owned(shop.store)] == kept
    assert (await shop.observe(other)).drift is Drift.IN_SYNC
    shop.bindings.clear()
    del shop.instances[uid]


async def test_an_orphan_of_any_name_is_reclaimed_and_nothing_else(shop: Shop) -> None:
    marker = f"purveyor:{shop.store}:{uuid.uuid4()}:3"
    async with shop.server.superuser() as superuser:
        await superuser.execute('CREATE DATABASE "an; orphan" OWNER purveyor_admin')
        await superuser.execute(f"COMMENT ON DATABASE \"an; orphan\" IS '{marker}'")
    (thing,) = [found async for found in shop.facade.owned(shop.store)]

    await shop.facade.quarantine(thing)
    assert await shop.facade.reclaim(thing) == Done()

    assert [found async for found in shop.facade.owned(shop.store)] == []


@pytest.mark.parametrize("method", ["quarantine", "release", "reclaim"])
@pytest.mark.parametrize("comment", ["NULL", "'purveyor:another:{uid}:7'", "'purveyor:{store}:{uid}:8'", "'mine'"])
async def test_a_thing_whose_marker_is_another_one_or_none_is_left_as_it_is(
    shop: Shop, method: str, comment: str
) -> None:
    uid = await shop.provision()
    thing = await owned(shop, "database", uid)
    words = comment.format(uid=uid, store=shop.store)
    async with shop.server.superuser() as superuser:
        await superuser.execute(f"COMMENT ON DATABASE {outside_name('db', uid)} IS {words}")
    before = await shop.server.listing()

    with pytest.raises(MarkerChanged):
        await getattr(shop.facade, method)(thing)

    assert await shop.server.listing() == before


async def test_a_marker_that_changes_between_look_and_change_is_seen_by_the_server(
    shop: Shop, monkeypatch: pytest.MonkeyPatch
) -> None:
    uid = await shop.provision()
    thing = await owned(shop, "database", uid)
    find = custody.find

    async def found_then_changed(*given: object) -> object:
        answer = await find(*given)  # type: ignore[arg-type] # passed on as it came
        async with shop.server.superuser() as superuser:
            await superuser.execute(f"COMMENT ON DATABASE {outside_name('db', uid)} IS 'purveyor:another:{uid}:7'")
        return answer

    monkeypatch.setattr("purveyor_server.providers.postgresql.custodian.find", found_then_changed)

    with pytest.raises(MarkerChanged):
        await shop.facade.reclaim(thing)

    _, credentials = await shop.bind(uid)
    assert await is_let_in(shop, credentials)


async def test_nothing_is_done_while_an_operation_is_at_work(shop: Shop) -> None:
    uid = await shop.provision()
    thing = await owned(shop, "database", uid)
    work = shop.work(Verb.UPDATE, uid, {})

    for piece in custody.LOCKED:
        async with shop.provider._sessions.work(shop.context(work), piece) as session:
            assert session is not None
            assert isinstance(await shop.facade.reclaim(thing), NotYet)
            with pytest.raises(Retryable, match="at work"):
                await shop.facade.quarantine(thing)

    async with shop.provider._sessions.inside(outside_name("db", uid), shop.context(work), "schema"):
        assert isinstance(await shop.facade.reclaim(thing), NotYet), "its session in the database counts too"
    await shop.facade.quarantine(thing)
    await shop.facade.release(thing)


def test_every_piece_that_locks_is_known() -> None:
    def below(kind: type[Any]) -> set[str]:
        return {kind.name} | {name for child in kind.__subclasses__() for name in below(child)}

    assert below(LockedPiece) - {""} <= set(custody.LOCKED)


async def test_what_belongs_to_somebody_else_needs_an_administrator(shop: Shop) -> None:
    uid = await shop.provision()
    thing = await owned(shop, "database", uid)
    name = outside_name("db", uid)
    async with shop.server.superuser() as superuser:
        await superuser.execute(f"ALTER DATABASE {name} OWNER TO postgres")

    for method in (shop.facade.quarantine, shop.facade.reclaim):
        with pytest.raises(RightsMissing, match="somebody else"):
            await method(thing)

    async with shop.server.superuser() as superuser:
        await superuser.execute(f"ALTER DATABASE {name} OWNER TO purveyor_admin")


async def test_kinds_that_there_are_not(shop: Shop) -> None:
    for thing in (Owned("bucket", "b", "uid", 1), Owned("cluster", "pv_clu_x", "uid", 1)):
        with pytest.raises(Permanent):
            await shop.facade.reclaim(thing)


async def test_a_schema_is_closed_opened_and_reclaimed(schema_shop: Shop) -> None:
    shop = schema_shop
    uid = await shop.provision()
    binding, credentials = await shop.bind(uid)
    session = await shop.server.login(credentials)
    await session.execute("CREATE TABLE t AS SELECT 1 AS i")
    thing = await owned(shop, "schema", uid)

    await shop.facade.quarantine(thing)

    with pytest.raises(SESSION_ENDED):
        await session.fetchval("SELECT count(*) FROM t")
    session = await shop.server.login(credentials)
    with pytest.raises(asyncpg.PostgresError):
        await session.fetchval(f"SELECT count(*) FROM {outside_name('sch', uid)}.t")
    await shop.facade.release(thing)
    assert await session.fetchval("SELECT count(*) FROM t") == 1
    await session.close()
    await shop.unbind(uid, binding.uid)

    assert await shop.facade.reclaim(thing) == Done()

    assert [found.kind async for found in shop.facade.owned(shop.store)] == ["role"]


async def test_a_binding_that_ends_in_quarantine_is_gone(shop: Shop) -> None:
    """A removal of access is never kept up by a quarantine."""
    uid = await shop.provision()
    binding, _ = await shop.bind(uid)
    await shop.facade.quarantine(await owned(shop, "role", binding.uid))
    work = shop.work(Verb.UNBIND, uid, binding=BindingWork(binding.uid, {}))

    for step in shop.provider.plan(work, {}):
        assert step.make is Make.ABSENT
        await shop.step(step.piece, step.make, work)

    assert [found.uid async for found in shop.facade.owned(shop.store) if found.kind == "role"] == [uid]
    shop.bindings.clear()
