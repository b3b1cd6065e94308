"""Where the server listens: with TLS anywhere, without it on a loopback port or a unix socket.

Guarantee: a unix socket lies in a directory that only we can enter and is never taken over from a living server; a port in
use, a foreign directory, or an address beyond this machine without TLS, is refused with a `ListenError` that names it.
"""

from __future__ import annotations

import errno
import fcntl
import ipaddress
import os
import socket
import stat
from pathlib import Path

import msgspec

_UNIX = "unix:"
_MAX_PATH_BYTES = 107  # sun_path on Linux, without its final zero
_MAX_PORT = 65_535
_PROBE_SECONDS = 1.0
_PRIVATE = 0o700


class ListenError(Exception):
    """The server cannot listen at `address`; `why` is a sentence for the operator."""

    def __init__(self, address: str, why: str) -> None:
        super().__init__(f"cannot listen on {address}: {why}")
        self.address = address
        self.why = why


class Port(msgspec.Struct, frozen=True):
    """A port of this machine; 0 lets the system choose."""

    host: str
    port: int

    @property
    def target(self) -> str:
        """The address in grpc's spelling."""
        return self.bound(self.port)

    def bound(self, port: int) -> str:
        """The address once the port is known."""
        return f"[{self.host}]:{port}" if ":" in self.host else f"{self.host}:{port}"


class UnixSocket(msgspec.Struct, frozen=True):
    """A unix socket at an absolute path."""

    path: Path

    @property
    def target(self) -> str:
        """The address in grpc's spelling."""
        return f"{_UNIX}{self.path}"


Address = Port | UnixSocket


def parse_address(text: str, *, tls: bool = False) -> Address:
    """`host:port` (on loopback, unless with `tls`), `[::1]:port`, or `unix:PATH`. Raises ListenError."""
    if text.startswith(_UNIX):
        return _unix(text)
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not separator or not port.isascii() or not port.isdigit() or int(port) > _MAX_PORT:
        raise ListenError(text, "an address is host:port, [ipv6]:port or unix:PATH")
    if tls and not _is_ip_address(host):
        raise ListenError(text, "the host is an IP address or localhost")
    if not tls and not _is_loopback(host):
        raise ListenError(text, "this address can be reached from other machines, and that needs TLS; use 127.0.0.1, ::1 or unix:PATH")  # fmt: skip
    return Port("127.0.0.1" if host == "localhost" else host, int(port))


def _unix(text: str) -> UnixSocket:
    given = text.removeprefix(_UNIX)
    if given.startswith("//"):
        given = given.removeprefix("//")
    if not given or "\0" in given:
        raise ListenError(text, "the path of the socket is missing")
    path = Path(given).expanduser().absolute()
    if len(os.fsencode(path)) > _MAX_PATH_BYTES:
        raise ListenError(text, f"the path of a unix socket has at most {_MAX_PATH_BYTES} bytes")
    return UnixSocket(path)


def _is_loopback(host: str) -> bool:
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def _is_ip_address(host: str) -> bool:
    try:
        ipaddress.ip_address(host)
    except ValueError:
        return host == "localhost"
    return True


def probe_port(address: Port) -> None:
    """Raise ListenError when the port cannot be bound; grpc itself does not say why."""
    family = socket.AF_INET6 if ":" in address.host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((address.host, address.port))
            probe.listen(1)
        except OSError as error:
            why = "the port is in use" if error.errno == errno.EADDRINUSE else os.strerror(error.errno or 0).lower()
            raise ListenError(address.target, why) from error


class SocketPlace:
    """A socket path that is ours alone, from `claim()` to `release()`."""

    def __init__(self, address: UnixSocket) -> None:
        self._address = address
        self._lock = -1

    def claim(self) -> None:
        """Make the directory, lock the place, remove a stale socket. Raises ListenError."""
        try:
            self._claim_directory(self._address.path.parent)
            self._claim_lock()
            self._remove_stale()
        except OSError as error:
            self.release()
            raise self._refusal(os.strerror(error.errno or 0).lower()) from error
        except ListenError:
            self.release()
            raise

    def _claim_directory(self, directory: Path) -> None:
        try:
            directory.mkdir(mode=_PRIVATE, parents=True)
        except FileExistsError:
            found = directory.stat()
            if found.st_uid != os.geteuid():
                raise self._refusal(f"the directory {directory} belongs to another user") from None
            if stat.S_IMODE(found.st_mode) & 0o077:
                raise self._refusal(f"others can enter the directory {directory}; chmod 700 it, or choose another") from None  # fmt: skip

    def _claim_lock(self) -> None:
        path = self._address.path.with_name(self._address.path.name + ".lock")
        self._lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            fcntl.flock(self._lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise self._refusal("a living server uses this socket") from None

    def _remove_stale(self) -> None:
        path = self._address.path
        if not os.path.lexists(path):
            return
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise self._refusal("there is something that is no socket")
        if _answers(path):
            raise self._refusal("a living server uses this socket")
        path.unlink()

    def _refusal(self, why: str) -> ListenError:
        return ListenError(self._address.target, why)

    def release(self) -> None:
        """Give the place back. Idempotent."""
        if self._lock >= 0:
            os.close(self._lock)
            self._lock = -1


def _answers(path: Path) -> bool:
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(_PROBE_SECONDS)
        try:
            probe.connect(str(path))
        except (ConnectionRefusedError, FileNotFoundError):
            return False
        except OSError:
            return True  # somebody is there, even if too busy to answer
    return True
