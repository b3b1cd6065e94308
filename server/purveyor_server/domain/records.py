"""One way to change a record: a copy with a new version.

Guarantee: `version` grows by one with every change, so it serves as etag and orders two copies of a record.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, TypeVar

from msgspec.structs import replace

from purveyor_server.domain.model import Binding, Instance, Operation

Record = TypeVar("Record", Instance, Binding, Operation)


def touch(record: Record, now: datetime, **changes: Any) -> Record:
    """`record` with `changes`, the next version, and (where it has one) `updated_at` set to `now`."""
    if not isinstance(record, Operation):
        changes["updated_at"] = now
    return replace(record, version=record.version + 1, **changes)
