"""Values as tables for people.

Limit: for people only; a script reads `--json`. Control characters in the data are replaced, so that nobody's label moves
a cursor.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from rich.console import Group
from rich.table import Table
from rich.text import Text

from purveyor.cli.words import clean

if TYPE_CHECKING:
    from collections.abc import Iterable
    from datetime import datetime

    from purveyor.cli.story import Story
    from purveyor.credentials import Credentials
    from purveyor.values import Binding, Catalog, Instance, OperationStatus

_COLOURS = {
    **dict.fromkeys(("READY", "ACTIVE", "SUCCEEDED", "DONE"), "green"),
    **dict.fromkeys(("FAILED", "DELETE_FAILED", "REVOCATION_BLOCKED"), "red"),
    **dict.fromkeys(("DELETED", "CANCELLED", "EXPIRED", "PLANNED", "UNDONE"), "dim"),
}


def state(name: str) -> Text:
    """A state in its colour."""
    return Text(clean(name), style=_COLOURS.get(name, "yellow"))


def when(time: datetime | None) -> str:
    """A time in the reader's zone, to the second."""
    return time.astimezone().isoformat(sep=" ", timespec="seconds") if time else "-"


def table(columns: Iterable[str], rows: Iterable[Iterable[str | Text]]) -> Table:
    """A plain table with a heading."""
    made = Table(box=None, pad_edge=False, header_style="bold")
    for column in columns:
        made.add_column(column, no_wrap=column in {"ID", "INSTANCE", "OPERATION", "STATE"})
    for row in rows:
        made.add_row(*(cell if isinstance(cell, Text) else clean(cell) for cell in row))
    return made


