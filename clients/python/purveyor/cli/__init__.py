"""The command `purveyor`.

Guarantee: what a script needs is on stdout (with `--json` one document, or one per line for a stream), everything else on
stderr, and the exit code is one of `purveyor.cli.exits`. `purveyor --help` loads neither gRPC nor the server.
"""

from __future__ import annotations

import os
import sys

INTERRUPTED = 130


def main() -> None:
    """Entry of the command; ends the process with an exit code."""
    open_what_is_closed()
    try:
        from purveyor.cli.entry import run  # noqa: PLC0415 - importing the package `purveyor.cli` stays cheap

        run(sys.argv[1:])
    except ModuleNotFoundError as error:
        if error.name not in {"typer", "rich"}:
            raise
        sys.exit(f"purveyor: the command line needs {error.name}: pip install 'purveyor[cli]'")
    except KeyboardInterrupt:  # before a command was running, which says more
        sys.exit(INTERRUPTED)


def open_what_is_closed() -> None:
    """Give a process that was started with closed standard streams empty ones: the next socket would take their numbers."""
    for name, mode in (("stdin", "r"), ("stdout", "w"), ("stderr", "w")):
        if getattr(sys, name) is None:
            setattr(sys, name, open(os.devnull, mode, encoding="utf-8"))  # noqa: PTH123, SIM115 - for the life of the process
