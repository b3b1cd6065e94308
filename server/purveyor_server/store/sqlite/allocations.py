"""Numbers from pools, each for one owner at a time.

Guarantee: the owner is the binding or instance that the fenced operation is about; it gets the same number as often as it
asks, unless it says that this one is to be avoided; no two owners have the same number of a pool at the same time.
Limit: who has nothing of its own left in a range is found by a walk over the numbers that are taken behind the newest.
"""

from __future__ import annotations

from collections.abc import Collection

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.store.contract import Fence
from purveyor_server.store.sqlite.commands import held
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.transaction import Transaction

_SQL = load("allocations")
_OF_OWNER = _SQL["allocation_of"]
_TAKEN = _SQL["taken_allocations"]
_PUT = _SQL["put_allocation"]
_FREE = _SQL["free_allocation"]
_NEWEST = _SQL["newest_allocation"]
_PUT_NEWEST = _SQL["put_newest_allocation"]


def allocate(transaction: Transaction, fence: Fence, pool: str, low: int, high: int, avoid: Collection[int]) -> int:
    """The owner's number of `pool`, a fresh one of low..high when it has none; raises LeaseLostError or POOL_EXHAUSTED."""
    operation = held(transaction, fence)
    owner = operation.binding_uid or operation.instance_uid
    row = transaction.connection.execute(_OF_OWNER, (owner, pool)).fetchone()
    if row is not None and row[0] not in avoid:
        return int(row[0])
    value = _choose(transaction, pool, low, high, avoid)
    if row is not None:
        transaction.execute(_FREE, (owner, pool))
    transaction.execute(_PUT, (pool, value, owner))
    transaction.execute(_PUT_NEWEST, (pool, value))
    return value


def _choose(transaction: Transaction, pool: str, low: int, high: int, avoid: Collection[int]) -> int:
    """The first free number behind the newest, round the range."""
    newest = transaction.connection.execute(_NEWEST, (pool,)).fetchone()
    middle = newest[0] + 1 if newest is not None and low <= newest[0] < high else low
    for first, last in ((middle, high), (low, middle - 1)):
        if (found := _free_in(transaction, pool, first, last, frozenset(avoid))) is not None:
            return found
    raise PurveyorError(
        Reason.POOL_EXHAUSTED,
        f"every number of the pool {pool!r} from {low} to {high} is taken",
        metadata={"pool": pool},
    )


def _free_in(transaction: Transaction, pool: str, first: int, last: int, avoid: frozenset[int]) -> int | None:
    candidate = first
    taken = transaction.connection.execute(_TAKEN, (pool, first, last))
    for value in (row[0] for row in taken):
        while candidate < value:
            if candidate not in avoid:
                return candidate
            candidate += 1
        candidate = value + 1
    while candidate <= last:
        if candidate not in avoid:
            return candidate
        candidate += 1
    return None
