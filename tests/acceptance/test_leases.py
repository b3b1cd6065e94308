"""Bindings as leases on a real broker over a real PostgreSQL server: what a login can do, and until when.

Time is the server's own (`pg_sleep_until`): nothing here waits for a length of time of its own choosing.
"""

from __future__ import annotations

import asyncio
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import aclosing, asynccontextmanager
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

import purveyor
from purveyor.values import Binding, EventKind
from tests.acceptance.house import SETTINGS, nothing_left
from tests.postgres_server import SESSION_ENDED, TestServer, postgres  # noqa: F401 - a fixture
from tests.unit.app_process import Process, Site

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]
QUICK = '[reconcile]\nexpiry = "100ms"\nrotation = "100ms"\n'
SECONDS = 30.0
UNTIL = "SELECT rolvaliduntil FROM pg_authid WHERE rolname = $1"
CATALOG = """\
providers:
  main:
    kind: postgresql
    config:
      server: {{host: 127.0.0.1, port: {port}, user: purveyor_admin, sslmode: disable, password: {{file: {password}}}}}
services:
  - id: s1
    name: database
    description: A database.
    bindable: true
    plans:
      - id: leased
        name: leased
        description: Bindings of it end.
        provider: main
        settings: {{kind: shared, connection_limit: 20}}
        binding_rotatable: true
        bindings: {{ttl: 1h, max_ttl: 4h, renew_before: 15m, overlap: 1s}}
      - id: turning
        name: turning
        description: Bindings of it are replaced by the broker.
        provider: main
        settings: {{kind: shared, connection_limit: 20}}
        binding_rotatable: true
        bindings: {{ttl: 1h, overlap: 1s, rotate_every: 1s}}
"""


class Leases:
    """A site whose broker is started and stopped several times."""

    def __init__(self, folder: Path, server: TestServer) -> None:
        text = CATALOG.format(port=server.port, password=server.keep / "admin.password")
        self.site = Site(folder, SETTINGS + QUICK, text)
        self.server = server

    @asynccontextmanager
    async def client(self, plan: str = "leased") -> AsyncIterator[purveyor.Client]:
        """A client, with the instance `orders`."""
        async with purveyor.Client(self.site.socket, tenant="acme") as opened:
            await (await opened.provision("database", plan, instance_id="orders", wait=20)).result()
            yield opened

    async def until(self, role: str) -> datetime:
        """When the server stops letting the role in."""
        async with self.server.superuser() as connection:
            found: datetime = await connection.fetchval(UNTIL, role)
            return found

    async def pass_by(self, at: datetime) -> None:
        """Return when the server's clock has passed `at`."""
        async with self.server.superuser() as connection:
            await connection.execute("SELECT pg_sleep_until($1::timestamptz + interval '10 milliseconds')", at)

    async def refuses(self, credentials: Any) -> bool:
        """Whether a new login is refused."""
        try:
            connection = await self.server.login(credentials)
        except (asyncpg.InvalidAuthorizationSpecificationError, asyncpg.InvalidPasswordError):
            return True
        await connection.close()
        return False


@pytest.fixture
def leases(tmp_path: Path, postgres: TestServer) -> Iterator[Leases]:  # noqa: F811 - the fixture
    with nothing_left(postgres):
        yield Leases(tmp_path, postgres)


async def bound(client: purveyor.Client, **more: Any) -> tuple[Binding, dict[str, Any]]:
    made = await (await client.bind("orders", wait=20, **more)).result()
    return made, dict(made.credentials.reveal())


async def becomes(client: purveyor.Client, binding_id: str, state: str, place: str = "snapshot") -> Binding:
    """The binding in that state, as the stream of events tells of it."""
    async with asyncio.timeout(SECONDS), aclosing(client.events(place, kinds=[EventKind.BINDING])) as events:
        async for event in events:
            if event.binding_id == binding_id and event.state == state and isinstance(event.record, Binding):
                return event.record
    raise AssertionError("the stream has ended")


