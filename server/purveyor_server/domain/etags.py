"""Etags: which version of which incarnation was read.

Guarantee: a strong etag (RFC 9110 section 8.8.3) that changes with every replacement of a record and is never shared by two
incarnations of one id; it holds no global revision.
"""

from __future__ import annotations

from purveyor_server.domain.model import Binding, Instance, Operation

_TAIL = 12  # hex digits of the uid's random part; its start is the time and is shared by neighbours


def etag_of(record: Instance | Binding | Operation) -> str:
    """The etag of a record: opaque, quoted, compared for equality only."""
    uid = record.operation_id if isinstance(record, Operation) else record.uid
    return f'"v{record.version}-{uid[-_TAIL:]}"'
