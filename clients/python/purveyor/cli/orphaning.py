"""`purveyor orphans` and `purveyor rebuild`: what backends have and no record stands for. They go to the admin listener."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from purveyor.cli.operating import Admin, DryRun, Reason
from purveyor.cli.session import Session, command, fallback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from purveyor.orphan_values import InventoryStatus, Orphan, RebuildLine

Provider = Annotated[str, typer.Argument(metavar="PROVIDER")]
Kind = Annotated[str, typer.Argument(metavar="KIND", help="database, role, folder, ...")]
Name = Annotated[str, typer.Argument(metavar="NAME", help="Its name in the backend.")]
Of = Annotated[str, typer.Option("--provider", "-p", metavar="NAME", help="Of one provider.", show_default=False)]
States = Annotated[
    list[str] | None,
    typer.Option("--state", "-s", metavar="STATE", help="In this state; may be repeated.", show_default=False),
]
FAILED = 1  # as an operation that failed


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    orphans = typer.Typer(help="Things in backends that no record stands for; without a command, which there are.")
    fallback(orphans)(list_orphans)
    command(orphans, "list")(list_orphans)
    command(orphans)(sweep)
    command(orphans)(quarantine)
    command(orphans)(release)
    command(orphans)(reap)
    command(orphans)(ignore)
    command(orphans)(resume)
    app.add_typer(orphans, name="orphans")
    command(app)(rebuild)


async def list_orphans(session: Session, provider: Of = "", states: States = None, admin: Admin = None) -> None:
    """What sweeps have seen and no record stands for; without --state what has not ended."""
    async with session.admin_client(admin) as broker:
        found = [orphan async for orphan in broker.orphans(provider, states=states or [])]
    session.emit(found, lambda: orphans_table(found))


async def sweep(
    session: Session, provider: Provider, reason: Reason, validate_only: DryRun = False, admin: Admin = None
) -> None:
    """Compare a backend with the records now, and do what the policy of its provider says."""
    last = None
    told = ""
    async with session.admin_client(admin) as broker:
        async for last in broker.sweep(provider, reason, validate_only=validate_only):
            if (words := f"{last.owned} things, {last.orphans} without a record") != told:
                session.say(told := words)
    assert last is not None, "a sweep says at least that it is done"
    session.emit(last, lambda: inventories_table([last]))
    if last.brake_reason:
        session.say(f"stopped: {last.brake_reason}; `purveyor orphans resume {provider}` lets it go on")


async def quarantine(
    session: Session,
    provider: Provider,
    kind: Kind,
    name: Name,
    reason: Reason,
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Make a thing unusable, and keep it."""
    async with session.admin_client(admin) as broker:
        found = await broker.quarantine_orphan(provider, kind, name, reason, validate_only=validate_only)
    _tell(session, found, tried=not validate_only, validate_only=validate_only)


