"""`purveyor adopt`: an existing thing becomes an instance. It goes to the admin listener."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from purveyor.cli import arguments, named, ordered
from purveyor.cli.operating import Admin, DryRun, Reason
from purveyor.cli.session import Session, command

if TYPE_CHECKING:
    from purveyor.values import OperationStatus


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    command(app)(adopt)


async def adopt(
    session: Session,
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="What it shall be called.")],
    plan: Annotated[str, typer.Argument(metavar="SERVICE/PLAN", help="By names or ids.")],
    reason: Reason,
    source: Annotated[
        list[str], typer.Option("--source", "-s", metavar="NAME=VALUE", help="What is adopted: database=crm.")
    ],
    parameter: Annotated[
        list[str] | None, typer.Option("--param", "-p", metavar="NAME=VALUE", show_default=False)
    ] = None,
    wait: Annotated[float, typer.Option(help="Seconds to wait for its end.", min=0)] = 20.0,
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Bring an existing thing under management. Whatever fails, its data is never removed."""
    service, name = named.split(plan)
    what, parameters = arguments.values("--source", source), arguments.parameters(parameter, None)
    async with session.admin_client(admin) as broker:

        async def order(service_id: str, plans: tuple[str, ...]) -> OperationStatus:
            return await broker.adopt(
                session.tenant, instance, service_id, plans[0], what, reason,
                parameters=parameters, wait=wait, validate_only=validate_only,
            )  # fmt: skip

        found = await named.by_name(session, service, (name,), order)
    ordered.tell(session, found, validate_only=validate_only)
