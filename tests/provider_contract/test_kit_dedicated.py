"""The contract suite against plans of kind `dedicated`: every instance is a server of its own, so one of them takes seconds.

PURVEYOR_KIT_EVERY_WAY=1 runs every topic; without it those that need a few servers only, the rest is tested by
`test_dedicated.py` and by the recovery scenarios.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import psutil
import pytest

from purveyor_server.domain.model import Json
from purveyor_server.domain.names import outside_name
from purveyor_server.providers.contract import ProviderEnvironment
from purveyor_server.providers.postgresql import PostgresProvider
from purveyor_server.providers.postgresql.host import CLUSTER
from purveyor_server.providers.testing import Case, ProviderContract
from tests.postgres_server import TestEnvironment, TestServer, make_root
from tests.provider_contract.estate import DEDICATED_PLAN, PORTS, UIDS

pytestmark = pytest.mark.postgres


class DedicatedCase(Case):
    name = "postgresql dedicated"
    factory = PostgresProvider
    settings: ClassVar[dict[str, Json]] = DEDICATED_PLAN
    parameters: ClassVar[dict[str, Json]] = {"connection_limit": 4}
    changed: ClassVar[dict[str, Json]] = {"connection_limit": 3, "extensions": ["hstore"]}
    bind_parameters: ClassVar[dict[str, Json]] = {"connection_limit": 2}
    every_way = False
    warms_up = True  # copies of the binaries, and the folders themselves
    parallel = 2
    patience = 90.0

    def __init__(self, folder: Path, server: TestServer, root: Path) -> None:
        super().__init__(folder)
        self._server, self._root = server, root

    @property
    def config(self) -> dict[str, Json]:
        return {**self._server.config, "dedicated": {"folder": str(self._root / "places"), **UIDS, **PORTS}}

    def environment(self, store_id: str) -> ProviderEnvironment:
        return TestEnvironment(self._root / "broker", store_id)

    async def listing(self) -> object:
        """Names, modes and owners of all files that an instance can have, what runs, and the shared server untouched."""
        servers = {str(words) for words in self._processes()}
        return sorted(self._files()), sorted(servers), await self._server.listing()

    def _files(self) -> Iterator[tuple[str, int, int]]:
        for path in self._root.rglob("*"):
            inside = path.relative_to(self._root).parts
            if "data" in inside[:-1] or "binaries" in inside:
                continue  # a server writes in its data folder as it likes; the folder itself counts
            try:
                found = path.lstat()
            except FileNotFoundError:
                continue
            yield str(path.relative_to(self._root)), found.st_mode, found.st_uid

    def _processes(self) -> Iterator[list[str]]:
        for process in psutil.process_iter(["cmdline"]):
            words = process.info["cmdline"] or []
            if any(str(self._root) in word for word in words):
                yield words

    async def use(self, credentials: dict[str, Json]) -> None:
        session = await self._server.login(credentials)
        await session.execute("CREATE TABLE used (a int); INSERT INTO used VALUES (1); DROP TABLE used")
        await session.close()

    async def destroy(self, uid: str) -> None:
        name = outside_name(CLUSTER, uid)
        for pid_file in self._root.rglob(f"{name}*/**/postmaster.pid"):
            process = psutil.Process(int(pid_file.read_text(encoding="utf-8").split("\n", 1)[0]))
            process.send_signal(signal.SIGKILL)
            process.wait(30)
        for folder in self._root.rglob(f"{name}*"):
            shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture
def ground() -> Iterator[Path]:
    """A folder that the servers' users may pass through; nothing may run from it at the end."""
    root = make_root("pvk")
    (root / "broker").mkdir(mode=0o700)
    (root / "places").mkdir(mode=0o711)
    yield root
    left: list[Any] = []
    for process in psutil.process_iter(["cmdline"]):
        if any(str(root) in word for word in process.info["cmdline"] or []):
            left.append(process.info["cmdline"])
            process.kill()
    shutil.rmtree(root, ignore_errors=True)
    assert left == []


@pytest.mark.skipif("PURVEYOR_KIT_EVERY_WAY" not in os.environ, reason="minutes: PURVEYOR_KIT_EVERY_WAY=1 runs it")
class TestDedicated(ProviderContract):
    @pytest.fixture
    def case(self, tmp_path: Path, postgres: TestServer, ground: Path) -> Case:
        return DedicatedCase(tmp_path, postgres, ground)
