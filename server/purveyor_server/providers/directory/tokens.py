"""Token files: what they hold, and how whoever serves the folder asks whether a token is good.

Guarantee: a token is good when its file names it, compared in constant time, and its time is not over: no broker is asked.
Limit: sessions that began before are the gatekeeper's own to end.
"""

from __future__ import annotations

import hmac
from datetime import UTC, datetime
from pathlib import Path

import msgspec

from purveyor_server.kit.secret import Secret


class TokenFile(msgspec.Struct, frozen=True):
    """The content of a token file. It is 0600: whoever can read it has the token."""

    marker: str
    token: str
    expires_at: datetime | None = None

    def __repr__(self) -> str:
        return f"TokenFile({self.marker!r})"


def encode_token(marker: str, token: Secret, expires_at: datetime | None) -> bytes:
    """The content of a token file."""
    return msgspec.json.encode(TokenFile(marker, token.reveal(), expires_at))


def decode_token(content: bytes | None) -> TokenFile | None:
    """The content; None when it is none of ours."""
    try:
        return msgspec.json.decode(content or b"", type=TokenFile)
    except msgspec.MsgspecError:
        return None


def check_token(file: str | Path, token: str, now: datetime | None = None) -> bool:
    """Whether `token` is good: for the process that serves the folder. False also when the file is gone."""
    try:
        found = decode_token(Path(file).read_bytes())
    except OSError:
        return False
    if found is None or not hmac.compare_digest(found.token.encode(), token.encode()):
        return False
    return found.expires_at is None or found.expires_at > (now or datetime.now(UTC))
