"""`purveyor adopt`: an existing thing becomes an instance. It goes to the admin listener."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

from typing import Annotated

import typer

from purveyor.cli import arguments
from purveyor.cli.operating import Admin, DryRun, Reason
from purveyor.cli.session import Session, command


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    command(app)(adopt)


async def adopt(
    session: Session,
    instance: Annotated[str, typer.Argument(metavar="INSTANCE", help="What it shall be called.")],
    plan: Annotated[str, typer.Argument(metavar="SERVICE/PLAN", help="By ids.")],
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
    from purveyor.cli.render import operation  # noqa: PLC0415 - rich only where it is used

    service_id, slash, plan_id = plan.partition("/")
    if not (slash and service_id and plan_id):
        raise typer.BadParameter("give SERVICE/PLAN, by their ids", param_hint="SERVICE/PLAN")
    async with session.admin_client(admin) as broker:
        found = await broker.adopt(
            session.tenant, instance, service_id, plan_id, arguments.parameters(source, None) or {}, reason,
            parameters=arguments.parameters(parameter, None), wait=wait, validate_only=validate_only,
        )  # fmt: skip
    session.emit(found, lambda: operation(found))
