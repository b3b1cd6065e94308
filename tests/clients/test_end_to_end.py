"""The README's tour, word for word as a user would type it, against `purveyor serve --dev` and a real PostgreSQL server."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from contextlib import asynccontextmanager
from typing import TYPE_CHECKING, Any

import asyncpg
import pytest

import purveyor

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]  # a server is started, twice

START_SECONDS = 60
RUN_SECONDS = 60
STOP_SECONDS = 30


class Tour:
    """A broker's folder and the commands that are typed at it."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.log = folder / "log"
        self.environment = {
            **os.environ,
            "PURVEYOR_ADDRESS": f"unix:{self.data}/broker.sock",
            "PURVEYOR_TENANT": "tour",
        }

    @asynccontextmanager
    async def serving(self) -> AsyncIterator[asyncio.subprocess.Process]:
        """`purveyor serve --dev`, ready to answer; stopped at the end, by SIGTERM, with exit code 0."""
        command = (sys.executable, "-m", "purveyor.cli", "serve", "--dev", "--data-dir", str(self.data))
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log)
        try:
            async with self.client(retry_for=START_SECONDS) as client:
                await client.catalog()
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(signal.SIGTERM)
            code = await asyncio.wait_for(process.wait(), STOP_SECONDS)
        assert code == 0, self.log.read_text(encoding="utf-8")

    def client(self, retry_for: float = 10) -> purveyor.Client:
        return purveyor.Client(self.environment["PURVEYOR_ADDRESS"], tenant="tour", timeout=60, retry_for=retry_for)

    async def type(self, line: str, expected: int = 0) -> str:
        """Run a command; returns its stdout, or its stderr when it is meant to fail."""
        process = await asyncio.create_subprocess_exec(
            *(sys.executable, "-m", "purveyor.cli", *line.split()),
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        out, err = await asyncio.wait_for(process.communicate(), RUN_SECONDS)
        assert process.returncode == expected, (line, out.decode(), err.decode(), self.log.read_text(encoding="utf-8"))
        return (err if expected else out).decode()

    async def json(self, line: str) -> Any:
        return json.loads(await self.type(f"{line} --json"))


@pytest.fixture
def tour(folder: Path) -> Iterator[Tour]:
    """A tour; the PostgreSQL server that outlives the broker is stopped and removed."""
    cluster = pytest.importorskip("purveyor_server.providers.postgresql.cluster")
    keep = folder / "data" / "providers" / "main"
    yield Tour(folder)
    stop = (sys.executable, "-m", "purveyor_server.providers.postgresql", "stop", str(keep))
    subprocess.run(stop, check=False, stdout=subprocess.DEVNULL, timeout=RUN_SECONDS)
    state = cluster.load_state(keep)
    if state is not None:
        shutil.rmtree(state.place, ignore_errors=True)


async def ask(uri: str, sql: str) -> Any:
    connection = await asyncpg.connect(uri, timeout=RUN_SECONDS)
    try:
        return await connection.fetchval(sql, timeout=RUN_SECONDS)
    finally:
        await connection.close(timeout=RUN_SECONDS)


async def test_the_tour(tour: Tour) -> None:
    async with tour.serving():
        catalog = await tour.json("catalog")
        assert [service["name"] for service in catalog["services"]] == ["postgresql"]
        assert (await tour.json("provision postgresql shared-small --id orders"))["state"] == "SUCCEEDED"
        assert (await tour.json("instance orders"))["state"] == "READY"
        assert (await tour.json("bind orders --id app"))["state"] == "SUCCEEDED"
        credentials = await tour.json("credentials orders app")
        assert await ask(credentials["uri"], "CREATE TABLE t (x int)") is None
        assert f"export PGPASSWORD={credentials['password']}" in await tour.type("credentials orders app --env")

        changed = await tour.json('update orders -p extensions=["citext"]')
        assert changed["state"] == "SUCCEEDED"
        assert (await tour.json("instance orders"))["parameters"] == {"extensions": ["citext"]}

        assert "BINDINGS_EXIST" in await tour.type("deprovision orders", expected=5)
        assert "INSTANCE_ALREADY_EXISTS" in await tour.type("provision postgresql shared-large --id orders", expected=4)
        assert "INSTANCE_NOT_FOUND" in await tour.type("instance nothing", expected=3)
        assert "parameters" in await tour.type("provision postgresql shared-small -p nonsense=1", expected=2)

        assert (await tour.json("unbind orders app"))["state"] == "SUCCEEDED"
        with pytest.raises(asyncpg.InvalidAuthorizationSpecificationError):
            await ask(credentials["uri"], "SELECT 1")
        assert (await tour.json("deprovision orders"))["state"] == "SUCCEEDED"
        assert await tour.json("instances") == []
        verbs = [operation["verb"] for operation in await tour.json("operations")]
        assert verbs == ["PROVISION", "BIND", "UPDATE", "UNBIND", "DEPROVISION"]


async def test_a_handle_lives_through_a_restart(tour: Tour) -> None:
    async with tour.client(retry_for=START_SECONDS) as client:
        async with tour.serving() as process:
            handle = await client.provision(
                "postgresql", "shared-small", parameters={"extensions": ["hstore", "citext"]}
            )
            waiting = asyncio.create_task(handle.result(timeout=START_SECONDS))
            process.send_signal(signal.SIGTERM)
            await asyncio.wait_for(process.wait(), STOP_SECONDS)
        async with tour.serving():
            instance = await waiting
            assert instance.state == purveyor.InstanceState.READY
            gone = await (await client.deprovision(instance.instance_id)).result(timeout=RUN_SECONDS)
            assert gone
            assert (gone.state, gone.uid) == (purveyor.InstanceState.DELETED, instance.uid)
