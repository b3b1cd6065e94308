"""Commands that change something: each starts an operation and, unless told otherwise, stays until its end."""

from __future__ import annotations

import re
import secrets
from typing import TYPE_CHECKING, Annotated, Any

import typer

from purveyor.cli import arguments, completing
from purveyor.cli.arguments import Labels, Params, ParamsFile, RequestId, Timeout, ValidateOnly, Wait
from purveyor.cli.reading import BindingId, InstanceId, OperationId
from purveyor.cli.session import Session, command
from purveyor.errors import FailedPreconditionError

if TYPE_CHECKING:
    from purveyor.client import Client
    from purveyor.operations import OperationHandle

Etag = Annotated[str, typer.Option(metavar="ETAG", help="Only if this is still its etag.", show_default=False)]
Missing = Annotated[bool, typer.Option("--allow-missing", help="Fine if there is none.", show_default=False)]


def add(app: typer.Typer) -> None:
    """Register the commands of this module."""
    for function in (provision, update, upgrade, bind, unbind, deprovision, cancel):
        command(app)(function)


async def provision(
    session: Session,
    service: Annotated[
        str,
        typer.Argument(
            metavar="SERVICE", help="Name or id; see `purveyor catalog`.", autocompletion=completing.services
        ),
    ],
    plan: Annotated[str, typer.Argument(metavar="PLAN", help="Name or id.", autocompletion=completing.plans)],
    id: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option("--id", metavar="INSTANCE", help="The new instance's id; else one is made.", show_default=False),
    ] = None,
    param: Params = None,
    params_file: ParamsFile = None,
    label: Labels = None,
    wait: Wait = True,  # noqa: FBT002 - a flag
    timeout: Timeout = None,  # noqa: ASYNC109 - the option's name; it becomes asyncio.timeout
    validate_only: ValidateOnly = False,  # noqa: FBT002 - a flag
    request_id: RequestId = None,
) -> None:
    """Order an instance."""
    given, labels = arguments.parameters(param, params_file), arguments.labels(label)
    chosen = id or made_id(session, service, request_id)
    async with session.client() as client:
        handle = await client.provision(
            service,
            plan,
            instance_id=chosen,
            parameters=given,
            labels=labels,
            validate_only=validate_only,
            request_id=request_id,
        )
        await conclude(session, handle, wait=wait, limit=timeout)


async def update(
    session: Session,
    instance_id: InstanceId,
    plan: Annotated[
        str | None,
        typer.Option(metavar="PLAN", help="Name or id.", show_default=False, autocompletion=completing.plans),
    ] = None,
    param: Params = None,
    params_file: ParamsFile = None,
    label: Labels = None,
    clear_labels: Annotated[bool, typer.Option("--clear-labels", show_default=False)] = False,  # noqa: FBT002 - a flag
    protect: Annotated[
        bool | None, typer.Option("--protect/--unprotect", help="Whether deprovision is refused.", show_default=False)
    ] = None,
    etag: Etag = "",
    wait: Wait = True,  # noqa: FBT002 - a flag
    timeout: Timeout = None,  # noqa: ASYNC109 - the option's name; it becomes asyncio.timeout
    validate_only: ValidateOnly = False,  # noqa: FBT002 - a flag
    request_id: RequestId = None,
) -> None:
    """Change an instance: what is not given stays as it is."""
    given, labels = arguments.parameters(param, params_file), {} if clear_labels else arguments.labels(label)
    async with session.client() as client:
        handle = await client.update(
            instance_id,
            plan=plan,
            parameters=given,
            labels=labels,
            deletion_protected=protect,
            etag=etag,
            validate_only=validate_only,
            request_id=request_id,
        )
        await conclude(session, handle, wait=wait, limit=timeout)


async def upgrade(
    session: Session,
    instance_id: InstanceId,
    version: Annotated[
        str | None,
        typer.Option("--version", metavar="VERSION", help="Only if the plan is at this one.", show_default=False),
    ] = None,
    etag: Etag = "",
    wait: Wait = True,  # noqa: FBT002 - a flag
    timeout: Timeout = None,  # noqa: ASYNC109 - the option's name; it becomes asyncio.timeout
    validate_only: ValidateOnly = False,  # noqa: FBT002 - a flag
    request_id: RequestId = None,
) -> None:
    """Bring an instance to the maintenance version of its plan, and to what the plan makes now."""
    async with session.client() as client:
        wanted = version or await _plan_version(session, client, instance_id)
        handle = await client.update(
            instance_id,
            maintenance_version=wanted,
            etag=etag,
            validate_only=validate_only,
            request_id=request_id,
        )
        await conclude(session, handle, wait=wait, limit=timeout)


async def _plan_version(session: Session, client: Client, instance_id: str) -> str:
    """The maintenance version of an instance's plan. Raises FailedPreconditionError when the catalog tells none."""
    found = await client.instance(instance_id)
    services = (await client.catalog()).services
    plan = next((p for s in services if s.id == found.service_id for p in s.plans if p.id == found.plan_id), None)
    if plan is None:
        raise FailedPreconditionError(
            f"the catalog does not show the plan {found.plan_id!r}: give --version, or move to another plan",
            code="FAILED_PRECONDITION",
        )
    if not plan.maintenance_version:
        raise FailedPreconditionError(
            f"the plan {found.plan_id!r} has no maintenance version", code="FAILED_PRECONDITION"
        )
    if found.maintenance_version == plan.maintenance_version:
        session.say(f"it is at {plan.maintenance_version} already")
    else:
        session.say(f"from {found.maintenance_version or 'none'} to {plan.maintenance_version}")
    return plan.maintenance_version


