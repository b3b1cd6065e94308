"""Secrets at rest: AES-256-GCM under a key of the row's own, bound to the row and column that they belong to.

Guarantee: what `seal` returns opens only with the same labelled key, the same `owner` (uid of the row) and the same `name`
(column); a sealed value that was moved, cut or changed in any bit raises `SealError`, which says nothing of the clear text.
No two rows share a key: each key is derived from the labelled one and the row's uid (HKDF-SHA256, RFC 5869).
Limit: a column can be rolled back to an older sealed value of the same row and column. Random 96-bit nonces allow about
four thousand million seals per row and labelled key (NIST SP 800-38D section 8.3).

Format: version byte, length of the key label (1 byte), label, nonce (12 bytes), ciphertext with its 16-byte tag. All that
stands before the nonce is authenticated too. Version 2 is sealed with the row's key; version 1, sealed with the labelled key
itself by earlier programs, is opened and never written.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Mapping
from functools import lru_cache
from typing import NamedTuple

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

KEY_BYTES = 32
LABEL_RULE = "1 to 32 of a-z, 0-9 and '-'"
HEAD_BYTES = 2 + 32  # of a sealed value: enough to tell version and label
_LABEL = re.compile(r"[a-z0-9-]{1,32}")
_DIRECT, _VERSION = 1, 2
_VERSIONS = frozenset({_DIRECT, _VERSION})
_NONCE_BYTES = 12
_TAG_BYTES = 16
_INFO = b"purveyor row key 2\0"


class SealError(Exception):
    """A sealed value cannot be opened. Its message holds neither the clear text nor any part of a key."""


class _Keys(NamedTuple):
    """What a sealer works with at one moment."""

    primary: str
    by_label: Mapping[str, bytes]


class Sealer:
    """Seals with the first of `keys` (label -> 32 bytes), opens with any of them. May be used by several threads."""

    def __init__(self, keys: Mapping[str, bytes]) -> None:
        self._keys = _checked(keys)

    def __repr__(self) -> str:
        return f"Sealer({', '.join(self._keys.by_label)})"

    @property
    def primary(self) -> str:
        """The label of the key that seals."""
        return self._keys.primary

    def fits(self, keys: Mapping[str, bytes]) -> bool:
        """Whether no label that is here names another key there."""
        held = self._keys.by_label
        return all(held.get(label, key) == key for label, key in keys.items())

    def adopt(self, keys: Mapping[str, bytes]) -> None:
        """From now on seal with the first of `keys`. Keys that were here before still open: their values may be in memory.

        Raises ValueError unless they fit.
        """
        if not self.fits(keys):
            raise ValueError("a label names another key than before")
        given = _checked(keys)
        self._keys = _Keys(given.primary, {**self._keys.by_label, **given.by_label})

    def seal(self, owner: str, name: str, clear: bytes) -> bytes:
        """`clear`, sealed for the column `name` of the row `owner`; different bytes on every call."""
        keys = self._keys
        head = _head(_VERSION, keys.primary)
        nonce = secrets.token_bytes(_NONCE_BYTES)
        cipher = _row_cipher(keys.by_label[keys.primary], owner)
        return head + nonce + cipher.encrypt(nonce, clear, _bound(head, owner, name))

    def open(self, owner: str, name: str, sealed: bytes) -> bytes:
        """The clear text; raises SealError when it was not sealed for exactly this row and column."""
        label = label_of(sealed)
        key = self._keys.by_label.get(label)
        if key is None:
            raise SealError(f"no key is labelled {label!r}")
        head = _head(sealed[0], label)
        nonce, body = sealed[len(head) : len(head) + _NONCE_BYTES], sealed[len(head) + _NONCE_BYTES :]
        cipher = AESGCM(key) if sealed[0] == _DIRECT else _row_cipher(key, owner)
        try:
            return cipher.decrypt(nonce, body, _bound(head, owner, name))
        except InvalidTag:
            # Without its context: nothing of the failed decryption belongs into a traceback.
            raise SealError("the value was changed, moved, or sealed with another key") from None

    def is_current(self, sealed: bytes) -> bool:
        """Whether a sealed value, or its first HEAD_BYTES, has the newest format under the key that seals."""
        head = _head(_VERSION, self._keys.primary)
        return sealed[: len(head)] == head


def label_of(sealed: bytes) -> str:
    """The label of the key that sealed a value; raises SealError when the bytes are no sealed value."""
    label = label_in(sealed)
    if len(sealed) < 2 + len(label) + _NONCE_BYTES + _TAG_BYTES:
        raise SealError("the sealed value is cut or malformed")
    return label


def label_in(head: bytes) -> str:
    """The label in the first HEAD_BYTES of a sealed value; raises SealError."""
    if len(head) < 2 or head[0] not in _VERSIONS:  # noqa: PLR2004 - version and length byte
        raise SealError("not a sealed value of a known version")
    label = head[2 : 2 + head[1]].decode("ascii", errors="replace")
    if len(label) != head[1] or not valid_label(label):
        raise SealError("the sealed value is cut or malformed")
    return label


def valid_label(label: str) -> bool:
    """Whether `label` may name a key."""
    return _LABEL.fullmatch(label) is not None


def _checked(keys: Mapping[str, bytes]) -> _Keys:
    for label, key in keys.items():
        if not valid_label(label) or len(key) != KEY_BYTES:
            raise ValueError("a sealing key has a label of a-z, 0-9 and '-' and 32 bytes")
    if not keys:
        raise ValueError("a sealer needs at least one key")
    return _Keys(next(iter(keys)), dict(keys))


@lru_cache(maxsize=1024)  # one operation seals and opens several values of one row
def _row_cipher(key: bytes, owner: str) -> AESGCM:
    return AESGCM(HKDF(SHA256(), KEY_BYTES, salt=None, info=_INFO + owner.encode()).derive(key))


def _head(version: int, label: str) -> bytes:
    return bytes((version, len(label))) + label.encode("ascii")


def _bound(head: bytes, owner: str, name: str) -> bytes:
    """Associated data: lengths in front keep ("ab", "c") and ("a", "bc") apart."""
    parts = (head, owner.encode(), name.encode())
    return b"".join(len(part).to_bytes(4, "big") + part for part in parts)
