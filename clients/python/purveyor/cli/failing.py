"""Commands of operators about operations that failed, or that do not end."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from purveyor.cli.operating import Admin, DryRun, Operation, Reason
from purveyor.cli.session import Session, command

if TYPE_CHECKING:
    from purveyor.values import OperationStatus


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for function in (retry, cleanup, abandon):
        command(app)(function)


async def retry(
    session: Session, operation_id: Operation, reason: Reason, validate_only: DryRun = False, admin: Admin = None
) -> None:
    """Try a failed operation again: from the failed step where its remains were kept, else anew."""
    async with session.admin_client(admin) as broker:
        found = await broker.retry(operation_id, reason, validate_only=validate_only)
    how = "goes on from the failed step" if found.resumed_operation_id else "a new attempt"
    _emit(session, found, how, validate_only=validate_only)


async def cleanup(
    session: Session, operation_id: Operation, reason: Reason, validate_only: DryRun = False, admin: Admin = None
) -> None:
    """Remove what a failed operation left behind: begin what its policy leaves to you, or what waits for its time."""
    async with session.admin_client(admin) as broker:
        found = await broker.clean_up(operation_id, reason, validate_only=validate_only)
    _emit(session, found, "cleans up", validate_only=validate_only)


async def abandon(
    session: Session, operation_id: Operation, reason: Reason, validate_only: DryRun = False, admin: Admin = None
) -> None:
    """End an operation for good WITHOUT touching any backend; says what is left there."""
    async with session.admin_client(admin) as broker:
        found = await broker.abandon(operation_id, reason, validate_only=validate_only)
    left = "\n".join(f"left behind: {name}" for name in found.left_behind) or "nothing was left behind"
    ended = "would end" if validate_only else "has ended"
    session.emit(found, f"operation {operation_id} {ended}: ABANDONED\n{left}")


def _emit(session: Session, found: OperationStatus, how: str, *, validate_only: bool) -> None:
    subject = found.instance_id + (f" / {found.binding_id}" if found.binding_id else "")
    name = found.operation_id or "(nothing was changed)"
    words = "would be begun" if validate_only else "begun"
    session.emit(found, f"{words}: {found.verb} of {subject}: {how}: operation {name}")
