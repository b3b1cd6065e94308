"""The command that shows credentials, writes them as files, or keeps files of them up to date."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Annotated

import typer

from purveyor.cli import projection
from purveyor.cli.reading import BindingId, InstanceId
from purveyor.cli.session import Session, command

if TYPE_CHECKING:
    from purveyor.client import Client
    from purveyor.credentials import Credentials


def checked_prefix(prefix: str) -> str:
    """A prefix keeps credentials named `path` or `ifs` from taking over the shell. Raises typer.BadParameter."""
    if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", prefix):
        raise typer.BadParameter("letters, digits and _, not empty, no digit first")
    return prefix


Env = Annotated[bool, typer.Option("--env", help="Shell exports: for eval.", show_default=False)]
Prefix = Annotated[str, typer.Option(metavar="PREFIX", help="Of the variables' names.", callback=checked_prefix)]
BindingRoot = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help='Write them as files into DIR/BINDING, whole or not at all; mostly "$SERVICE_BINDING_ROOT".',
        show_default=False,
    ),
]
Watch = Annotated[
    str | None,
    typer.Option(
        metavar="DIR",
        help="As --binding-root, and again whenever they are others: after a rotation its successor's. Runs until it is"
        " stopped, also while the broker is away.",
        show_default=False,
    ),
]
BindingName = Annotated[
    str, typer.Option(metavar="NAME", help="Of files: the folder, if not BINDING.", show_default=False)
]
Type = Annotated[str, typer.Option(metavar="TYPE", help="Of files: the entry `type`, if not the service's name.")]
Provider = Annotated[str, typer.Option(metavar="PROVIDER", help="Of files: the entry `provider`.")]
OnChange = Annotated[str, typer.Option(metavar="COMMAND", help="With --watch: run after a change.", show_default=False)]
Signal = Annotated[str, typer.Option(metavar="SIGNAL", help="With --watch: send after a change.", show_default=False)]
KeepAlive = Annotated[
    bool,
    typer.Option(
        "--keep-alive/--follow-only",
        help="With --watch: renew or rotate the binding before its end, or leave that to others.",
    ),
]
PidFile = Annotated[
    str, typer.Option(metavar="FILE", help="With --signal: the number of the process.", show_default=False)
]


def add(app: typer.Typer) -> None:
    """Register the command of this module."""
    command(app)(credentials)


async def credentials(
    session: Session,
    instance_id: InstanceId,
    binding_id: BindingId,
    env: Env = False,  # noqa: FBT002 - an option
    prefix: Prefix = "BINDING_",
    binding_root: BindingRoot = None,
    watch: Watch = None,
    binding_name: BindingName = "",
    type: Type = "",  # noqa: A002 - the option's name
    provider: Provider = projection.PROVIDER,
    on_change: OnChange = "",
    signal: Signal = "",
    pid_file: PidFile = "",
    keep_alive: KeepAlive = True,  # noqa: FBT002 - an option
) -> None:
    """The credentials of a binding, in the clear: shown, or as files of a service binding (--binding-root, --watch)."""
    _check(session, watch, binding_root, env=env, reacts=bool(on_change or signal or pid_file))
    if watch is not None:
        from purveyor.cli import sidecar  # noqa: PLC0415 - gRPC is loaded by commands that call, not by --help

        place = sidecar.Place(watch, projection.folder_name(binding_name or binding_id), type, provider)
        react = sidecar.reaction(on_change, signal, pid_file)
        await sidecar.run(session, instance_id, binding_id, place, react, keep_alive=keep_alive)
        return
    async with session.client() as client:
        if binding_root is not None:
            name = projection.folder_name(binding_name or binding_id)
            kind = type or await _service_name(client, instance_id)
            values = (await client.credentials(instance_id, binding_id)).reveal()
            owner = {"tenant": session.tenant, "instance": instance_id, "binding": binding_id}
            _project(session, binding_root, name, projection.entries(values, kind, provider), owner)
            return
        found = await client.credentials(instance_id, binding_id)
    _show(session, found, prefix if env else "")


def _check(session: Session, watch: str | None, binding_root: str | None, *, env: bool, reacts: bool) -> None:
    """Options that do not go together. Raises typer.BadParameter."""
    if env and (session.json or binding_root is not None):
        raise typer.BadParameter("give one of --env, --json and --binding-root", param_hint="--env")
    if watch is not None and (env or binding_root is not None):
        raise typer.BadParameter("writes files by itself: without --env and --binding-root", param_hint="--watch")
    if watch is None and reacts:
        raise typer.BadParameter("is for --watch", param_hint="--on-change, --signal")


def _show(session: Session, found: Credentials, prefix: str) -> None:
    from purveyor.cli import exports, render  # noqa: PLC0415 - rich only where it is used

    if prefix:
        session.write("\n".join(exports.lines(found.reveal(), prefix)) + "\n")
    else:
        session.emit(found.reveal(), lambda: render.credentials(found))


async def _service_name(client: Client, instance_id: str) -> str:
    """What the specification calls the type of a binding: the name of its service, which is what its users look for."""
    found = await client.instance(instance_id)
    return found.service_name or found.service_id


def _project(session: Session, root: str, name: str, entries: dict[str, bytes], owner: dict[str, str]) -> None:
    """Write a binding folder and name it; no value is shown."""
    from purveyor.cli import bindingroot, render  # noqa: PLC0415 - as above

    folder = bindingroot.write(root, name, entries, owner)
    document = {"folder": folder, "entries": list(entries)}
    session.emit(document, lambda: render.facts((("folder", folder), ("entries", ", ".join(entries)))))
