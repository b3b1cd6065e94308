"""Secrets at rest: AES-256-GCM, bound to the row and column they belong to.

Guarantee: what `seal` returns opens only with the same key, the same `owner` (uid of the row) and the same `name`
(column); a sealed value that was moved, cut or changed in any bit raises `SealError`, which says nothing of the clear text.
Limit: the whole column can be rolled back to an older sealed value of the same row and column. Random 96-bit nonces allow
about four thousand million seals per key (NIST SP 800-38D section 8.3).

Format: version byte 1, length of the key label (1 byte), label, nonce (12 bytes), ciphertext with its 16-byte tag. All that
stands before the nonce is authenticated too. The label lets several keys live side by side while values are sealed again.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

KEY_BYTES = 32
LABEL_RULE = "1 to 32 of a-z, 0-9 and '-'"
_LABEL = re.compile(r"[a-z0-9-]{1,32}")
_VERSION = 1
_NONCE_BYTES = 12
_TAG_BYTES = 16


class SealError(Exception):
    """A sealed value cannot be opened. Its message holds neither the clear text nor any part of a key."""


class Sealer:
    """Seals with the first of `keys` (label -> 32 bytes), opens with any of them."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        for label, key in keys.items():
            if not valid_label(label) or len(key) != KEY_BYTES:
                raise ValueError("a sealing key has a label of a-z, 0-9 and '-' and 32 bytes")
        if not keys:
            raise ValueError("a sealer needs at least one key")
        self._label = next(iter(keys))
        self._ciphers = {label: AESGCM(key) for label, key in keys.items()}

    def __repr__(self) -> str:
        return f"Sealer({', '.join(self._ciphers)})"

    def seal(self, owner: str, name: str, clear: bytes) -> bytes:
        """`clear`, sealed for the column `name` of the row `owner`; different bytes on every call."""
        head = _head(self._label)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        return head + nonce + self._ciphers[self._label].encrypt(nonce, clear, _bound(head, owner, name))

    def open(self, owner: str, name: str, sealed: bytes) -> bytes:
        """The clear text; raises SealError when it was not sealed for exactly this row and column."""
        label = label_of(sealed)
        cipher = self._ciphers.get(label)
        if cipher is None:
            raise SealError(f"no key is labelled {label!r}")
        head = _head(label)
        nonce, body = sealed[len(head) : len(head) + _NONCE_BYTES], sealed[len(head) + _NONCE_BYTES :]
        try:
            return cipher.decrypt(nonce, body, _bound(head, owner, name))
        except InvalidTag:
            # Without its context: nothing of the failed decryption belongs into a traceback.
            raise SealError("the value was changed, moved, or sealed with another key") from None


def label_of(sealed: bytes) -> str:
    """The label of the key that sealed a value; raises SealError when the bytes are no sealed value."""
    if len(sealed) < 2 or sealed[0] != _VERSION:  # noqa: PLR2004 - version and length byte
        raise SealError("not a sealed value of a known version")
    end = 2 + sealed[1]
    label = sealed[2:end].decode("ascii", errors="replace")
    if len(sealed) < end + _NONCE_BYTES + _TAG_BYTES or not valid_label(label):
        raise SealError("the sealed value is cut or malformed")
    return label


def valid_label(label: str) -> bool:
    """Whether `label` may name a key."""
    return _LABEL.fullmatch(label) is not None


def _head(label: str) -> bytes:
    return bytes((_VERSION, len(label))) + label.encode("ascii")


def _bound(head: bytes, owner: str, name: str) -> bytes:
    """Associated data: lengths in front keep ("ab", "c") and ("a", "bc") apart."""
    parts = (head, owner.encode(), name.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