async def ended(connection: asyncpg.Connection[Any]) -> bool:
    """Whether the server has ended the session."""
    try:
        await connection.fetchval("SELECT 1")
    except SESSION_ENDED:
        connection.terminate()
        return True
    return False


async def give_back(client: purveyor.Client) -> None:
    await (await client.deprovision("orders", cascade=True, wait=20)).result()


async def renew_and_expire(leases: Leases) -> None:
    async with leases.client() as client:
        made, credentials = await bound(client, ttl=60)
        assert await leases.until(credentials["username"]) == made.expire_time
        renewed = await (await client.renew("orders", made.binding_id, ttl=7200, wait=20)).result()
        assert renewed.expire_time is not None
        assert made.expire_time is not None
        assert renewed.expire_time > made.expire_time
        assert await leases.until(credentials["username"]) == renewed.expire_time
        assert dict((await client.credentials("orders", made.binding_id)).reveal()) == credentials

        session = await leases.server.login(credentials)
        short, brief = await bound(client, binding_id="brief", ttl=3)
        opened = await leases.server.login(brief)
        assert await opened.fetchval("SELECT current_user IS NOT NULL")
        gone = await becomes(client, "brief", "DELETED", "earliest")
        assert gone.uid == short.uid
        assert await ended(opened)
        assert await leases.refuses(brief)
        assert not await ended(session)  # nobody else's session
        await session.close()
        told = [event.state async for event in client.events("earliest", kinds=[EventKind.BINDING], follow=False)
                if event.binding_id == "brief"]  # fmt: skip
        assert told == ["BINDING", "ACTIVE", "EXPIRED", "UNBINDING", "DELETED"]
        await give_back(client)


def test_a_renewal_reaches_the_backend_and_an_end_ends_the_session(leases: Leases) -> None:
    with Process(leases.site) as process:
        asyncio.run(renew_and_expire(leases))
        assert process.send(signal.SIGTERM) == 0


class Application:
    """Queries all the time, a new connection for every few queries; it changes to a successor when that is told of."""

    def __init__(self, leases: Leases, client: purveyor.Client, binding_id: str, credentials: dict[str, Any]) -> None:
        self._leases = leases
        self._client = client
        self.binding_id = binding_id
        self._credentials = credentials
        self.queries = 0
        self.failures: list[Exception] = []
        self.changes = 0
        self.changed = asyncio.Event()
        self.failed = asyncio.Event()
        self.deaf = False

    async def query(self) -> None:
        """Until it is cancelled."""
        while True:
            try:
                connection = await self._leases.server.login(self._credentials)
                try:
                    for _ in range(5):
                        await connection.fetchval("SELECT count(*) FROM pg_class")
                        self.queries += 1
                finally:
                    connection.terminate()
            except Exception as error:  # noqa: BLE001 - each is a failed query
                self.failures.append(error)
                self.failed.set()

    async def follow(self) -> None:
        """Until it is cancelled."""
        async with aclosing(self._client.events("earliest", kinds=[EventKind.BINDING])) as events:
            async for event in events:
                found = event.record
                if self.deaf or event.state != "ACTIVE" or not isinstance(found, Binding):
                    continue
                if found.predecessor_binding_id == self.binding_id:
                    secret = await self._client.credentials("orders", found.binding_id)
                    self._credentials, self.binding_id = dict(secret.reveal()), found.binding_id
                    self.changes += 1
                    self.changed.set()