def facts(pairs: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and values; empty values are left out."""
    made = Table(box=None, show_header=False, pad_edge=False)
    made.add_column(style="bold", no_wrap=True)
    made.add_column(overflow="fold")
    for name, value in pairs:
        if value:
            made.add_row(name, value if isinstance(value, Text) else clean(value))
    return made


def catalog(found: Catalog) -> Table:
    """One row per plan."""
    return table(
        ("SERVICE", "PLAN", "STATE", "BINDABLE", "FREE", "DESCRIPTION"),
        (
            (
                service.name,
                plan.name,
                state(plan.state),
                "yes" if plan.bindable else "no",
                "yes" if plan.free else "no",
                plan.description or service.description,
            )
            for service in found.services
            for plan in service.plans
        ),
    )


def instances(found: Iterable[Instance]) -> Table:
    """One row per instance."""
    return table(
        ("INSTANCE", "SERVICE", "PLAN", "STATE", "CREATED"),
        (
            (
                item.instance_id,
                item.service_name or item.service_id,
                item.plan_name or item.plan_id,
                state(item.state),
                when(item.create_time),
            )
            for item in found
        ),
    )


def instance(found: Instance) -> Table:
    """One instance."""
    last = found.last_operation
    return facts(
        (
            ("instance", found.instance_id),
            ("state", state(found.state)),
            ("usable", "yes" if found.usable else "no"),
            ("service", found.service_name or found.service_id),
            ("plan", found.plan_name or found.plan_id),
            ("maintenance", found.maintenance_version),
            ("parameters", ", ".join(f"{name}={value}" for name, value in found.parameters.items())),
            ("labels", ", ".join(f"{name}={value}" for name, value in found.labels.items())),
            ("adopted", "yes" if found.adopted else ""),
            ("protected", "yes" if found.deletion_protected else ""),
            ("drift", found.drift),
            (
                "unknown to its platform",
                f"since {when(found.platform_orphan_time)}" if found.platform_orphan_time else "",
            ),
            ("left alone", f"{found.pause_reason} (since {when(found.pause_time)})" if found.pause_reason else ""),
            ("endpoints", ", ".join(f"{item.host}:{','.join(item.ports)}" for item in found.endpoints)),
            ("left behind", ", ".join(found.cleanup_required)),
            ("dashboard", found.dashboard_url),
            ("last operation", f"{last.verb} {last.state} {last.operation_id}" if last else ""),
            ("created", when(found.create_time)),
            ("uid", found.uid),
            ("etag", found.etag),
        )
    )


def bindings(found: Iterable[Binding]) -> Table:
    """One row per binding."""
    return table(
        ("INSTANCE", "ID", "STATE", "EXPIRES", "CREATED"),
        (
            (item.instance_id, item.binding_id, state(item.state), when(item.expire_time), when(item.create_time))
            for item in found
        ),
    )


def binding(found: Binding) -> Table:
    """One binding, without credentials."""
    return facts(
        (
            ("binding", found.binding_id),
            ("instance", found.instance_id),
            ("state", state(found.state)),
            ("expires", when(found.expire_time) if found.expire_time else ""),
            ("renew before", when(found.renew_before) if found.renew_before else ""),
            ("rotated by itself", when(found.rotate_time) if found.rotate_time else ""),
            ("predecessor", found.predecessor_binding_id),
            ("successor", found.successor_binding_id),
            ("revocation tried again", when(found.revocation_retry_time) if found.revocation_retry_time else ""),
            ("left behind", ", ".join(found.cleanup_required)),
            ("created", when(found.create_time)),
            ("uid", found.uid),
            ("etag", found.etag),
        )
    )


def operations(found: Iterable[OperationStatus]) -> Table:
    """One row per operation."""
    return table(
        ("OPERATION", "VERB", "INSTANCE", "BINDING", "STATE", "%", "CREATED"),
        (
            (
                item.operation_id,
                item.verb,
                item.instance_id,
                item.binding_id or "-",
                state(item.state),
                f"{item.percent:.0f}",
                when(item.create_time),
            )
            for item in found
        ),
    )


def operation(found: OperationStatus) -> Table:
    """One operation."""
    waiting = found.waiting
    return facts(
        (
            ("operation", found.operation_id or "(none)"),
            ("verb", found.verb),
            ("on", " / ".join(filter(None, (found.instance_id, found.binding_id)))),
            ("state", state(found.state)),
            ("progress", f"{found.percent:.0f} % {found.sentence}"),
            ("waiting", f"{waiting.reason} {waiting.detail}" if waiting else ""),
            ("error", found.error_message),
            ("reason", found.failure.reason if found.failure else ""),
            ("operator", found.failure.operator_message if found.failure else ""),
            ("taken over by", found.taken_over_by),
            ("left behind", ", ".join(found.cleanup_required)),
            ("created", when(found.create_time)),
            ("ended", when(found.end_time) if found.end_time else ""),
            ("deadline", when(found.deadline) if found.deadline and not found.done else ""),
        )
    )


def steps(found: OperationStatus) -> Table:
    """The steps of an operation."""
    return table(
        ("STEP", "MAKE", "STATE", "ATTEMPTS", "PIVOT", "STARTED", "ENDED"),
        (
            (
                step.name,
                step.make,
                state(step.state or "PLANNED"),
                str(step.attempts),
                "pivot" if step.pivot else "-",
                when(step.start_time),
                when(step.end_time),
            )
            for step in found.steps
        ),
    )


def story(found: Story) -> Group:
    """An instance, its story, what is left behind, and what could not be told."""
    item = found.instance
    head = facts(
        (
            ("instance", item.instance_id),
            ("state", state(item.state)),
            ("plan", f"{item.service_name or item.service_id} {item.plan_name or item.plan_id}"),
            ("left behind", ", ".join(found.left)),
            ("not told", "; ".join(found.gaps)),
        )
    )
    rows = (
        (when(entry.time), entry.who, entry.what, state(entry.state or "-"), "; ".join(entry.told), entry.operation_id)
        for entry in found.entries
    )
    return Group(head, table(("WHEN", "WHO", "WHAT", "STATE", "TOLD", "OPERATION"), rows))


def credentials(found: Credentials) -> Table:
    """The credentials, in the clear."""
    return facts((name, str(value)) for name, value in found.reveal().items())
