"""The key file.

Guarantee: a key file is readable by its owner alone and on disk (file and folder synced) before anything is sealed with what
it holds; a new one is made never over an existing file, a changed one takes the place of the old one whole. A file that is
foreign, open to others or malformed is refused with a message that says what to do.
Limit: whoever reads the key file and the database reads every secret. Keep a copy of the key file apart from the backups.
"""

from __future__ import annotations

import os
import secrets
import stat
from collections.abc import Mapping
from pathlib import Path

from purveyor_server.security.keytext import (
    FIRST_LABEL,
    MAX_BYTES,
    KeyFileError,
    KeyTrouble,
    fresh_key,
    next_label,
    parse,
    written,
)
from purveyor_server.security.sealing import LABEL_RULE, valid_label


class KeyFile:
    """The source of keys that is a file."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.name = f"the key file {path}"

    def load(self) -> dict[str, bytes]:
        """The keys by label, the sealing one first; none when there is no file. Raises KeyFileError."""
        return read(self.path) if os.path.lexists(self.path) else {}

    def first(self) -> dict[str, bytes]:
        """The keys of a store that has none yet: of the file, made when there is none. Raises KeyFileError."""
        try:
            return self.load() or make(self.path)
        except FileExistsError:
            return read(self.path)
        except OSError as failure:
            raise KeyFileError(KeyTrouble.UNREADABLE, f"{self.path} cannot be made: {failure.strerror}") from None

    def add(self, label: str = "") -> str:
        """Put a fresh key before the others, so that it is the next to seal; returns its label. Raises KeyFileError."""
        keys = self.load()
        label = label or next_label(keys)
        if not valid_label(label) or label in keys:
            raise KeyFileError(KeyTrouble.MALFORMED, f"{label!r} is no new label ({LABEL_RULE}) for {self.name}")
        self._replace({label: fresh_key(), **keys})
        return label

    def remove(self, label: str) -> bool:
        """Take a key out; returns whether it was there. Raises KeyFileError."""
        keys = self.load()
        if label not in keys:
            return False
        self._replace({name: key for name, key in keys.items() if name != label})
        return True

    def _replace(self, keys: Mapping[str, bytes]) -> None:
        draft = _draft(self.path)
        try:
            _write_synced(draft, written(keys))
            draft.replace(self.path)
            _sync_folder(self.path.parent)
        except OSError as failure:
            raise KeyFileError(KeyTrouble.UNREADABLE, f"{self.path} cannot be changed: {failure.strerror}") from None
        finally:
            draft.unlink(missing_ok=True)


def read(path: Path) -> dict[str, bytes]:
    """The keys of the file by label, the sealing one first; raises KeyFileError."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as failure:
        raise KeyFileError(KeyTrouble.UNREADABLE, f"{path}: {failure.strerror}") from None
    with os.fdopen(descriptor, "rb") as file:
        _refuse_unsafe(path, os.fstat(file.fileno()))
        text = file.read(MAX_BYTES)
    return parse(str(path), text)


def make(path: Path) -> dict[str, bytes]:
    """Make a key file with one fresh key; raises FileExistsError rather than touch one that is there."""
    keys = {FIRST_LABEL: fresh_key()}
    draft = _draft(path)
    _write_synced(draft, written(keys))
    try:
        # A link never replaces: a crash leaves either no key file or a whole one.
        os.link(draft, path)
    finally:
        draft.unlink()
    _sync_folder(path.parent)
    return keys


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


def _draft(path: Path) -> Path:
    return path.with_name(f".{path.name}.{secrets.token_hex(8)}")


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