async def release(
    session: Session,
    provider: Provider,
    kind: Kind,
    name: Name,
    reason: Reason,
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Take a quarantine back; sweeps leave the thing alone from then on."""
    async with session.admin_client(admin) as broker:
        found = await broker.release_orphan(provider, kind, name, reason, validate_only=validate_only)
    _tell(session, found, tried=not validate_only, validate_only=validate_only)


async def reap(
    session: Session,
    provider: Provider,
    kind: Kind,
    name: Name,
    reason: Reason,
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Remove a thing for good, WITH what is in it."""
    async with session.admin_client(admin) as broker:
        found = await broker.reap_orphan(provider, kind, name, reason, validate_only=validate_only)
    _tell(session, found, tried=not validate_only, validate_only=validate_only)


async def ignore(
    session: Session,
    provider: Provider,
    kind: Kind,
    name: Name,
    reason: Reason,
    undo: Annotated[bool, typer.Option("--undo", help="Look after it again.", show_default=False)] = False,
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Have sweeps leave a thing alone."""
    async with session.admin_client(admin) as broker:
        found = await broker.ignore_orphan(provider, kind, name, reason, undo=undo, validate_only=validate_only)
    _tell(session, found, tried=False, validate_only=validate_only)


async def resume(
    session: Session, provider: Provider, reason: Reason, validate_only: DryRun = False, admin: Admin = None
) -> None:
    """Have the sweeps of a provider go on after a brake: what the last one has shown may pass, more may not."""
    async with session.admin_client(admin) as broker:
        found, resumed = await broker.resume_sweep(provider, reason, validate_only=validate_only)
    words = f"sweeps of {provider} go on" if resumed else f"sweeps of {provider} were not stopped"
    session.emit({"inventory": found, "resumed": resumed}, f"would: {words}" if validate_only and resumed else words)


async def rebuild(
    session: Session,
    report: Annotated[bool, typer.Option("--report", help="Show it.", show_default=False)] = False,
    admin: Admin = None,
) -> None:
    """With --report: what the markers in the backends say that the store should hold. Changes nothing."""
    if not report:
        raise typer.BadParameter("there is only the report so far", param_hint="--report")
    async with session.admin_client(admin) as broker:
        found = [line async for line in broker.rebuild_report()]
    session.emit(found, lambda: report_table(found))
    counts = {name: sum(line.finding == name for line in found) for name in sorted({line.finding for line in found})}
    session.say(", ".join(f"{count} {name}" for name, count in counts.items()) or "nothing bears the store's marker")


def _tell(session: Session, found: Orphan, *, tried: bool, validate_only: bool) -> None:
    """The thing as it is now; its failure is that of this act where the backend was `tried`, else of an earlier one."""
    session.emit(found, lambda: orphans_table([found]))
    if validate_only:
        session.say("could be done; nothing was changed")
    if tried and found.failure:
        session.say(f"not done: {found.failure}")
        raise typer.Exit(FAILED)


def orphans_table(found: Sequence[Orphan]) -> Table:
    """One row per thing."""
    from purveyor.cli.render import state, table, when  # noqa: PLC0415 - rich only where it is used

    return table(
        ("PROVIDER", "KIND", "NAME", "STATE", "WHAT", "REVISION", "FIRST SEEN", "LAST SEEN", "FAILURE"),
        (
            (
                one.provider,
                one.kind,
                one.name,
                state(one.state),
                one.standing,
                str(one.revision),
                when(one.first_seen_time),
                when(one.last_seen_time),
                one.failure or "-",
            )
            for one in found
        ),
    )


def inventories_table(found: Sequence[InventoryStatus]) -> Table:
    """One row per provider."""
    from purveyor.cli.render import table, when  # noqa: PLC0415 - as above

    return table(
        ("SWEEPS OF", "MODE", "LAST", "THINGS", "ORPHANS", "QUARANTINED", "REAPED", "FAILED", "PROBLEM"),
        (
            (
                one.provider,
                one.mode,
                when(one.begin_time),
                str(one.owned),
                str(one.orphans),
                str(one.quarantined),
                str(one.reaped),
                str(one.failed),
                f"STOPPED: {one.brake_reason}; see `purveyor orphans`" if one.brake_reason else one.problem or "-",
            )
            for one in found
        ),
    )


def report_table(found: Sequence[RebuildLine]) -> Table:
    """One row per line; a uid is written where its group begins."""
    from purveyor.cli.render import state, table  # noqa: PLC0415 - as above

    return table(
        ("PROVIDER", "UID", "FINDING", "KIND", "NAME", "REVISION", "RECORD"),
        (
            (
                line.provider,
                line.uid if line.first else "",
                state(line.finding),
                line.kind or "-",
                line.name or "-",
                (f"{line.revision} (later than the store)" if line.later else str(line.revision)) if line.kind else "-",
                line.resource or line.problem or "-",
            )
            for line in found
        ),
    )
