"""Bindings by what they are due for."""

from __future__ import annotations

from datetime import datetime

from purveyor_server.store.contract import Page
from purveyor_server.store.leases import Due
from purveyor_server.store.sqlite import rows
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.readers import Readers

_SQL = load("leases")
_DUE = {due: _SQL[due.value.lower()] for due in Due}
_ROTATED = _SQL["rotated"]


def due_question(due: Due, until: datetime, page: Page, tenant: str) -> tuple[str, rows.Row]:
    """The statement that gives bodies of bindings, and its parameters."""
    at, _, uid = page.after.partition(":")
    return _DUE[due], (int(at or -1), uid, rows.micros(until), tenant or None, page.limit)


async def rotations_since(readers: Readers, at: datetime) -> int:
    """How many."""
    return int((await readers.rows(_ROTATED, (rows.micros(at),)))[0][0])
