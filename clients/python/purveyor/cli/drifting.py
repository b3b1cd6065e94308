"""`purveyor drift`: backends that are not as recorded. It goes to the admin listener."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from purveyor.cli import completing, ordered
from purveyor.cli.operating import Admin, DryRun, Reason
from purveyor.cli.session import Session, command, fallback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from purveyor.drift_values import DriftReport

Instance = Annotated[str, typer.Argument(metavar="INSTANCE", autocompletion=completing.instances)]
LookReason = Annotated[str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; it stays in the audit record.")]


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    drift = typer.Typer(help="Backends that are not what the records say; without a command, which.")
    fallback(drift)(list_drift)
    command(drift, "list")(list_drift)
    command(drift)(look)
    command(drift)(repair)
    command(drift)(pause)
    command(drift)(resume)
    app.add_typer(drift, name="drift")


async def list_drift(session: Session, admin: Admin = None) -> None:
    """Instances of every tenant that are DRIFTED or MISSING, or of which that cannot be told."""
    async with session.admin_client(admin) as broker:
        found = [report async for report in broker.drift()]
    session.emit(found, lambda: reports(found))


async def look(
    session: Session,
    instance: Instance,
    reason: LookReason = "looked at by hand",
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Look at the backend of an instance now."""
    async with session.admin_client(admin) as broker:
        found = await broker.look(session.tenant, instance, reason, validate_only=validate_only)
    session.emit(found, lambda: reports([found]))


async def repair(
    session: Session,
    instance: Instance,
    reason: Reason,
    wait: Annotated[float, typer.Option(help="Seconds to wait for its end.", min=0)] = 20.0,
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Make what is gone or changed again as it was applied. Data that is gone is not brought back."""
    async with session.admin_client(admin) as broker:
        found = await broker.repair(session.tenant, instance, reason, wait=wait, validate_only=validate_only)
    ordered.tell(session, found, validate_only=validate_only)


async def pause(
    session: Session, instance: Instance, reason: Reason, validate_only: DryRun = False, admin: Admin = None
) -> None:
    """Leave an instance alone: no rotation, campaign, repair or deletion by the broker itself."""
    async with session.admin_client(admin) as broker:
        found = await broker.pause(session.tenant, instance, reason, validate_only=validate_only)
    session.emit(found, f"{'would be' if validate_only else 'is'} left alone: {instance}: {found.pause_reason}")


async def resume(
    session: Session, instance: Instance, reason: Reason, validate_only: DryRun = False, admin: Admin = None
) -> None:
    """Look after an instance again."""
    async with session.admin_client(admin) as broker:
        found = await broker.resume(session.tenant, instance, reason, validate_only=validate_only)
    session.emit(found, f"{'would be' if validate_only else 'is'} looked after again: {instance}")


def reports(found: Sequence[DriftReport]) -> Table:
    """One row per instance."""
    from purveyor.cli.render import state, table, when  # noqa: PLC0415 - rich only where it is used

    return table(
        ("TENANT", "INSTANCE", "PLAN", "DRIFT", "SINCE", "SEEN", "WHAT"),
        (
            (
                one.tenant,
                one.instance_id,
                one.plan_id,
                state(one.drift),
                when(one.since_time),
                when(one.observe_time),
                "; ".join((*one.differences, *([one.problem] if one.problem else []))) or "-",
            )
            for one in found
        ),
    )
