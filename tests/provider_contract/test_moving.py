"""An instance moves from the shared server into one of its own, with every row, or stays where it is, with every row."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

from purveyor_server.domain.model import Json
from purveyor_server.domain.names import outside_name
from purveyor_server.domain.states import Drift, Make, Verb
from purveyor_server.providers.contract import BindingWork, Done, NotYet, Permanent, Work, WorkSettings
from purveyor_server.providers.postgresql.plans import moves
from tests.postgres_server import SESSION_ENDED, TestServer
from tests.provider_contract.estate import DEDICATED_PLAN, Estate, estate
from tests.provider_contract.shop import PLAN, SCHEMA_PLAN, FakeContext, until

pytestmark = [pytest.mark.postgres, pytest.mark.asyncio(loop_scope="session")]
STEPS = [
    *("cluster_files", "cluster_settings", "server", "group", "logins", "database", "standstill", "data"),
    *("verified", "schema", "extensions", "old_database", "old_group"),
]
FILL = """
CREATE TABLE orders (id bigserial PRIMARY KEY, name text, tags hstore, body bytea);
INSERT INTO orders (name, tags, body) SELECT 'order ' || i, hstore('n', i::text), decode(md5(i::text), 'hex')
  FROM generate_series(1, 2000) i;
CREATE INDEX ON orders (name); CREATE VIEW names AS SELECT name FROM orders; CREATE MATERIALIZED VIEW frozen AS SELECT 1 AS one;
CREATE TABLE parts (k int) PARTITION BY LIST (k); CREATE TABLE part_1 PARTITION OF parts FOR VALUES IN (1);
INSERT INTO parts VALUES (1); CREATE SEQUENCE lonely START 77; SELECT nextval('lonely');
CREATE FUNCTION twice(i int) RETURNS int LANGUAGE sql AS 'SELECT 2 * i'; CREATE TYPE mood AS ENUM ('ok', 'sad');
SELECT lo_from_bytea(4711, 'a large object'); GRANT SELECT ON orders TO PUBLIC;
"""
DIGEST = """
SELECT (SELECT md5(string_agg(o::text, '|' ORDER BY id)) FROM orders o), (SELECT count(*) FROM names), (SELECT last_value FROM lonely),
       (SELECT twice(21)), (SELECT k FROM parts), 'ok'::mood, lo_get(4711), (SELECT last_value FROM orders_id_seq)
