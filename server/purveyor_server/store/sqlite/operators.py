"""What operators stop and let go again.

Guarantee: a freeze and its audit record are one command; so are a thaw and its record.
"""

from __future__ import annotations

from collections.abc import Mapping

from msgspec.structs import replace

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.auditchain import ChainKeys
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.recovery import Recovery
from purveyor_server.domain.states import Waiting
from purveyor_server.store.sqlite import chaining, rows
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.transaction import Transaction

_COMMANDS = load("commands")
_PUT_FREEZE = _COMMANDS["put_freeze"]
_DELETE_FREEZE = _COMMANDS["delete_freeze"]
_FROZEN = load("claims")["frozen"]
_UPKEEP = load("upkeep")
_SETTING = _UPKEEP["setting"]
_DELETE_SETTING = _UPKEEP["delete_setting"]
_PUT_META = _COMMANDS["put_meta"]
PENDING_AUDIT = "pending audit record"  # the setting that a restore leaves for the next start
RECOVERY = "recovery"  # the setting that a restore leaves
RESTORE = "restore"  # the principal of the freezes that it sets


def freeze(transaction: Transaction, wanted: Freeze, record: AuditRecord) -> Freeze:
    """Keep the first freeze of a name."""
    transaction.execute(_PUT_FREEZE, (wanted.name, rows.encode(wanted)))
    transaction.put_audit(record)
    transaction.forget_freezes()
    return next(kept for kept in transaction.freezes if kept.name == wanted.name)


def thaw(transaction: Transaction, name: str, record: AuditRecord) -> Freeze | None:
    """Take the freeze away."""
    found = next((kept for kept in transaction.freezes if kept.name == name), None)
    transaction.execute(_DELETE_FREEZE, (name,))
    transaction.put_audit(record)
    transaction.forget_freezes()
    return found


def note(transaction: Transaction, records: tuple[AuditRecord, ...]) -> None:
    """Leave the records of acts that write nothing else."""
    transaction.put_audit(*records)


def open_chain(transaction: Transaction, keys: ChainKeys, minted: Mapping[str, bytes]) -> str:
    """From now on chain records with these keys; `minted` are meta values that must be kept with the chain's begin.

    Returns what is wrong with the end of the chain, "" for nothing.
    """
    before, transaction.keys = transaction.keys, keys
    if minted:
        for name, value in minted.items():
            transaction.execute(_PUT_META, (name, value))
    if chaining.read_marks(transaction.connection).head is None and minted:
        transaction.tail = chaining.Tail(transaction.tail.number, began=transaction.tail.number, begun=True)
        chaining.put_head(transaction.connection, keys, transaction.tail)
        why = ""
    else:
        why = chaining.trouble(transaction.connection, keys) if before is None else ""
    if why:
        transaction.tail = transaction.tail._replace(number=transaction.tail.number + 1, begun=True)
        transaction.put_audit(chaining.broken(transaction.now, why))
    _put_pending(transaction)
    return why


def _put_pending(transaction: Transaction) -> None:
    """The record that a restore has left, which had no key."""
    row = transaction.connection.execute(_SETTING, (PENDING_AUDIT,)).fetchone()
    if row is not None:
        transaction.execute(_DELETE_SETTING, (PENDING_AUDIT,))
        transaction.put_audit(rows.decode_audit(row[0]))


def finish_recovery(transaction: Transaction, record: AuditRecord) -> Recovery | None:
    """Forget the recovery and lift what the restore froze."""
    row = transaction.connection.execute(_SETTING, (RECOVERY,)).fetchone()
    if row is None:
        return None
    transaction.execute(_DELETE_SETTING, (RECOVERY,))
    for kept in transaction.freezes:
        if kept.principal == RESTORE:
            transaction.execute(_DELETE_FREEZE, (kept.name,))
    transaction.forget_freezes()
    transaction.put_audit(record)
    return rows.decode_recovery(row[0])


def unfreeze(transaction: Transaction, limit: int) -> int:
    """Make up to `limit` operations due that a freeze held; one that is held still lets go again at its next call."""
    held = transaction.operations(_FROZEN, (limit,))
    for operation in held:
        woken = replace(operation, due_at=transaction.now, waiting=Waiting.NONE, waiting_detail="")
        transaction.put_operation(woken, quiet=True)
    return len(held)
