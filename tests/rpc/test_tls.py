"""TLS listeners of a real server: who gets in, what is told of a client, and what ends its calls."""

from __future__ import annotations

import asyncio
import shutil
import ssl
import subprocess
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc._cython import cygrpc  # type: ignore[attr-defined] # the only way to a cache of sessions
from grpc_health.v1 import health_pb2, health_pb2_grpc
from prometheus_client import CollectorRegistry

from purveyor_server.app.tls_facts import tls_facts
from purveyor_server.kit.listeners import ListenError
from purveyor_server.kit.signals import Signals
from purveyor_server.monitor.tls import TlsCollector
from purveyor_server.rpc import RpcServer, RpcSettings, TlsListen
from purveyor_server.rpc.calls import current_call
from purveyor_server.security.issuing import Issued
from purveyor_server.security.tls import TlsFiles
from tests.rpc.failures import failure_of
from tests.rpc.scripted import ScriptedDoor, instance
from tests.rpc.tls import DAY, GET, HOUR, SECONDS, URI, WATCH, Site, credentials, get, serving, shown_serial, stub_of

SETTLED = 2  # looks at a file until it is believed


@pytest.fixture
def site(folder: Path) -> Site:
    return Site(folder)


@pytest.fixture
async def server(site: Site, door: ScriptedDoor) -> AsyncIterator[RpcServer]:
    """Overrides the plain one: one TLS port that asks for client certificates."""
    async with serving(site, door=door) as running:
        yield running


def address_of(server: RpcServer) -> str:
    return server.addresses[0]


async def look(server: RpcServer, times: int = SETTLED) -> None:
    assert server.tls is not None
    for _ in range(times):
        await server.tls.check()


async def test_a_client_with_a_certificate_is_served_and_known(
    site: Site, server: RpcServer, door: ScriptedDoor
) -> None:
    seen: list[Any] = []
    client = site.client("app")

    async def answer(*_: Any) -> Any:
        seen.append(current_call().peer)
        return instance()

    door.script["get_instance"] = answer

    assert await get(address_of(server), credentials(site.authority, client)) == ""
    peer = seen[0]
    assert (peer.subject, peer.common_name, peer.uris, peer.spiffe_id) == ("CN=app", "app", (URI,), URI)
    assert peer.serial == client.certificate.serial_number
    assert peer.not_after == client.certificate.not_valid_after_utc
    assert peer.issuer == "CN=ours"


async def test_a_certificate_below_an_intermediate_authority_is_taken_with_its_chain(
    site: Site, server: RpcServer
) -> None:
    between = site.make_authority("between", site.authority)
    client = between.client("app", [URI], site.now - HOUR, site.now + DAY)
    address = address_of(server)

    assert await get(address, credentials(site.authority, client, between.pem)) == ""
    assert "UNAVAILABLE" in await get(address, credentials(site.authority, client))

    site.revoke(between)
    await look(server)

    async with stub_of(address, credentials(site.authority, client, between.pem)) as stub:
        assert (await failure_of(stub.GetInstance(GET))).reason == "CREDENTIAL_REVOKED"


async def test_who_is_not_let_in(site: Site, server: RpcServer, door: ScriptedDoor) -> None:
    address, other = address_of(server), site.make_authority("other")
    stranger = other.client("a", [URI], site.now - HOUR, site.now + DAY)
    shown = {
        "nothing": credentials(site.authority),
        "another authority": credentials(site.authority, stranger),
        "expired": credentials(site.authority, site.client(until=-HOUR / 2)),
        "not yet valid": credentials(site.authority, site.client(since=HOUR)),
        "a plain connection": None,
    }

    for case, given in shown.items():
        assert (await get(address, given)).startswith("UNAVAILABLE: "), case
    assert "get_instance" not in door.seen
    assert await get(address, credentials(site.authority, site.client())) == ""


