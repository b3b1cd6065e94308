"""A campaign over fifty real databases, one of which cannot be changed: broken off, killed in the middle, and whole in the end."""

from __future__ import annotations

import asyncio
import json
import shutil
import signal
from collections import Counter
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path

import asyncpg
import pytest

import purveyor
from purveyor.admin import AdminClient
from purveyor.campaign_values import Campaign
from purveyor_server.domain.names import outside_name
from tests.acceptance.house import SETTINGS, TENANT, catalog_of, gate, until_waiting
from tests.postgres_server import Connection, TestServer, make_root, postgres  # noqa: F401 - a fixture
from tests.provider_contract.estate import PORTS, UIDS
from tests.unit.app_process import Process, Site

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]
COUNT = 50
SMALL, BIG = 5, 9  # connections
POISONED = "db-17"
NAMES = [f"db-{number}" for number in range(COUNT)]


def catalog_with_limits(server: TestServer) -> str:
    """The house's catalog, in which `big` allows more connections."""
    text = catalog_of(server)
    same = "{id: big, name: big, description: Big., provider: main, settings: *settings,"
    assert same in text
    return text.replace(same, same.replace("*settings", f"{{kind: shared, connection_limit: {BIG}}}"))


def catalog_with_servers(server: TestServer, root: Path) -> str:
    """The house's catalog with a plan `own`, of servers of their own."""
    options = {"folder": str(root), **UIDS, **PORTS}
    text = catalog_of(server)
    config, plan = "limits: {connections: 48,", "      - {id: fixed,"
    assert config in text
    assert plan in text
    own = "{id: own, name: own, description: Own., provider: main, settings: {kind: dedicated, shared_buffers_mb: 8}}"
    return text.replace(config, f"dedicated: {json.dumps(options)}\n      {config}").replace(
        plan, f"      - {own}\n{plan}"
    )


@asynccontextmanager
async def session(uri: str) -> AsyncIterator[Connection]:
    """A client of an instance."""
    connection = await asyncpg.connect(uri)
    try:
        yield connection
    finally:
        await connection.close()


class Move:
    """The campaign, and the databases as the server has them."""

    def __init__(self, folder: Path, server: TestServer, catalog: str) -> None:
        self.site = Site(folder, SETTINGS, catalog)
        self.server = server
        self.databases: dict[str, str] = {}  # by instance id
        self.campaign_id = ""

    def admin(self) -> AdminClient:
        return AdminClient(f"unix:{self.site.data / 'admin.sock'}")

    def client(self) -> purveyor.Client:
        return purveyor.Client(self.site.socket, tenant=TENANT)

    @asynccontextmanager
    async def serving(self, number: signal.Signals = signal.SIGTERM) -> AsyncIterator[AdminClient]:
        """A broker that ends by this signal, and its operator."""
        with Process(self.site) as process:
            async with self.admin() as admin:
                yield admin
            process.send(number)

    async def order(self) -> None:
        """Fifty instances of the small plan."""
        async with self.client() as client:

            async def one(name: str) -> None:
                await (await client.provision("database", "small", instance_id=name, wait=60)).result()
                self.databases[name] = outside_name("db", (await client.instance(name)).uid)

            await asyncio.gather(*(one(name) for name in NAMES))

    async def limits(self) -> dict[str, int]:
        """How many connections each database takes, by instance id."""
        async with self.server.superuser() as session:
            found = await session.fetch("SELECT datname, datconnlimit FROM pg_database")
        limits = {str(row["datname"]): int(row["datconnlimit"]) for row in found}
        return {name: limits[database] for name, database in self.databases.items()}

    async def own(self, name: str, owner: str) -> None:
        """Give a database to somebody, behind the broker's back."""
        async with self.server.superuser() as session:
            await session.execute(f'ALTER DATABASE "{self.databases[name]}" OWNER TO "{owner}"')

    async def owner(self, name: str) -> str:
        async with self.server.superuser() as session:
            query = "SELECT datdba::regrole::text FROM pg_database WHERE datname = $1"
            return str(await session.fetchval(query, self.databases[name]))

    async def reached(self, admin: AdminClient, *states: str, done: int = 0, running: int | None = None) -> Campaign:
        """The campaign once it is in one of `states`, has moved so many and is at so many."""
        async with asyncio.timeout(60):
            async for found in admin.watch_campaign(self.campaign_id):
                enough = found.state in states and found.succeeded >= done
                if enough and (running is None or found.running == running):
                    return found
        raise AssertionError(f"it ended as {found}")

    async def updates(self) -> Counter[str]:
        """How often each instance was updated."""
        async with self.client() as client:
            found = [one async for one in client.operations() if one.verb == "UPDATE"]
        return Counter(one.instance_id for one in found)

    async def settled(self) -> None:
        """Every operation has ended, clean-ups included."""
        async with asyncio.timeout(30), self.client() as client:
            while unfinished := [one async for one in client.operations() if not one.done]:
                async for _ in await client.operation(unfinished[0].operation_id):
                    pass

    async def give_back(self) -> None:
        async with self.client() as client:
            orders = [await client.deprovision(name) for name in NAMES]
            await asyncio.gather(*(order.result() for order in orders))


