"""Audit records put behind one another, and the oldest of them cut off.

Guarantee: numbers are dense and chain values follow the order of commits: both are given last in a transaction, to the
records of the commands that survived. A store that is opened with a chain that does not end as its head says keeps a gap
in the numbers and a record that tells of it, for as long as records are kept.
Limit: a store whose chain was never begun writes records without chain values; one whose chain was refuses them until it
has its keys.
"""

from __future__ import annotations

import hmac
import sqlite3
from collections.abc import Sequence
from datetime import datetime
from typing import NamedTuple

from purveyor_server.domain import auditchain
from purveyor_server.domain.audit import AuditOutcome, AuditRecord
from purveyor_server.domain.auditchain import START, ChainKeys, Cut, Head, Link, Marks
from purveyor_server.store.sqlite import rows
from purveyor_server.store.sqlite.queries import load

_SQL = load("audit")
_PUT = _SQL["put_audit"]
_PUT_HEAD = _SQL["put_head"]
_PUT_CUT = _SQL["put_cut"]
_FORGET_CUTS = _SQL["forget_cuts"]
_MARKS = _SQL["marks"]
_CHAIN_AT = _SQL["chain_at"]
_LAST_OLD = _SQL["last_old"]
_FORGET = _SQL["forget"]
KEPT_CUTS = 1000


class Tail(NamedTuple):
    """Where the next record goes: behind `number`, whose chain value is `chain`; the chain began behind `began`, if it has
    `begun`."""

    number: int = 0
    chain: bytes = START
    began: int = 0
    begun: bool = False


def append(connection: sqlite3.Connection, tail: Tail, keys: ChainKeys | None, records: Sequence[AuditRecord]) -> Tail:
    """Put records behind the tail, and the head behind them; returns the new tail."""
    if not records:
        return tail
    number, chain = tail.number, tail.chain
    put: list[rows.Row] = []
    for record in records:
        number += 1
        body = rows.encode(record)
        if keys is None:
            put.append((number, rows.micros(record.at), body, None, None))
        else:
            chain = auditchain.link(keys.newest, keys.primary, chain, number, body)
            put.append((number, rows.micros(record.at), body, keys.primary, chain))
    connection.executemany(_PUT, put)
    after = tail._replace(number=number, chain=chain)
    if keys is not None:
        put_head(connection, keys, after)
    return after


def put_head(connection: sqlite3.Connection, keys: ChainKeys, tail: Tail) -> None:
    """Note where the chain ends."""
    mark = auditchain.head(keys, tail.number, tail.began, tail.chain)
    connection.execute(_PUT_HEAD, (mark.number, mark.began, mark.key, mark.chain, mark.mac))


def read_marks(connection: sqlite3.Connection) -> Marks:
    """Head, newest checkpoint and newest number, as of one moment."""
    return marks(connection.execute(_MARKS).fetchone())


def marks(row: rows.Row) -> Marks:
    """The marks of one row of `marks`."""
    return Marks(
        head=None if row[0] is None else Head(*row[0:5]),
        cut=None if row[5] is None else Cut(*row[5:11]),
        newest=row[11],
    )


def link(row: rows.Row) -> Link:
    """The record of (number, at, body, key, chain)."""
    return Link(*row)


def read_tail(connection: sqlite3.Connection) -> Tail:
    """Where the chain ends, as far as the store says."""
    found = read_marks(connection)
    if found.head is None:
        return Tail(found.newest)
    return Tail(max(found.newest, found.head.number), found.head.chain, found.head.began, begun=True)


def trouble(connection: sqlite3.Connection, keys: ChainKeys) -> str:
    """Why the records do not end as the head says; "" when they do."""
    found = read_marks(connection)
    mark = found.head
    if mark is None:
        return "there is no head"
    if not auditchain.is_head(keys, mark):
        return "the head was not made by this broker"
    if found.newest > mark.number:
        return "records stand behind the end of the chain"
    if mark.number == mark.began or (found.cut is not None and found.cut.number == mark.number):
        return ""
    row = connection.execute(_CHAIN_AT, (mark.number,)).fetchone()
    if row is None or row[0] is None:
        return "the newest records are missing"
    return "" if hmac.compare_digest(row[0], mark.chain) else "the newest record is not the one of the head"


def broken(at: datetime, why: str) -> AuditRecord:
    """The record that tells of it."""
    return AuditRecord(
        at=at, principal="purveyor", action="OpenChain", resource="audit", reason=why, outcome=AuditOutcome.BROKEN
    )


def forget(
    connection: sqlite3.Connection, keys: ChainKeys | None, tail: Tail, now: int, before: int, limit: int
) -> int:
    """Remove at most `limit` of the oldest records of a time before `before`, never the newest one; leave a checkpoint."""
    last = min(int(connection.execute(_LAST_OLD, (limit, before)).fetchone()[0]), tail.number - 1)
    row = connection.execute(_CHAIN_AT, (last,)).fetchone()
    if row is None:
        return 0
    removed = connection.execute(_FORGET, (last,)).rowcount
    if keys is not None:
        mark = auditchain.cut(keys, last, now, removed, row[0] if row[0] is not None else START)
        connection.execute(_PUT_CUT, (mark.number, mark.at, mark.removed, mark.key, mark.chain, mark.mac))
        connection.execute(_FORGET_CUTS, (KEPT_CUTS,))
    return removed