async def test_clients_refuse_a_server_of_another_authority(site: Site, server: RpcServer) -> None:
    failure = await get(address_of(server), credentials(site.make_authority("other"), site.client()))

    assert "CERTIFICATE_VERIFY_FAILED" in failure


async def test_a_listener_without_client_authority_asks_for_no_certificate(site: Site, door: ScriptedDoor) -> None:
    files = TlsFiles(site.files.certificate, site.files.key)
    async with serving(site, TlsListen("127.0.0.1:0", files), door=door) as server:
        assert await get(address_of(server), credentials(site.authority)) == ""
        assert server.certificates is None


async def test_several_listeners_at_once(site: Site, folder: Path, door: ScriptedDoor) -> None:
    seen: list[bool] = []

    async def answer(*_: Any) -> Any:
        seen.append(current_call().peer is not None)
        return instance()

    door.script["get_instance"] = answer
    listen = (f"unix:{folder / 'plain'}", site.listen(f"unix:{folder / 'tls'}"), site.listen("0.0.0.0:0"))
    async with serving(site, *listen, door=door) as server:
        plain, socket, port = server.addresses
        shown = credentials(site.authority, site.client())

        assert await get(plain, None) == ""
        assert await get(socket, shown) == ""
        assert await get(f"127.0.0.1:{port.rpartition(':')[2]}", shown) == ""
        assert await get(socket, None) != ""

    assert seen == [False, True, True]


async def test_a_revoked_certificate_is_refused_by_call(site: Site, server: RpcServer, door: ScriptedDoor) -> None:
    client, other = site.client(), site.client("b")
    async with stub_of(address_of(server), credentials(site.authority, client)) as stub:
        await stub.GetInstance(GET)
        site.revoke(client)
        await look(server)

        failure = await failure_of(stub.GetInstance(GET))

    assert (failure.code, failure.reason) == (grpc.StatusCode.UNAUTHENTICATED, "CREDENTIAL_REVOKED")
    assert failure.metadata == {"problem": "revoked", "serial": f"{client.certificate.serial_number:x}"}
    assert len(door.seen["get_instance"]) == 1
    assert await get(address_of(server), credentials(site.authority, other)) == ""


async def test_a_revoked_certificate_is_not_told_how_the_broker_does(site: Site, server: RpcServer) -> None:
    client = site.client()
    site.revoke(client)
    await look(server)
    async with grpc.aio.secure_channel(address_of(server), credentials(site.authority, client)) as channel:
        unknown: Any = channel.unary_unary("/no.such/Method")
        for call in (health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest()), unknown(b"")):
            assert (await failure_of(call)).reason == "CREDENTIAL_REVOKED"


async def ended(server: RpcServer, door: ScriptedDoor, shown: grpc.ChannelCredentials, change: Any) -> tuple[str, str]:
    """The reason and the problem that an open stream ends with after `change()`."""
    async with asyncio.timeout(SECONDS), stub_of(address_of(server), shown) as stub:
        open_before = door.signals.count("watch_operation")
        stream = stub.WatchOperation(WATCH)
        await door.signals.wait("watch_operation", open_before + 1)
        change()
        await look(server)
        failure = await failure_of(stream.read())
    await door.signals.wait("watch closed")
    return failure.reason, failure.metadata["problem"]


async def test_an_open_stream_ends_when_its_certificate_is_revoked(
    site: Site, server: RpcServer, door: ScriptedDoor
) -> None:
    client, other = site.client(), site.client("b")
    async with stub_of(address_of(server), credentials(site.authority, other)) as stub:
        goes_on = stub.WatchOperation(WATCH)
        await door.signals.wait("watch_operation")

        reason = await ended(server, door, credentials(site.authority, client), lambda: site.revoke(client))

        assert reason == ("CREDENTIAL_REVOKED", "revoked")
        assert not goes_on.done()
        assert server.certificates is not None
        assert server.certificates.refused == {"revoked": 1}


