"""`purveyor inventory` and `purveyor claim`: what a platform still has."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from purveyor.cli import completing
from purveyor.cli.operating import Admin, DryRun
from purveyor.cli.session import Session, command, fallback

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rich.table import Table

    from purveyor.inventory_values import PlatformOrphan

File = Annotated[str, typer.Argument(metavar="FILE|-", help="Ids of instances, one a line; - is stdin.")]


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    inventory = typer.Typer(help="What platforms still have; without a command, what they no longer name.")
    fallback(inventory)(list_orphans)
    command(inventory)(sync)
    command(inventory, "list")(list_orphans)
    app.add_typer(inventory, name="inventory")
    command(app)(claim)


async def sync(
    session: Session,
    file: File,
    snapshot: Annotated[
        str,
        typer.Option("--snapshot", metavar="ID", help="The same id again is the same inventory.", show_default=False),
    ] = "",
    validate_only: DryRun = False,
) -> None:
    """Tell which instances of the tenant this platform still has; the others that it ordered become platform-orphans."""
    names = _names(file)
    async with session.client() as client:
        found = await client.sync_inventory(names, snapshot_id=snapshot or None, validate_only=validate_only)
    words = [
        f"{found.named} named, {found.known} known, {found.unknown} unknown here, {found.orphans} platform-orphans"
    ]
    words += [f"no longer named: {name}" for name in found.orphaned] + [f"named again: {name}" for name in found.healed]
    session.emit(found, "\n".join(words))


async def list_orphans(session: Session, admin: Admin = None) -> None:
    """Instances of every tenant that their platforms no longer name, and what will become of them."""
    async with session.admin_client(admin) as broker:
        found = [orphan async for orphan in broker.platform_orphans()]
    session.emit(found, lambda: orphans(found))


async def claim(
    session: Session,
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", autocompletion=completing.instances)],
    validate_only: DryRun = False,
) -> None:
    """Say of a platform-orphan that it is this platform's own after all."""
    async with session.client() as client:
        found = await client.claim(instance, validate_only=validate_only)
    session.emit(found, f"claimed: {instance}")


def orphans(found: Sequence[PlatformOrphan]) -> Table:
    """One row per instance."""
    from purveyor.cli.render import table, when  # noqa: PLC0415 - rich only where it is used

    return table(
        ("TENANT", "INSTANCE", "PLATFORM", "SINCE", "LEFT OUT", "GRACE ENDS", "KEPT"),
        (
            (
                one.tenant,
                one.instance_id,
                one.owner,
                when(one.since_time),
                when(one.seen_time),
                when(one.due_time),
                one.kept or "-",
            )
            for one in found
        ),
    )


def _names(file: str) -> list[str]:
    """The ids in a file. Raises typer.BadParameter."""
    try:
        text = sys.stdin.read() if file == "-" else Path(file).read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise typer.BadParameter(f"{file} cannot be read", param_hint="FILE") from error
    return [line.strip() for line in text.splitlines() if line.strip()]
