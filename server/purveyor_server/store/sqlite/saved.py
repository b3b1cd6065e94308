"""Audit records of a saved store: a backup, or the file of a broker that is stopped.

Guarantee: the file is opened for reading alone and nothing of it is changed, not even its log.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from purveyor_server.domain.auditchain import ChainKeys, Verifier
from purveyor_server.store.sqlite import chaining
from purveyor_server.store.sqlite.connection import APPLICATION_ID, MAGIC
from purveyor_server.store.sqlite.errors import StoreOpenError, StoreOpenKind
from purveyor_server.store.sqlite.queries import load

_LINKS = load("audit")["links"]
_READS = load("reads")
_SETTING, _METAS = _READS["setting"], _READS["metas"]
PAGE = 1000
CHAINED = 6  # the schema that has a chain
_ALL = 2**62


@contextmanager
def open_saved(file: Path) -> Iterator[sqlite3.Connection]:
    """The file, to read, for the length of the block. Raises StoreOpenError, OSError."""
    with file.open("rb") as stream:
        if stream.read(len(MAGIC)) != MAGIC:
            raise StoreOpenError(StoreOpenKind.NOT_A_DATABASE, f"{file} is not a backup")
    connection = sqlite3.connect(f"file:{file.resolve()}?mode=ro&immutable=1", uri=True)
    try:
        _check(connection, file)
        yield connection
    except sqlite3.Error as error:
        raise StoreOpenError(StoreOpenKind.CORRUPT, f"{file} is damaged: {error}") from error
    finally:
        connection.close()


def _check(connection: sqlite3.Connection, file: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreOpenError(StoreOpenKind.NOT_A_DATABASE, f"{file} is the database of another program")
    if connection.execute("PRAGMA user_version").fetchone()[0] < CHAINED:
        raise StoreOpenError(StoreOpenKind.CORRUPT, f"{file} is of a time before audit records were chained")


def identity(connection: sqlite3.Connection) -> tuple[str, dict[str, bytes]]:
    """The store's id and its meta values, of what `open_saved` gave."""
    store_id = str(connection.execute(_SETTING, ("store_id",)).fetchone()[0])
    return store_id, dict(connection.execute(_METAS, ("",)).fetchall())


def verified(connection: sqlite3.Connection, keys: ChainKeys, anchors: Mapping[int, bytes]) -> Verifier:
    """The judge of all records, at their end."""
    marks = chaining.read_marks(connection)
    judge = Verifier(keys, marks, anchors)
    last = marks.head.number if marks.head is not None else _ALL
    while page := connection.execute(_LINKS, (judge.number, last, PAGE)).fetchall():
        for row in page:
            judge.feed(chaining.link(row))
    judge.end(marks)
    return judge
