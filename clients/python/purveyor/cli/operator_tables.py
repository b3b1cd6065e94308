"""What operators get, as tables for people."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group

from purveyor.cli.orphaning import inventories_table
from purveyor.cli.render import facts, operation, state, steps, table, when

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.console import RenderableType
    from rich.table import Table

    from purveyor.admin_values import (
        AuditFinding,
        AuditRecord,
        BrokerStatus,
        Difference,
        Explanation,
        Key,
        Purged,
        Quota,
        Token,
    )
    from purveyor.catalog_values import CatalogRefusal

MIB = 1024 * 1024


def status(found: BrokerStatus) -> RenderableType:
    """The status: facts, then providers, then freezes."""
    age = found.oldest_unfinished_age
    recovery = found.recovery
    parts: list[RenderableType] = [
        facts(
            (
                ("version", found.version),
                ("since", when(found.start_time)),
                ("store", f"{found.store_id} (opened {found.epoch} times, {found.store_bytes / MIB:.1f} MiB)"),
                ("log", f"revisions {found.earliest_revision} to {found.head_revision}"),
                ("catalog", f"version {found.catalog_version}"),
                ("catalog file", _refused(found.catalog_refusal)),
                ("backlog", f"{found.pending} running or due, {found.parked} waiting"),
                ("waiting", ", ".join(f"{count} {name}" for name, count in found.waiting.items())),
                ("oldest", f"{age} {found.oldest_unfinished_operation_id}" if age is not None else ""),
                ("clean-ups", str(found.cleanup_required) if found.cleanup_required else ""),
                ("kept", f"remains of {found.remains_kept} failed operations" if found.remains_kept else ""),
                ("stuck", f"{found.stuck} operations at the last look" if found.stuck else ""),
                ("disk", _disk(found)),
                ("log level", found.log_level),
                (
                    "recovery",
                    f"from a backup of {when(recovery.backup_time)}: see `purveyor recover`" if recovery else "",
                ),
            )
        ),
        table(
            ("PROVIDER", "KIND", "STATE", "RUNNING", "PROBLEM"),
            ((p.name, p.kind, state(p.state), str(p.running), p.problem) for p in found.providers),
        ),
    ]
    if found.freezes:
        rows = ((f.name, when(f.set_time), f.principal, f.reason) for f in found.freezes)
        parts.append(table(("FROZEN", "SINCE", "BY", "REASON"), rows))
    if found.inventories:
        parts.append(inventories_table(found.inventories))
    return Group(*parts)


def _refused(found: CatalogRefusal | None) -> str:
    if found is None:
        return ""
    return f"NOT TAKEN at {when(found.refuse_time)}: {'; '.join(found.reasons)}; see `purveyor catalog diff FILE`"


def _disk(found: BrokerStatus) -> str:
    low = "LOW: nothing new is accepted; " if found.disk_low else ""
    return f"{low}{found.disk_free_bytes / MIB:.0f} MiB free, low-water mark {found.disk_low_water_bytes / MIB:.0f} MiB"


def explanation(found: Explanation) -> RenderableType:
    """The causes first: they are what was asked for."""
    causes = table(
        ("CAUSE", "WHY", "UNTIL"),
        ((cause.code, cause.sentence, when(cause.until) if cause.until else "-") for cause in found.causes),
    )
    return Group(causes, operation(found.operation), steps(found.operation))


def purged(found: Purged) -> Table:
    """What may be left in backends."""
    return table(("LEFT BEHIND",), ((name,) for name in found.left_behind or ("nothing that is known",)))


def records(found: Sequence[AuditRecord]) -> Table:
    """One row per record."""
    return table(
        ("NUMBER", "WHEN", "WHO", "FROM", "ACTION", "RESOURCE", "OUTCOME", "WHY"),
        (
            (
                str(r.number),
                when(r.act_time),
                _who(r),
                r.origin,
                r.action,
                f"{r.tenant} {r.resource}".strip(),
                r.outcome,
                _why(r),
            )
            for r in found
        ),
    )


def _who(record: AuditRecord) -> str:
    return f"{record.principal} for {record.on_behalf_of}" if record.on_behalf_of else record.principal


def _why(record: AuditRecord) -> str:
    count, reason = record.details.get("count"), record.details.get("reason", "")
    return record.reason or (f"{count} times {reason}" if count is not None else "")


def findings(found: Sequence[AuditFinding]) -> Table:
    """One row per fault of the audit records."""
    return table(
        ("FAULT", "RECORDS", "WHAT"),
        ((f.fault, _numbers(f.first_number, f.last_number), f.sentence) for f in found),
    )


def _numbers(first: int, last: int) -> str:
    return str(first) if first == last else f"{first} to {last}"


def differences(found: Sequence[Difference]) -> Table:
    """One row per difference."""
    return table(
        ("KIND", "PROVIDER", "TENANT", "RESOURCE", "WHAT"),
        ((d.kind, d.provider, d.tenant or "-", d.operation_id or d.resource, d.sentence) for d in found),
    )


def keys(found: Sequence[Key]) -> Table:
    """One row per label."""
    return table(
        ("KEY", "VALUES", "SEALS NOW", "IN ITS SOURCE"),
        (
            (key.label or "?", str(key.values), "yes" if key.primary else "-", "yes" if key.present else "MISSING")
            for key in found
        ),
    )


def quotas(found: Sequence[Quota]) -> Table:
    """One row per tenant and plan."""
    return table(
        ("TENANT", "PLAN", "INSTANCES", "BINDINGS", "BINDINGS EACH", "SET BY", "REASON"),
        (
            (
                q.tenant,
                f"{q.service_id}/{q.plan_id}" if q.plan_id else "(all)",
                _of(q.instances, q.max_instances),
                _of(q.bindings, q.max_bindings),
                "-" if q.max_bindings_per_instance is None else f"at most {q.max_bindings_per_instance}",
                q.principal or "-",
                q.reason or "-",
            )
            for q in found
        ),
    )


def _of(used: int, limit: int | None) -> str:
    return str(used) if limit is None else f"{used} of {limit}"


def tokens(found: Sequence[Token]) -> Table:
    """One row per static token."""
    return table(
        ("ID", "NAME", "ROLES", "TENANTS", "MADE", "LAST USED", "ENDS"),
        (
            (
                token.token_id,
                token.name,
                ",".join(token.roles),
                "*" if token.every_tenant else ",".join(token.tenants),
                when(token.create_time),
                when(token.use_time) if token.use_time else "-",
                f"REVOKED {when(token.revoke_time)}" if token.revoke_time else when(token.expire_time) or "never",
            )
            for token in found
        ),
    )
