"""The contract suite against the provider `directory` on a real disk."""

from __future__ import annotations

import asyncio
import secrets
import shutil
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from pathlib import Path
from typing import ClassVar, TypeVar

import pytest

from purveyor_server.domain.model import Json
from purveyor_server.domain.names import outside_name
from purveyor_server.providers.contract import Provider
from purveyor_server.providers.directory import DirectoryProvider
from purveyor_server.providers.directory.disk import Disk
from purveyor_server.providers.directory.tokens import check_token
from purveyor_server.providers.testing import Case, Held, NotOffered, ProviderContract

_Answer = TypeVar("_Answer")
CALLS = {"folder": "make_folder", "token": "write_token"}
PATIENCE = 20.0


def write_and_remove(path: Path) -> None:
    path.write_text("hello", encoding="utf-8")
    path.unlink()


class Gate:
    """Holds one call up in its thread, where no cancellation reaches it."""

    def __init__(self) -> None:
        self.call = ""
        self.entered = threading.Event()
        self.opened = threading.Event()

    def hold(self, call: str) -> None:
        self.call = call
        self.entered.clear()
        self.opened.clear()

    async def reached(self) -> None:
        await asyncio.to_thread(self.entered.wait, PATIENCE)

    async def release(self) -> None:
        self.opened.set()


def slow_disk(gate: Gate) -> type[Disk]:
    class SlowDisk(Disk):
        def carry_out(self, call: str, work: Callable[[], _Answer]) -> _Answer:
            if gate.call == call:
                gate.call = ""
                gate.entered.set()
                assert gate.opened.wait(PATIENCE)
            return super().carry_out(call, work)

    return SlowDisk


class DirectoryCase(Case):
    name = "directory"
    factory = DirectoryProvider
    settings: ClassVar[dict[str, Json]] = {"quota_bytes": 1000, "max_quota_bytes": 5000}
    parameters: ClassVar[dict[str, Json]] = {"quota_bytes": 500}
    changed: ClassVar[dict[str, Json]] = {"quota_bytes": 4000, "quota_files": 5}

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.root = folder / "root"
        self.root.mkdir()
        self._gate = Gate()

    @property
    def config(self) -> dict[str, Json]:
        return {"root": str(self.root), "mode": "0750"}

    def open(self, store_id: str) -> Provider:
        return DirectoryProvider(self.config, self.environment(store_id), slow_disk(self._gate))

    async def listing(self) -> object:
        return sorted(
            (str(path.relative_to(self.root)), oct(path.lstat().st_mode), path.read_bytes() if path.is_file() else b"")
            for path in self.root.rglob("*")
        )

    async def use(self, credentials: dict[str, Json]) -> None:
        if not check_token(credentials["token_file"], credentials["token"]):
            raise PermissionError
        await asyncio.to_thread(write_and_remove, Path(credentials["path"], secrets.token_hex(4)))

    async def destroy(self, uid: str) -> None:
        shutil.rmtree(self.root / outside_name("dir", uid))

    def hold(self, piece: str) -> AbstractAsyncContextManager[Held]:
        if piece not in CALLS:
            raise NotOffered(f"no call of {piece} is held")
        return self._holding(CALLS[piece])

    @asynccontextmanager
    async def _holding(self, call: str) -> AsyncIterator[Held]:
        self._gate.hold(call)
        try:
            yield self._gate
        finally:
            await self._gate.release()


class TestDirectory(ProviderContract):
    @pytest.fixture
    def case(self, tmp_path: Path) -> Case:
        return DirectoryCase(tmp_path)
