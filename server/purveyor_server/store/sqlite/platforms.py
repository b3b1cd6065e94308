"""Inventories of platforms in the store.

Guarantee: what is marked or unmarked is looked at again in its transaction: what has gone, or belongs to another platform by
then, is left alone.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from datetime import datetime

import msgspec

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.model import Instance
from purveyor_server.domain.platforms import InventoryReport, Placed, Verdict, check_newer, healed, orphaned
from purveyor_server.domain.states import InstanceState
from purveyor_server.store.platforms import PlatformOrphan
from purveyor_server.store.sqlite import rows
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.rows import Row
from purveyor_server.store.sqlite.transaction import Transaction

SQL = load("platforms")
_LAST, _PUT, _AGAIN = (SQL[name] for name in ("last_inventory", "put_inventory", "left_out_again"))
decode = msgspec.json.Decoder(InventoryReport).decode


def take_inventory(transaction: Transaction, verdict: Verdict, record: AuditRecord) -> InventoryReport:
    """Do what it changes and keep its report."""
    report = verdict.report
    row = transaction.connection.execute(_LAST, (report.tenant, report.owner)).fetchone()
    kept = None if row is None else decode(row[0])
    if kept is not None and kept.snapshot_id == report.snapshot_id:
        return kept
    check_newer(report.taken_at, kept)
    _mark(transaction, verdict.orphaned, report.owner, False, orphaned)
    _mark(transaction, verdict.healed, report.owner, True, healed)
    for uid in verdict.missing:
        transaction.execute(_AGAIN, (transaction.now_micros, uid))
    transaction.execute(_PUT, (report.tenant, report.owner, rows.encode(report)))
    transaction.put_audit(record)
    return report


def _mark(
    transaction: Transaction,
    uids: Iterable[str],
    owner: str,
    marked: bool,  # noqa: FBT001 - whether they are orphans so far
    change: Callable[[Instance, datetime], Instance],
) -> None:
    for uid in uids:
        found = transaction.instance_by_uid(uid)
        if found is None or found.owner != owner or found.state is InstanceState.DELETED:
            continue
        if (found.platform_orphan_since is not None) is marked:
            transaction.put_instance(change(found, transaction.now))


def placed(found: Iterable[Row]) -> tuple[Placed, ...]:
    """Of (uid, instance_id, created_at, orphaned, leaving)."""
    return tuple(
        [
            Placed(uid, instance_id, rows.moment(created), bool(orphan), bool(leaving))
            for uid, instance_id, created, orphan, leaving in found
        ]
    )


def orphans(found: Iterable[Row]) -> tuple[PlatformOrphan, ...]:
    """Of (body, orphan_seen, live bindings)."""
    return tuple([PlatformOrphan(rows.decode_instance(body), rows.moment(seen), count) for body, seen, count in found])
