"""A scripted broker on a short socket path, and a client of it."""

from __future__ import annotations

import tempfile
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from purveyor.client import Client
from purveyor.tls import Tls
from tests.clients.scripted import ScriptedBroker, serving

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator


@pytest.fixture(scope="session", autouse=True)
def nobodys_settings() -> Iterator[None]:
    """The command's own environment: no context, address or tenant of whoever runs the tests."""
    with tempfile.TemporaryDirectory(prefix="pv-") as path, pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CONFIG_HOME", path)
        for name in (
            "PURVEYOR_ADDRESS",
            "PURVEYOR_TENANT",
            "PURVEYOR_CONTEXT",
            *(f"PURVEYOR_TLS_{field.name.upper()}" for field in fields(Tls)),
        ):
            patch.delenv(name, raising=False)
        yield


@pytest.fixture
def folder() -> Iterator[Path]:
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="pv-") as path:
        yield Path(path)


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[ScriptedBroker]:
    """A scripted broker that listens on `folder/s`."""
    scripted = ScriptedBroker()
    async with serving(scripted, folder / "s"):
        yield scripted


@pytest.fixture
async def client(broker: ScriptedBroker, folder: Path) -> AsyncIterator[Client]:
    """A client of the scripted broker."""
    async with Client(f"unix:{folder / 's'}", tenant="t", timeout=10, retry_for=5) as opened:
        yield opened
