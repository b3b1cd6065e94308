"""The command that follows what happens."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from purveyor.cli import completing
from purveyor.cli.session import Session, command
from purveyor.cli.words import clean

if TYPE_CHECKING:
    from purveyor.values import Event

_WIDTHS = (9, 26, 10, 8)  # of revision, time, kind and type; the rest has no end to be lined up with


def add(app: typer.Typer) -> None:
    """Register the command of this module."""
    command(app)(events)


async def events(
    session: Session,
    follow: Annotated[  # noqa: FBT002 - an option
        bool, typer.Option("--follow", "-f", help="Go on with what happens from now on.", show_default=False)
    ] = False,
    since: Annotated[
        str,
        typer.Option(
            metavar="WHERE",
            help="now, earliest, snapshot, or a resume token; without it earliest, with --follow now.",
            show_default=False,
        ),
    ] = "",
    instance: Annotated[
        str,
        typer.Option(
            metavar="INSTANCE", help="Of one instance.", show_default=False, autocompletion=completing.instances
        ),
    ] = "",
    kind: Annotated[
        list[str] | None,
        typer.Option(metavar="KIND", help="instance, binding or operation; may be repeated.", show_default=False),
    ] = None,
    place: Annotated[
        str | None,
        typer.Option(metavar="FILE", help="Keep the place in FILE and go on from there.", show_default=False),
    ] = None,
) -> None:
    """What happened to instances, bindings and operations: each change once, in order, over restarts of the broker."""
    start = since or ("now" if follow else "earliest")
    async with session.client() as client:
        async for event in client.events(start, kinds=kind or (), instance_id=instance, place=place, follow=follow):
            if session.json:
                session.emit_line(event)
            else:
                session.write(clean(line(event)) + "\n")


def line(event: Event) -> str:
    """An event for people."""
    from purveyor.cli.render import when  # noqa: PLC0415 - rich only where it is used

    head = (str(event.revision or "-"), when(event.time), event.kind.lower(), event.type.lower())
    columns = [text.ljust(width) for text, width in zip(head, _WIDTHS, strict=True)]
    name = "/".join(part for part in (event.instance_id, event.binding_id) if part)
    operation = event.operation_id if event.kind == "OPERATION" else ""
    return " ".join((*columns, name, event.state, operation)).rstrip()
