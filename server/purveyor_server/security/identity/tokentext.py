"""The text of a static token: `pvt_<id>_<secret><checksum>`.

Guarantee: the secret is 256 random bits from the operating system; the checksum lets whoever scans files for lost secrets
tell a token from chance, and refuses a mistyped one before anything is looked up.
Limit: the checksum is no secret and proves nothing.
Source: the form follows GitHub's tokens (prefix, base 62, CRC32), which scanners know how to search for.
"""

from __future__ import annotations

import hashlib
import re
import secrets
import zlib
from typing import NamedTuple

PREFIX = "pvt_"
_FORM = re.compile(r"pvt_([0-9a-z]{16})_([0-9A-Za-z]{43})([0-9A-Za-z]{6})")
_DIGITS = "0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz"
_LOWER = "0123456789abcdefghijklmnopqrstuvwxyz"
_ID_LENGTH, _SECRET_LENGTH, _CHECK_LENGTH = 16, 43, 6


class Minted(NamedTuple):
    """A fresh token: what its holder gets, once, and what is kept of it."""

    token_id: str
    text: str
    hash: bytes

    def __repr__(self) -> str:
        return f"Minted({self.token_id!r})"


class Shown(NamedTuple):
    """A token as it was shown: which one it claims to be, and the hash of its secret."""

    token_id: str
    hash: bytes


def mint() -> Minted:
    """A fresh token."""
    token_id = "".join(secrets.choice(_LOWER) for _ in range(_ID_LENGTH))
    secret = _based(int.from_bytes(secrets.token_bytes(32), "big"), _SECRET_LENGTH)
    stem = f"{PREFIX}{token_id}_{secret}"
    return Minted(token_id, stem + _checksum(stem), digest(secret))


def parse(text: str) -> Shown | None:
    """The token that `text` is; None when it is none, or is damaged."""
    found = _FORM.fullmatch(text)
    if found is None or _checksum(text[:-_CHECK_LENGTH]) != found[3]:
        return None
    return Shown(found[1], digest(found[2]))


def digest(secret: str) -> bytes:
    """What is kept of a secret."""
    return hashlib.sha256(secret.encode("ascii")).digest()


def _checksum(stem: str) -> str:
    return _based(zlib.crc32(stem.encode("ascii")), _CHECK_LENGTH)


def _based(number: int, length: int) -> str:
    digits = []
    for _ in range(length):
        number, digit = divmod(number, len(_DIGITS))
        digits.append(_DIGITS[digit])
    assert number == 0, "the length holds every number"
    return "".join(reversed(digits))
