"""Sealed values put in the place of others.

Guarantee: only where the value is still the one that was read, so that what was written meanwhile stays.
"""

from __future__ import annotations

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.store.operating import MetaSwap, Resealed
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.transaction import Transaction

_SQL = load("upkeep")
_RESEAL = _SQL["reseal"]
_SWAP_META = _SQL["swap_meta"]
_DELETE_META = _SQL["delete_meta"]


def reseal(transaction: Transaction, changes: tuple[Resealed, ...]) -> int:
    """Returns how many values were as they had been read."""
    return sum(
        transaction.execute(_RESEAL, (change.now, change.owner, change.name, change.was)).rowcount for change in changes
    )


def swap_metas(transaction: Transaction, swaps: tuple[MetaSwap, ...], record: AuditRecord | None) -> int:
    """The same for values of the store itself."""
    changed = 0
    for swap in swaps:
        if swap.now is None:
            done = transaction.execute(_DELETE_META, (swap.name, swap.was))
        else:
            done = transaction.execute(_SWAP_META, (swap.now, swap.name, swap.was))
        changed += done.rowcount
    if record is not None:
        transaction.put_audit(record)
    return changed
