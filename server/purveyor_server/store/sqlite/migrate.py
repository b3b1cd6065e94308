"""Numbered migrations, each applied once in a transaction of its own.

Guarantee: the schema is that of all known files, in order, or the store does not open; a file that changed after it was
applied, or a database that is newer than this program, is refused and left as it was.
"""

from __future__ import annotations

import hashlib
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import msgspec

from purveyor_server.store.sqlite.errors import StoreOpenError, StoreOpenKind

FOLDER = Path(__file__).parent / "migrations"
_RECORD = """CREATE TABLE IF NOT EXISTS migrations (
    number INTEGER PRIMARY KEY, name TEXT NOT NULL, checksum TEXT NOT NULL) STRICT"""


class Migration(msgspec.Struct, frozen=True):
    """One file: `0001_initial.sql` has the number 1."""

    number: int
    name: str
    text: str

    @property
    def checksum(self) -> str:
        """SHA-256 of the text, in hex."""
        return hashlib.sha256(self.text.encode()).hexdigest()


def known(folder: Path = FOLDER) -> tuple[Migration, ...]:
    """The migrations of this program, by number."""
    files = sorted(folder.glob("*.sql"))
    found = tuple(Migration(int(f.name[:4]), f.name, f.read_text(encoding="utf-8")) for f in files)
    if [migration.number for migration in found] != list(range(1, len(found) + 1)):
        raise ValueError("migrations are numbered 1, 2, 3, ... without a gap: " + ", ".join(f.name for f in files))
    return found


def migrate(connection: sqlite3.Connection, migrations: tuple[Migration, ...]) -> int:
    """Bring the database to the newest schema; returns its number. Raises StoreOpenError(NEWER)."""
    newest = migrations[-1].number
    version = int(connection.execute("PRAGMA user_version").fetchone()[0])
    if version > newest:
        raise StoreOpenError(
            StoreOpenKind.NEWER,
            f"the database has schema {version}, this program knows up to {newest}: start a newer program",
        )
    connection.execute(_RECORD)
    _check_applied(connection, migrations, version)
    for migration in migrations:
        if migration.number > version:
            _apply(connection, migration)
    return newest


def _check_applied(connection: sqlite3.Connection, migrations: tuple[Migration, ...], version: int) -> None:
    applied = dict(connection.execute("SELECT number, checksum FROM migrations"))
    for migration in migrations:
        if migration.number <= version and applied.get(migration.number) != migration.checksum:
            raise StoreOpenError(
                StoreOpenKind.NEWER, f"the database was made with another text of {migration.name}: wrong program"
            )


def _apply(connection: sqlite3.Connection, migration: Migration) -> None:
    connection.execute("BEGIN IMMEDIATE")
    try:
        for statement in statements(migration.text):
            connection.execute(statement)
        connection.execute(
            "INSERT INTO migrations (number, name, checksum) VALUES (?, ?, ?)",
            (migration.number, migration.name, migration.checksum),
        )
        connection.execute(f"PRAGMA user_version = {migration.number}")
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def statements(text: str) -> Iterator[str]:
    """The statements of a script; a semicolon within a literal or a comment ends none."""
    pending = ""
    for line in text.splitlines(keepends=True):
        pending += line
        if sqlite3.complete_statement(pending):
            yield pending
            pending = ""
    if pending.strip() and not all(line.startswith("--") for line in pending.strip().splitlines()):
        raise ValueError("a migration ends in the middle of a statement")
