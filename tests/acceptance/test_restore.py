"""The restore drill, on a real broker over a real PostgreSQL server: an older backup, newer databases, nothing deleted.

A broker makes an instance, is backed up, makes another one and a binding, and loses its store. The backup is restored; the
newer databases live on, whatever time passes, until an operator says otherwise.
"""

from __future__ import annotations

import asyncio
import shutil
import signal
import subprocess
from pathlib import Path

import pytest

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import NotFoundError
from tests.acceptance.house import SETTINGS, catalog_of, nothing_left
from tests.postgres_server import TestServer, postgres  # noqa: F401 - a fixture
from tests.unit.app_process import Process, Site

pytestmark = [pytest.mark.postgres, pytest.mark.timeout(180)]
HTTP = '[admin]\nhttp = "127.0.0.1:0"\n'


class Drill:
    """A site whose broker is started and stopped several times."""

    def __init__(self, folder: Path, server: TestServer) -> None:
        self.site = Site(folder, SETTINGS, catalog_of(server))
        self.server = server
        self.copy = folder / "backup.db"

    def admin(self) -> AdminClient:
        """A client of the admin listener."""
        return AdminClient(f"unix:{self.site.data / 'admin.sock'}")

    def client(self) -> purveyor.Client:
        """A client of the broker."""
        return purveyor.Client(self.site.socket, tenant="acme")

    def restore(self, file: Path) -> subprocess.CompletedProcess[str]:
        """The command, as an operator types it."""
        return self.site.run("restore", str(file), "--config", str(self.site.config))

    def broker(self) -> Process:
        """A broker process; a context."""
        return Process(self.site)

    async def databases(self) -> list[str]:
        """Databases of ours in the server."""
        listing = await self.server.listing()
        return sorted(name for name, *_ in listing["databases"] if str(name).startswith("pv_"))


@pytest.fixture
def drill(tmp_path: Path, postgres: TestServer) -> Drill:  # noqa: F811 - the fixture
    return Drill(tmp_path, postgres)


async def before(drill: Drill) -> str:
    """An instance, the backup, then another instance with a binding, and an operation under way; the live uri."""
    async with drill.client() as client, drill.admin() as admin:
        await (await client.provision("database", "small", instance_id="old", wait=20)).result()
        await admin.backup(drill.copy)
        await (await client.provision("database", "small", instance_id="new", wait=20)).result()
        bound = await (await client.bind("new", binding_id="app", wait=20)).result()
        return str(bound.credentials.reveal()["uri"])


async def after(drill: Drill, uri: str) -> None:
    """What the restored broker knows, says, and leaves alone."""
    kept = await drill.databases()
    async with drill.client() as client, drill.admin() as admin:
        status = await admin.status()
        assert [freeze.name for freeze in status.freezes] == ["deletes", "recovery"]
        assert status.recovery is not None
        assert status.head_revision > 2**40
        assert (await client.instance("old")).state == "READY"
        with pytest.raises(NotFoundError):
            await client.instance("new")
        await query(drill, uri)

        found = [difference async for difference in admin.review_recovery()]
        unknown = {difference.resource.split(" ")[0] for difference in found if difference.kind == "UNKNOWN_RESOURCE"}
        assert unknown == {"database", "role"}, found
        assert all("after the backup" in difference.sentence for difference in found)

        # What a caller asks for goes on; what was there before and since the backup stays.
        await (await client.provision("database", "small", instance_id="later", wait=20)).result()
        await (await client.deprovision("later", wait=20)).result()
        assert await drill.databases() == kept

        recovery, _operations = await admin.finish_recovery("drill: looked at every line")
        assert recovery.backup_revision == status.recovery.backup_revision
        assert (await admin.status()).freezes == ()
        assert [record.action async for record in admin.audit(filter="outcome = DONE")][:2] == [
            "FinishRecovery",
            "Restore",
        ]
        assert [told.faults async for told in admin.verify_audit()][-1] == 0
        await query(drill, uri)
        assert await drill.databases() == kept
        await (await client.deprovision("old", wait=20)).result()


async def query(drill: Drill, uri: str) -> None:
    """The newer instance's binding still works."""
    connection = await drill.server.login({"uri": uri})
    try:
        assert await connection.fetchval("SELECT 1") == 1
    finally:
        await connection.close()


async def sweep(drill: Drill) -> None:
    """Take the orphans of the drill away by hand, as an operator would."""
    async with drill.server.superuser() as connection:
        for database in await drill.databases():
            await connection.execute(f'DROP DATABASE "{database}" WITH (FORCE)')
        for (name,) in await connection.fetch(
            r"SELECT rolname FROM pg_roles WHERE rolname LIKE 'pv\_%' ORDER BY rolname DESC"
        ):
            await connection.execute(f'DROP ROLE "{name}"')


def test_a_restore_deletes_nothing_until_told(drill: Drill) -> None:
    with nothing_left(drill.server):
        with drill.broker() as process:
            uri = asyncio.run(before(drill))
            locked = drill.restore(drill.copy)
            assert (locked.returncode, "is held by the process" in locked.stderr) == (3, True)
            process.send(signal.SIGKILL)
        restored = drill.restore(drill.copy)
        assert restored.returncode == 0, restored.stderr
        assert "no automatic deletion" in restored.stdout
        assert list(drill.site.data.glob("purveyor.db.before-restore-*"))
        with drill.broker() as process:
            asyncio.run(after(drill, uri))
            assert process.send(signal.SIGTERM) == 0
        asyncio.run(sweep(drill))


def test_what_cannot_be_restored_changes_nothing(drill: Drill, tmp_path: Path) -> None:
    with drill.broker() as process:
        asyncio.run(copied(drill))
        process.send(signal.SIGTERM)
    raw = tmp_path / "raw.db"
    shutil.copyfile(drill.site.data / "purveyor.db", raw)
    cut = tmp_path / "cut.db"
    cut.write_bytes(drill.copy.read_bytes()[:9000])
    text = tmp_path / "text.db"
    text.write_text("not a database", encoding="utf-8")
    content = (drill.site.data / "purveyor.db").read_bytes()
    for file, words in (
        (raw, "was not made by `purveyor backup`"),
        (cut, "is damaged"),
        (text, "is not a backup"),
        (drill.site.data / "purveyor.db", "is the store itself"),
        (tmp_path / "nothing", "No such file"),
    ):
        refused = drill.restore(file)
        assert (refused.returncode, words in refused.stderr) == (3, True), refused.stderr
    keys = drill.site.data / "keys"
    keys.rename(tmp_path / "keys")
    shutil.copy(tmp_path / "keys", keys)
    damage_key(keys)
    refused = drill.restore(drill.copy)
    assert (refused.returncode, "do not open the backup" in refused.stderr) == (3, True), refused.stderr
    assert (drill.site.data / "purveyor.db").read_bytes() == content
    assert not list(drill.site.data.glob("*restor*"))


async def copied(drill: Drill) -> None:
    """A backup of an empty store."""
    async with drill.admin() as admin:
        await admin.backup(drill.copy)


def damage_key(path: Path) -> None:
    """Another key of the same form."""
    lines = path.read_text(encoding="utf-8").splitlines()
    label, key = lines[-1].split(" ")
    lines[-1] = f"{label} {key[1:-1][::-1] if len(key) < 4 else ('B' if key[0] != 'B' else 'C') + key[1:]}"
    path.write_text("\n".join(lines) + "\n", encoding="utf-8")
