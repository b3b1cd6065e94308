"""No secret in clear: a whole life at log level debug, then everything that was written is searched for every secret.

Guarantee: searched are the broker's log, every file of its data folder but the two password files and the key file (each
itself checked to be 0600), the log of the PostgreSQL server, what the calls answered besides credentials, every error, and
the command lines of all processes; for each secret as text, in UTF-16, base64 and hexadecimal.
Limit: memory is not searched, nor what the file system keeps of deleted files.
"""

from __future__ import annotations

import asyncio
import base64
import os
import shutil
import signal
import sqlite3
import stat
import subprocess
import sys
import tempfile
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import quote

import pytest

import purveyor
from purveyor.cli.documents import failure_document, text

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Iterator

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]
SECONDS = 60
SECRET_FILES = frozenset({"admin.password", "superuser.password", "keys"})
SECRET_NAMES = ("password", "uri", "jdbc_uri", "jdbcUrl", "jdbc_url")


class Place:
    """A broker's folder, what was answered and the secrets that were issued."""

    def __init__(self, folder: Path) -> None:
        self.data = folder / "data"
        self.log = folder / "log"
        self.main = self.data / "providers" / "main"
        self.answers: list[str] = []
        self.secrets: dict[str, str] = {}

    def client(self) -> purveyor.Client:
        return purveyor.Client(f"unix:{self.data}/broker.sock", tenant="t", timeout=SECONDS, retry_for=SECONDS)

    @asynccontextmanager
    async def serving(self, end: signal.Signals = signal.SIGTERM) -> AsyncIterator[asyncio.subprocess.Process]:
        """A broker at log level debug, ended by `end`."""
        command = (sys.executable, "-m", "purveyor.cli", "serve", "--dev", "--data-dir", str(self.data))
        environment = {**os.environ, "PURVEYOR_LOG__LEVEL": "debug", "PURVEYOR_LOG__FORMAT": "json"}
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(*command, stdout=log, stderr=log, env=environment)
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(end)
            await asyncio.wait_for(process.wait(), SECONDS)

    def keep(self, name: str, credentials: purveyor.Credentials) -> None:
        """Remember the secrets of a binding."""
        found = {f"{name}.{key}": credentials.text(key) for key in SECRET_NAMES if key in credentials}
        assert f"{name}.password" in found
        self.secrets |= found

    def keep_files(self) -> None:
        """Remember the administrators' passwords and the sealing key, whose files are the owner's alone."""
        for path in (*self.main.glob("*.password"), self.data / "keys"):
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
            self.secrets[path.name] = path.read_text().split()[-1]
        assert len(self.secrets) >= 3

    async def told(self, call: Awaitable[Any]) -> None:
        """Keep what a call answers or refuses with, as a person or a script sees it."""
        try:
            answer = await call
        except purveyor.PurveyorError as failure:
            self.answers += [repr(failure), str(failure), text(failure_document(failure, 1))]
        else:
            self.answers += [repr(answer), text(answer)]

    def written(self) -> dict[str, bytes]:
        """Everything that was written or said, by where."""
        found = {"answers": "\n".join(self.answers).encode(), "log": self.log.read_bytes()}
        for folder in (self.data, self.main, _server_place(self.main)):
            files = (path for path in folder.iterdir() if path.is_file() and path.name not in SECRET_FILES)
            found |= {f"{folder.name}/{path.name}": path.read_bytes() for path in files}
        for path in Path("/proc").glob("[0-9]*/cmdline"):
            try:
                found[str(path)] = path.read_bytes()
            except OSError:  # it ended meanwhile
                continue
        return found

    def leaks(self) -> set[tuple[str, str]]:
        """(where, which secret) for each that is found."""
        return {
            (where, name)
            for where, content in self.written().items()
            for name, secret in self.secrets.items()
            if any(form in content for form in _forms(secret))
        }


