"""What stands around the client: proxies, folders of strangers, servers that come back to a crowd."""

from __future__ import annotations

import asyncio
import os
from typing import TYPE_CHECKING

import grpc
import grpc.aio
import pytest

import purveyor
from purveyor import addresses, encode
from purveyor.connection import Backoff
from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1.broker_service_pb2_grpc import add_BrokerServiceServicer_to_server
from tests.clients.scripted import CATALOG, Refusal, ScriptedBroker, operation

if TYPE_CHECKING:
    from pathlib import Path

    from purveyor.client import Client


async def test_a_proxy_of_the_environment_never_sees_a_call(monkeypatch: pytest.MonkeyPatch) -> None:
    """Without TLS a proxy would read the credentials."""
    met = asyncio.Event()
    proxy = await asyncio.start_server(lambda *_: met.set(), "127.0.0.1", 0)
    server, broker = grpc.aio.server(), ScriptedBroker()
    add_BrokerServiceServicer_to_server(broker, server)
    broker.script["GetCatalog"] = [messages.GetCatalogResponse(catalog=CATALOG)]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, f"http://127.0.0.1:{proxy.sockets[0].getsockname()[1]}")
    for name in ("no_proxy", "no_grpc_proxy"):
        monkeypatch.delenv(name, raising=False)
    try:
        async with purveyor.Client(f"127.0.0.1:{port}", timeout=5, retry_for=0) as client:
            assert (await client.catalog()).version == 1
    finally:
        await server.stop(0)
        proxy.close()
        await proxy.wait_closed()

    assert not met.is_set()


def test_a_default_socket_in_somebody_elses_folder_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Everybody can make that folder first, and would be sent what is ordered."""
    monkeypatch.delenv(addresses.ADDRESS_VARIABLE, raising=False)
    monkeypatch.setattr(addresses, "dev_folder", lambda: tmp_path / "dev")
    address = f"unix:{tmp_path / 'dev' / 'broker.sock'}"
    assert addresses.resolve(None) == address  # nobody there yet: the call will say so

    (tmp_path / "dev").mkdir(0o700)
    assert addresses.resolve(None) == address

    (tmp_path / "dev").chmod(0o777)
    with pytest.raises(purveyor.InvalidRequestError, match="others"):
        addresses.resolve(None)

    (tmp_path / "dev").chmod(0o700)
    monkeypatch.setattr(os, "getuid", lambda: tmp_path.stat().st_uid + 1)
    with pytest.raises(purveyor.InvalidRequestError, match="another user"):
        addresses.resolve(None)


def test_a_folder_that_is_a_link_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(addresses.ADDRESS_VARIABLE, raising=False)
    monkeypatch.setattr(addresses, "dev_folder", lambda: tmp_path / "dev")
    (tmp_path / "own").mkdir(0o700)
    (tmp_path / "dev").symlink_to(tmp_path / "own")

    with pytest.raises(purveyor.InvalidRequestError, match="no folder"):
        addresses.resolve(None)


def test_those_whom_a_server_sent_away_do_not_come_back_together() -> None:
    delays = [Backoff().delay(0, least=1.0) for _ in range(200)]

    assert min(delays) >= 1.0  # never sooner than asked
    assert max(delays) - min(delays) > 0.3  # of up to half a second


@pytest.mark.parametrize("seconds", [1e20, float("nan"), float("inf"), 400_000 * 365 * 86400.0])
def test_a_time_that_cannot_be_sent_is_refused_by_name(seconds: float) -> None:
    with pytest.raises(purveyor.InvalidRequestError):
        encode.duration(seconds)


async def test_a_cancel_can_be_sent_again_with_its_request_id(client: Client, broker: ScriptedBroker) -> None:
    broker.script["CancelOperation"] = [messages.CancelOperationResponse(operation=operation())]

    await client.cancel("op-1", request_id="mine")

    assert broker.seen["CancelOperation"][0].request_id == "mine"


async def test_what_the_transport_finds_too_large_has_that_reason(client: Client, broker: ScriptedBroker) -> None:
    large = "Received message larger than max (5000000 vs. 4194304)"
    broker.script["GetCatalog"] = [Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, message=large)]

    with pytest.raises(purveyor.ResourceExhaustedError) as refused:
        await client.catalog()

    assert refused.value.reason == "MESSAGE_TOO_LARGE"
