"""Commands of operators; they go to the admin listener (--admin, PURVEYOR_ADMIN_ADDRESS, the context's)."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from purveyor.cli.session import Session, command

Admin = Annotated[
    str | None,
    typer.Option(
        "--admin", envvar="PURVEYOR_ADMIN_ADDRESS", metavar="ADDRESS", help="The admin listener.", show_default=False
    ),
]
Reason = Annotated[str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; it stays in the audit record.")]
DryRun = Annotated[
    bool, typer.Option("--validate-only", "--dry-run", help="Make every check, change nothing.", show_default=False)
]
Operation = Annotated[str, typer.Argument(metavar="OPERATION")]
What = Annotated[list[str], typer.Argument(metavar="WHAT", help="deletes, reaping, rotation, all, or: provider NAME.")]


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for function in (status, why, freeze, thaw, purge, backup, recover):
        command(app)(function)
    command(app, "edit-step")(edit_step)
    command(app, "log-level")(log_level)


async def status(session: Session, admin: Admin = None) -> None:
    """How the broker does: version, store, backlog, providers, freezes, disk."""
    from purveyor.cli import operator_tables  # noqa: PLC0415 - rich only where it is used

    async with session.admin_client(admin) as broker:
        found = await broker.status()
    session.emit(found, lambda: operator_tables.status(found))


async def why(session: Session, operation_id: Operation, admin: Admin = None) -> None:
    """Why an operation does not move."""
    from purveyor.cli import operator_tables  # noqa: PLC0415 - as above

    async with session.admin_client(admin) as broker:
        found = await broker.explain(operation_id)
    session.emit(found, lambda: operator_tables.explanation(found))


async def freeze(
    session: Session,
    what: What,
    reason: Reason,
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Stop something before its next outside call: deletes, reaping, rotation, all, or: provider NAME."""
    async with session.admin_client(admin) as broker:
        found = await broker.freeze(_name(what), reason, validate_only=validate_only)
    words = f"frozen: {found.name}: {found.reason} (by {found.principal})"
    session.emit(found, f"would be {words}" if validate_only else words)


async def thaw(
    session: Session,
    what: What,
    reason: Reason,
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Let go again what was frozen."""
    name = _name(what)
    async with session.admin_client(admin) as broker:
        found, operations = await broker.thaw(name, reason, validate_only=validate_only)
    done = f"{'would be' if validate_only else 'is'} thawed: {name}; {operations} operations go on"
    session.emit({"freeze": found, "operations": operations}, f"{name} was not frozen" if found is None else done)


def _name(what: list[str]) -> str:
    """`provider NAME` as `provider:NAME`. Raises typer.BadParameter."""
    if len(what) == 1:
        return what[0]
    if len(what) == 2 and what[0] == "provider":  # noqa: PLR2004 - a word and a name
        return f"provider:{what[1]}"
    raise typer.BadParameter("give deletes, reaping, rotation, all, or: provider NAME", param_hint="WHAT")


async def purge(
    session: Session,
    instance_id: Annotated[str, typer.Argument(metavar="INSTANCE")],
    reason: Reason,
    binding_id: Annotated[str, typer.Argument(metavar="[BINDING]", help="One binding alone.", show_default=False)] = "",
    even_if_in_use: Annotated[
        bool, typer.Option("--even-if-in-use", help="Also what is READY or ACTIVE.", show_default=False)
    ] = False,
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Forget an instance or a binding WITHOUT touching any backend; says what is left there."""
    from purveyor.cli import operator_tables  # noqa: PLC0415 - rich only where it is used

    async with session.admin_client(admin) as broker:
        found = await broker.purge(
            session.tenant, instance_id, reason,
            binding_id=binding_id, even_if_in_use=even_if_in_use, validate_only=validate_only,
        )  # fmt: skip
    session.say("nothing was changed; this would be forgotten:" if validate_only else f"forgotten: {found.resource}")
    session.emit(found, lambda: operator_tables.purged(found))


async def edit_step(
    session: Session,
    operation_id: Operation,
    step: Annotated[str, typer.Argument(metavar="STEP")],
    mark: Annotated[str, typer.Argument(metavar="done|absent")],
    reason: Reason,
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Break-glass: declare a begun step done, or its thing absent; the operation goes on from there."""
    from purveyor.cli import render  # noqa: PLC0415 - rich only where it is used

    if mark not in {"done", "absent"}:
        raise typer.BadParameter("give done or absent", param_hint="MARK")
    async with session.admin_client(admin) as broker:
        found = await broker.edit_step(operation_id, step, mark, reason, validate_only=validate_only)
    session.emit(found, lambda: render.steps(found))


async def log_level(
    session: Session,
    level: Annotated[str, typer.Argument(metavar="LEVEL", help="debug, info, warning or error.")],
    reason: Reason,
    admin: Admin = None,
) -> None:
    """Log more or less, until the process ends."""
    async with session.admin_client(admin) as broker:
        before = await broker.set_log_level(level, reason)
    session.emit({"level": level, "before": before}, f"log level {level} (was {before})")


async def backup(session: Session, file: Annotated[Path, typer.Argument(metavar="FILE")], admin: Admin = None) -> None:
    """Copy the store to FILE while the broker serves. Keep the key file apart: it is not in the copy."""
    async with session.admin_client(admin) as broker:
        try:
            found = await broker.backup(file)
        except OSError as error:
            raise typer.BadParameter(f"{file}: {error.strerror or error}", param_hint="FILE") from error
    session.emit(found, f"{found.file}: {found.bytes} bytes, revision {found.revision}, sha256 {found.sha256}")


async def recover(
    session: Session,
    finish: Annotated[bool, typer.Option("--finish", help="End the recovery.", show_default=False)] = False,
    reason: Annotated[
        str, typer.Option("--reason", "-r", metavar="TEXT", help="Why; with --finish.", show_default=False)
    ] = "",
    admin: Admin = None,
) -> None:
    """After a restore: show what differs from the backends; with --finish go on deleting and working."""
    from purveyor.cli import operator_tables  # noqa: PLC0415 - rich only where it is used

    async with session.admin_client(admin) as broker:
        if finish:
            recovery, operations = await broker.finish_recovery(reason)
            session.emit(
                {"recovery": recovery, "operations": operations}, f"the recovery is over; {operations} operations go on"
            )
            return
        found = [difference async for difference in broker.review_recovery()]
    session.emit(found, lambda: operator_tables.differences(found))
    session.say(
        f"{len(found)} differences; nothing is deleted by itself until `purveyor recover --finish --reason TEXT`"
    )
