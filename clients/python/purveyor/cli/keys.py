"""`purveyor keys`: the keys that seal secrets in the store. A new one is made where the broker runs, the rest is asked of it."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from purveyor.cli.operating import Admin, DryRun, Reason
from purveyor.cli.serving import ConfigFile, server_app
from purveyor.cli.session import Session, command

Label = Annotated[str, typer.Argument(metavar="LABEL")]


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    keys = typer.Typer(help="The keys that seal secrets in the store.", no_args_is_help=True)
    keys.command("new")(new)
    command(keys, "list")(list_keys)
    command(keys)(rotate)
    command(keys)(retire)
    app.add_typer(keys, name="keys")


def new(
    label: Annotated[
        str, typer.Option(help="Its label; without it the next free k1, k2, ...", show_default=False)
    ] = "",
    print_it: Annotated[
        bool, typer.Option("--print", help="Print a key and change nothing: for other sources.", show_default=False)
    ] = False,
    config: ConfigFile = None,
    dev: Annotated[bool, typer.Option("--dev", help="The key file of `serve --dev`.", show_default=False)] = False,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the broker keeps its things.", show_default=False)
    ] = None,
) -> None:
    """Put a fresh key before the others in the key file; `purveyor keys rotate` then seals with it."""
    raise typer.Exit(server_app().new_key_command(label, print_it, config, dev, data_dir))


async def list_keys(session: Session, admin: Admin = None) -> None:
    """Which keys seal how much."""
    from purveyor.cli import operator_tables  # noqa: PLC0415 - rich only where it is used

    async with session.admin_client(admin) as broker:
        found = await broker.keys()
    session.emit(found, lambda: operator_tables.keys(found))


async def rotate(session: Session, reason: Reason, validate_only: DryRun = False, admin: Admin = None) -> None:
    """Seal everything with the first key of the source, while the broker serves; call it again if it is broken off."""
    last = None
    async with session.admin_client(admin) as broker:
        async for last in broker.rotate_keys(reason, validate_only=validate_only):
            if not last.done:
                session.say(f"{last.checked} values looked at, {last.resealed} sealed again")
    assert last is not None, "a rotation says at least that it is done"
    would = "would be " if validate_only else ""
    words = f"everything {would}sealed with {last.label}: {last.checked} values, {last.resealed} sealed again"
    session.emit(last, words)
    if last.unreadable:
        session.say(
            f"{last.unreadable} values cannot be opened and stay as they are: the broker's log names their owners"
        )


async def retire(
    session: Session, label: Label, reason: Reason, validate_only: DryRun = False, admin: Admin = None
) -> None:
    """Take a key with which nothing is sealed out of the key file. Backups of its time still need it."""
    async with session.admin_client(admin) as broker:
        removed = await broker.retire_key(label, reason, validate_only=validate_only)
    words = f"taken out of the key file: {label}" if removed else f"nothing is sealed with {label}: take it away"
    session.emit({"label": label, "removed": removed}, f"would be {words}" if validate_only and removed else words)