async def test_an_open_stream_ends_when_its_certificate_expires(
    site: Site, server: RpcServer, door: ScriptedDoor
) -> None:
    shown = credentials(site.authority, site.client(until=HOUR))

    reason = await ended(server, door, shown, lambda: site.clock.advance(2 * HOUR.total_seconds()))

    assert reason == ("UNAUTHENTICATED", "expired")


async def test_an_open_stream_ends_when_its_authority_is_taken_away(
    site: Site, server: RpcServer, door: ScriptedDoor
) -> None:
    old, client = site.authority, site.client()

    def replace() -> None:
        site.authority = site.make_authority("next")
        site.write("ca.pem", site.authority.pem)
        site.revoke()

    reason = await ended(server, door, credentials(old, client), replace)

    assert reason == ("UNAUTHENTICATED", "untrusted")
    assert (await get(address_of(server), credentials(old, client))).startswith("UNAVAILABLE")
    assert await get(address_of(server), credentials(old, site.client())) == ""


async def test_a_new_certificate_serves_new_connections_and_streams_go_on(
    site: Site, server: RpcServer, door: ScriptedDoor
) -> None:
    client, address = site.client(), address_of(server)
    before = site.server.certificate.serial_number
    async with asyncio.timeout(SECONDS), stub_of(address, credentials(site.authority, client)) as stub:
        stream = stub.WatchOperation(WATCH)
        await door.signals.wait("watch_operation")
        assert await shown_serial(site, address, client) == before

        after = site.write_server().certificate.serial_number
        await look(server)

        assert await shown_serial(site, address, client) == after != before
        assert await shown_serial(site, address, client) == after
        door.watched.put_nowait(None)
        assert await stream.read() is grpc.aio.EOF


async def test_files_and_dates_are_looked_after_without_being_asked(
    site: Site, server: RpcServer, door: ScriptedDoor
) -> None:
    client, address = site.client(), address_of(server)
    assert server.tls is not None
    async with asyncio.timeout(SECONDS), stub_of(address, credentials(site.authority, client)) as stub:
        stream = stub.WatchOperation(WATCH)
        await door.signals.wait("watch_operation")
        after = site.write_server().certificate.serial_number
        site.revoke(client)

        failure = await failure_of(stream.read())

    assert failure.reason == "CREDENTIAL_REVOKED"
    assert server.tls.listeners[0].reloads == 1
    assert await shown_serial(site, address, client) == after


@pytest.mark.parametrize("revoked", [False, True], ids=["good", "revoked"])
async def test_a_resumed_session_is_judged_as_a_new_one(
    site: Site, server: RpcServer, door: ScriptedDoor, *, revoked: bool
) -> None:
    seen: list[Any] = []
    client, cache = site.client(), cygrpc.SSLSessionCacheLRU(4)
    address = address_of(server).replace("127.0.0.1", "localhost")

    async def answer(*_: Any) -> Any:
        call = current_call()
        seen.append((call.context.auth_context()["ssl_session_reused"], call.peer is not None))
        return instance()

    door.script["get_instance"] = answer
    more = [("grpc.ssl_session_cache", cache)]
    async with stub_of(address, credentials(site.authority, client), more) as stub:
        await stub.GetInstance(GET)
    if revoked:
        site.revoke(client)
        await look(server)
    async with stub_of(address, credentials(site.authority, client), more) as stub:
        if revoked:
            assert (await failure_of(stub.GetInstance(GET))).reason == "CREDENTIAL_REVOKED"
        else:
            await stub.GetInstance(GET)

    assert seen == [([b"false"], True), ([b"true"], True)][: 1 if revoked else 2]


