"""Where the broker listens.

`unix:/path`, `/path`, `host:port` and `dns:///name:port` are understood. Without an address: PURVEYOR_ADDRESS, else the
socket of `purveyor serve --dev`.
"""

from __future__ import annotations

import os
import tempfile
from pathlib import Path

from purveyor.errors import InvalidRequestError, Violation

ADDRESS_VARIABLE = "PURVEYOR_ADDRESS"
ADMIN_VARIABLE = "PURVEYOR_ADMIN_ADDRESS"
MAX_SOCKET_PATH_BYTES = 107  # sun_path of Linux, less its closing zero


def default_address() -> str:
    """The socket of `purveyor serve --dev` of this user."""
    return f"unix:{dev_folder() / 'broker.sock'}"


def dev_folder() -> Path:
    """Where `purveyor serve --dev` keeps its things unless told otherwise."""
    return Path(tempfile.gettempdir()) / f"purveyor-dev-{os.getuid()}"


def resolve(address: str | None) -> str:
    """A target for a gRPC channel. Raises InvalidRequestError, naming what is wrong."""
    return _target((address or os.environ.get(ADDRESS_VARIABLE) or default_address()).strip())


def resolve_admin(address: str | None) -> str:
    """As `resolve`, for the admin listener: PURVEYOR_ADMIN_ADDRESS, else the admin socket of `purveyor serve --dev`."""
    default = f"unix:{dev_folder() / 'admin.sock'}"
    return _target((address or os.environ.get(ADMIN_VARIABLE) or default).strip())


def _target(text: str) -> str:
    if text.startswith("/"):
        text = f"unix:{text}"
    if text.startswith("unix:"):
        return _unix(text)
    if text.startswith(("dns:", "ipv4:", "ipv6:")):
        return text
    return _host_and_port(text)


def _unix(text: str) -> str:
    path = text.removeprefix("unix:")
    if path.startswith("///"):
        path = path[2:]
    if not path or len(path.encode()) > MAX_SOCKET_PATH_BYTES:
        raise _refused(text, f"a socket path has 1 to {MAX_SOCKET_PATH_BYTES} bytes")
    return f"unix:{path}"


def _host_and_port(text: str) -> str:
    host, separator, port = text.rpartition(":")
    if not separator or not host or not port.isdecimal() or not 0 < int(port) < 2**16:
        raise _refused(text, "give unix:/path or host:port")
    return text


def _refused(text: str, description: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"address {text!r}: {description}", reason="INVALID_REQUEST", violations=(Violation("address", description),)
    )
