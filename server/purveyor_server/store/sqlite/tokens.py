"""Static tokens in the store.

Guarantee: making or revoking one and its audit record are one command; a revocation is never taken back.
"""

from __future__ import annotations

from collections.abc import Sequence

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.tokens import Token, Use
from purveyor_server.store.sqlite import rows
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.transaction import Transaction

_COMMANDS = load("commands")
_PUT, _REVOKE, _NOTE = (_COMMANDS[name] for name in ("put_token", "revoke_token", "note_use"))
_TOKEN = load("reads")["token"]


def create(transaction: Transaction, token: Token, record: AuditRecord) -> None:
    """Keep a new one."""
    transaction.execute(_PUT, (token.token_id, rows.encode(token)))
    transaction.put_audit(record)


def revoke(transaction: Transaction, token_id: str, record: AuditRecord) -> Token | None:
    """Take one back."""
    row = transaction.connection.execute(_TOKEN, (token_id,)).fetchone()
    if row is None:
        return None
    transaction.execute(_REVOKE, (rows.micros(transaction.now), token_id))
    transaction.put_audit(record)
    return rows.token(transaction.connection.execute(_TOKEN, (token_id,)).fetchone())


def note_uses(transaction: Transaction, uses: Sequence[Use]) -> None:
    """Keep when they were last used."""
    for use in uses:
        transaction.execute(_NOTE, (rows.micros(use.at), use.token_id))