"""
OWNERS = "SELECT relname::text, relowner::regrole::text, relacl::text FROM pg_class WHERE oid >= 16384 AND relkind IN ('r', 'v', 'S') ORDER BY 1"


class Mover:
    """One instance with bindings, and the update that moves it."""

    def __init__(self, shop: Estate) -> None:
        self.shop = shop
        self.contexts: dict[str, Json] = {}

    async def make(self) -> tuple[str, BindingWork, dict[str, Json]]:
        """A shared instance with what `FILL` makes, and a table that a login has made for itself."""
        self.shop.settings = PLAN
        uid = await self.shop.provision(extensions=["hstore"], connection_limit=4)
        binding, credentials = await self.shop.bind(uid)
        session = await self.shop.server.login(credentials)
        await session.execute(FILL)
        await session.execute("SET ROLE NONE; CREATE TABLE of_the_login AS SELECT 5 AS five")
        await session.close()
        return uid, binding, credentials

    def work(self, uid: str) -> Work:
        was = WorkSettings("service", "plan", PLAN, {"extensions": ["hstore"], "connection_limit": 4})
        want = WorkSettings("service", "own", DEDICATED_PLAN, {"extensions": ["hstore"]})
        return Work(Verb.UPDATE, uid, want, was, {})

    def context(self, work: Work, name: str, *, undo: bool = False) -> FakeContext:
        ctx = self.shop.context(work)
        ctx.want, ctx.was = (work.was, work.want) if undo else (work.want, work.was)
        ctx.saved = self.contexts.get(name)
        return ctx

    async def step(self, work: Work, index: int, *, undo: bool = False, runs: int = 10_000) -> bool:
        """One step; False when it is not finished after `runs` runs."""
        planned = self.shop.provider.plan(work, {})[index]
        for _ in range(runs):
            ctx = self.context(work, planned.piece.name, undo=undo)
            make = planned.piece.ensure if planned.make is Make.ENSURE else planned.piece.absent
            answer = await make(ctx)
            self.contexts[planned.piece.name] = ctx.saved
            if isinstance(answer, Done):
                return True
            assert isinstance(answer, NotYet)
            await asyncio.sleep(0)
        return False

    async def undo(self, work: Work, count: int) -> None:
        """As the engine: settle the last, then every step in reverse with the previous settings."""
        for index in reversed(range(count)):
            planned = self.shop.provider.plan(work, {})[index]
            assert await self.shop.facade.settle(planned.piece, self.context(work, planned.piece.name, undo=True))
            assert await self.step(work, index, undo=True)

    async def move(self, uid: str) -> None:
        """All of it."""
        work = self.work(uid)
        for index in range(len(STEPS)):
            assert await self.step(work, index)
        assert work.want is not None
        self.shop.instances[uid] = work.want
        self.shop.settings = DEDICATED_PLAN

    async def reissue(self, uid: str, binding: BindingWork) -> dict[str, Json]:
        """The bind plan again, with the same uid and the same secrets."""
        work = self.shop.work(Verb.BIND, uid, binding=binding)
        done = await self.shop.run(work)
        return self.shop.facade.credentials(work, done, {"password": self.shop.passwords[binding.uid]}).values


@pytest_asyncio.fixture(loop_scope="session", scope="module")
async def ground(postgres: TestServer) -> AsyncIterator[Estate]:
    before = await postgres.listing()
    async with estate(postgres, secrets.token_hex(8)) as made:
        yield made
    now = await postgres.listing()
    assert {key: now[key] for key in now if key != "locks"} == {key: before[key] for key in before if key != "locks"}


async def look(shop: Estate, credentials: dict[str, Json]) -> list[Any]:
    session = await shop.server.login(credentials)
    found = [tuple(row) for row in (*await session.fetch(DIGEST), *await session.fetch(OWNERS))]
    await session.execute("SET ROLE NONE")
    found.append((await session.fetchval("TABLE of_the_login"),))
    await session.close()
    return found


async def test_which_updates_move_and_make_credentials_anew(ground: Estate) -> None:
    def update(was: dict[str, Json], want: dict[str, Json]) -> Work:
        sides = [WorkSettings("s", "p", side, {}) for side in (want, was)]
        return Work(Verb.UPDATE, "u" * 36, sides[0], sides[1], {})

    assert moves(update(PLAN, DEDICATED_PLAN))
    assert ground.facade.reissues(update(PLAN, DEDICATED_PLAN))
    assert not ground.facade.reissues(update(PLAN, {**PLAN, "connection_limit": 9}))
    assert not ground.facade.reissues(update(DEDICATED_PLAN, DEDICATED_PLAN))
    for was, want in ((DEDICATED_PLAN, PLAN), (PLAN, SCHEMA_PLAN), (SCHEMA_PLAN, DEDICATED_PLAN)):
        with pytest.raises(Permanent, match="only from shared to dedicated"):
            ground.provider.plan(update(was, want), {})


async def test_everything_arrives_and_the_same_bindings_go_on(ground: Estate) -> None:
    mover = Mover(ground)
    uid, binding, old = await mover.make()
    before = await look(ground, old)
    work = mover.work(uid)
    assert [step.piece.name for step in ground.provider.plan(work, {})] == STEPS
    assert [step.piece.name for step in ground.provider.plan(work, {}) if step.pivot] == ["old_database"]

    await mover.move(uid)
    new = await mover.reissue(uid, binding)

    assert (new["username"], new["password"]) == (old["username"], old["password"])
    assert new["port"] != old["port"]
    assert await look(ground, new) == before
    with pytest.raises((asyncpg.PostgresError, OSError)):
        await ground.server.login(old)
    session = await ground.server.login(new)
    await session.execute(
        "INSERT INTO orders (name) VALUES ('after'); ALTER TABLE orders ADD more int; SET ROLE NONE; DROP TABLE of_the_login"
    )
    await session.close()
    observed = await ground.observe(uid)
    assert (observed.drift, observed.differences) == (Drift.IN_SYNC, ())
    found = [thing async for thing in ground.facade.owned(ground.store) if thing.kind in {"database", "role"}]
    assert {thing.name.partition("/")[0] for thing in found} == {outside_name("clu", uid)}, (
        "nothing is left in the shared one"
    )
    await ground.clear()


async def test_undone_the_old_one_serves_and_nothing_of_the_new_one_is_left(ground: Estate) -> None:
    mover = Mover(ground)
    uid, _, credentials = await mover.make()
    before, listing, files = await look(ground, credentials), await ground.server.listing(), ground.files()

    for count in (STEPS.index("cluster_settings"), STEPS.index("data"), STEPS.index("old_database")):
        work = mover.work(uid)
        for index in range(count):
            assert await mover.step(work, index)
        if count > STEPS.index("standstill"):
            with pytest.raises(asyncpg.PostgresError):
                await ground.server.login(credentials)
        await mover.undo(work, count)
        mover.contexts.clear()
        assert await look(ground, credentials) == before
        now = await ground.server.listing()
        assert {k: now[k] for k in now if k != "locks"} == {k: listing[k] for k in listing if k != "locks"}, STEPS[
            count - 1
        ]
        assert ground.files() == files
        await until(_nothing_runs(ground))
    assert (await ground.observe(uid)).drift is Drift.IN_SYNC
    await ground.clear()


async def test_a_copy_that_runs_is_ended_by_an_undo_and_found_again_by_a_new_broker(ground: Estate) -> None:
    mover = Mover(ground)
    uid, binding, credentials = await mover.make()
    before, data = await look(ground, credentials), STEPS.index("data")
    work = mover.work(uid)
    for index in range(data):
        assert await mover.step(work, index)
    async with ground.server.superuser(outside_name("db", uid)) as blocker:
        await blocker.execute("BEGIN; LOCK TABLE orders IN ACCESS EXCLUSIVE MODE")  # pg_dump waits for this
        assert not await mover.step(work, data, runs=5)
        assert any("pg_dump" in line for line in ground.processes())

        await mover.undo(work, data + 1)

        await until(_nothing_runs(ground))
    assert await look(ground, credentials) == before

    work = mover.work(uid)
    for index in range(data):
        assert await mover.step(work, index)
    await mover.step(work, data, runs=1)
    await ground.provider.close()
    ground.provider = ground.open(ground.store)  # a new process: it knows what was saved, and nothing else
    ground.facade.provider = ground.provider
    for index in range(data, len(STEPS)):
        assert await mover.step(work, index)
    assert work.want is not None
    ground.settings, ground.instances[uid] = DEDICATED_PLAN, work.want
    assert await look(ground, await mover.reissue(uid, binding)) == before
    await ground.clear()


async def test_what_cannot_be_copied_ends_the_move_with_what_was_said(ground: Estate) -> None:
    mover = Mover(ground)
    uid, _, credentials = await mover.make()
    session = await ground.server.login(credentials)
    await session.execute(
        "ALTER TABLE orders ENABLE ROW LEVEL SECURITY; ALTER TABLE orders FORCE ROW LEVEL SECURITY;"
        "CREATE POLICY none ON orders USING (false)"
    )
    await session.close()
    work, data = mover.work(uid), STEPS.index("data")
    for index in range(data):
        assert await mover.step(work, index)

    with pytest.raises(Permanent, match="stays where it is") as refused:
        await mover.step(work, data)

    assert "row-level security" in refused.value.detail
    await mover.undo(work, data + 1)
    session = await ground.server.login(credentials)
    await session.execute(
        "ALTER TABLE orders NO FORCE ROW LEVEL SECURITY; DROP POLICY none ON orders; DROP TABLE orders CASCADE"
    )
    await session.close()
    await ground.clear()


async def test_a_binding_that_ends_meanwhile_ends_in_both_and_a_deprovision_removes_a_half_move(ground: Estate) -> None:
    mover = Mover(ground)
    uid, binding, _ = await mover.make()
    work = mover.work(uid)
    for index in range(STEPS.index("old_database")):
        assert await mover.step(work, index)
    async with ground.cluster(uid).sessions.admin() as session:
        count = "SELECT count(*) FROM pg_roles WHERE rolname = $1"
        assert await session.value(count, outside_name("usr", binding.uid)) == 1

        await ground.unbind(uid, binding.uid)

        assert await session.value(count, outside_name("usr", binding.uid)) == 0
    await ground.deprovision(uid)

    assert [thing async for thing in ground.facade.owned(ground.store)] == []


async def test_no_write_that_was_acknowledged_is_lost(ground: Estate) -> None:
    mover = Mover(ground)
    uid, binding, old = await mover.make()
    acknowledged: list[int] = []
    writers = [asyncio.create_task(_write(ground, old, acknowledged, start)) for start in (10_000, 20_000, 30_000)]

    await mover.move(uid)
    new = await mover.reissue(uid, binding)
    await asyncio.gather(*writers)

    session = await ground.server.login(new)
    there = {row["id"] for row in await session.fetch("SELECT id FROM orders WHERE id >= 10000")}
    await session.close()
    assert len(acknowledged) > 20
    assert set(acknowledged) <= there
    assert len(there) <= len(acknowledged) + 3, "at most one per writer that was committed and not told so"
    await ground.clear()


def _nothing_runs(shop: Estate) -> Callable[[], Awaitable[bool]]:
    async def nothing_runs() -> bool:  # a server that was ended takes a moment to be gone
        return not shop.processes()

    return nothing_runs


async def _write(shop: Estate, credentials: dict[str, Json], acknowledged: list[int], number: int) -> None:
    """Insert until nobody is let in any more."""
    while True:
        try:
            session = await shop.server.login(credentials)
        except (asyncpg.PostgresError, OSError):
            return
        try:
            while True:
                await session.execute(f"INSERT INTO orders (id) VALUES ({number})")
                acknowledged.append(number)
                number += 1
        except SESSION_ENDED:
            number += 1
        finally:
            session.terminate()


async def test_a_strange_role_in_the_new_server_ends_the_move(ground: Estate) -> None:
    mover = Mover(ground)
    uid, _, credentials = await mover.make()
    session = await ground.server.login(credentials)
    await session.execute(
        "CREATE FUNCTION grab(i int) RETURNS boolean LANGUAGE plpgsql AS $$BEGIN"
        " IF current_user = 'purveyor_admin' THEN EXECUTE 'CREATE ROLE grabbed LOGIN'; END IF; RETURN true; END$$;"
        "CREATE TABLE trap (i int CHECK (public.grab(i))); INSERT INTO trap VALUES (1)"
    )
    await session.close()
    work, verified = mover.work(uid), STEPS.index("verified")
    for index in range(verified):
        assert await mover.step(work, index)

    with pytest.raises(Permanent, match="nobody of ours has made"):
        await mover.step(work, verified)

    await mover.undo(work, verified + 1)
    await ground.clear()
