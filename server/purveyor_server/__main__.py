"""`python -m purveyor_server`: the server without the command line client."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from purveyor_server.app import check_command, restore_command, serve_command


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command; returns its exit code (argparse itself exits with 2 on bad usage)."""
    arguments = _parser().parse_args(argv)
    if arguments.command == "serve":
        return serve_command(arguments.config, dev=arguments.dev, data_dir=arguments.data_dir)
    if arguments.command == "restore":
        return restore_command(arguments.file, arguments.config, dev=arguments.dev, data_dir=arguments.data_dir)
    return check_command(arguments.config, dev=arguments.dev)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m purveyor_server", description="The Purveyor service broker.")
    commands = parser.add_subparsers(dest="command", required=True)
    serve = commands.add_parser("serve", help="serve until a signal")
    restore = commands.add_parser("restore", help="put a backup in the place of the store, while the broker is stopped")
    restore.add_argument("file", type=Path, help="made by `purveyor backup`")
    for command in (serve, restore):
        command.add_argument("--data-dir", type=Path, help="folder of the store, the keys and the backends' files")
    check = commands.add_parser("config", help="look at a configuration").add_subparsers(dest="action", required=True)
    for command in (
        serve,
        restore,
        check.add_parser("check", help="judge settings and catalog without starting anything"),
    ):
        command.add_argument("--config", type=Path, help="settings file (TOML)")
        command.add_argument("--dev", action="store_true", help="defaults that need no configuration at all")
    return parser


if __name__ == "__main__":
    sys.exit(main())
