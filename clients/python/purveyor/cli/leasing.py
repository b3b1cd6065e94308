"""`purveyor renew`, `rotate`, `force-revoke`, and the lists of bindings that end or cannot be ended."""

# ruff: noqa: FBT002 - flags of the command line

from __future__ import annotations

from datetime import datetime
from typing import TYPE_CHECKING, Annotated

import typer

from purveyor.cli import arguments, completing
from purveyor.cli.arguments import RequestId, Timeout, ValidateOnly, Wait
from purveyor.cli.operating import Admin, DryRun, Reason
from purveyor.cli.session import Session, command

if TYPE_CHECKING:
    from collections.abc import Iterable

    from rich.table import Table

    from purveyor.values import Binding

InstanceId = Annotated[str, typer.Argument(metavar="INSTANCE", autocompletion=completing.instances)]
BindingId = Annotated[str, typer.Argument(metavar="BINDING", autocompletion=completing.bindings)]
Ttl = Annotated[
    str | None, typer.Option("--ttl", metavar="DURATION", help="From now: 15m, 2h, 1d.", show_default=False)
]
Expiring = Annotated[
    bool, typer.Option("--expiring", help="Of every tenant, those that end first before others.", show_default=False)
]
Blocked = Annotated[
    bool, typer.Option("--blocked", help="Of every tenant, those that cannot be revoked.", show_default=False)
]
Within = Annotated[
    str | None, typer.Option("--within", metavar="DURATION", help="With --expiring; else a day.", show_default=False)
]


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    command(app)(renew)
    command(app)(rotate)
    command(app, "force-revoke")(force_revoke)


async def renew(
    session: Session,
    instance_id: InstanceId,
    binding_id: BindingId,
    ttl: Ttl = None,
    until: Annotated[str | None, typer.Option(metavar="TIME", help="RFC 3339 with a zone.", show_default=False)] = None,
    shorter: Annotated[
        bool, typer.Option("--allow-shorter", help="Also to an earlier end.", show_default=False)
    ] = False,
    wait: Wait = True,
    timeout: Timeout = None,  # noqa: ASYNC109 - the option's name; it becomes asyncio.timeout
    validate_only: ValidateOnly = False,
    request_id: RequestId = None,
) -> None:
    """Move the end of a binding: to --until, to --ttl from now, else as its plan says."""
    from purveyor.cli.changing import conclude  # noqa: PLC0415 - the modules name each other

    async with session.client() as client:
        handle = await client.renew(
            instance_id,
            binding_id,
            expire_time=_time(until),
            ttl=arguments.duration(ttl, "--ttl"),
            allow_shorter=shorter,
            validate_only=validate_only,
            request_id=request_id,
        )
        await conclude(session, handle, wait=wait, limit=timeout)


async def rotate(
    session: Session,
    instance_id: InstanceId,
    binding_id: BindingId,
    id: Annotated[  # noqa: A002 - the option's name
        str, typer.Option("--id", metavar="BINDING", help="The successor's id; else one is made.", show_default=False)
    ] = "",
    ttl: Ttl = None,
    overlap: Annotated[
        str | None,
        typer.Option(metavar="DURATION", help="How long the old ones work beside the new ones.", show_default=False),
    ] = None,
    wait: Wait = True,
    timeout: Timeout = None,  # noqa: ASYNC109 - as above
    validate_only: ValidateOnly = False,
    request_id: RequestId = None,
) -> None:
    """Make the successor of a binding; the old credentials work for the overlap."""
    from purveyor.cli.changing import conclude  # noqa: PLC0415 - as above

    async with session.client() as client:
        handle = await client.rotate(
            instance_id,
            binding_id,
            successor_id=id,
            ttl=arguments.duration(ttl, "--ttl"),
            overlap=arguments.duration(overlap, "--overlap"),
            validate_only=validate_only,
            request_id=request_id,
        )
        await conclude(session, handle, wait=wait, limit=timeout)


async def force_revoke(
    session: Session,
    instance_id: InstanceId,
    binding_id: BindingId,
    reason: Reason,
    validate_only: DryRun = False,
    admin: Admin = None,
) -> None:
    """Give up a binding that cannot be revoked: it is DELETED, and its login may still work in the backend."""
    async with session.admin_client(admin) as broker:
        found = await broker.force_revoke(session.tenant, instance_id, binding_id, reason, validate_only=validate_only)
    until = "without end" if found.access_until is None else f"until {found.access_until.isoformat()}"
    left = ", ".join(found.left_behind) or "nothing that is known"
    session.emit(found, f"given up; its access may still be there {until}; left behind: {left}")


async def list_expiring(
    session: Session, admin: str | None, *, within: str | None, blocked: bool, limit: int | None
) -> None:
    """What `purveyor bindings --expiring` and `--blocked` show."""
    found: list[Binding] = []
    async with session.admin_client(admin) as broker:
        async for binding in broker.expiring_bindings(arguments.duration(within, "--within"), blocked=blocked):
            found.append(binding)
            if limit is not None and len(found) == limit:
                break
    session.emit(found, lambda: _table(found))


def _table(found: Iterable[Binding]) -> Table:
    from purveyor.cli.render import state, table, when  # noqa: PLC0415 - rich only where it is used

    return table(
        ("TENANT", "INSTANCE", "ID", "STATE", "EXPIRES", "SUCCESSOR", "TRIED AGAIN"),
        (
            (
                item.tenant,
                item.instance_id,
                item.binding_id,
                state(item.state),
                when(item.expire_time),
                item.successor_binding_id or "-",
                when(item.revocation_retry_time),
            )
            for item in found
        ),
    )


def _time(text: str | None) -> datetime | None:
    if text is None:
        return None
    try:
        found = datetime.fromisoformat(text)
    except ValueError as error:
        raise typer.BadParameter(f"{text!r} is not a time", param_hint="--until") from error
    if found.tzinfo is None:
        raise typer.BadParameter(f"{text!r} has no zone: append Z or an offset", param_hint="--until")
    return found
