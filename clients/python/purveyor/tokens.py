"""The bearer token of a client: a text, or a file that is read again when it changes.

Guarantee: a token goes over TLS, a unix socket or a loopback address alone; with another address the client is refused
before anything is sent. A file that was replaced counts for the next call, a second later at most; one that cannot be used
keeps the token that was there. No part of a token is in a message or a repr.
"""

from __future__ import annotations

import ipaddress
import os
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from purveyor.errors import InvalidRequestError, Violation

if TYPE_CHECKING:
    from collections.abc import Callable
    from os import PathLike

    import grpc.aio

VARIABLE = "PURVEYOR_TOKEN"
FILE_VARIABLE = "PURVEYOR_TOKEN_FILE"
LOOK_SECONDS = 1.0
MAX_BYTES = 6000


class TokenSource:
    """Where a token comes from. Raises InvalidRequestError for one that cannot be used."""

    def __init__(self, text: str = "", file: Path | None = None) -> None:
        self._file = file
        self._stamp = stamp(file) if file is not None else ()
        self._text = read(file) if file is not None else checked("token", text)
        self._looked_at = time.monotonic()
        self.renewals = 0

    def __repr__(self) -> str:
        return f"TokenSource(file={str(self._file)!r})" if self._file is not None else "TokenSource(***)"

    def metadata(self) -> tuple[tuple[str, str], ...]:
        """What goes with a call that begins now."""
        if self._file is not None and time.monotonic() - self._looked_at >= LOOK_SECONDS:
            self._renew(self._file)
        return (("authorization", f"Bearer {self._text}"),)

    def is_stale(self) -> bool:
        """Whether the file holds another token than the one in use; it is in use then."""
        before = self.renewals
        if self._file is not None:
            self._renew(self._file)
        return self.renewals != before

    def _renew(self, file: Path) -> None:
        self._looked_at = time.monotonic()
        now = stamp(file)
        if now == self._stamp:
            return
        try:
            text = read(file)
        except InvalidRequestError:
            return  # half written, or gone for a moment: looked at again
        self._stamp = now
        if text != self._text:
            self._text = text
            self.renewals += 1


class TokenChannel:
    """A channel that adds the token to every call; what generated stubs need of a channel, and no more."""

    def __init__(self, channel: grpc.aio.Channel, token: TokenSource) -> None:
        self._channel = channel
        self._token = token

    def unary_unary(self, *arguments: Any, **named: Any) -> Callable[..., Any]:
        """As `grpc.aio.Channel`."""
        return self._adding(self._channel.unary_unary(*arguments, **named))

    def unary_stream(self, *arguments: Any, **named: Any) -> Callable[..., Any]:
        """As `grpc.aio.Channel`."""
        return self._adding(self._channel.unary_stream(*arguments, **named))

    def stream_unary(self, *arguments: Any, **named: Any) -> Callable[..., Any]:
        """As `grpc.aio.Channel`."""
        return self._adding(self._channel.stream_unary(*arguments, **named))

    def _adding(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(request: Any, **named: Any) -> Any:
            return method(request, metadata=self._token.metadata(), **named)

        return call


def choose(token: str | None, file: str | PathLike[str] | None, address: str, *, secure: bool) -> TokenSource | None:
    """What a client was given; without that, what the environment says. Raises InvalidRequestError."""
    if token and file:
        raise _refused("token", "give a token or a token_file, not both")
    if token is None and file is None:
        token, file = os.environ.get(VARIABLE) or None, os.environ.get(FILE_VARIABLE) or None
        file = None if token else file
    if not token and not file:
        return None
    if not secure and not is_local(address):
        raise _refused("token", f"is sent over TLS, a unix socket or loopback alone, and {address} is none of these")
    return TokenSource(file=Path(file).expanduser()) if file else TokenSource(token or "")


def is_local(address: str) -> bool:
    """Whether what is sent to this target stays on this machine."""
    if address.startswith("unix:"):
        return True
    text = address.removeprefix("dns:").removeprefix("ipv4:").removeprefix("ipv6:").lstrip("/")
    host = text.rpartition(":")[0].strip("[]").lower()
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def read(file: Path) -> str:
    """The token in a file. Raises InvalidRequestError that names it."""
    try:
        with file.open("rb") as stream:
            content = stream.read(MAX_BYTES + 2)
    except OSError as error:
        raise _refused("token_file", f"{file}: {(error.strerror or 'cannot be read').lower()}") from error
    return checked(f"token_file {file}", content.decode("ascii", "replace").strip())


def checked(what: str, text: str) -> str:
    """A token that can be sent. Raises InvalidRequestError."""
    if not text or len(text) > MAX_BYTES or not text.isascii() or not text.isprintable() or " " in text:
        raise _refused(what, f"is no token: 1 to {MAX_BYTES} printable ASCII characters without blanks")
    return text


def stamp(file: Path) -> tuple[int, ...]:
    """What changes when a file is written or replaced; empty while it is not there."""
    try:
        found = file.stat()
    except OSError:
        return ()
    return found.st_mtime_ns, found.st_ctime_ns, found.st_size, found.st_ino


def _refused(what: str, description: str) -> InvalidRequestError:
    return InvalidRequestError(
        f"{what}: {description}",
        reason="INVALID_REQUEST",
        violations=(Violation(what.split(" ", maxsplit=1)[0], description),),
    )
