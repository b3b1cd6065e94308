"""`purveyor serve` and `purveyor config check`: the server's own entry points, loaded only here."""

from __future__ import annotations

import sys
from importlib import import_module
from pathlib import Path
from typing import Annotated, Any

import typer

from purveyor.cli.exits import Exit

ConfigFile = Annotated[
    Path | None, typer.Option("--config", "-c", metavar="FILE", help="The TOML file.", show_default=False)
]


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    app.command("serve")(serve)
    app.command("restore")(restore)
    config = typer.Typer(help="The server's configuration.", no_args_is_help=True)
    config.command("check")(check)
    app.add_typer(config, name="config")


def serve(
    config: ConfigFile = None,
    dev: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--dev", help="Needs nothing: a PostgreSQL of its own, a unix socket.", show_default=False)
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the broker keeps its things.", show_default=False)
    ] = None,
) -> None:
    """Run the broker until SIGTERM or SIGINT."""
    raise typer.Exit(server_app().serve_command(config, dev, data_dir))


def restore(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="Made by `purveyor backup`.")],
    config: ConfigFile = None,
    dev: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--dev", help="The store of `serve --dev`.", show_default=False)
    ] = False,
    data_dir: Annotated[
        Path | None, typer.Option(metavar="FOLDER", help="Where the broker keeps its things.", show_default=False)
    ] = None,
) -> None:
    """Put a backup in the place of the store, while the broker is stopped; the old store is kept beside it."""
    raise typer.Exit(server_app().restore_command(file, config, dev, data_dir))


def check(
    config: ConfigFile = None,
    dev: Annotated[  # noqa: FBT002 - a flag of the command line
        bool, typer.Option("--dev", help="As `serve --dev` would take it.", show_default=False)
    ] = False,
) -> None:
    """Check configuration and catalog; every bad value is named with its path."""
    raise typer.Exit(server_app().check_command(config, dev))


def server_app() -> Any:
    """The server's composition root. Raises typer.Exit when the server is not installed."""
    try:
        return import_module("purveyor_server.app")
    except ModuleNotFoundError as error:
        sys.stderr.write(f"the server is not installed ({error}): pip install 'purveyor[server,postgres,embedded]'\n")
        raise typer.Exit(Exit.USAGE) from error