@asynccontextmanager
async def running(leases: Leases, client: purveyor.Client) -> AsyncIterator[Application]:
    made, credentials = await bound(client, binding_id="first")
    application = Application(leases, client, made.binding_id, credentials)
    tasks = [asyncio.ensure_future(job) for job in (application.query(), application.query(), application.follow())]
    try:
        yield application
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def rotate_thrice(leases: Leases) -> None:
    async with leases.client() as client, running(leases, client) as application:
        for number in range(3):
            before, count = application.binding_id, application.queries
            application.changed.clear()
            made = await (await client.rotate("orders", before, successor_id=f"next{number}", wait=20)).result()
            assert made.predecessor_binding_id == before
            async with asyncio.timeout(SECONDS):
                await application.changed.wait()
            retired = await becomes(client, before, "DELETED", "earliest")
            assert retired.successor_binding_id == made.binding_id
            assert application.queries > count
        assert application.changes == 3
        assert application.queries > 50
        assert application.failures == []
        # Negative control: whoever does not hear of the successor fails as soon as the overlap is over.
        application.deaf = True
        await (await client.rotate("orders", application.binding_id, overlap=0, wait=20)).result()
        async with asyncio.timeout(SECONDS):
            await application.failed.wait()
        await give_back(client)


def test_no_query_fails_while_bindings_are_rotated(leases: Leases) -> None:
    with Process(leases.site) as process:
        asyncio.run(rotate_thrice(leases))
        assert process.send(signal.SIGTERM) == 0


async def turn_by_itself(leases: Leases) -> None:
    async with leases.client("turning") as client, running(leases, client) as application:
        async with asyncio.timeout(SECONDS):
            while application.changes < 2:
                application.changed.clear()
                await application.changed.wait()
        assert application.failures == []
        newest = await client.binding("orders", application.binding_id)
        assert newest.rotate_time is not None
        await give_back(client)


def test_the_broker_rotates_by_itself_and_no_query_fails(leases: Leases) -> None:
    with Process(leases.site) as process:
        asyncio.run(turn_by_itself(leases))
        assert process.send(signal.SIGTERM) == 0


def test_an_end_while_the_broker_is_away_is_kept_by_the_backend_and_swept_first(leases: Leases) -> None:
    asyncio.run(away(leases))


async def away(leases: Leases) -> None:
    with Process(leases.site) as process:
        async with leases.client() as client:
            made, credentials = await bound(client, binding_id="app", ttl=4)
        opened = await leases.server.login(credentials)
        process.send(signal.SIGKILL)
    assert made.expire_time is not None
    await leases.pass_by(made.expire_time)
    assert await leases.refuses(credentials)  # without the broker
    assert not await ended(opened)  # what is open waits for the sweep
    with Process(leases.site) as process:
        async with purveyor.Client(leases.site.socket, tenant="acme") as client:
            await becomes(client, "app", "DELETED", "earliest")
            assert await ended(opened)
            first = [operation async for operation in client.operations("verb = UNBIND")]
            assert [operation.state for operation in first] == ["SUCCEEDED"]
            await give_back(client)
        assert process.send(signal.SIGTERM) == 0


def test_a_rotation_goes_on_after_a_kill(leases: Leases) -> None:
    asyncio.run(killed_midway(leases))


async def killed_midway(leases: Leases) -> None:
    from tests.acceptance.house import gate  # noqa: PLC0415 - for this one

    with Process(leases.site) as process:
        async with leases.client() as client:
            await bound(client, binding_id="old")
            async with gate(leases.server):
                handle = await client.rotate("orders", "old", successor_id="new")
                async with aclosing(handle.watch()) as watched:
                    async for status in watched:
                        if status.state == "RUNNING":
                            break
                process.send(signal.SIGKILL)
    with Process(leases.site) as process:
        async with purveyor.Client(leases.site.socket, tenant="acme") as client:
            new = await becomes(client, "new", "ACTIVE", "earliest")
            assert new.predecessor_binding_id == "old"
            again = await (await client.rotate("orders", "old", wait=20)).result()
            assert again.binding_id == "new"  # the same one, never a second
            gone = await becomes(client, "old", "DELETED", "earliest")
            assert gone.successor_binding_id == "new"
            assert [found.binding_id async for found in client.bindings()] == ["new"]
            await give_back(client)
        assert process.send(signal.SIGTERM) == 0
