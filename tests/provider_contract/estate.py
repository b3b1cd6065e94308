"""Dedicated servers for tests: a provider with a folder of its own, and what it leaves there."""

from __future__ import annotations

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psutil

from purveyor_server.domain.model import Json
from purveyor_server.domain.names import outside_name
from purveyor_server.providers.postgresql import PostgresProvider
from purveyor_server.providers.postgresql.host import CLUSTER, Cluster, Host
from tests.postgres_server import TestEnvironment, TestServer, make_root
from tests.provider_contract.shop import Shop

AS_ROOT = os.geteuid() == 0
# Runs of pytest side by side (workers, other checkouts) have stores of their own that know nothing of the others' numbers.
RUN = os.getpid() % 20
UIDS = {"uid_low": 71_000 + 1000 * RUN, "uid_high": 71_999 + 1000 * RUN} if AS_ROOT else {}
PORTS = {"port_low": 15_000 + 200 * RUN, "port_high": 15_199 + 200 * RUN}
DEDICATED_PLAN: dict[str, Json] = {
    "kind": "dedicated",
    "connection_limit": 5,
    "extensions": ["hstore"],
    "shared_buffers_mb": 8,
    "temp_file_limit_mb": 10,
}


class Estate(Shop):
    """A shop whose instances have servers of their own, in `root`."""

    def __init__(self, server: TestServer, root: Path, store: str, **dedicated: Any) -> None:
        self.root = root
        self.options = {"folder": str(root / "places"), **UIDS, **PORTS, **dedicated}
        self.server = server
        super().__init__(server, self.open(store), store)
        self.settings = DEDICATED_PLAN

    def open(self, store: str, **changes: Any) -> PostgresProvider:
        """Another provider on the same folders, as a restarted broker has it."""
        config = {**self.server.config, "dedicated": {**self.options, **changes}}
        return PostgresProvider(config, TestEnvironment(self.root / "broker", store))

    @property
    def host(self) -> Host:
        """The provider's host of servers."""
        host = self.provider._host
        assert host is not None
        return host

    def cluster(self, uid: str) -> Cluster:
        """The server of an instance."""
        return self.host.cluster(outside_name(CLUSTER, uid))

    def postmaster(self, uid: str) -> psutil.Process:
        """Its process."""
        text = (self.cluster(uid).folders.data / "postmaster.pid").read_text(encoding="utf-8")
        return psutil.Process(int(text.split("\n", 1)[0]))

    def files(self) -> list[str]:
        """Names of all files of servers, but for copies of binaries."""
        places = self.root / "places"
        own = [path for path in self.root.rglob("*") if not path.is_relative_to(places / "binaries")]
        return sorted(str(path.relative_to(self.root)) for path in own)

    def processes(self) -> list[str]:
        """Everything that runs from these folders."""
        found = (process.info["cmdline"] or [] for process in psutil.process_iter(["cmdline"]))
        return [" ".join(words) for words in found if any(str(self.root) in word for word in words)]


@asynccontextmanager
async def estate(server: TestServer, store: str, **dedicated: Any) -> AsyncIterator[Estate]:
    """An estate; afterwards every instance is given back, and nothing may be left."""
    root = make_root("pvd")
    (root / "broker").mkdir(mode=0o700)
    (root / "places").mkdir(mode=0o711)
    try:
        made = Estate(server, root, store, **dedicated)
        yield made
        await made.clear()
        await made.provider.close()
        assert set(made.files()) <= {"broker", "broker/dedicated", "places"}
        assert made.processes() == []
    finally:
        for line in psutil.process_iter(["cmdline"]):
            if any(str(root) in word for word in line.info["cmdline"] or []):
                line.kill()
        shutil.rmtree(root, ignore_errors=True)
