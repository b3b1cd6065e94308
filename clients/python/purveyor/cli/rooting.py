"""`purveyor rotate-root`: new credentials for the broker's own accounts. It goes to the admin listener."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from purveyor.cli.operating import Admin, DryRun, Reason
from purveyor.cli.session import Session, command

if TYPE_CHECKING:
    from collections.abc import Sequence

Provider = Annotated[str, typer.Argument(metavar="PROVIDER", help="As the catalog names it.")]


def add(app: typer.Typer) -> None:
    """Register the command of this module."""
    command(app, "rotate-root")(rotate_root)


async def rotate_root(
    session: Session, provider: Provider, reason: Reason, validate_only: DryRun = False, admin: Admin = None
) -> None:
    """Give the accounts that the broker itself uses in a provider's backend new credentials. Bindings keep working."""
    async with session.admin_client(admin) as broker:
        found = await broker.rotate_root(provider, reason, validate_only=validate_only)
    session.emit(found, "it could be done" if validate_only else _words(found.accounts, found.left))


def _words(accounts: Sequence[str], left: Sequence[str]) -> str:
    lines = [f"new credentials: {account}" for account in accounts]
    return "\n".join([*lines, *(f"does not run, left as it is: {part}" for part in left)])
