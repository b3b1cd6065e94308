"""TLS on the way to the broker: which files, and what they become.

Guarantee: a file that cannot be read is refused by its name before anything is sent; nothing of a key is shown.
Files that change are read again by a client that is open: see `channels`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass, fields
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING

from purveyor.errors import InvalidRequestError, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    import grpc

VARIABLE = "PURVEYOR_TLS_{name}"
SYSTEM = "system"  # as `ca`: the authorities that gRPC brings along, or GRPC_DEFAULT_SSL_ROOTS_FILE_PATH
OF_A_SOCKET = "localhost"  # what a server is called that is reached by a unix socket


@dataclass(frozen=True)
class Tls:
    """How to speak TLS with a broker.

    `ca`: a file with the authorities that its certificate must be of (PEM); "system" for those of the machine.
    `certificate`, `key`: files with the client's own (PEM, the key without a passphrase), where the broker asks for one.
    `server_name`: what the broker's certificate is for, where that is not the host of the address.
    """

    ca: str | PathLike[str] = SYSTEM
    certificate: str | PathLike[str] = ""
    key: str | PathLike[str] = ""
    server_name: str = ""

    @classmethod
    def of(cls, values: Mapping[str, str]) -> Tls | None:
        """From its fields by name; None when all of them are empty."""
        given = {field.name: values[field.name] for field in fields(cls) if values.get(field.name)}
        return cls(**given) if given else None

    @classmethod
    def from_environment(cls) -> Tls | None:
        """By PURVEYOR_TLS_CA, _CERTIFICATE, _KEY and _SERVER_NAME; None when none of them is set."""
        names = {field.name: VARIABLE.format(name=field.name.upper()) for field in fields(cls)}
        return cls.of({name: os.environ.get(variable, "") for name, variable in names.items()})

    def credentials(self) -> grpc.ChannelCredentials:
        """For a channel. Raises InvalidRequestError, naming the field."""
        import grpc  # noqa: PLC0415 - contexts are kept without gRPC

        if bool(self.certificate) != bool(self.key):
            missing = "key" if self.certificate else "certificate"
            raise _refused(f"tls {missing}", "certificate and key go together")
        authorities = None if self.ca == SYSTEM else _read("tls ca", self.ca)
        if not self.certificate:
            return grpc.ssl_channel_credentials(authorities)
        pair = _read("tls key", self.key), _read("tls certificate", self.certificate)
        _judge_pair(self.certificate, self.key)
        return grpc.ssl_channel_credentials(authorities, *pair)

    def stamp(self) -> tuple[object, ...]:
        """What changes when one of the files is written or replaced."""
        paths = [path for path in (self.ca, self.certificate, self.key) if path and path != SYSTEM]
        return tuple(_stamp(path) for path in paths)

    def options(self, address: str) -> list[tuple[str, str | int]]:
        """Options of the channel to `address`."""
        name = self.server_name or (OF_A_SOCKET if address.startswith("unix:") else "")
        return [("grpc.ssl_target_name_override", name)] if name else []


def choose(given: Tls | bool | None, address: str) -> Tls | None:  # noqa: FBT001 - as clients take it
    """What a client was given; without that, what the environment says, which is not meant for unix sockets."""
    if given is None:
        return None if address.startswith("unix:") else Tls.from_environment()
    if isinstance(given, bool):
        return Tls() if given else None
    return given


def _read(what: str, path: str | PathLike[str]) -> bytes:
    try:
        content = Path(path).read_bytes()
    except OSError as error:
        raise _refused(what, f"{path}: {(error.strerror or 'cannot be read').lower()}") from error
    if b"-----BEGIN " not in content:
        raise _refused(what, f"{path}: is not PEM")
    return content


def _judge_pair(certificate: str | PathLike[str], key: str | PathLike[str]) -> None:
    """Raises InvalidRequestError for two that do not belong together: gRPC would only fail to connect."""
    import ssl  # noqa: PLC0415 - as above

    try:
        # The password is asked for on the terminal unless there is one.
        ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT).load_cert_chain(certificate, key, password=lambda: "")
    except (ssl.SSLError, OSError, ValueError) as error:
        damaged = "is damaged, has a passphrase, or does not belong to"
        raise _refused("tls key", f"{key}: {damaged} the certificate {certificate}") from error


def _stamp(path: str | PathLike[str]) -> tuple[int, ...]:
    try:
        found = Path(path).stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _refused(what: str, description: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{what}: {description}", reason="INVALID_REQUEST", violations=(Violation(what, description),)
    )
