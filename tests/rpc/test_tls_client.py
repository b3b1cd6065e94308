"""The Python client against a server with TLS: what it needs, and what it says when the connection is not to be had."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

import purveyor
from purveyor import Tls, TransportReason, channels
from purveyor.v1.operation_pb2 import OPERATION_VIEW_BASIC
from purveyor.watch import follow
from purveyor_server.domain.states import OperationState
from purveyor_server.lifecycle.contract import OperationDetails
from purveyor_server.rpc import RpcServer, TlsListen
from purveyor_server.rpc.calls import current_call
from purveyor_server.security.issuing import Issued
from purveyor_server.security.tls import TlsFiles
from tests.rpc.scripted import UID, ScriptedDoor, instance, operation
from tests.rpc.tls import DAY, HOUR, SECONDS, URI, Site, serving

SHORT: dict[str, Any] = {"timeout": 5, "retry_for": 0.2, "tenant": "t"}


@pytest.fixture
def site(folder: Path) -> Site:
    return Site(folder)


@pytest.fixture
async def server(site: Site, door: ScriptedDoor) -> AsyncIterator[RpcServer]:
    async with serving(site, site.listen(), site.listen(f"unix:{site.folder / 's'}"), door=door) as running:
        yield running


def tls_of(site: Site, shown: Issued | None = None, **changes: Any) -> Tls:
    """TLS by the site's authority, with a client's certificate in files of its own."""
    files: dict[str, Any] = {"ca": site.folder / "ca.pem"}
    if shown is not None:
        site.write("client.pem", shown.pem)
        site.write("client.key", shown.key_pem)
        files |= {"certificate": str(site.folder / "client.pem"), "key": site.folder / "client.key"}
    return Tls(**files | changes)


async def failure(address: str, *, tls: Tls | bool | None) -> purveyor.PurveyorError:
    async with purveyor.Client(address, tls=tls, **SHORT) as client:
        with pytest.raises(purveyor.PurveyorError) as failed:
            await client.instance("orders")
    return failed.value


async def test_a_client_with_a_certificate_by_port_and_by_socket(site: Site, server: RpcServer) -> None:
    tls = tls_of(site, site.client())

    for address in (server.addresses[0], server.addresses[1], server.addresses[0].replace("127.0.0.1", "localhost")):
        async with purveyor.Client(address, tls=tls, **SHORT) as client:
            assert (await client.instance("orders")).instance_id == "orders"


async def test_files_by_the_environment_are_not_for_sockets(
    site: Site, server: RpcServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    tls = tls_of(site, site.client())
    for name in ("ca", "certificate", "key"):
        monkeypatch.setenv(f"PURVEYOR_TLS_{name.upper()}", str(getattr(tls, name)))
    port, socket = server.addresses

    async with purveyor.Client(port, **SHORT) as client:
        await client.instance("orders")
    assert (await failure(socket, tls=None)).transport_reason == TransportReason.UNREACHABLE
    assert (await failure(port, tls=False)).transport_reason == TransportReason.UNREACHABLE


async def test_a_certificate_that_is_refused_or_missing(site: Site, server: RpcServer) -> None:
    stranger = site.make_authority("other").client("a", [URI], site.now - HOUR, site.now + DAY)
    for shown in (None, stranger, site.client(until=-HOUR / 2)):
        found = await failure(server.addresses[0], tls=tls_of(site, shown))

        assert isinstance(found, purveyor.UnavailableError)
        assert "hangs up at once: it wants TLS, or another client certificate" in found.message, shown


async def test_a_revoked_certificate_is_told_as_such(site: Site, server: RpcServer) -> None:
    client = site.client()
    site.revoke(client)
    assert server.tls is not None
    for _ in range(2):
        await server.tls.check()

    found = await failure(server.addresses[0], tls=tls_of(site, client))

    assert isinstance(found, purveyor.PermissionDeniedError)
    assert (found.code, found.reason) == ("UNAUTHENTICATED", "CREDENTIAL_REVOKED")


async def test_a_server_that_is_not_who_it_should_be(site: Site, server: RpcServer) -> None:
    client = site.client()
    site.write("other.pem", site.make_authority("other").pem)
    cases = {
        "is of an authority that is not trusted here": tls_of(site, client, ca=site.folder / "other.pem"),
        "is for another name": tls_of(site, client, server_name="db.example"),
    }
    for words, tls in cases.items():
        found = await failure(server.addresses[0], tls=tls)
        assert found.transport_reason == TransportReason.TLS_FAILED
        assert f"no secure connection to the broker at {server.addresses[0]} (its certificate {words})" in found.message


@pytest.mark.parametrize(("since", "until", "words"), [(-2, -1, "has expired"), (1, 2, "is not yet valid")])
async def test_a_server_out_of_its_dates(site: Site, since: int, until: int, words: str, door: ScriptedDoor) -> None:
    site.clock.advance((since + 0.5) * HOUR.total_seconds())  # the server believes that it is good
    made = site.authority.server("s", ["localhost"], site.now + since * HOUR, site.now + until * HOUR)
    site.write("server.pem", made.pem)
    site.write("server.key", made.key_pem)
    files = TlsFiles(site.files.certificate, site.files.key)
    async with serving(site, TlsListen("127.0.0.1:0", files), door=door) as server:
        found = await failure(server.addresses[0], tls=tls_of(site))

    assert found.transport_reason == TransportReason.TLS_FAILED
    assert f"(its certificate {words})" in found.message


async def test_what_answers_speaks_no_tls(site: Site, door: ScriptedDoor) -> None:
    async with serving(site, "127.0.0.1:0", door=door) as server:
        found = await failure(server.addresses[0], tls=tls_of(site))

    assert found.transport_reason == TransportReason.TLS_FAILED
    assert "what answers there speaks no TLS" in found.message


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ca": "/nowhere/ca.pem"}, "tls ca: /nowhere/ca.pem: no such file or directory"),
        ({"ca": "/dev/null"}, "tls ca: /dev/null: is not PEM"),
        ({"certificate": "/dev/null"}, "tls key: certificate and key go together"),
        ({"key": "/dev/null"}, "tls certificate: certificate and key go together"),
    ],
)
async def test_bad_files_are_refused_by_name(site: Site, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(purveyor.InvalidRequestError, match=message):
        async with purveyor.Client("127.0.0.1:1", tls=tls_of(site, **changes)):
            pass


async def test_a_pair_that_does_not_belong_together_is_refused_before_anything_is_sent(site: Site) -> None:
    tls = tls_of(site, site.client())
    site.write("client.key", site.client().key_pem)

    with pytest.raises(purveyor.InvalidRequestError, match=r"tls key: .* does not belong to the certificate"):
        async with purveyor.Client("127.0.0.1:1", tls=tls):
            pass


async def test_a_watch_outlives_its_certificate_where_there_is_a_newer_one(
    site: Site, server: RpcServer, door: ScriptedDoor
) -> None:
    tls = tls_of(site, site.client(until=HOUR))
    door.watched.put_nowait((OperationDetails(operation()), False))
    async with asyncio.timeout(SECONDS), purveyor.Client(server.addresses[0], tls=tls, **SHORT) as client:
        states = follow(client.connection, "t", UID, OPERATION_VIEW_BASIC)
        assert (await anext(states)).state == "RUNNING"
        following = asyncio.ensure_future(anext(states))
        tls_of(site, site.client())  # in the place of the old one
        site.clock.advance(2 * HOUR.total_seconds())
        await door.signals.wait("watch closed")
        door.watched.put_nowait((OperationDetails(operation(state=OperationState.SUCCEEDED)), True))

        assert (await following).state == "SUCCEEDED"
        assert client.connection.renewals == 1


async def test_a_watch_ends_with_its_certificate_where_there_is_no_newer_one(
    site: Site, server: RpcServer, door: ScriptedDoor
) -> None:
    tls = tls_of(site, site.client(until=HOUR))
    async with asyncio.timeout(SECONDS), purveyor.Client(server.addresses[0], tls=tls, **SHORT) as client:
        following = asyncio.ensure_future(anext(follow(client.connection, "t", UID, OPERATION_VIEW_BASIC)))
        await door.signals.wait("watch_operation")
        site.clock.advance(2 * HOUR.total_seconds())

        with pytest.raises(purveyor.PermissionDeniedError, match="has expired"):
            await following


async def test_calls_use_new_files_and_keep_the_old_ones_while_new_ones_are_bad(
    site: Site, server: RpcServer, monkeypatch: pytest.MonkeyPatch, door: ScriptedDoor
) -> None:
    monkeypatch.setattr(channels, "LOOK_SECONDS", 0.0)
    seen: list[int] = []

    async def answer(*_: Any) -> Any:
        peer = current_call().peer
        assert peer is not None
        seen.append(peer.serial)
        return instance()

    door.script["get_instance"] = answer
    made = [site.client() for _ in range(channels.MAX_RETIRED + 3)]
    async with purveyor.Client(server.addresses[0], tls=tls_of(site, made[0]), **SHORT) as client:
        await client.instance("orders")
        site.write("client.key", made[1].key_pem)  # half of the next pair
        await client.instance("orders")
        for one in made[1:]:
            tls_of(site, one)
            await client.instance("orders")

    serials = [one.certificate.serial_number for one in made]
    assert seen == [serials[0], *serials]


async def test_a_watch_goes_on_over_another_channel_when_its_own_is_dropped(
    site: Site, server: RpcServer, monkeypatch: pytest.MonkeyPatch, door: ScriptedDoor
) -> None:
    monkeypatch.setattr(channels, "LOOK_SECONDS", 0.0)
    monkeypatch.setattr(channels, "MAX_RETIRED", 0)
    tls = tls_of(site, site.client())
    async with asyncio.timeout(SECONDS), purveyor.Client(server.addresses[0], tls=tls, **SHORT) as client:
        following = asyncio.ensure_future(anext(follow(client.connection, "t", UID, OPERATION_VIEW_BASIC)))
        await door.signals.wait("watch_operation")
        tls_of(site, site.client())
        await client.instance("orders")
        await door.signals.wait("watch closed")
        door.watched.put_nowait((OperationDetails(operation(state=OperationState.SUCCEEDED)), True))

        assert (await following).state == "SUCCEEDED"


def test_the_machines_own_authorities() -> None:
    assert purveyor.Client("broker.example:443", tls=True)._tls == Tls()
    assert Tls().credentials() is not None


def test_blocking_clients_take_the_same() -> None:
    client: Any = purveyor.SyncClient("broker.example:443", tls=Tls(server_name="x"))

    assert client._source._tls.server_name == "x"
