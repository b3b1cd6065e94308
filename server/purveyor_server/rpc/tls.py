"""TLS listeners: credentials from PEM files, and new ones when the files change.

Guarantee: a new certificate, key or list of authorities serves the next connection; open connections and their streams go
on. Files that do not fit together keep the old ones, with one log line and a number until they are mended. A changed
revocation list ends what it revokes at once.
Limit: files are looked at every `POLL_SECONDS`, and believed when two looks see the same, so that a pair that is being
replaced file by file is not taken for a broken one. grpcio asks every client for a certificate, or none.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import structlog

from purveyor_server.kit.clock import Clock
from purveyor_server.kit.listeners import ListenError
from purveyor_server.kit.signals import Signals
from purveyor_server.security.certificates import read_material
from purveyor_server.security.tls import TIME, Material, PeerCertificate, TlsFileError, TlsFiles, TlsListen
from purveyor_server.security.trust import Basis, ClientTrust

POLL_SECONDS = 1.0
RETRY = timedelta(seconds=30)
_log = structlog.get_logger(__name__)
# Of each file what changes with its content; None for one that is not there.
Looks = tuple[tuple[int, ...] | None, ...]


class Secured:
    """One TLS listener: its files as last found good, and the credentials made of them."""

    def __init__(self, listen: TlsListen, now: datetime) -> None:
        self.listen = listen
        self._seen = look(listen.files)
        self._tried = self._seen
        self.material = read_material(listen.files, now)
        self._served = self._offered = self.material
        self._retry_at: datetime | None = None
        self.broken = ""
        self.reloads = 0

    def credentials(self) -> grpc.ServerCredentials:
        """For one port: the core takes a new configuration once, so no two ports may share these."""
        first = configuration(self.material)
        asks = self.material.client_ca is not None
        fetch: Any = self._fetch  # None says that nothing changed, which its published type leaves out
        return grpc.dynamic_ssl_server_credentials(first, fetch, require_client_authentication=asks)

    def _fetch(self) -> grpc.ServerCertificateConfiguration | None:
        """Called by the core, in a thread of its own, before every handshake."""
        offered = self._offered
        if offered is self._served:
            return None
        self._served = offered
        return configuration(offered)

    async def refresh(self, now: datetime) -> bool:
        """Look at the files, and take them when they changed and are good. Returns whether something else is used now."""
        files = self.listen.files
        seen = await asyncio.to_thread(look, files)
        settled, self._seen = seen == self._seen, seen
        again = self._retry_at is not None and now >= self._retry_at
        if not settled or (seen == self._tried and not again):
            return False
        self._tried = seen
        try:
            found = await asyncio.to_thread(read_material, files, now)
        except TlsFileError as failure:
            self._refuse(failure, now)
            return False
        self.broken, self._retry_at = "", None
        self._take(found)
        return True

    def _refuse(self, failure: TlsFileError, now: datetime) -> None:
        # What is not valid yet may be so later, without any change of the files.
        self._retry_at = now + RETRY
        if str(failure) == self.broken:
            return
        self.broken = str(failure)
        _log.error(
            "new tls files cannot be used, the old ones go on",
            listener=self.listen.address,
            field=failure.field,
            path=str(failure.path),
            why=failure.why,
        )

    def _take(self, found: Material) -> None:
        old, self.material = self.material, found
        self.reloads += 1
        if (old.chain, old.key, old.client_ca) != (found.chain, found.key, found.client_ca):
            self._offered = found
        _log.info(
            "tls files reloaded",
            listener=self.listen.address,
            not_after=f"{found.not_after:{TIME}}",
            revoked=sum(len(known.serials) for known in found.lists),
        )


class TlsWatch:
    """The TLS listeners of one server, and the trust that they put into client certificates together."""

    def __init__(self, listens: Sequence[TlsListen], clock: Clock) -> None:
        self._clock = clock
        self.listeners = [Secured(listen, clock.now()) for listen in listens]
        self.trust = ClientTrust(self._bases())
        self.signals = Signals()
        self.open_peers: Callable[[], list[PeerCertificate]] = list
        self.on_check: Callable[[], None] = lambda: None
        self._overdue: set[str] = set()

    @property
    def asks_clients(self) -> bool:
        """Whether any listener asks for client certificates."""
        return any(listener.material.client_ca is not None for listener in self.listeners)

    def _bases(self) -> list[Basis]:
        return [Basis(listener.material, listener.listen.strict) for listener in self.listeners]

    async def run(self) -> None:
        """Look after files and dates for ever."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            try:
                await self.check()
            except Exception:  # noqa: BLE001 - a defect here must not be the end of every later reload
                _log.exception("tls files could not be looked after")

    async def check(self) -> None:
        """Take what changed; end what is no longer good."""
        now = self._clock.now()
        if any([await listener.refresh(now) for listener in self.listeners]):
            bases = self._bases()
            self.trust.replace(bases, await asyncio.to_thread(self.trust.weigh, bases, self.open_peers()))
        for listener in self.listeners:
            self._tell_overdue(listener, now)
        self.on_check()
        self.signals.emit("checked")

    def _tell_overdue(self, listener: Secured, now: datetime) -> None:
        due, address = listener.material.next_update, listener.listen.address
        if due is None or now < due:
            self._overdue.discard(address)
        elif address not in self._overdue:
            self._overdue.add(address)
            strict = listener.listen.strict
            _log.warning("revocation list is out of date", listener=address, since=f"{due:{TIME}}", refusing=strict)


async def open_tls(listens: Sequence[TlsListen], clock: Clock) -> TlsWatch:
    """Read the files of every listener. Raises ListenError that names the field, the file and the reason."""
    try:
        return await asyncio.to_thread(TlsWatch, listens, clock)
    except TlsFileError as failure:
        text = ", ".join(listen.address for listen in listens)
        raise ListenError(text, str(failure)) from None


def configuration(material: Material) -> grpc.ServerCertificateConfiguration:
    """What the core takes."""
    return grpc.ssl_server_certificate_configuration([(material.key, material.chain)], material.client_ca)


def look(files: TlsFiles) -> Looks:
    """Of each file what changes when it is written or replaced, links followed."""
    return tuple(_look(path) for path in (files.certificate, files.key, files.client_ca, files.crl) if path is not None)


def _look(path: Path) -> tuple[int, ...] | None:
    try:
        found = os.stat(path)  # noqa: PTH116 - one call in a loop
    except OSError:
        return None
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino, found.st_dev
