"""A copy of the store while it serves.

Guarantee: the copy is the store as of one commit, checked, marked with its time and newest revision, and closed to others
(0600). It is made in one pass under one read snapshot: commits go on beside it, only the log cannot be cut meanwhile.
Limit: the key file is not in it.
"""

from __future__ import annotations

import os
import sqlite3
from datetime import datetime
from pathlib import Path

import msgspec

from purveyor_server.store.operating import Copied
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.settings import SqliteSettings

_SQL = load("upkeep")
BACKUP = "backup"  # the setting that marks a copy


def size_of(path: Path) -> int:
    """Bytes of the database and its log."""
    names = (path, path.with_name(path.name + "-wal"))
    return sum(name.stat().st_size for name in names if name.exists())


def copy(path: Path, target: Path, settings: SqliteSettings, now: datetime) -> Copied:
    """Blocking. Raises sqlite3.Error, OSError; `target` is gone then."""
    os.close(os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600))
    try:
        return _copy(path, target, settings, now)
    except BaseException:
        target.unlink(missing_ok=True)
        raise


def _copy(path: Path, target: Path, settings: SqliteSettings, now: datetime) -> Copied:
    timeout = settings.busy_timeout.total_seconds()
    source = sqlite3.connect(f"file:{path}?mode=ro", uri=True, timeout=timeout, isolation_level=None)
    copied = sqlite3.connect(target, isolation_level=None)
    try:
        source.backup(copied)
        copied.execute("PRAGMA journal_mode = DELETE")
        damage = copied.execute("PRAGMA quick_check(1)").fetchone()[0]
        if damage != "ok":
            raise sqlite3.DatabaseError("the copy is damaged")
        newest = copied.execute(_SQL["newest_revision"]).fetchone()[0]
        earliest = int(copied.execute(_SQL["setting"], ("earliest",)).fetchone()[0])
        made = Copied(now, int(newest) if newest is not None else earliest - 1)
        copied.execute(_SQL["put_setting"], (BACKUP, msgspec.json.encode(made).decode()))
        return made
    finally:
        copied.close()
        source.close()
