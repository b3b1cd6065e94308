"""Whoever follows a binding over rotations by the broker, and over its death: a program with a source, an application with a
sidecar. Both query a real PostgreSQL server all the time."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

import purveyor
from tests.acceptance.house import nothing_left
from tests.acceptance.test_leases import SECONDS, Leases, bound, give_back
from tests.postgres_server import SESSION_ENDED, TestServer, postgres  # noqa: F401 - a fixture
from tests.unit.app_process import Process

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(120)]
ROTATIONS = 2
OVERLAP = ("ttl: 1h, overlap: 1s, rotate_every: 1s", "ttl: 1h, overlap: 3s, rotate_every: 1s")  # a busy machine is late


@pytest.fixture
def leases(tmp_path: Path, postgres: TestServer) -> Iterator[Leases]:  # noqa: F811 - the fixture
    with nothing_left(postgres):
        made = Leases(tmp_path, postgres)
        made.site.catalog.write_text(made.site.catalog.read_text().replace(*OVERLAP))
        yield made


class Queries:
    """Sessions that are opened, used and closed one after the other, each with the credentials of its moment."""

    def __init__(self, server: TestServer, credentials: Any) -> None:
        self._server = server
        self._credentials = credentials
        self.users: dict[str, int] = {}
        self.failures: list[str] = []

    async def run(self) -> None:
        """Until it is cancelled, or there are no credentials any more."""
        while True:
            credentials = self._credentials()
            try:
                connection = await self._server.login(credentials)
                try:
                    for _ in range(20):
                        user = await connection.fetchval("SELECT session_user FROM pg_class LIMIT 1")
                        self.users[user] = self.users.get(user, 0) + 1
                finally:
                    connection.terminate()
            except SESSION_ENDED as error:
                self.failures.append(repr(error))


@asynccontextmanager
async def querying(queries: Queries) -> AsyncIterator[Queries]:
    task = asyncio.create_task(queries.run())
    try:
        yield queries
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def with_a_source(leases: Leases) -> None:
    with Process(leases.site) as process:
        async with leases.client("turning") as client:
            await bound(client, binding_id="app")
            async with purveyor.CredentialSource(client, "orders", "app") as source:
                await follow_over_a_kill(leases, client, source, process)


async def follow_over_a_kill(
    leases: Leases, client: purveyor.Client, source: purveyor.CredentialSource, process: Process
) -> None:
    def now() -> Any:
        return source.current.credentials.reveal()

    async with querying(Queries(leases.server, now)) as queries, asyncio.timeout(3 * SECONDS):
        followed = {(await source.changed()).binding_id for _ in range(ROTATIONS)}
        process.send(signal.SIGKILL)
        with Process(leases.site) as again:
            while (await source.changed()).binding_id in followed:
                pass
            assert queries.failures == []
            assert len(queries.users) > ROTATIONS
            await give_back(client)
            with pytest.raises(purveyor.PurveyorError):
                await to_the_end(source)
            assert again.send(signal.SIGTERM) == 0


async def to_the_end(source: purveyor.CredentialSource) -> None:
    while True:
        await source.changed()


def test_no_query_of_a_program_with_a_source_fails_over_rotations_and_a_kill(leases: Leases) -> None:
    asyncio.run(with_a_source(leases))


async def with_an_end(leases: Leases) -> None:
    with Process(leases.site) as process:
        async with leases.client() as client:
            made, credentials = await bound(client, binding_id="app", ttl=3)
            assert made.expire_time is not None
            async with purveyor.CredentialSource(client, "orders", "app") as source, asyncio.timeout(SECONDS):
                while source.current.expire_time == made.expire_time:
                    await source.changed()
                await leases.pass_by(made.expire_time)
                assert not await leases.refuses(credentials)
                assert source.unprolonged is None
            await give_back(client)
        assert process.send(signal.SIGTERM) == 0


def test_a_binding_that_would_end_is_kept_alive_by_who_uses_it(leases: Leases) -> None:
    asyncio.run(with_an_end(leases))


def from_files(folder: Path) -> dict[str, Any]:
    """What an application reads: of one version, by the folder that it opens."""
    number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with open("uri", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, dir_fd=number)) as file:
            return {"uri": file.read()}
    finally:
        os.close(number)


def read_again(folder: Path) -> dict[str, Any]:
    """As the layout says: an entry that is not found means to open the folder again."""
    while True:
        try:
            return from_files(folder)
        except FileNotFoundError:
            continue


@asynccontextmanager
async def sidecar(socket: str, root: Path, *more: str) -> AsyncIterator[asyncio.subprocess.Process]:
    command = ("-m", "purveyor.cli", "--address", socket, "--tenant", "acme", "--json")
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, *command, "credentials", "orders", "app", "--watch", str(root), *more),
        stdout=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def told(process: asyncio.subprocess.Process) -> dict[str, Any]:
    assert process.stdout is not None
    async with asyncio.timeout(SECONDS):
        line = await process.stdout.readline()
    found: dict[str, Any] = json.loads(line)
    return found


async def with_files(leases: Leases, root: Path) -> None:
    log = root.parent / "changes"
    with Process(leases.site) as process:
        async with leases.client("turning") as client:
            await bound(client, binding_id="app")
        async with sidecar(leases.site.socket, root, "--on-change", f"/bin/sh -c 'echo changed >> {log}'") as beside:
            seen = {(await told(beside))["binding_id"]}
            async with querying(Queries(leases.server, lambda: read_again(root / "app"))) as queries:
                seen |= {(await told(beside))["binding_id"] for _ in range(ROTATIONS)}
                process.send(signal.SIGKILL)
                with Process(leases.site) as again:
                    while (after := await told(beside))["binding_id"] in seen:
                        pass
                    assert after["changed"]
                    assert queries.failures == []
                    assert len(queries.users) > ROTATIONS
                    assert set(log.read_text().split()) == {"changed"}
                    async with purveyor.Client(leases.site.socket, tenant="acme") as client:
                        await give_back(client)
                    async with asyncio.timeout(SECONDS):
                        await beside.communicate()
                    assert beside.returncode in {3, 5}  # the chain has ended, or the instance is gone
                    assert (root / "app" / "password").exists()
                    assert again.send(signal.SIGTERM) == 0


def test_no_query_of_an_application_beside_a_sidecar_fails_over_rotations_and_a_kill(
    leases: Leases, tmp_path: Path
) -> None:
    root = tmp_path / "bindings"
    root.mkdir(mode=0o700)
    asyncio.run(with_files(leases, root))
