"""A real broker moves an instance into a server of its own: killed in the middle, under writers, with watchers that follow."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import asyncpg
import pytest
import pytest_asyncio

import purveyor
from purveyor_server.domain.names import outside_name
from tests.acceptance.house import LEFT, SETTINGS, TENANT, catalog_of
from tests.postgres_server import SESSION_ENDED, TestServer, make_root, postgres  # noqa: F401 - a fixture
from tests.provider_contract.estate import PORTS, UIDS
from tests.unit.app_process import Process, Site

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]
OWN = "{id: own, name: own, description: A server of its own., provider: main, settings: {kind: dedicated, connection_limit: 9}}"
LOST = SESSION_ENDED


def catalog_with_servers(server: TestServer, places: Path) -> str:
    """The house's catalog, with a plan of servers of their own."""
    text = catalog_of(server)
    options = ", ".join(f"{key}: {value}" for key, value in ({"folder": places} | PORTS | UIDS).items())
    limits, big = "      limits: {connections: 48", "      - {id: big, name: big,"
    assert limits in text
    assert big in text
    return text.replace(limits, f"      dedicated: {{{options}}}\n{limits}").replace(big, f"      - {OWN}\n{big}")


class Writer:
    """An application: it writes, and when it is thrown out it asks for its credentials again."""

    def __init__(self, home: Home, binding_id: str, number: int) -> None:
        self.home = home
        self.binding_id = binding_id
        self.number = number
        self.acknowledged: list[int] = []
        self.ports: set[int] = set()
        self.moved = asyncio.Event()  # it has written to the second server

    async def run(self) -> None:
        while True:
            try:
                await self._write()
            except (*LOST, purveyor.PurveyorError):
                self.number += 1
                await asyncio.sleep(0)

    async def _write(self) -> None:
        async with self.home.client() as client:
            values = await client.credentials("crm", self.binding_id)
        session = await asyncpg.connect(str(values["uri"]), timeout=10, command_timeout=10)
        try:
            while True:
                await session.execute(f"INSERT INTO entries VALUES ({self.number})")
                self.acknowledged.append(self.number)
                self.number += 1
                self.ports.add(int(str(values["port"])))
                if len(self.ports) > 1:
                    self.moved.set()
        finally:
            session.terminate()


class Home:
    """A broker, one instance, two bindings."""

    def __init__(self, folder: Path, server: TestServer, places: Path) -> None:
        self.site = Site(folder, SETTINGS, catalog_with_servers(server, places))
        self.server = server
        self.uid = ""

    def client(self) -> purveyor.Client:
        return purveyor.Client(self.site.socket, tenant=TENANT)

    @asynccontextmanager
    async def serving(self, number: signal.Signals = signal.SIGTERM) -> AsyncIterator[purveyor.Client]:
        """A broker that ends by this signal."""
        with Process(self.site) as process:
            async with self.client() as client:
                yield client
            process.send(number)

    async def order(self, client: purveyor.Client) -> None:
        await (await client.provision("database", "small", instance_id="crm", wait=30)).result()
        self.uid = (await client.instance("crm")).uid
        for binding_id in ("b1", "b2"):
            await (await client.bind("crm", binding_id=binding_id, wait=30)).result()
        session = await self.session(client)
        await session.execute("CREATE TABLE entries (number int PRIMARY KEY)")
        await session.close()

    async def session(self, client: purveyor.Client) -> asyncpg.Connection[asyncpg.Record]:
        return await asyncpg.connect((await client.credentials("crm", "b1")).text("uri"), timeout=10)

    async def entries(self, client: purveyor.Client) -> set[int]:
        session = await self.session(client)
        found = {row["number"] for row in await session.fetch("SELECT number FROM entries")}
        await session.close()
        return found

    async def reissued(self, client: purveyor.Client, binding_id: str) -> Any:
        """The binding once its new credentials are there."""
        while True:
            binding = await client.binding("crm", binding_id)
            last = binding.last_operation
            if last is not None and last.verb == "REISSUE":
                await (await client.operation(last.operation_id)).result()
                return await client.binding("crm", binding_id)


@pytest_asyncio.fixture
async def home(tmp_path: Path, postgres: TestServer) -> AsyncIterator[Home]:  # noqa: F811 - the fixture
    places = make_root("pva")
    made = Home(tmp_path, postgres, places)
    before = await postgres.listing()
    yield made
    after = await postgres.listing()
    assert {part: after[part] for part in LEFT} == {part: before[part] for part in LEFT}
    assert [entry for entry in places.iterdir() if entry.name.startswith("pv_")] == []


async def test_killed_in_the_middle_and_under_writers_nothing_acknowledged_is_lost(home: Home) -> None:
    writers = [Writer(home, "b1", 1_000_000), Writer(home, "b2", 2_000_000)]
    async with home.serving(signal.SIGKILL) as client:
        await home.order(client)
        tasks = [asyncio.create_task(writer.run()) for writer in writers]
        order = await client.update("crm", plan="own")
        async for state in order.watch(steps=True):
            if any(step.name == "standstill" and step.state == "DONE" for step in state.steps):
                break
    async with home.serving() as client:
        await (await client.operation(order.id)).result()
        async with asyncio.timeout(60):
            await asyncio.gather(*(writer.moved.wait() for writer in writers))
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

        there = await home.entries(client)
        for writer in writers:
            binding = await home.reissued(client, writer.binding_id)
            assert binding.state == "ACTIVE"
            assert set(writer.acknowledged) <= there
            assert len(writer.ports) == 2
        instance = await client.instance("crm")
        assert (instance.plan_id, instance.state) == ("own", "READY")
        async with home.server.superuser() as superuser:
            count = "SELECT count(*) FROM pg_database WHERE datname = $1"
            assert await superuser.fetchval(count, outside_name("db", home.uid)) == 0
        await (await client.deprovision("crm", cascade=True, wait=30)).result()


async def test_a_move_that_fails_in_the_middle_leaves_the_old_one_in_use(home: Home) -> None:
    async with home.serving() as client:
        await home.order(client)
        before = (await client.credentials("crm", "b1")).reveal()
        async with home.server.superuser(outside_name("db", home.uid)) as blocker:
            await blocker.execute("CREATE TABLE of_the_superuser (i int)")  # pg_dump may not read it
            order = await client.update("crm", plan="own")
            with pytest.raises(purveyor.PurveyorError):
                await order.result()
            await blocker.execute("DROP TABLE of_the_superuser")

        instance = await client.instance("crm")
        assert (instance.plan_id, instance.state, instance.usable) == ("small", "READY", True)
        assert (await client.credentials("crm", "b1")).reveal() == before
        session = await home.session(client)
        await session.execute("INSERT INTO entries VALUES (1)")
        await session.close()
        await (await client.deprovision("crm", cascade=True, wait=30)).result()
