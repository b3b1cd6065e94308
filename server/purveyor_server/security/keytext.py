"""Labelled keys as text, in a file, an environment variable or the output of a command.

Guarantee: what is malformed is refused with its source and line, and no message holds any part of a key.

Format: the line `purveyor-keys 1`, then one line `<label> <32 bytes in base64>` per key; the first key seals, each opens.
Empty lines and lines that start with `#` are skipped.
"""

from __future__ import annotations

import base64
import binascii
import secrets
from collections.abc import Mapping
from enum import StrEnum

from purveyor_server.security.sealing import KEY_BYTES, LABEL_RULE, valid_label

HEADER = "purveyor-keys 1"
MAX_BYTES = 64 * 1024
FIRST_LABEL = "k1"


class KeyTrouble(StrEnum):
    """Why keys are refused."""

    LOST = "KEY_LOST"
    MISMATCH = "KEY_MISMATCH"
    UNSAFE = "KEY_UNSAFE"
    MALFORMED = "KEY_MALFORMED"
    UNREADABLE = "KEY_UNREADABLE"


class KeyFileError(Exception):
    """The store cannot be unlocked; `message` says what to do and holds no part of a key."""

    def __init__(self, trouble: KeyTrouble, message: str) -> None:
        super().__init__(f"{trouble}: {message}")
        self.trouble = trouble
        self.message = message


def parse(source: str, text: bytes, *, with_header: bool = True) -> dict[str, bytes]:
    """The keys by label, the sealing one first. Raises KeyFileError, which names `source`."""
    lines = [line.strip() for line in text.decode("ascii", errors="replace").splitlines()]
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    if with_header:
        if not numbered or numbered[0][1] != HEADER:
            raise KeyFileError(KeyTrouble.MALFORMED, f"{source} holds no keys: its first line is not {HEADER!r}")
        del numbered[0]
    keys: dict[str, bytes] = {}
    for number, line in numbered:
        label, _, encoded = line.partition(" ")
        key = _decoded(encoded.strip())
        if key is None or not valid_label(label) or label in keys:
            raise KeyFileError(
                KeyTrouble.MALFORMED,
                f"{source}:{number}: expected a new label ({LABEL_RULE}) and {KEY_BYTES} bytes in base64",
            )
        keys[label] = key
    if not keys:
        raise KeyFileError(KeyTrouble.MALFORMED, f"{source} holds no key")
    return keys


def line_of(label: str, key: bytes) -> str:
    """A key as its line."""
    return f"{label} {base64.b64encode(key).decode()}"


def written(keys: Mapping[str, bytes]) -> bytes:
    """Keys as text."""
    return "\n".join((HEADER, *(line_of(label, key) for label, key in keys.items()), "")).encode()


def fresh_key() -> bytes:
    """A new key."""
    return secrets.token_bytes(KEY_BYTES)


def next_label(labels: Mapping[str, bytes]) -> str:
    """A label that none of these has: k1, k2, ..."""
    number = 1
    while f"k{number}" in labels:
        number += 1
    return f"k{number}"


def _decoded(encoded: str) -> bytes | None:
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None