@pytest.fixture
def move(tmp_path: Path, postgres: TestServer) -> Move:  # noqa: F811 - the fixture
    return Move(tmp_path, postgres, catalog_with_limits(postgres))


@pytest.fixture
def root() -> Iterator[Path]:
    """Where servers of instances are; its users must be able to enter it."""
    made = make_root("pvm")
    made.chmod(0o711)
    yield made
    shutil.rmtree(made, ignore_errors=True)


async def test_fifty_databases_one_of_them_poisoned(move: Move) -> None:
    before = await move.server.listing()
    async with move.serving(signal.SIGKILL) as admin:
        await move.order()
        owner = await move.owner(POISONED)
        await move.own(POISONED, "postgres")
        await paused_in_between(move, admin)
        async with gate(move.server):  # every change of a database waits: some are in flight when the process is killed
            await admin.resume_campaign(move.campaign_id, "lunch is over")
            held = await move.reached(admin, "RUNNING", running=4)
            await until_waiting(move.server, 4, "relation")
            assert held.pending > 0
    async with move.serving() as admin:
        ended = await move.reached(admin, "FINISHED_WITH_FAILURES")
        await check_moved(move, admin, ended)
        await move.own(POISONED, owner)
        await move.settled()
        await admin.retry_campaign(move.campaign_id, "it was given back")
        whole = await move.reached(admin, "SUCCEEDED")
        assert (whole.succeeded, whole.failed) == (COUNT, 0)
        assert set((await move.limits()).values()) == {BIG}
        await move.give_back()
    after = await move.server.listing()
    assert after["databases"] == before["databases"]
    assert after["roles"] == before["roles"]


async def test_into_servers_of_their_own_with_all_their_data(
    tmp_path: Path,
    postgres: TestServer,  # noqa: F811 - the fixture
    root: Path,
) -> None:
    move, before = Move(tmp_path, postgres, catalog_with_servers(postgres, root)), await postgres.listing()
    names = NAMES[:2]
    async with move.serving() as admin, move.client() as client:
        uris = {}
        for name in names:
            await (await client.provision("database", "small", instance_id=name, wait=60)).result()
            bound = await (await client.bind(name, binding_id="app", wait=60)).result()
            uris[name] = str(bound.credentials.reveal()["uri"])
            async with session(uris[name]) as connection:
                await connection.execute(
                    "CREATE TABLE orders AS SELECT i, $1::text AS name FROM generate_series(1, 1000) i", name
                )
        begun = await admin.create_campaign("s1", "small", "servers of their own", to_plan_id="own", parallelism=1)
        move.campaign_id = begun.campaign_id
        ended = await move.reached(admin, "SUCCEEDED")
        await move.settled()  # credentials are made again
        assert (ended.succeeded, ended.failed) == (2, 0)
        for name in names:
            uri = str((await client.credentials(name, "app")).reveal()["uri"])
            assert uri != uris[name]
            async with session(uri) as connection:
                found = await connection.fetchrow("SELECT count(*), min(name), current_setting('port') FROM orders")
            assert found is not None
            assert found[:2] == (1000, name)
            assert int(found[2]) != postgres.port
        for name in names:
            await (await client.deprovision(name, cascade=True, wait=60)).result()
    after = await postgres.listing()
    assert (after["databases"], after["roles"]) == (before["databases"], before["roles"])


async def paused_in_between(move: Move, admin: AdminClient) -> None:
    """Begin with a canary, and pause once a part is moved: nothing more begins."""
    pages = [page async for page in admin.plan_campaign("s1", "small", to_plan_id="big", page_size=20)]
    assert Counter(item.state for page in pages for item in page.items) == {"PENDING": COUNT}
    assert set((await move.limits()).values()) == {SMALL}
    begun = await admin.create_campaign(
        "s1", "small", "more connections", to_plan_id="big", canary=0, batch_size=20, parallelism=4, max_failures=1
    )
    move.campaign_id = begun.campaign_id
    await move.reached(admin, "RUNNING", done=5)
    await admin.pause_campaign(move.campaign_id, "lunch")
    rest = await move.reached(admin, "PAUSED", running=0)
    assert rest.pending > 0
    assert Counter((await move.limits()).values()) == {BIG: rest.succeeded, SMALL: COUNT - rest.succeeded}


async def check_moved(move: Move, admin: AdminClient, ended: Campaign) -> None:
    """49 are moved, in the record and in the server, once each; the other one is named."""
    assert (ended.total, ended.succeeded, ended.failed, ended.skipped) == (COUNT, COUNT - 1, 1, 0)
    (failed,) = ended.failures
    assert (failed.instance_id, failed.tenant) == (POISONED, TENANT)
    assert move.databases[POISONED] in failed.message
    assert await move.limits() == {name: SMALL if name == POISONED else BIG for name in NAMES}
    assert await move.updates() == dict.fromkeys(NAMES, 1)
    items = [item async for item in admin.campaign_items(move.campaign_id)]
    assert Counter(item.state for item in items) == {"SUCCEEDED": COUNT - 1, "FAILED": 1}
    async with move.client() as client:
        plans = Counter([instance.plan_id async for instance in client.instances()])
    assert plans == {"big": COUNT - 1, "small": 1}
