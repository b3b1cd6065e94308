"""A server of the face alone, on a unix socket, over a scripted door."""

from __future__ import annotations

import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import grpc
import pytest
import structlog

import purveyor
from purveyor.admin import AdminClient
from purveyor.v1 import broker_service_pb2_grpc
from purveyor_server.kit.signals import Signals
from purveyor_server.rpc import RpcServer, RpcSettings, broker_service
from tests.rpc.scripted import ScriptedDoor
from tests.rpc.whole import Whole, whole_broker

GRACE_SECONDS = 2.0
Stub = Any


class Store:
    """The one question that health asks of a store."""

    def __init__(self) -> None:
        self.failure: Exception | None = None
        self.pings = 0

    async def ping(self) -> None:
        self.pings += 1
        if self.failure is not None:
            raise self.failure


@pytest.fixture
def folder() -> Iterator[Path]:
    """A private folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="pv-") as path:
        yield Path(path)


@pytest.fixture
def door() -> ScriptedDoor:
    return ScriptedDoor()


@pytest.fixture
def store() -> Store:
    return Store()


@pytest.fixture
def settings() -> RpcSettings:
    """Overridden by the modules that need other bounds."""
    return RpcSettings()


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[Whole]:
    """A whole broker on `folder/s`; overridden by the modules that need another one."""
    async with whole_broker(folder) as running:
        yield running


@pytest.fixture
async def admin(broker: Whole) -> AsyncIterator[AdminClient]:
    async with AdminClient(broker.address) as opened:
        yield opened


@pytest.fixture
async def client(broker: Whole) -> AsyncIterator[purveyor.Client]:
    """Of the tenant `t`."""
    async with purveyor.Client(broker.address, tenant="t") as opened:
        yield opened


@pytest.fixture
def watch_logs() -> Iterator[Signals]:
    """A mark for every line that is logged, by its event."""
    signals = Signals()

    def note(logger: Any, name: str, event: structlog.typing.EventDict) -> structlog.typing.EventDict:
        signals.emit(event["event"])
        return event

    before = structlog.get_config()
    structlog.configure(processors=[note, *before["processors"]])
    yield signals
    structlog.configure(**before)


@pytest.fixture
async def server(door: ScriptedDoor, store: Store, settings: RpcSettings, folder: Path) -> AsyncIterator[RpcServer]:
    """A server that listens on `folder/s`; drained at the end."""
    made = RpcServer([broker_service(door)], store.ping, [f"unix:{folder / 's'}"], settings)  # type: ignore[arg-type] # by script
    await made.start()
    yield made
    await made.drain(GRACE_SECONDS)
    assert len(made.calls) == 0


@pytest.fixture
async def channel(server: RpcServer) -> AsyncIterator[grpc.aio.Channel]:
    options = [("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(server.addresses[0], options=options) as opened:
        yield opened


@pytest.fixture
def stub(channel: grpc.aio.Channel) -> Stub:
    return broker_service_pb2_grpc.BrokerServiceStub(channel)
