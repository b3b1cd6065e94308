"""Databases with very many records, made from a few real ones by SQL.

Guarantee: every row has the columns and indexes of the schema, since it is a row that the broker itself has written with its
ids, uids and tenants replaced, in the columns and in the body alike; ids are the broker's own form and rise.
Limit: events are not made: such a store looks like one whose events were compacted. Made without a journal, so only a copy that
nobody else has open may be filled.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path

from tests.benchmarks.house import TENANTS

BATCH = 10_000


class Sample:
    """A row of a table: what is copied, and the texts in it that every copy has of its own."""

    def __init__(self, connection: sqlite3.Connection, table: str, where: str, own: Sequence[str]) -> None:
        cursor = connection.execute(f"SELECT * FROM {table} WHERE {where} LIMIT 1")
        row = cursor.fetchone()
        if row is None:
            raise LookupError(f"no row of {table} where {where}")
        names = [column[0] for column in cursor.description]
        self.row = dict(zip(names, row, strict=True))
        self.row.pop("seq")
        self._table = table
        self._own = tuple(own)

    def statement(self) -> str:
        """The INSERT."""
        marks = ", ".join("?" for _ in self.row)
        return f"INSERT INTO {self._table} ({', '.join(self.row)}) VALUES ({marks})"

    def parts(self) -> list[bytes]:
        """The body, cut where a text of its own stands: even places are copied, odd ones are texts of `own`."""
        found = [self.row["body"]]
        for text in self._own:
            mark = text.encode()
            for place in range(len(found) - 1, -1, -2):
                pieces = found[place].split(mark)
                found[place : place + 1] = [piece for one in pieces for piece in (mark, one)][1:]
        return found

    def copies(self, replaced: Iterator[Sequence[str]]) -> Iterator[tuple[object, ...]]:
        """A row for each tuple of texts, that stand in the order of `own`."""
        places = {text: number for number, text in enumerate(self._own)}
        parts = self.parts()
        odd = [(place, places[parts[place].decode()]) for place in range(1, len(parts), 2)]
        columns = [(name, places.get(value)) for name, value in self.row.items()]
        for texts in replaced:
            for place, number in odd:
                parts[place] = texts[number].encode()
            body = b"".join(parts)
            yield tuple(
                body if name == "body" else self.row[name] if number is None else texts[number]
                for name, number in columns
            )


def numbered(text: str, number: int) -> str:
    """An id of the same form: the last twelve digits are the number, those before stay."""
    return f"{text[:-12]}{number:012x}"


@contextmanager
def filling(path: Path) -> Iterator[sqlite3.Connection]:
    """The database, quick and not durable; a WAL again afterwards."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        for pragma in ("journal_mode=OFF", "synchronous=OFF", "locking_mode=EXCLUSIVE", "cache_size=-500000"):
            connection.execute(f"PRAGMA {pragma}").fetchall()
        connection.execute("BEGIN")
        yield connection
        connection.execute("COMMIT")
        connection.execute("PRAGMA locking_mode=NORMAL").fetchall()
        connection.execute("PRAGMA journal_mode=WAL").fetchall()


def copy_records(path: Path, tenant: str, instance_id: str, count: int, *, operations: bool = True) -> None:
    """Make `count` instances like that one, shared out to all tenants, oldest first, each with its last operation; without
    `operations` they look as when those are past their retention."""
    with filling(path) as connection:
        where = f"tenant = '{tenant}' AND instance_id = '{instance_id}'"
        found = connection.execute(
            f"SELECT tenant, instance_id, uid, last_operation FROM instances WHERE {where}"
        ).fetchone()
        own = tuple(found)
        instance = Sample(connection, "instances", where, own)
        operation = Sample(connection, "operations", f"operation_id = '{own[3]}'", own)

        def texts() -> Iterator[tuple[str, ...]]:
            share = -(-count // len(TENANTS))
            for number in range(count):
                name = TENANTS[number // share]
                yield (name, numbered(own[1], number), numbered(own[2], number), numbered(own[3], number))

        for sample in (operation, instance) if operations else (instance,):
            connection.executemany(sample.statement(), sample.copies(texts()))
