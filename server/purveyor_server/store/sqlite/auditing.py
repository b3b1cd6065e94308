"""Reads of audit records.

Guarantee: a page looks at no more than `span` numbers, whatever the filter, so that a rare record costs several short reads
and never a long one; no index is kept for it, which would cost every accepted request. A record that cannot be read is
listed as `Unreadable`, with its bytes.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.auditchain import Link, Marks
from purveyor_server.domain.filters import Filter
from purveyor_server.store.operating import AuditLook, AuditPage, ChainedRecord
from purveyor_server.store.sqlite import chaining, rows
from purveyor_server.store.sqlite.filters import AUDIT_COLUMNS, conditions
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.readers import Readers

_SQL = load("audit")
_RANGE = _SQL["range"]
_RECORDS = _SQL["records"]
_MARKS = _SQL["marks"]
_LINKS = _SQL["links"]


async def find(readers: Readers, where: Filter, look: AuditLook) -> AuditPage:
    """One page. Raises INVALID_FILTER, STORE_UNAVAILABLE."""
    extra, values = conditions(where, AUDIT_COLUMNS)
    lowest, highest = (await readers.rows(_RANGE))[0]
    if look.newest_first:
        high = min(look.start or highest, highest)
        low, beyond, order = max(lowest, high - look.span + 1), -1, "DESC"
    else:
        low = max(look.start, lowest)
        high, beyond, order = min(highest, low + look.span - 1), 1, "ASC"
    sql = f"{_RECORDS}{extra} ORDER BY a.number {order} LIMIT ?"
    found = await readers.rows(sql, (low, high, *values, look.limit))
    records = tuple([_record(row) for row in found])
    if len(records) == look.limit:
        more = records[-1].record.number + beyond
    else:
        more = (low if look.newest_first else high) + beyond
    return AuditPage(records, more if lowest <= more <= highest else 0)


def _record(row: rows.Row) -> ChainedRecord:
    number, at, body, key, chain, previous = row
    try:
        record = replace(rows.decode_audit(body), number=number)
    except msgspec.DecodeError:
        record = AuditRecord(at=rows.moment(at), principal="", action="Unreadable", resource="", number=number)
    return ChainedRecord(record, body, key or "", chain or b"", previous or b"")


async def marks(readers: Readers) -> Marks:
    """Head, newest checkpoint, newest number."""
    return chaining.marks((await readers.rows(_MARKS))[0])


async def links(readers: Readers, after: int, last: int, limit: int) -> tuple[Link, ...]:
    """Records as they are stored."""
    return tuple([chaining.link(row) for row in await readers.rows(_LINKS, (after, last, limit))])
