"""`purveyor provider new`: for authors of providers; the server's own code, loaded only here."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from purveyor.cli.serving import server_app


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    provider = typer.Typer(help="For authors of providers.", no_args_is_help=True)
    provider.command("new")(new)
    app.add_typer(provider, name="provider")


def new(
    name: Annotated[str, typer.Argument(metavar="NAME", help="The kind, and the folder: letters, digits and '-'.")],
    into: Annotated[Path, typer.Option(metavar="DIR", help="Where the new folder goes.")] = Path(),
) -> None:
    """Write a working provider package with its tests, to be made your own."""
    raise typer.Exit(server_app().new_provider_command(name, into))
