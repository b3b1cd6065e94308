"""A real broker at log level debug with a gossiping provider, and everything that it writes and says.

Limit: files that must hold a secret (the key file, the passwords of the PostgreSQL provider's own administrators) are not
searched but checked to be 0600; what PostgreSQL itself stores is its own.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import shutil
import signal
import socket
import stat
import subprocess
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import purveyor
from purveyor.admin import AdminClient
from purveyor_server.config import dev_catalog
from purveyor_server.kit import failpoints

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 60.0
TENANT = "acme"
SECRET_FILES = frozenset({"admin.password", "superuser.password", "keys"})
GOSSIP = """
  - id: gossip
    name: gossip
    description: Tells everything.
    bindable: true
    plan_updateable: true
    plans:
      - id: gossip-small
        name: small
        description: Small.
        provider: gossip
        binding_rotatable: true
        schemas: &gossips
          service_instance: {create: &gossip {parameters: &parameters {type: object, properties: {
            password: {type: string, writeOnly: true}, fail: {type: boolean}}}}, update: *gossip}
          service_binding: {create: {parameters: *parameters}}
      - {id: gossip-large, name: large, description: Large., provider: gossip, binding_rotatable: true, schemas: *gossips}
"""
SETTINGS = """\
catalog = "catalog.yaml"
data_dir = "data"
[log]
level = "debug"
[reconcile]
campaigns = "200ms"
platform_brake_percent = 100
[admin]
"""


class House:
    """A broker's folder and what was told; `postgresql` says whether its catalog has a real one."""

    def __init__(self, folder: Path, *, postgresql: bool) -> None:
        self.folder = folder
        self.data = folder / "data"
        self.log = folder / "log"
        self.main = self.data / "providers" / "main"
        self.postgresql = postgresql
        self.told: dict[str, list[str]] = {}
        self.secrets: dict[str, bytes] = {}
        self.http = f"127.0.0.1:{_free_port()}"
        self._prepare()

    def _prepare(self) -> None:
        text = dev_catalog().decode() if self.postgresql else "providers:\nservices:\n"
        text = text.replace("providers:\n", "providers:\n  gossip: {kind: gossip}\n", 1)
        text = text.replace(
            "        name: shared-small\n", "        name: shared-small\n        binding_rotatable: true\n", 1
        )
        self.catalog = text.rstrip("\n") + GOSSIP
        (self.folder / "catalog.yaml").write_text(self.catalog)
        (self.folder / "purveyor.toml").write_text(f'{SETTINGS}http = "{self.http}"\n')
        info = self.folder / "path" / "gossip-1.dist-info"
        info.mkdir(parents=True)
        (info / "METADATA").write_text("Metadata-Version: 2.1\nName: gossip\nVersion: 1\n")
        (info / "entry_points.txt").write_text("[purveyor.providers]\ngossip = tests.secrecy.keeper:GossipProvider\n")

    def client(self, token: str | None = None) -> purveyor.Client:
        address = f"unix:{self.data}/broker.sock"
        return purveyor.Client(address, tenant=TENANT, token=token, timeout=SECONDS, retry_for=SECONDS)

    def admin(self) -> AdminClient:
        return AdminClient(f"unix:{self.data}/admin.sock", timeout=SECONDS, retry_for=SECONDS)

    @asynccontextmanager
    async def serving(
        self, end: signal.Signals = signal.SIGTERM, plan: str = ""
    ) -> AsyncIterator[asyncio.subprocess.Process]:
        """A broker, ended by `end`, with the failpoints of `plan` armed."""
        path = os.pathsep.join((str(self.folder / "path"), str(ROOT)))
        with self.log.open("ab") as log:
            process = await asyncio.create_subprocess_exec(
                *self.command("serve"),
                stdout=log,
                stderr=log,
                env={**os.environ, "PYTHONPATH": path, failpoints.PLAN_VARIABLE: plan},
            )
        try:
            yield process
        finally:
            if process.returncode is None:
                process.send_signal(end)
            await asyncio.wait_for(process.wait(), SECONDS)

    def command(self, *words: str) -> tuple[str, ...]:
        return (sys.executable, "-m", "purveyor.cli", *words, "--config", str(self.folder / "purveyor.toml"))

    def tell(self, place: str, text: str) -> None:
        """Keep what somebody was told."""
        self.told.setdefault(place, []).append(text)

    def keep(self, name: str, secret: str | bytes) -> None:
        """Remember a secret."""
        self.secrets[name] = secret.encode() if isinstance(secret, str) else secret

    def keep_files(self, when: str) -> list[str]:
        """Remember the secrets that are in files of their own; names of files that others may read."""
        files = [self.data / "keys", *self.main.rglob("*.password")]
        for path in files:
            if path.name != "keys":
                self.keep(f"{path.relative_to(self.main)} {when}", path.read_text().split()[-1])
        return [str(path) for path in files if stat.S_IMODE(path.stat().st_mode) != 0o600]

    def files(self) -> dict[str, bytes]:
        """Every file that was written, and the command lines and environments of all processes."""
        folders = [self.data, *(path for path in (self.data / "providers").rglob("*") if path.is_dir())]
        if self.postgresql:
            folders.append(self._cluster())  # its log; what is below it is PostgreSQL's own
        found = {"log": self.log.read_bytes()}
        for folder in folders:
            for path in folder.iterdir():
                if path.is_file() and path.name not in SECRET_FILES:
                    found[f"{folder.name}/{path.name}"] = path.read_bytes()
        found["backup"] = b"".join(path.read_bytes() for path in sorted(self.folder.glob("backup*.db")))
        found |= {f"processes/{kind}": _of_processes(kind) for kind in ("cmdline", "environ")}
        return found

    def places(self) -> dict[str, bytes]:
        """All that is searched."""
        return self.files() | {place: "\n".join(texts).encode() for place, texts in self.told.items()}

    def _cluster(self) -> Path:
        from purveyor_server.providers.postgresql import cluster  # noqa: PLC0415 - of the extra [postgres]

        state = cluster.load_state(self.main)
        assert state is not None
        return Path(state.place)

    def clear(self) -> None:
        """Stop and remove the PostgreSQL server."""
        if self.postgresql and self.main.exists():
            where = self._cluster()
            stop = (sys.executable, "-m", "purveyor_server.providers.postgresql", "stop", str(self.main))
            subprocess.run(stop, check=False, stdout=subprocess.DEVNULL, timeout=SECONDS)
            shutil.rmtree(where, ignore_errors=True)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def _of_processes(kind: str) -> bytes:
    found = []
    for path in Path("/proc").glob(f"[0-9]*/{kind}"):
        with contextlib.suppress(OSError):  # it ended meanwhile, or is somebody else's
            found.append(path.read_bytes())
    return b"\n".join(found)
