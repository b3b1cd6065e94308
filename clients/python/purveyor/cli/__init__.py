"""The command `purveyor`.

Guarantee: what a script needs is on stdout (with `--json` one document, or one per line for a stream), everything else on
stderr, and the exit code is one of `purveyor.cli.exits`. `purveyor --help` loads neither gRPC nor the server.
"""

from __future__ import annotations

import sys


def main() -> None:
    """Entry of the command; ends the process with an exit code."""
    try:
        from purveyor.cli.app import app  # noqa: PLC0415 - importing the package `purveyor.cli` stays cheap
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.exit(f"purveyor: the command line needs {error.name}: pip install 'purveyor[cli]'")
    app(prog_name="purveyor")
