"""A folder of certificates, a server that uses them, and clients of many kinds."""

from __future__ import annotations

import asyncio
import socket
import ssl
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
from cryptography import x509

from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1 import broker_service_pb2_grpc
from purveyor_server.kit.clock import ManualClock
from purveyor_server.rpc import RpcServer, RpcSettings, TlsListen, broker_service
from purveyor_server.security.issuing import Authority, Issued
from purveyor_server.security.tls import TlsFiles
from tests.rpc.scripted import ScriptedDoor, instance

HOUR, DAY = timedelta(hours=1), timedelta(days=1)
URI = "spiffe://purveyor.local/tenant/a"
GET = messages.GetInstanceRequest(tenant="t", instance_id="orders")
WATCH = messages.WatchOperationRequest(tenant="t", operation_id="op")
SECONDS = 10.0


class Site:
    """Files of a server, by an authority of its own; `clock` is what the server believes."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.now = datetime.now(UTC)
        self.clock = ManualClock(self.now)
        self.authority = self.make_authority("ours")
        self.files = TlsFiles(folder / "server.pem", folder / "server.key", folder / "ca.pem", folder / "crl.pem")
        self.server = self.write_server()
        self.write("ca.pem", self.authority.pem)
        self.revoke()

    def make_authority(self, name: str, above: Authority | None = None) -> Authority:
        return Authority.make(name, self.now - DAY, self.now + DAY, above)

    def write(self, name: str, content: bytes) -> None:
        path = self.folder / name
        draft = path.with_suffix(".draft")
        draft.touch(0o600)
        draft.write_bytes(content)
        draft.replace(path)

    def write_server(self) -> Issued:
        made = self.authority.server("s", ["localhost", "127.0.0.1"], self.now - HOUR, self.now + DAY)
        self.write("server.pem", made.pem)
        self.write("server.key", made.key_pem)
        return made

    def client(self, name: str = "a", since: timedelta = -HOUR, until: timedelta = DAY) -> Issued:
        return self.authority.client(name, [URI], self.now + since, self.now + until)

    def revoke(self, *revoked: Issued, by: Authority | None = None, until: timedelta = DAY) -> None:
        serials = [issued.certificate.serial_number for issued in revoked]
        self.write("crl.pem", (by or self.authority).revoke(serials, self.now - HOUR, self.now + until))

    def listen(self, address: str = "127.0.0.1:0", *, strict: bool = False) -> TlsListen:
        return TlsListen(address, self.files, strict)


@asynccontextmanager
async def serving(
    site: Site, *listen: str | TlsListen, door: ScriptedDoor | None = None, settings: RpcSettings | None = None
) -> AsyncIterator[RpcServer]:
    """A server by the site's files; without `listen` on one loopback port."""
    used = door or ScriptedDoor()
    used.script.setdefault("get_instance", instance())

    async def ping() -> None:
        pass

    listens = listen or (site.listen(),)
    server = RpcServer([broker_service(used)], ping, listens, settings, site.clock)  # type: ignore[arg-type] # by script
    await server.start()
    try:
        yield server
    finally:
        await server.drain(2.0)


def credentials(roots: Authority, client: Issued | None = None, chain: bytes = b"") -> grpc.ChannelCredentials:
    if client is None:
        return grpc.ssl_channel_credentials(roots.pem)
    return grpc.ssl_channel_credentials(roots.pem, client.key_pem, client.pem + chain)


@asynccontextmanager
async def stub_of(
    address: str, shown: grpc.ChannelCredentials | None, more: Sequence[tuple[str, Any]] = ()
) -> AsyncIterator[broker_service_pb2_grpc.BrokerServiceStub]:
    options: list[tuple[str, Any]] = [("grpc.enable_retries", 0), ("grpc.use_local_subchannel_pool", 1), *more]
    if address.startswith("unix:"):
        options.append(("grpc.ssl_target_name_override", "localhost"))
    if shown is None:
        channel = grpc.aio.insecure_channel(address, options=options)
    else:
        channel = grpc.aio.secure_channel(address, shown, options=options)
    async with channel:
        yield broker_service_pb2_grpc.BrokerServiceStub(channel)


async def get(address: str, shown: grpc.ChannelCredentials | None) -> str:
    """What the transport says of a call over a connection of its own; empty when it is answered."""
    async with stub_of(address, shown) as stub:
        try:
            await stub.GetInstance(GET, timeout=SECONDS)
        except grpc.aio.AioRpcError as failure:
            return f"{failure.code().name}: {failure.details()}"
    return ""


async def shown_serial(site: Site, address: str, client: Issued) -> int:
    """The serial number of the certificate that a new connection is shown."""
    site.write("probe.pem", client.pem + client.key_pem)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    context.set_alpn_protocols(["h2"])
    context.load_cert_chain(site.folder / "probe.pem")
    return await asyncio.to_thread(_serial, context, address)


def _serial(context: ssl.SSLContext, address: str) -> int:
    host, _, port = address.rpartition(":")
    with socket.create_connection((host, int(port)), SECONDS) as plain, context.wrap_socket(plain) as wrapped:
        shown = wrapped.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number
