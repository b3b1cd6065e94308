"""Commands that change nothing."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from purveyor.cli import completing
from purveyor.cli.arguments import Filter, Limit, Timeout
from purveyor.cli.leasing import Blocked, Expiring, Within, list_expiring
from purveyor.cli.lists import Item, newest
from purveyor.cli.operating import Admin
from purveyor.cli.session import Session, command

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

LARGEST_PAGE = 1000  # what a limit has to walk past is not shown

InstanceId = Annotated[
    str, typer.Argument(metavar="INSTANCE", help="The instance's id.", autocompletion=completing.instances)
]
BindingId = Annotated[
    str, typer.Argument(metavar="BINDING", help="The binding's id.", autocompletion=completing.bindings)
]
OperationId = Annotated[
    str, typer.Argument(metavar="OPERATION", help="The operation's id.", autocompletion=completing.operations)
]
Deleted = Annotated[bool, typer.Option("--deleted", help="Tombstones too.", show_default=False)]


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for function in (
        instances,
        instance,
        bindings,
        binding,
        operations,
        operation,
        watch,
        explain,
    ):
        command(app)(function)


async def _newest(session: Session, items: AsyncIterator[Item], limit: int | None) -> list[Item]:
    """The last `limit` of a list, which is oldest first; all without one. Says what is left out."""
    kept, count = await newest(items, limit)
    if len(kept) < count:
        session.say(f"the newest {len(kept)} of {count}")
    return kept


async def instances(
    session: Session,
    filter: Filter = "",  # noqa: A002 - the option's name
    limit: Limit = None,
    deleted: Deleted = False,  # noqa: FBT002 - an option
) -> None:
    """The instances of the tenant, oldest first."""
    from purveyor.cli import render  # noqa: PLC0415 - as above

    async with session.client() as client:
        items = client.instances(filter, show_deleted=deleted, page_size=LARGEST_PAGE if limit else 0)
        found = await _newest(session, items, limit)
    session.emit(found, lambda: render.instances(found))


async def instance(session: Session, instance_id: InstanceId, deleted: Deleted = False) -> None:  # noqa: FBT002 - an option
    """One instance."""
    from purveyor.cli import render  # noqa: PLC0415 - as above

    async with session.client() as client:
        found = await client.instance(instance_id, show_deleted=deleted)
    session.emit(found, lambda: render.instance(found))


async def bindings(
    session: Session,
    instance_id: Annotated[
        str,
        typer.Argument(
            metavar="[INSTANCE]", help="Of one instance.", show_default=False, autocompletion=completing.instances
        ),
    ] = "",
    filter: Filter = "",  # noqa: A002 - the option's name
    limit: Limit = None,
    deleted: Deleted = False,  # noqa: FBT002 - an option
    expiring: Expiring = False,  # noqa: FBT002 - an option
    blocked: Blocked = False,  # noqa: FBT002 - an option
    within: Within = None,
    admin: Admin = None,
) -> None:
    """The bindings of an instance, or of the whole tenant, oldest first; with --expiring or --blocked those of every tenant."""
    from purveyor.cli import render  # noqa: PLC0415 - as above

    if expiring or blocked:
        if instance_id or (expiring and blocked):
            raise typer.BadParameter("they are lists of their own, of every tenant", param_hint="--expiring, --blocked")
        return await list_expiring(session, admin, within=within, blocked=blocked, limit=limit)
    async with session.client() as client:
        page_size = LARGEST_PAGE if limit else 0
        items = client.bindings(instance_id, filter, show_deleted=deleted, page_size=page_size)
        found = await _newest(session, items, limit)
    session.emit(found, lambda: render.bindings(found))


async def binding(session: Session, instance_id: InstanceId, binding_id: BindingId, deleted: Deleted = False) -> None:  # noqa: FBT002 - an option
    """One binding, without its credentials."""
    from purveyor.cli import render  # noqa: PLC0415 - as above

    async with session.client() as client:
        found = await client.binding(instance_id, binding_id, show_deleted=deleted)
    session.emit(found, lambda: render.binding(found))


async def operations(session: Session, filter: Filter = "", limit: Limit = None) -> None:  # noqa: A002 - the option's name
    """The operations of the tenant, oldest first."""
    from purveyor.cli import render  # noqa: PLC0415 - as above

    async with session.client() as client:
        items = client.operations(filter, page_size=LARGEST_PAGE if limit else 0)
        found = await _newest(session, items, limit)
    session.emit(found, lambda: render.operations(found))


async def operation(
    session: Session,
    operation_id: OperationId,
    steps: Annotated[bool, typer.Option("--steps", help="With its steps.", show_default=False)] = False,  # noqa: FBT002 - an option
) -> None:
    """One operation."""
    from purveyor.cli import render  # noqa: PLC0415 - as above

    async with session.client() as client:
        found = (await client.operation(operation_id, steps=steps)).status
    session.emit(found, lambda: render.operation(found))
    if steps and not session.json:
        session.show("")
        session.show(render.steps(found))


async def watch(
    session: Session,
    operation_id: Annotated[
        str | None,
        typer.Argument(
            metavar="[OPERATION]", help="One; else all.", show_default=False, autocompletion=completing.operations
        ),
    ] = None,
    until_idle: Annotated[  # noqa: FBT002 - an option
        bool, typer.Option("--until-idle", help="Without OPERATION: until none is unfinished.", show_default=False)
    ] = False,
    timeout: Timeout = None,  # noqa: ASYNC109 - the option's name; it becomes asyncio.timeout
) -> None:
    """Follow an operation to its end, or all that are unfinished, over restarts of the broker."""
    from purveyor.cli import board, progress, render  # noqa: PLC0415 - as above

    if operation_id is None:
        await board.show(session, until_idle=until_idle, limit=timeout)
        return
    if until_idle:
        raise typer.BadParameter("is for all operations: give no OPERATION", param_hint="--until-idle")

    async with session.client() as client:
        handle = await client.operation(operation_id)
        await progress.finish(session, handle, timeout, show=session.emit_line)
    if not session.json:
        session.show(render.operation(handle.status))


async def explain(session: Session, instance_id: InstanceId, admin: Admin = None) -> None:
    """The story of an instance: who asked for what, what ran, what failed, what is left."""
    from purveyor.cli import render, story  # noqa: PLC0415 - as above

    found = await story.read(session, instance_id, admin)
    session.emit(found, lambda: render.story(found))
