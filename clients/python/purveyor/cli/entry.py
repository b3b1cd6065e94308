"""From the arguments of the process to an exit code.

Guarantee: with `--json` among the arguments wrong use is one document on stderr too, in the form of every other failure.
"""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import typer

from purveyor.cli import words
from purveyor.cli.app import app
from purveyor.cli.documents import failure_document, text
from purveyor.cli.exits import Exit
from purveyor.errors import InvalidRequestError

if TYPE_CHECKING:
    from collections.abc import Sequence


def run(arguments: Sequence[str]) -> None:
    """Run the command. Raises SystemExit, always."""
    if not wants_json(arguments):
        app(arguments, prog_name="purveyor")
    try:
        code = app(arguments, prog_name="purveyor", standalone_mode=False)
    except typer.TyperException as error:
        wrong_use = InvalidRequestError(error.format_message())
        words.tell(text(failure_document(wrong_use, Exit.USAGE)))
        code = Exit.USAGE
    sys.exit(code)


def wants_json(arguments: Sequence[str]) -> bool:
    """Whether `--json` is among the options, which end with `--`."""
    options = arguments[: arguments.index("--")] if "--" in arguments else arguments
    return "--json" in options
