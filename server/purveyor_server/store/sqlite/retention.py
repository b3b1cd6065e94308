"""Forgetting: ended operations, tombstones, events and audit records past their time, in small batches.

Guarantee: an unfinished operation, the last operation of a living resource, the origin of an unfinished clean-up and the
newest event stay; `earliest` moves in the same transaction as the events go.
Limit: operations that must stay are stepped over by a cursor in memory, so one call looks at a bounded number of them.
"""

from __future__ import annotations

from datetime import datetime

from purveyor_server.store.contract import Retention
from purveyor_server.store.sqlite import campaigns, rows
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.transaction import Transaction

_SQL = load("upkeep")
_SETTING = _SQL["setting"]
_PUT_SETTING = _SQL["put_setting"]
_ENDED = _SQL["ended_operations"]
_DELETE_OPERATION = _SQL["delete_operation"]
_LAST_OLD_EVENT = _SQL["last_old_event"]
_DELETE_EVENTS = _SQL["delete_events"]
_ERASE_SECRETS = load("commands")["erase_secrets"]
_START = (-(2**63), 0)
LOOK_FACTOR = 10  # rows looked at per row that may be removed


class Keeper:
    """Runs retention; remembers how far it has looked."""

    def __init__(self) -> None:
        self._looked: tuple[int, int] = _START

    def retain(self, transaction: Transaction, policy: Retention) -> int:
        """Remove at most `policy.limit` rows of each kind; returns how many went."""
        removed = self._operations(transaction, transaction.now - policy.operations, policy.limit)
        before = transaction.now - policy.tombstones
        removed += _tombstones(transaction, "binding", before, policy.limit)
        removed += _tombstones(transaction, "instance", before, policy.limit)
        removed += _audit(transaction, policy)
        removed += campaigns.retain(transaction, transaction.now - policy.operations, policy.limit)
        return removed + _events(transaction, policy)

    def _operations(self, transaction: Transaction, before: datetime, limit: int) -> int:
        look = limit * LOOK_FACTOR
        found = transaction.connection.execute(_ENDED, (*self._looked, rows.micros(before), look)).fetchall()
        removed = 0
        for ended_at, seq, operation_id, needed in found:
            if removed >= limit:
                return removed
            self._looked = (ended_at, seq)
            if not needed:
                transaction.execute(_DELETE_OPERATION, (operation_id,))
                removed += 1
        if len(found) < look:
            self._looked = _START
        return removed


def _tombstones(transaction: Transaction, kind: str, before: datetime, limit: int) -> int:
    found = transaction.connection.execute(_SQL[f"gone_{kind}s"], (rows.micros(before), limit)).fetchall()
    for (uid,) in found:
        transaction.execute(_SQL[f"delete_{kind}"], (uid,))
        transaction.execute(_ERASE_SECRETS, (uid,))
    return len(found)


def _audit(transaction: Transaction, policy: Retention) -> int:
    """Cut off the oldest audit records, behind a checkpoint; the newest one stays."""
    before = rows.micros(transaction.now - policy.audit)
    return transaction.forget_audit(before, policy.limit)


def _events(transaction: Transaction, policy: Retention) -> int:
    """Drop the oldest events by age and count, never the newest of the log."""
    earliest = int(transaction.connection.execute(_SETTING, ("earliest",)).fetchone()[0])
    before = rows.micros(transaction.now - policy.events)
    old = transaction.connection.execute(_LAST_OLD_EVENT, (policy.limit, before)).fetchone()[0] or 0
    last = max(int(old), transaction.head - max(policy.max_events, 1))
    last = min(last, transaction.head - 1, earliest + policy.limit - 1)
    if last < earliest:
        return 0
    transaction.execute(_DELETE_EVENTS, (last,))
    transaction.execute(_PUT_SETTING, ("earliest", str(last + 1)))
    return last - earliest + 1
