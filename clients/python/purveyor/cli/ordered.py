"""What an operator's order came to: an operation that has ended, goes on, or would be begun.

Guarantee: exit code 1 for one that has failed or was cancelled; one that goes on is named with how to follow it.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import typer

from purveyor.cli.exits import Exit

if TYPE_CHECKING:
    from purveyor.cli.session import Session
    from purveyor.values import OperationStatus


def tell(session: Session, found: OperationStatus, *, validate_only: bool) -> None:
    """Show the operation, or with `validate_only` its steps. Raises typer.Exit."""
    from purveyor.cli import render  # noqa: PLC0415 - rich only where it is used

    if validate_only:
        session.say("valid; nothing was changed")
        session.emit(found, lambda: render.steps(found))
        return
    session.emit(found, lambda: render.operation(found))
    if not found.done:
        session.say(f"it goes on: purveyor watch {found.operation_id} -t {found.tenant}")
    elif found.state != "SUCCEEDED":
        raise typer.Exit(Exit.OPERATION_FAILED)
