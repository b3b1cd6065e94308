"""The contract suite of Purveyor against this provider and its real backend: `pytest` prints the table."""

from __future__ import annotations

import asyncio
import hmac
import threading
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import ClassVar

import pytest
from purveyor_server.domain.model import Json
from purveyor_server.domain.names import outside_name
from purveyor_server.providers.contract import Provider
from purveyor_server.providers.testing import Case, Held, ProviderContract

from purveyor_newthing import NewthingProvider
from purveyor_newthing.backend import Backend, read_record
from purveyor_newthing.pieces import BOX

PATIENCE = 20.0


class Gate:
    """Holds the next call up in its thread, where no cancellation reaches it."""

    def __init__(self) -> None:
        self.shut = False
        self.entered = threading.Event()
        self.opened = threading.Event()

    async def reached(self) -> None:
        assert await asyncio.to_thread(self.entered.wait, PATIENCE)

    async def release(self) -> None:
        self.opened.set()


def slow_backend(gate: Gate) -> type[Backend]:
    class SlowBackend(Backend):
        def carry_out(self, work: Callable[[], None]) -> None:
            if gate.shut:
                gate.shut = False
                gate.entered.set()
                assert gate.opened.wait(PATIENCE)
            super().carry_out(work)

    return SlowBackend


class NewthingCase(Case):
    """REPLACE: what your provider needs, and how to look at your backend."""

    name = "newthing"
    factory = NewthingProvider
    settings: ClassVar[dict[str, Json]] = {"size": 10, "max_size": 100}  # of the plan
    parameters: ClassVar[dict[str, Json]] = {"size": 20}  # of an instance
    changed: ClassVar[dict[str, Json]] = {"size": 30}  # of its update

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.root = folder / "root"
        self.root.mkdir()
        self._gate = Gate()

    @property
    def config(self) -> dict[str, Json]:
        return {"root": str(self.root)}

    def open(self, store_id: str) -> Provider:
        return NewthingProvider(self.config, self.environment(store_id), slow_backend(self._gate))

    async def listing(self) -> object:
        """Everything that can be made or left behind. What it leaves out nobody misses: look closely."""
        return sorted((path.name, path.read_bytes()) for path in self.root.iterdir())

    async def use(self, credentials: dict[str, Json]) -> None:
        """As a consumer: raise when the credentials give no access."""
        key = read_record(Path(credentials["folder"], credentials["key"]))
        if key is None or not hmac.compare_digest(key.token, credentials["token"]):
            raise PermissionError
        if key.expires_at and datetime.fromisoformat(key.expires_at) <= datetime.now(UTC):
            raise PermissionError

    async def destroy(self, uid: str) -> None:
        """Take an instance away behind the provider's back."""
        (self.root / outside_name(BOX, uid)).unlink()

    @asynccontextmanager
    async def hold(self, piece: str) -> AsyncIterator[Held]:  # noqa: ARG002 - each has one call
        """From here on the backend holds the next changing call up."""
        self._gate.entered.clear()
        self._gate.opened.clear()
        self._gate.shut = True
        try:
            yield self._gate
        finally:
            await self._gate.release()


class TestNewthing(ProviderContract):
    @pytest.fixture
    def case(self, tmp_path: Path) -> Case:
        return NewthingCase(tmp_path)
