"""Opening a database file: checks, migrations, identity, a new epoch.

Guarantee: what comes back is a store of ours at the newest schema, with an id made once and an epoch never used before;
leases of earlier epochs are void and their operations due.
"""

from __future__ import annotations

import sqlite3
import time
import uuid
from datetime import timedelta
from pathlib import Path

import msgspec
from msgspec.structs import replace

from purveyor_server.kit.clock import Clock
from purveyor_server.kit.ids import new_id
from purveyor_server.store.sqlite import chaining
from purveyor_server.store.sqlite.connection import Connect, check_owner, open_refusal, prepare_file
from purveyor_server.store.sqlite.errors import StoreOpenError, StoreOpenKind
from purveyor_server.store.sqlite.migrate import known, migrate
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.store.sqlite.transaction import Ledger, Transaction
from purveyor_server.store.sqlite.writer import Source

_SQL = load("upkeep")
_SETTING = _SQL["setting"]
_PUT_SETTING = _SQL["put_setting"]
_LEASED = load("claims")["leased"]


class Opened(msgspec.Struct, frozen=True):
    """A database that is ready to be written."""

    connection: sqlite3.Connection
    store_id: str
    epoch: int


def open_file(path: Path, clock: Clock, settings: SqliteSettings, connect: Connect) -> Opened:
    """Blocking. Raises StoreOpenError; the caller holds the lock."""
    prepare_file(path)
    try:
        connection = connect(path, settings)
    except sqlite3.Error as error:
        raise open_refusal(error, path) from error
    try:
        check_owner(connection, path)
        migrate(connection, known())
        return _begin_epoch(connection, clock, path)
    except sqlite3.Error as error:
        connection.close()
        raise open_refusal(error, path) from error
    except BaseException:
        connection.close()
        raise


def _begin_epoch(connection: sqlite3.Connection, clock: Clock, path: Path) -> Opened:
    """Read or make the store's identity, count the opening, void the leases of earlier ones."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        store_id = _setting(connection, "store_id")
        if store_id is None:
            store_id = new_id()
            _put(connection, "store_id", store_id)
            _put(connection, "earliest", "1")
        epoch = int(_setting(connection, "epoch") or "0") + 1
        _put(connection, "epoch", str(epoch))
        uuid.UUID(store_id)
        int(_setting(connection, "earliest") or "")
        _void_leases(connection, clock, epoch)
        connection.execute("COMMIT")
    except (ValueError, msgspec.DecodeError) as error:
        raise StoreOpenError(StoreOpenKind.CORRUPT, f"{path} is damaged: restore it from a backup") from error
    return Opened(connection, store_id, epoch)


def _void_leases(connection: sqlite3.Connection, clock: Clock, epoch: int) -> None:
    transaction = Transaction(connection, clock.now(), Ledger(0, 0, 0), epoch)
    for operation in transaction.operations(_LEASED, ()):
        transaction.put_operation(replace(operation, lease_owner="", due_at=transaction.now), quiet=True)
    transaction.keep()


def _setting(connection: sqlite3.Connection, name: str) -> str | None:
    row = connection.execute(_SETTING, (name,)).fetchone()
    return None if row is None else str(row[0])


def _put(connection: sqlite3.Connection, name: str, value: str) -> None:
    connection.execute(_PUT_SETTING, (name, value))


def read_ledger(connection: sqlite3.Connection) -> Ledger:
    """The committed state, counted: at an opening only."""
    earliest = int(_setting(connection, "earliest") or "1")
    newest = connection.execute(_SQL["newest_revision"]).fetchone()[0]
    pending, parked = connection.execute(_SQL["backlog"]).fetchone()
    head = int(newest) if newest is not None else earliest - 1
    return Ledger(head, pending, parked, chaining.read_tail(connection))


def source(path: Path, settings: SqliteSettings, connect: Connect) -> Source:
    """What the writer needs to begin, to begin again, and to keep its log small."""
    return Source(
        connect=lambda: connect(path, settings), ledger=read_ledger, probe=_probe, upkeep=LogBound(path, settings).keep
    )


def _probe(connection: sqlite3.Connection) -> None:
    """A commit that changes a page: after a failed COMMIT it overwrites the frames that one may have left."""
    connection.execute("BEGIN IMMEDIATE")
    _put(connection, "probe", str(time.time_ns()))
    connection.execute("COMMIT")


class LogBound:
    """Keeps the write-ahead log below its limit while readers come and go."""

    def __init__(self, path: Path, settings: SqliteSettings) -> None:
        self._log = path.with_name(path.name + "-wal")
        self._limit = settings.wal_limit_bytes
        self._period: timedelta = settings.wal_check_every
        self._checked_at = float("-inf")

    def keep(self, connection: sqlite3.Connection) -> None:
        """Restart the log when it is too large; looks at most once per period. Waits for readers at most busy_timeout."""
        now = time.monotonic()
        if now - self._checked_at < self._period.total_seconds():
            return
        self._checked_at = now
        if self._log.exists() and self._log.stat().st_size > self._limit:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