async def test_a_broken_pair_keeps_the_old_one_until_it_is_mended(
    site: Site, server: RpcServer, watch_logs: Signals
) -> None:
    client, address, broken = site.client(), address_of(server), "new tls files cannot be used, the old ones go on"
    before = site.server
    later = site.authority.server("later", ["localhost"], site.now + HOUR, site.now + DAY)

    site.write("server.key", site.client().key_pem)
    await look(server, 5)

    assert server.tls is not None
    listener = server.tls.listeners[0]
    assert watch_logs.count(broken) == 1
    assert "key: " in listener.broken
    assert "does not belong to the certificate" in listener.broken
    assert await shown_serial(site, address, client) == before.certificate.serial_number

    site.write("server.key", later.key_pem)
    site.write("server.pem", later.pem)
    await look(server, 3)
    assert watch_logs.count(broken) == 2
    assert "is not valid before" in listener.broken

    site.clock.advance(HOUR.total_seconds() + 60)  # nothing changes but the time
    await look(server)
    assert (listener.broken, listener.reloads) == ("", 1)
    assert await shown_serial(site, address, client) == later.certificate.serial_number


async def test_a_pair_that_is_being_replaced_is_not_taken_for_a_broken_one(
    site: Site, server: RpcServer, watch_logs: Signals
) -> None:
    made = site.authority.server("s", ["localhost"], site.now - HOUR, site.now + DAY)

    site.write("server.key", made.key_pem)
    await look(server, 1)
    site.write("server.pem", made.pem)
    await look(server)

    assert watch_logs.count("new tls files cannot be used, the old ones go on") == 0
    assert await shown_serial(site, address_of(server), site.client()) == made.certificate.serial_number


async def test_a_list_of_another_authority_or_a_damaged_one_is_not_taken(site: Site, server: RpcServer) -> None:
    assert server.tls is not None
    listener = server.tls.listeners[0]
    client = site.client()
    site.revoke(client)
    await look(server)

    site.revoke(by=site.make_authority("ours"))  # the same name, another key
    await look(server)
    assert "not signed by an authority of client_ca" in listener.broken
    site.write("crl.pem", b"nonsense")
    await look(server)
    assert "holds no revocation list" in listener.broken
    (site.folder / "crl.pem").unlink()
    await look(server)
    assert "no such file" in listener.broken

    async with stub_of(address_of(server), credentials(site.authority, client)) as stub:
        assert (await failure_of(stub.GetInstance(GET))).reason == "CREDENTIAL_REVOKED"


@pytest.mark.parametrize("strict", [False, True], ids=["warn", "refuse"])
async def test_an_overdue_list_is_told_once_and_refuses_where_that_is_wanted(
    site: Site, watch_logs: Signals, door: ScriptedDoor, *, strict: bool
) -> None:
    site.revoke(until=HOUR)
    async with (
        serving(site, site.listen(strict=strict), door=door) as server,
        stub_of(address_of(server), credentials(site.authority, site.client())) as stub,
    ):
        await stub.GetInstance(GET)
        site.clock.advance(2 * HOUR.total_seconds())
        await look(server)

        if strict:
            assert (await failure_of(stub.GetInstance(GET))).metadata == {"problem": "revocation_unknown"}
        else:
            await stub.GetInstance(GET)
        assert watch_logs.count("revocation list is out of date") == 1


async def test_a_start_with_bad_files_is_refused(site: Site, door: ScriptedDoor) -> None:
    site.write("server.key", b"nonsense")

    with pytest.raises(ListenError, match=r"key: .*server\.key: holds no private key in PEM"):
        async with serving(site, door=door):
            pass


async def test_a_connection_that_says_nothing_is_closed(site: Site, door: ScriptedDoor) -> None:
    short = RpcSettings(handshake_seconds=0.5)
    async with (
        serving(site, site.listen(), "127.0.0.1:0", door=door, settings=short) as server,
        asyncio.timeout(SECONDS),
    ):
        for address in server.addresses:
            reader, writer = await asyncio.open_connection("127.0.0.1", int(address.rpartition(":")[2]))
            while await reader.read(1024):  # a plain listener greets first
                pass
            writer.close()
            await writer.wait_closed()


