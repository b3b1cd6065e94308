"""Looks at backends in the store.

Guarantee: a look is judged by the rows of its own transaction; what is kept of it and the instance's change are one command.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.drift import Observation
from purveyor_server.store.observing import Drifted, Seen, Sight
from purveyor_server.store.sqlite import rows
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.rows import Row
from purveyor_server.store.sqlite.transaction import Transaction

SQL = load("observing")
_OBSERVATION, _PUT, _LOOK_AGAIN = (SQL[name] for name in ("observation", "put_observation", "look_again"))
decode = msgspec.json.Decoder(Observation).decode


def observe(
    transaction: Transaction, uid: str, decide: Callable[[Sight], Seen | None], record: AuditRecord | None
) -> Seen | None:
    """Decide on one incarnation, and keep what that gives."""
    instance = transaction.instance_by_uid(uid)
    if instance is None:
        return None
    row = transaction.connection.execute(_OBSERVATION, (uid,)).fetchone()
    sight = Sight(
        now=transaction.now,
        instance=instance,
        bindings=transaction.live_bindings(uid),
        operations=transaction.unfinished(uid),
        observation=None if row is None else decode(row[0]),
    )
    seen = decide(sight)
    if seen is None:
        return None
    kept = seen.observation
    transaction.execute(_PUT, (uid, kept.drift, int(kept.listed), rows.encode(kept)))
    if seen.instance is not None:
        transaction.put_instance(seen.instance)
    transaction.execute(_LOOK_AGAIN, (rows.micros(kept.look_at), uid))
    if record is not None:
        transaction.put_audit(record)
    return seen


def drifted(found: Iterable[Row]) -> tuple[Drifted, ...]:
    """Of (instance, observation) bodies."""
    return tuple([Drifted(rows.decode_instance(instance), decode(body)) for instance, body in found])