async def deprovision(
    session: Session,
    instance_id: InstanceId,
    cascade: Annotated[bool, typer.Option("--cascade", help="Unbind its bindings first.", show_default=False)] = False,  # noqa: FBT002 - a flag
    allow_missing: Missing = False,  # noqa: FBT002 - a flag
    etag: Etag = "",
    wait: Wait = True,  # noqa: FBT002 - a flag
    timeout: Timeout = None,  # noqa: ASYNC109 - the option's name; it becomes asyncio.timeout
    validate_only: ValidateOnly = False,  # noqa: FBT002 - a flag
    request_id: RequestId = None,
) -> None:
    """Give an instance back; with --cascade its bindings first, each told of beside the progress."""
    async with session.client() as client:
        handle = await client.deprovision(
            instance_id,
            cascade=cascade,
            allow_missing=allow_missing,
            etag=etag,
            validate_only=validate_only,
            request_id=request_id,
        )
        await conclude(session, handle, wait=wait, limit=timeout, children=cascade)


async def bind(
    session: Session,
    instance_id: InstanceId,
    id: Annotated[  # noqa: A002 - the option's name
        str | None,
        typer.Option("--id", metavar="BINDING", help="The new binding's id; else one is made.", show_default=False),
    ] = None,
    param: Params = None,
    params_file: ParamsFile = None,
    label: Labels = None,
    ttl: Annotated[
        str | None, typer.Option(metavar="DURATION", help="How long it shall work: 15m, 2h, 1d.", show_default=False)
    ] = None,
    wait: Wait = True,  # noqa: FBT002 - a flag
    timeout: Timeout = None,  # noqa: ASYNC109 - the option's name; it becomes asyncio.timeout
    validate_only: ValidateOnly = False,  # noqa: FBT002 - a flag
    request_id: RequestId = None,
) -> None:
    """Make an access to an instance; its credentials: `purveyor credentials INSTANCE BINDING`."""
    given, labels = arguments.parameters(param, params_file), arguments.labels(label)
    chosen = id or made_id(session, "binding", request_id)
    async with session.client() as client:
        handle = await client.bind(
            instance_id,
            binding_id=chosen,
            parameters=given,
            labels=labels,
            ttl=arguments.duration(ttl, "--ttl"),
            validate_only=validate_only,
            request_id=request_id,
        )
        await conclude(session, handle, wait=wait, limit=timeout)


async def unbind(
    session: Session,
    instance_id: InstanceId,
    binding_id: BindingId,
    allow_missing: Missing = False,  # noqa: FBT002 - a flag
    etag: Etag = "",
    wait: Wait = True,  # noqa: FBT002 - a flag
    timeout: Timeout = None,  # noqa: ASYNC109 - the option's name; it becomes asyncio.timeout
    validate_only: ValidateOnly = False,  # noqa: FBT002 - a flag
    request_id: RequestId = None,
) -> None:
    """Take a binding's access away, open sessions included."""
    async with session.client() as client:
        handle = await client.unbind(
            instance_id,
            binding_id,
            allow_missing=allow_missing,
            etag=etag,
            validate_only=validate_only,
            request_id=request_id,
        )
        await conclude(session, handle, wait=wait, limit=timeout)


async def cancel(session: Session, operation_id: OperationId, etag: Etag = "", request_id: RequestId = None) -> None:
    """Ask an operation to stop and to undo what it did."""
    from purveyor.cli import render  # noqa: PLC0415 - rich only where it is used

    async with session.client() as client:
        found = await client.cancel(operation_id, etag=etag, request_id=request_id)
    session.emit(found, lambda: render.operation(found))


async def conclude(
    session: Session, handle: OperationHandle[Any], *, wait: bool, limit: float | None, children: bool = False
) -> None:
    """Show what a change came to: its steps (validate_only), its operation (--no-wait), or its end."""
    from purveyor.cli import children as family  # noqa: PLC0415 - as below
    from purveyor.cli import progress, render  # noqa: PLC0415 - rich only where it is used

    status = handle.status
    if not handle.id and not status.done:
        session.say("valid; nothing was changed")
        session.emit(status, lambda: render.steps(status))
        return
    if not handle.id:
        session.say("there was nothing to do")
        session.emit(status, lambda: render.operation(status))
        return
    if handle.replayed:
        session.say("this was asked for before: nothing new was started")
    if wait and children and not session.json:
        async with family.told(session, handle) as told:
            status = await progress.finish(session, handle, limit, show=told.parent_moved)
    elif wait:
        status = await progress.finish(session, handle, limit)
    session.emit(status, lambda: render.operation(status))


def made_id(session: Session, stem: str, request_id: str | None) -> str:
    """A new id that a person can type: the stem, as far as an id may hold it, and eight hexadecimal digits.

    Raises typer.BadParameter when an earlier request is sent again: that one had an id.
    """
    if request_id:
        raise typer.BadParameter("needs --id: the earlier request had one", param_hint="--request-id")
    kept = re.sub(r"[^A-Za-z0-9]+", "-", stem).strip("-")[:40]
    made = f"{kept or 'new'}-{secrets.token_hex(4)}"
    session.trace.made_id = made
    session.say(f"id: {made}")
    return made