def _forms(secret: str) -> list[bytes]:
    clear = secret.encode()
    return [
        clear,
        secret.encode("utf-16-le"),
        base64.b64encode(clear),
        clear.hex().encode(),
        quote(secret, "").encode(),
    ]


def _server_place(main: Path) -> Path:
    from purveyor_server.providers.postgresql import cluster  # noqa: PLC0415 - of the extra [postgres]

    state = cluster.load_state(main)
    assert state is not None
    return Path(state.place)


@pytest.fixture
def place() -> Iterator[Place]:
    """A folder whose path is short enough for a socket; the PostgreSQL server is stopped and removed."""
    with tempfile.TemporaryDirectory(prefix="pv-") as folder:
        made = Place(Path(folder))
        yield made
        stop = (sys.executable, "-m", "purveyor_server.providers.postgresql", "stop", str(made.main))
        where = _server_place(made.main)
        subprocess.run(stop, check=False, stdout=subprocess.DEVNULL, timeout=SECONDS)
        shutil.rmtree(where, ignore_errors=True)


async def first_life(place: Place, client: purveyor.Client) -> None:
    """Provision, change, bind, look at everything, meet refusals, unbind one."""
    await place.told((await client.provision("postgresql", "shared-small", instance_id="orders")).result(SECONDS))
    await place.told((await client.update("orders", parameters={"extensions": ["citext"]})).result(SECONDS))
    for name in ("app", "old"):
        bound = await (await client.bind("orders", binding_id=name, wait=10)).result(SECONDS)
        place.keep(name, bound.credentials)
        place.answers += [repr(bound), text(bound)]
    again = await client.bind("orders", binding_id="app")
    place.answers.append(repr(again.status))
    await place.told(client.credentials("orders", "app"))
    await place.told(client.binding("orders", "app"))
    await place.told(client.bind("orders", binding_id="app", parameters={"no": "such"}))
    await place.told(client.deprovision("orders"))
    await place.told((await client.unbind("orders", "old")).result(SECONDS))
    await place.told(client.credentials("orders", "old"))


async def second_life(place: Place, client: purveyor.Client) -> None:
    """After kill -9: what the store gives back, all operations with their steps."""
    await place.told(client.catalog())
    place.keep("again", await client.credentials("orders", "app"))
    async for operation in client.operations(steps=True):
        place.answers += [repr(operation), text(operation)]
    async for binding in client.bindings(show_deleted=True):
        place.answers += [repr(binding), text(binding)]
    # Cancelled or not, as the machine has it: its secret was minted before its first step.
    handle = await client.bind("orders", binding_id="short")
    await place.told(handle.cancel(wait=10))


async def test_a_whole_life_leaves_no_secret_in_clear(place: Place) -> None:
    async with place.serving(signal.SIGKILL), place.client() as client:
        await first_life(place, client)
    async with place.serving() as process, place.client() as client:
        await second_life(place, client)
        place.keep_files()
        assert place.leaks() == set()  # while it runs: the write-ahead log is there
        assert any(where.endswith("-wal") for where in place.written())
        process.send_signal(signal.SIGTERM)
        await asyncio.wait_for(process.wait(), SECONDS)
    assert place.leaks() == set()
    assert b'"level":"debug"' in place.log.read_bytes()
    _check_that_planted_ones_are_found(place)


def _check_that_planted_ones_are_found(place: Place) -> None:
    """Negative control: a line in the log, a row in the database, an answer."""
    with place.log.open("a") as log:
        log.write(f'{{"event":"connecting","to":"{place.secrets["app.uri"]}"}}\n')
    with closing(sqlite3.connect(place.data / "purveyor.db")) as database, database:
        database.execute("CREATE TABLE planted (value BLOB)")
        database.execute("INSERT INTO planted VALUES (?)", (base64.b64encode(place.secrets["app.password"].encode()),))
    place.answers.append(place.secrets["admin.password"])
    found = place.leaks()
    assert {("log", "app.uri"), ("log", "app.password"), ("answers", "admin.password")} <= found
    assert ("data/purveyor.db", "app.password") in found
