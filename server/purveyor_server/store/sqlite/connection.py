"""Connections: how the file is made, checked and tuned.

Guarantee: WAL with synchronous=FULL, so an answered command survives a power cut; files of our own are made with mode
0600; a file that is not ours, damaged or newer is refused with words and left as it was.
Limit: damage is looked for in the header and in our own settings; pages of rows are found when they are read.
"""

from __future__ import annotations

import os
import sqlite3
import stat
import struct
from collections.abc import Callable
from pathlib import Path

import structlog

from purveyor_server.store.sqlite.errors import StoreOpenError, StoreOpenKind, kind_of
from purveyor_server.store.sqlite.settings import SqliteSettings

_log = structlog.get_logger(__name__)

APPLICATION_ID = 0x50525659  # "PRVY"
MAGIC = b"SQLite format 3\x00"
HEADER_BYTES = 100
STATEMENT_CACHE = 512

Connect = Callable[[Path, SqliteSettings], sqlite3.Connection]


def connect_writer(path: Path, settings: SqliteSettings) -> sqlite3.Connection:
    """The writer's connection: explicit transactions, used by its thread after the start."""
    connection = sqlite3.connect(
        path,
        timeout=settings.busy_timeout.total_seconds(),
        isolation_level=None,
        check_same_thread=False,
        cached_statements=STATEMENT_CACHE,
    )
    try:
        _tune(connection, settings)
    except BaseException:
        connection.close()
        raise
    return connection


def _tune(connection: sqlite3.Connection, settings: SqliteSettings) -> None:
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        "secure_delete = FAST",
        "temp_store = MEMORY",
        f"cache_size = {-settings.cache_bytes // 1024}",
        f"wal_autocheckpoint = {settings.wal_autocheckpoint_pages}",
        f"journal_size_limit = {settings.wal_limit_bytes}",
    ):
        connection.execute(f"PRAGMA {pragma}")


def prepare_folder(path: Path) -> None:
    """Make the folder of the database (0700) when it is not there. Raises StoreOpenError(UNWRITABLE)."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as error:
        raise StoreOpenError(StoreOpenKind.UNWRITABLE, f"{path.parent} is no folder: {error.strerror}") from error


def prepare_file(path: Path) -> None:
    """Make the file (0600) when it is not there; check its header when it is.

    Raises StoreOpenError: UNWRITABLE, NOT_A_DATABASE, CORRUPT.
    """
    try:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    except OSError as error:
        raise StoreOpenError(StoreOpenKind.UNWRITABLE, f"{path} cannot be written: {error.strerror}") from error
    try:
        _narrow(descriptor, path)
        _check_header(os.pread(descriptor, HEADER_BYTES, 0), os.fstat(descriptor).st_size, path)
    finally:
        os.close(descriptor)


def _narrow(descriptor: int, path: Path) -> None:
    mode = stat.S_IMODE(os.fstat(descriptor).st_mode)
    if mode & 0o077:
        os.fchmod(descriptor, 0o600)
        _log.warning("database file was open to others", path=str(path), mode=oct(mode))


def _check_header(header: bytes, size: int, path: Path) -> None:
    if size == 0:
        return
    if not header.startswith(MAGIC):
        raise StoreOpenError(StoreOpenKind.NOT_A_DATABASE, f"{path} is not a SQLite database")
    if len(header) < HEADER_BYTES:
        raise StoreOpenError(StoreOpenKind.CORRUPT, f"{path} is cut off: {size} bytes")
    (page,) = struct.unpack(">H", header[16:18])
    (pages,) = struct.unpack(">I", header[28:32])
    (application,) = struct.unpack(">I", header[68:72])
    page = 65536 if page == 1 else page
    wal = path.with_name(path.name + "-wal")
    if not wal.exists() and size < page * pages:
        raise StoreOpenError(StoreOpenKind.CORRUPT, f"{path} is cut off: {size} of {page * pages} bytes")
    if application not in {0, APPLICATION_ID}:
        raise StoreOpenError(StoreOpenKind.NOT_A_DATABASE, f"{path} is the database of another program")


def check_owner(connection: sqlite3.Connection, path: Path) -> None:
    """Mark an empty database as ours; refuse one with tables that is not marked. Raises StoreOpenError."""
    application = int(connection.execute("PRAGMA application_id").fetchone()[0])
    tables = int(connection.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0])
    if application == APPLICATION_ID:
        return
    if application or tables:
        raise StoreOpenError(StoreOpenKind.NOT_A_DATABASE, f"{path} is the database of another program")
    connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")


def open_refusal(error: sqlite3.Error, path: Path) -> StoreOpenError:
    """A start-up failure of SQLite in words."""
    kind = kind_of(error)
    if kind.startswith("SQLITE_NOTADB"):
        return StoreOpenError(StoreOpenKind.NOT_A_DATABASE, f"{path} is not a SQLite database")
    if kind.startswith(("SQLITE_CANTOPEN", "SQLITE_READONLY", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_PERM")):
        return StoreOpenError(StoreOpenKind.UNWRITABLE, f"{path} cannot be written: {kind}")
    if kind.startswith(("SQLITE_BUSY", "SQLITE_LOCKED")):
        return StoreOpenError(StoreOpenKind.LOCKED, f"{path} is locked by another program")
    return StoreOpenError(StoreOpenKind.CORRUPT, f"{path} is damaged ({kind}): restore it from a backup")