async def test_metrics_tell_of_dates_and_refusals(site: Site, server: RpcServer) -> None:
    registry = CollectorRegistry()
    registry.register(TlsCollector(lambda: tls_facts([server])))
    client, listener = site.client(), {"listener": "127.0.0.1:0"}
    site.revoke(client, until=HOUR)
    site.write("server.key", b"broken")
    await look(server)
    assert registry.get_sample_value("purveyor_tls_files_broken", listener) == 1
    site.write_server()
    await look(server)
    async with stub_of(address_of(server), credentials(site.authority, client)) as stub:
        await failure_of(stub.GetInstance(GET))

    found = {
        name: registry.get_sample_value(f"purveyor_tls_{name}", listener) for name in ("files_broken", "reloads_total")
    }
    assert found == {"files_broken": 0, "reloads_total": 1}
    assert registry.get_sample_value("purveyor_tls_refused_total", {"problem": "revoked"}) == 1
    expiry = registry.get_sample_value("purveyor_tls_certificate_expiry_timestamp_seconds", listener)
    assert expiry == int((site.now + DAY).timestamp())
    due = registry.get_sample_value("purveyor_tls_revocation_list_due_timestamp_seconds", listener)
    assert due == int((site.now + HOUR).timestamp())


def offer(site: Site, port: str, *options: str) -> str:
    """What a handshake of openssl with these options ends in: version and cipher, or ""."""
    answer = subprocess.run(
        ["openssl", "s_client", "-connect", f"127.0.0.1:{port}", "-alpn", "h2",
         "-cert", str(site.folder / "probe.pem"), "-CAfile", str(site.files.client_ca), *options],
        input=b"", capture_output=True, timeout=SECONDS, check=False,
    ).stdout.decode(errors="replace")  # fmt: skip
    lines = [line for line in answer.splitlines() if line.startswith("New, ") and "(NONE)" not in line]
    return lines[0].removeprefix("New, ").replace(" Cipher is ", " ") if lines else ""


WEAK = "ALL:COMPLEMENTOFALL:@SECLEVEL=0"
MODERN = ("TLS_AES_128_GCM_SHA256", "TLS_AES_256_GCM_SHA384", "TLS_CHACHA20_POLY1305_SHA256")


@pytest.mark.skipif(shutil.which("openssl") is None, reason="asks by openssl s_client")
async def test_versions_and_ciphers(site: Site, server: RpcServer) -> None:
    """The facts of docs/security.md; what grpcio offers is its own, and may change with it."""
    port, client = address_of(server).rpartition(":")[2], site.client()
    site.write("probe.pem", client.pem + client.key_pem)

    async def asked(*options: str) -> str:
        return await asyncio.to_thread(offer, site, port, *options)

    assert await asked("-tls1", "-cipher", WEAK) == ""
    assert await asked("-tls1_1", "-cipher", WEAK) == ""
    for cipher in ("ECDHE-ECDSA-AES128-GCM-SHA256", "ECDHE-ECDSA-AES256-GCM-SHA384"):
        assert await asked("-tls1_2", "-cipher", cipher) == f"TLSv1.2, {cipher}"
    left = f"{WEAK}:!ECDHE-ECDSA-AES128-GCM-SHA256:!ECDHE-ECDSA-AES256-GCM-SHA384"
    assert await asked("-tls1_2", "-cipher", left) == ""
    for cipher in MODERN:
        assert await asked("-tls1_3", "-ciphersuites", cipher) == f"TLSv1.3, {cipher}"
    assert await asked("-tls1_3", "-ciphersuites", "TLS_AES_128_CCM_SHA256") == ""
    assert ssl.HAS_TLSv1_3


def test_nothing_of_a_key_is_shown(site: Site) -> None:
    made: Issued = site.client()

    assert repr(made) == "Issued('CN=a')"
