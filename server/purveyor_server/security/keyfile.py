"""The key file, and the keys that a store keeps sealed under it.

Guarantee: a key is made only for a store that has none yet, never over an existing file, readable by its owner alone, and
on disk (file and folder synced) before anything is sealed with it. A key file that is lost, foreign, open to others or
malformed stops the start with a message that says what to do; it is never replaced in silence.
Limit: whoever reads the key file and the database reads every secret. Keep a copy of the key file apart from the backups.

Format: the line `purveyor-keys 1`, then one line `<label> <32 bytes in base64>` per key; the first key seals, each opens.
Empty lines and lines that start with `#` are skipped.
"""

from __future__ import annotations

import base64
import binascii
import os
import secrets
import stat
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from purveyor_server.security.sealing import KEY_BYTES, LABEL_RULE, Sealer, SealError, valid_label

HEADER = "purveyor-keys 1"
MAX_BYTES = 64 * 1024
FIRST_LABEL = "k1"
CHECK, DIGEST, PAGE = "key.check", "key.digest", "key.page"
_CHECK_TEXT = b"purveyor: this store is sealed with this key"


class KeyTrouble(StrEnum):
    """Why a key file is refused."""

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


class MetaStore(Protocol):
    """What unlocking needs of a store (see `store.contract`)."""

    store_id: str

    async def meta(self, name: str) -> bytes | None:
        """A value of the store itself."""
        ...

    async def put_meta(self, name: str, value: bytes) -> bytes:
        """Keep `value` unless there is one already; returns the one that is kept."""
        ...


class Keyring(msgspec.Struct, frozen=True):
    """What an unlocked store works with. `digest_key` never changes; `page_key` makes page tokens tamper-proof."""

    sealer: Sealer
    digest_key: bytes
    page_key: bytes

    def __repr__(self) -> str:
        return f"Keyring({self.sealer!r})"


async def unlock(store: MetaStore, path: Path) -> Keyring:
    """Open the store's keys with the key file, making both at the first start; raises KeyFileError."""
    check = await store.meta(CHECK)
    sealer = Sealer(_keys(path, may_make=check is None))
    if check is None:
        check = await store.put_meta(CHECK, sealer.seal(store.store_id, CHECK, _CHECK_TEXT))
    _prove(sealer, store.store_id, check, path)
    return Keyring(sealer, await _kept(store, sealer, DIGEST), await _kept(store, sealer, PAGE))


def prove(path: Path, store_id: str, check: bytes | None) -> None:
    """Raise KeyFileError unless the key file opens the store with this sealed check value; None: it never was unlocked."""
    if check is not None:
        _prove(Sealer(read(path)), store_id, check, path)


def read(path: Path) -> dict[str, bytes]:
    """The keys of the file by label, the sealing one first; raises KeyFileError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as failure:
        raise KeyFileError(KeyTrouble.UNREADABLE, f"{path}: {failure.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        _refuse_unsafe(path, os.fstat(file.fileno()))
        text = file.read(MAX_BYTES)
    return _parse(path, text)


def make(path: Path) -> dict[str, bytes]:
    """Make a key file with one fresh key; raises FileExistsError rather than touch one that is there."""
    key = secrets.token_bytes(KEY_BYTES)
    text = f"{HEADER}\n{FIRST_LABEL} {base64.b64encode(key).decode()}\n".encode()
    draft = path.with_name(f".{path.name}.{secrets.token_hex(8)}")
    _write_synced(draft, text)
    try:
        # A link never replaces: a crash leaves either no key file or a whole one.
        os.link(draft, path)
    finally:
        draft.unlink()
    _sync_folder(path.parent)
    return {FIRST_LABEL: key}


def _keys(path: Path, *, may_make: bool) -> dict[str, bytes]:
    if path.exists():
        return read(path)
    if not may_make:
        raise KeyFileError(
            KeyTrouble.LOST,
            f"the key file {path} is missing, and this store is sealed with it; put the file back from its copy"
            " (without it no stored credential can be read; a new key is never made for an existing store)",
        )
    try:
        return make(path)
    except FileExistsError:
        return read(path)
    except OSError as failure:
        raise KeyFileError(KeyTrouble.UNREADABLE, f"{path} cannot be made: {failure.strerror}") from None


def _prove(sealer: Sealer, store_id: str, check: bytes, path: Path) -> None:
    try:
        sealer.open(store_id, CHECK, check)
    except SealError:
        raise KeyFileError(
            KeyTrouble.MISMATCH,
            f"the key file {path} does not belong to this store; put back the key file that was made with it",
        ) from None


async def _kept(store: MetaStore, sealer: Sealer, name: str) -> bytes:
    """The store's own key `name`: minted once, sealed, never changed."""
    sealed = await store.meta(name)
    if sealed is None:
        sealed = await store.put_meta(name, sealer.seal(store.store_id, name, secrets.token_bytes(KEY_BYTES)))
    try:
        return sealer.open(store.store_id, name, sealed)
    except SealError as failure:
        raise KeyFileError(KeyTrouble.MISMATCH, f"the stored {name} cannot be opened: {failure}") from None


def _refuse_unsafe(path: Path, status: os.stat_result) -> None:
    if not stat.S_ISREG(status.st_mode):
        raise KeyFileError(KeyTrouble.UNSAFE, f"{path} is not a regular file")
    if status.st_uid != os.geteuid():
        raise KeyFileError(
            KeyTrouble.UNSAFE, f"{path} belongs to uid {status.st_uid}; it must belong to uid {os.geteuid()}"
        )
    if mode := stat.S_IMODE(status.st_mode) & 0o077:
        raise KeyFileError(
            KeyTrouble.UNSAFE, f"{path} is open to others (mode bits {mode:03o}); take them away: chmod 600 {path}"
        )
    if status.st_size > MAX_BYTES:
        raise KeyFileError(KeyTrouble.MALFORMED, f"{path} is larger than {MAX_BYTES} bytes")


def _parse(path: Path, text: bytes) -> dict[str, bytes]:
    lines = [line.strip() for line in text.decode("ascii", errors="replace").splitlines()]
    numbered = [(number, line) for number, line in enumerate(lines, 1) if line and not line.startswith("#")]
    if not numbered or numbered[0][1] != HEADER:
        raise KeyFileError(KeyTrouble.MALFORMED, f"{path} is not a key file: its first line is not {HEADER!r}")
    keys: dict[str, bytes] = {}
    for number, line in numbered[1:]:
        label, _, encoded = line.partition(" ")
        key = _decoded(encoded.strip())
        if key is None or not valid_label(label) or label in keys:
            raise KeyFileError(
                KeyTrouble.MALFORMED,
                f"{path}:{number}: expected a new label ({LABEL_RULE}) and {KEY_BYTES} bytes in base64",
            )
        keys[label] = key
    if not keys:
        raise KeyFileError(KeyTrouble.MALFORMED, f"{path} holds no key")
    return keys


def _decoded(encoded: str) -> bytes | None:
    try:
        key = base64.b64decode(encoded, validate=True)
    except (binascii.Error, ValueError):
        return None
    return key if len(key) == KEY_BYTES else None


def _write_synced(path: Path, text: bytes) -> None:
    descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
