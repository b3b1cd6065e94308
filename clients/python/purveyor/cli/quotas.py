"""`purveyor quota` and `purveyor drain`: how much tenants may have, and the stop. They go to the admin listener."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

from typing import Annotated

import typer

from purveyor.cli.operating import Admin, DryRun, Reason
from purveyor.cli.session import Session, command

Tenant = Annotated[str, typer.Argument(metavar="TENANT")]
Plan = Annotated[
    str, typer.Argument(metavar="[SERVICE/PLAN]", help="One plan of the tenant, by ids.", show_default=False)
]


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    quotas = typer.Typer(help="How much tenants may have.", no_args_is_help=True)
    command(quotas, "list")(list_quotas)
    command(quotas, "set")(set_quota)
    command(quotas)(unset)
    app.add_typer(quotas, name="quota")
    command(app)(drain)


async def list_quotas(
    session: Session,
    whose: Annotated[str, typer.Argument(metavar="[TENANT]", help="One alone.", show_default=False)] = "",
    admin: Admin = None,
) -> None:
    """What tenants have and may have."""
    from purveyor.cli import operator_tables  # noqa: PLC0415 - rich only where it is used

    async with session.admin_client(admin) as broker:
        found = [quota async for quota in broker.quotas(whose)]
    session.emit(found, lambda: operator_tables.quotas(found))


async def set_quota(
    session: Session,
    whose: Tenant,
    reason: Reason,
    plan: Plan = "",
    instances: Annotated[int | None, typer.Option(help="-1: no limit.", min=-1, show_default=False)] = None,
    bindings: Annotated[int | None, typer.Option(help="-1: no limit.", min=-1, show_default=False)] = None,
    bindings_per_instance: Annotated[int | None, typer.Option(help="-1: no limit.", min=-1, show_default=False)] = None,
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Say how much a tenant may have, in the place of what was set before. Takes nothing away that is there."""
    from purveyor.cli import operator_tables  # noqa: PLC0415 - as above

    service_id, plan_id = _plan(plan)
    async with session.admin_client(admin) as broker:
        found = await broker.set_quota(
            whose, reason, service_id=service_id, plan_id=plan_id, instances=instances, bindings=bindings,
            bindings_per_instance=bindings_per_instance, validate_only=validate_only,
        )  # fmt: skip
    session.emit(found, lambda: operator_tables.quotas([found]))


async def unset(
    session: Session,
    whose: Tenant,
    reason: Reason,
    plan: Plan = "",
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Take back what was set: the settings hold again."""
    from purveyor.cli import operator_tables  # noqa: PLC0415 - as above

    service_id, plan_id = _plan(plan)
    async with session.admin_client(admin) as broker:
        found, removed = await broker.delete_quota(
            whose, reason, service_id=service_id, plan_id=plan_id, validate_only=validate_only
        )
    if not removed:
        session.say("nothing was set")
    session.emit(found, lambda: operator_tables.quotas([found]))


async def drain(session: Session, reason: Reason, validate_only: DryRun = False, admin: Admin = None) -> None:
    """Stop the broker as SIGTERM does: nothing new, time for what runs, exit code 0."""
    async with session.admin_client(admin) as broker:
        await broker.drain(reason, validate_only=validate_only)
    session.emit({"draining": not validate_only}, "nothing was changed" if validate_only else "the broker is stopping")


def _plan(text: str) -> tuple[str, str]:
    service_id, slash, plan_id = text.partition("/")
    if text and not (slash and service_id and plan_id):
        raise typer.BadParameter("give SERVICE/PLAN, by their ids", param_hint="SERVICE/PLAN")
    return service_id, plan_id
