"""An operation on its way, as a bar on a terminal, as lines elsewhere; always on stderr.

Guarantee: with `--json` nothing is shown. The bar is moved by the operation's own stream and survives a server restart.
"""

from __future__ import annotations

import asyncio
import sys
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

from purveyor.cli.session import console
from purveyor.cli.words import clean
from purveyor.values import OperationState, OperationStatus

if TYPE_CHECKING:
    from collections.abc import Callable

    from purveyor.cli.session import Session
    from purveyor.operations import OperationHandle


async def finish(
    session: Session,
    handle: OperationHandle[Any],
    limit: float | None,
    *,
    show: Callable[[OperationStatus], None] = lambda _: None,
) -> OperationStatus:
    """Show the operation until its end, at most `limit` seconds; with `--json` by `show` alone, which sees every state.

    Raises OperationFailedError, TimeoutError, PurveyorError.
    """
    from purveyor.failures import from_operation  # noqa: PLC0415 - loads gRPC

    session.trace.handle = handle
    async with asyncio.timeout(limit):
        if session.json:
            await _each(handle, show)
        elif sys.stderr.isatty():
            await _bar(handle, show)
        else:
            await _lines(session, handle, show)
    if handle.status.state != OperationState.SUCCEEDED:
        raise from_operation(handle.status)
    return handle.status


async def _each(handle: OperationHandle[Any], show: Callable[[OperationStatus], None]) -> None:
    async with aclosing(handle.watch()) as states:
        async for status in states:
            show(status)


async def _lines(session: Session, handle: OperationHandle[Any], also: Callable[[OperationStatus], None]) -> None:
    shown = ""

    def show(status: OperationStatus) -> None:
        nonlocal shown
        also(status)
        line = f"{status.percent:3.0f} %  {status.state}  {sentence(status)}"
        if line != shown:
            shown = line
            session.say(line)

    await _each(handle, show)


async def _bar(handle: OperationHandle[Any], also: Callable[[OperationStatus], None]) -> None:
    from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn  # noqa: PLC0415 - for terminals only

    columns = (
        TextColumn("{task.fields[verb]}"),
        BarColumn(bar_width=32),
        TextColumn("{task.percentage:>3.0f} %"),
        TimeElapsedColumn(),
        TextColumn("{task.description}", markup=False),
    )
    with Progress(*columns, console=console(sys.stderr)) as progress:
        task = progress.add_task("", total=100, verb=handle.status.verb.lower())

        def show(status: OperationStatus) -> None:
            also(status)
            progress.update(task, completed=status.percent, description=sentence(status), verb=status.verb.lower())

        await _each(handle, show)


def sentence(status: OperationStatus) -> str:
    """What is going on, or why nothing is."""
    if status.done:
        return clean(status.state.lower())
    if status.waiting:
        return clean(f"waiting: {status.waiting.detail or status.waiting.reason.lower()}")
    return clean(status.sentence or status.state.lower().replace("_", " "))
