"""Kinds of values that settings and catalog share: durations, sizes, addresses, references to secrets.

Guarantee: units are part of the value or of the key's name; a plain listener is on this machine alone, one with TLS anywhere; a secret is only
ever named, by file or by environment variable.
"""

from __future__ import annotations

import ipaddress
import os
import re
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, NamedTuple

from pydantic import AfterValidator, BeforeValidator, Field

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.names import TENANT_RULE, check_tenant

MAX_SOCKET_PATH = 107  # sun_path of Linux without its final zero
_DURATION = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_SIZE = re.compile(r"(\d+)\s*(B|KiB|MiB|GiB|TiB)?")
_BYTES = {None: 1, "B": 1, "KiB": 1024, "MiB": 1024**2, "GiB": 1024**3, "TiB": 1024**4}
_PLAIN_NAMES = {"localhost", "localhost."}


def parse_duration(value: Any) -> timedelta:
    """Seconds as a number, or a text such as `250ms`, `30s`, `10m`, `2h`, `30d`; raises ValueError."""
    if isinstance(value, timedelta):
        return value
    if isinstance(value, int | float) and not isinstance(value, bool) and 0 <= value < 1e10:  # noqa: PLR2004 - 300 years
        return timedelta(seconds=value)
    match = _DURATION.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None or len(match[1]) > 10:  # noqa: PLR2004 - as above
        raise ValueError("must be a number of seconds, or a text like 250ms, 30s, 10m, 2h or 30d")
    return timedelta(seconds=float(match[1]) * _SECONDS[match[2]])


def parse_size(value: Any) -> int:
    """Bytes as a number, or a text such as `64MiB`; raises ValueError."""
    if isinstance(value, int) and not isinstance(value, bool) and value >= 0:
        return value
    match = _SIZE.fullmatch(value.strip()) if isinstance(value, str) else None
    if match is None:
        raise ValueError("must be a number of bytes, or a text like 512KiB, 64MiB or 1GiB")
    return int(match[1]) * _BYTES[match[2]]


def _positive(value: timedelta) -> timedelta:
    if value <= timedelta(0):
        raise ValueError("must be longer than zero")
    return value


def absent() -> Any:
    """Default of a part that is a model of its own: what is absent is read as if it were there and empty."""
    return Field(default_factory=dict, validate_default=True)


def _tenant(value: str) -> str:
    try:
        return check_tenant(value, "")
    except PurveyorError:
        raise ValueError(f"must be a tenant: {TENANT_RULE}") from None


TenantName = Annotated[str, AfterValidator(_tenant)]
Duration = Annotated[timedelta, BeforeValidator(_positive), BeforeValidator(parse_duration)]
Size = Annotated[int, BeforeValidator(parse_size)]


class Address(NamedTuple):
    """Where to listen: a unix socket (`socket`), or a host and port. `text` is how it was written."""

    text: str
    host: str = ""
    port: int = 0
    socket: Path | None = None

    @property
    def loopback(self) -> bool:
        """True when only this machine can reach it."""
        return self.socket is not None or self.host in _PLAIN_NAMES or ipaddress.ip_address(self.host).is_loopback


def parse_address(value: Any) -> Address:
    """`127.0.0.1:7070`, `[::1]:7070`, `localhost:7070` or `unix:/path`; a plain one must not leave the machine."""
    address = parse_tls_address(value)
    if not address.loopback:
        raise ValueError("a listener without TLS must be a loopback address or a unix socket; others go under `tls`")
    return address


def parse_tls_address(value: Any) -> Address:
    """As `parse_address`, and any other address of the machine: `0.0.0.0:7443`, `[::]:7443`."""
    if isinstance(value, Address):
        return value
    if not isinstance(value, str):
        raise ValueError("must be a text like 127.0.0.1:7070 or unix:/run/purveyor/broker.sock")  # noqa: TRY004 - pydantic takes ValueError
    if value.startswith("unix:"):
        return _socket(value)
    return _port(value)


def _socket(text: str) -> Address:
    path = Path(text.removeprefix("unix:")).expanduser()
    if not path.is_absolute():
        raise ValueError("the path of a unix socket must be absolute: unix:/run/purveyor/broker.sock")
    if len(os.fsencode(path)) > MAX_SOCKET_PATH:
        raise ValueError(f"the path of a unix socket has at most {MAX_SOCKET_PATH} bytes")
    return Address(text, socket=path)


def _port(text: str) -> Address:
    host, separator, port = text.rpartition(":")
    host = host.removeprefix("[").removesuffix("]")
    if not (separator and host and port.isascii() and port.isdigit() and int(port) <= 65535):  # noqa: PLR2004 - the highest port
        raise ValueError("must be like 127.0.0.1:7070, [::1]:7070 or unix:/run/purveyor/broker.sock")
    try:
        address = Address(text, host, int(port))
        _ = address.loopback
    except ValueError:
        raise ValueError("the host must be an IP address or localhost") from None
    return address


def parse_addresses(value: Any) -> Any:
    """A list, or one text with commas (as an environment variable has it)."""
    return [part.strip() for part in value.split(",")] if isinstance(value, str) else value


def is_reference(value: Any) -> bool:
    """Whether `value` names a secret: `{file: PATH}` or `{env: NAME}`."""
    return (
        isinstance(value, dict)
        and len(value) == 1
        and all(kind in {"file", "env"} and isinstance(target, str) and target for kind, target in value.items())
    )
