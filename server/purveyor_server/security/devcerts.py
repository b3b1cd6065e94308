"""A folder of certificates for trying TLS: an authority, a server, clients, and a revocation list.

Guarantee: the folder is 0700 and every key 0600; a file that is there is kept, never written over unless `force` is given,
and what is missing is made by the authority that is there.
Limit: for trials. The authority's key lies beside the others, and certificates end after days.
"""

from __future__ import annotations

import os
import re
import secrets
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from functools import partial
from pathlib import Path

import msgspec
from cryptography import x509

from purveyor_server.domain.errors import invalid
from purveyor_server.security.issuing import SKEW, Authority, Issued

NAME = re.compile(r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?")
HOST = re.compile(r"(?:\*\.)?[A-Za-z0-9](?:[A-Za-z0-9.:-]{0,251}[A-Za-z0-9])?|::1?")
HOSTS = ("localhost", "127.0.0.1", "::1")  # `localhost` is what clients of a unix socket ask for
URI = "spiffe://purveyor.local/tenant/{name}"
MAX_DAYS = 825


class Wish(msgspec.Struct, frozen=True):
    """What the folder shall hold. A client is a name, or NAME=URI; `revoked` are names of clients."""

    hosts: tuple[str, ...] = ()
    clients: tuple[str, ...] = ("dev",)
    revoked: tuple[str, ...] = ()
    days: int = 30
    force: bool = False


class Made(msgspec.Struct, frozen=True):
    """The files that were made, those that were there, and the clients by name."""

    made: tuple[Path, ...]
    kept: tuple[Path, ...]
    clients: tuple[str, ...]


def make_dev_certs(folder: Path, wish: Wish, now: datetime) -> Made:
    """Make what is missing. Raises INVALID_REQUEST that names the option, OSError."""
    clients = _judged(wish)
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    if folder.stat().st_mode & 0o077:
        raise invalid("DIR", f"others can enter {folder}; chmod 700 it, or choose another")
    place = _Place(folder, wish.force)
    since, until = now - SKEW, now + timedelta(days=wish.days)
    authority = place.authority(since, until)
    until = min(until, authority.certificate.not_valid_after_utc)
    place.pair("server", partial(authority.server, "purveyor", [*HOSTS, *wish.hosts], since, until))
    for name, uri in clients.items():
        place.pair(f"client-{name}", partial(authority.client, name, [uri], since, until))
    place.list(authority, wish.revoked, now, until)
    return Made(tuple(place.made), tuple(place.kept), tuple(clients))


def _judged(wish: Wish) -> dict[str, str]:
    if not 1 <= wish.days <= MAX_DAYS:
        raise invalid("--days", f"must be 1 to {MAX_DAYS}")
    for host in wish.hosts:
        if not HOST.fullmatch(host):
            raise invalid("--host", f"{host!r} is no DNS name or IP address")
    clients = {}
    for text in wish.clients:
        name, _, uri = text.partition("=")
        clients[_client_name("--client", name)] = uri or URI.format(name=name)
        if uri and not (uri.isascii() and uri.isprintable() and ":" in uri):
            raise invalid("--client", f"{uri!r} is no URI")
    for name in wish.revoked:
        _client_name("--revoke", name)
    return clients


def _client_name(option: str, name: str) -> str:
    if not NAME.fullmatch(name):
        raise invalid(option, f"{name!r} is not 1 to 63 of a-z, 0-9 and '-', a letter or digit at both ends")
    return name


class _Place:
    """The folder, and what was done in it."""

    def __init__(self, folder: Path, force: bool) -> None:  # noqa: FBT001 - private
        self._folder = folder
        self._force = force
        self.made: list[Path] = []
        self.kept: list[Path] = []

    def authority(self, since: datetime, until: datetime) -> Authority:
        """The one that is there, or a new one."""
        certificate, key = self._folder / "ca.pem", self._folder / "ca.key"
        if self._force or not (certificate.exists() or key.exists()):
            made = Authority.make("Purveyor development CA", since, until)
            self._write_pair("ca", made)
            return made
        try:
            found = Authority.load(certificate.read_bytes(), key.read_bytes())
        except (OSError, ValueError, TypeError):
            raise invalid("DIR", f"{certificate} and ca.key are no authority of ours; --force makes all anew") from None
        if found.certificate.not_valid_after_utc <= since + SKEW:
            raise invalid("DIR", f"the authority {certificate} has expired; --force makes all anew")
        self.kept += [certificate, key]
        return found

    def pair(self, name: str, make: Callable[[], Issued]) -> None:
        """A certificate and its key, unless they are there."""
        paths = [self._folder / f"{name}.pem", self._folder / f"{name}.key"]
        if not self._force and any(path.exists() for path in paths):
            self.kept += paths
            return
        self._write_pair(name, make())

    def list(self, authority: Authority, names: Sequence[str], now: datetime, until: datetime) -> None:
        """The revocation list: what it held, and the clients that are named."""
        path = self._folder / "crl.pem"
        there = path.exists() and not self._force
        if there and not names:
            self.kept.append(path)
            return
        serials = {entry.serial_number for entry in x509.load_pem_x509_crl(path.read_bytes())} if there else set()
        for name in names:
            serials.add(self._serial(name))
        self._write(path, authority.revoke(serials, now, until))

    def _serial(self, name: str) -> int:
        try:
            content = (self._folder / f"client-{name}.pem").read_bytes()
        except FileNotFoundError:
            raise invalid("--revoke", f"there is no client {name!r} in {self._folder}") from None
        return x509.load_pem_x509_certificate(content).serial_number

    def _write_pair(self, name: str, issued: Issued) -> None:
        self._write(self._folder / f"{name}.key", issued.key_pem)
        self._write(self._folder / f"{name}.pem", issued.pem)

    def _write(self, path: Path, content: bytes) -> None:
        draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
        mode = 0o600 if path.suffix == ".key" else 0o644
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, mode)
        with os.fdopen(descriptor, "wb") as file:
            file.write(content)
        draft.replace(path)
        self.made.append(path)
