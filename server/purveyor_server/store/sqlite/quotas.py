"""What tenants have and may have, inside of a command.

Guarantee: the counters are those of this transaction: triggers keep them, so no command can forget to, and what a failed
command counted is undone with it. A quota and its audit record are one command.
Limit: how many bindings an instance has is counted in an index each time, for its own limit bounds it.
"""

from __future__ import annotations

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.quotas import PlanKey, Quota, Usage, Used
from purveyor_server.store.sqlite import rows
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.transaction import Transaction

_SQL = load("quotas")
_USAGE = _SQL["usage"]
_SET_FOR = _SQL["set_for"]
_BINDINGS_OF = _SQL["bindings_of"]
_QUOTA = _SQL["quota"]
_PUT_QUOTA = _SQL["put_quota"]
_DELETE_QUOTA = _SQL["delete_quota"]
_MISCOUNTED = _SQL["miscounted"]
_PUT_USAGE = _SQL["put_usage"]


def usage(transaction: Transaction, tenant: str, instance_uid: str) -> Usage:
    """What a tenant has and what is set for it; `instance_uid` "" when no bindings are asked about."""
    run = transaction.connection.execute
    found = {PlanKey(service, plan): Used(*counts) for service, plan, *counts in run(_USAGE, (tenant,)).fetchall()}
    kept = (rows.decode_quota(body) for (body,) in run(_SET_FOR, (tenant,)).fetchall())
    bindings = run(_BINDINGS_OF, (instance_uid,)).fetchone()[0] if instance_uid else 0
    return Usage(found, {quota.plan: quota.limits for quota in kept}, bindings)


def set_quota(transaction: Transaction, quota: Quota, record: AuditRecord) -> None:
    """Keep it in the place of the one before."""
    plan = quota.plan
    transaction.execute(_PUT_QUOTA, (quota.tenant, plan.service_id, plan.plan_id, rows.encode(quota)))
    transaction.put_audit(record)


def delete_quota(transaction: Transaction, tenant: str, plan: PlanKey, record: AuditRecord) -> Quota | None:
    """Take it away; what was there."""
    key = (tenant, plan.service_id, plan.plan_id)
    row = transaction.connection.execute(_QUOTA, key).fetchone()
    transaction.execute(_DELETE_QUOTA, key)
    transaction.put_audit(record)
    return None if row is None else rows.decode_quota(row[0])


def recount(transaction: Transaction, tenant: str) -> int:
    """Put the counters of a tenant right; how many were wrong."""
    wrong = transaction.connection.execute(_MISCOUNTED, (tenant,)).fetchall()
    for counters in wrong:
        transaction.execute(_PUT_USAGE, (tenant, *counters))
    return len(wrong)
