"""What `purveyor watch` shows of many operations: a live table on a terminal, lines elsewhere, JSON lines for scripts.

Guarantee: a line is written per news, ended operations included; the table shows an end for some seconds.
Limit: the table is cut to the window; lines and JSON are whole.
"""

from __future__ import annotations

import asyncio
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING

from purveyor.cli.overview import MOST, Overview
from purveyor.cli.progress import sentence
from purveyor.cli.session import console
from purveyor.cli.words import clean

if TYPE_CHECKING:
    from collections.abc import Callable

    from rich.table import Table

    from purveyor.cli.session import Session
    from purveyor.values import OperationStatus

REDRAW_SECONDS = 0.25
SHOWN_SECONDS = 8.0
BAR_WIDTH = 24


async def show(session: Session, *, until_idle: bool, limit: float | None) -> None:
    """Show every unfinished operation, with `until_idle` until there is none.

    Raises OperationFailedError then, for the first that failed; TimeoutError after `limit` seconds; PurveyorError.
    """
    from purveyor.failures import from_operation  # noqa: PLC0415 - loads gRPC

    async with session.client() as client, asyncio.timeout(limit):
        if session.json:
            overview = Overview(client, session.emit_line)
            await overview.run(until_idle=until_idle)
        elif sys.stdout.isatty():
            board = Board()
            overview = Overview(client, board.note)
            await _live(board, overview, until_idle=until_idle)
        else:
            overview = Overview(client, _lines(session))
            await overview.run(until_idle=until_idle)
    session.say(f"{overview.ended} ended, {len(overview.failed)} of them not successfully")
    if overview.failed:
        raise from_operation(overview.failed[0])


def _lines(session: Session) -> Callable[[OperationStatus], None]:
    shown: dict[str, str] = {}

    def write(status: OperationStatus) -> None:
        line = f"{subject(status)}  {status.percent:3.0f} %  {status.state}  {sentence(status)}"
        if shown.get(status.operation_id) != line:
            shown[status.operation_id] = line
            session.write(f"{clean(status.operation_id)}  {line}\n")
        if status.done:
            del shown[status.operation_id]

    return write


def subject(status: OperationStatus) -> str:
    """What an operation does to what."""
    on = "/".join(filter(None, (status.instance_id, status.binding_id)))
    return clean(f"{status.verb.lower()} {on}")


class Board:
    """What is on the screen: `note` changes it, `table` draws it."""

    def __init__(self) -> None:
        self._rows: dict[str, OperationStatus] = {}
        self._until: dict[str, float] = {}

    def note(self, status: OperationStatus) -> None:
        """Take a row in, or its newest state."""
        self._rows[status.operation_id] = status
        if status.done:
            self._until[status.operation_id] = asyncio.get_running_loop().time() + SHOWN_SECONDS

    def table(self, overview: Overview, now: float) -> Table:
        """The rows as they are now: what has not ended, oldest first, then ends of the last seconds."""
        from rich.progress_bar import ProgressBar  # noqa: PLC0415 - for terminals only
        from rich.table import Table  # noqa: PLC0415 - as above

        from purveyor.cli import render  # noqa: PLC0415 - as above

        for name in [name for name, until in self._until.items() if until < now]:
            del self._until[name], self._rows[name]
        for name in self._rows.keys() - overview.live.keys() - self._until.keys():  # purged
            del self._rows[name]
        made = Table(box=None, pad_edge=False, header_style="bold", caption=_caption(overview), caption_justify="left")
        for column in ("OPERATION", "WHAT", "", "%", "STATE", "SINCE", ""):
            made.add_column(column, no_wrap=True)
        for name, row in sorted(self._rows.items(), key=lambda item: (item[1].done, item[0])):
            bar = ProgressBar(total=100, completed=row.percent, width=BAR_WIDTH)
            state = render.state(row.state)
            made.add_row(clean(name), subject(row), bar, f"{row.percent:.0f}", state, _age(row), _remark(row))
        return made


def _remark(row: OperationStatus) -> str:
    return clean(row.error_message) if row.done else sentence(row)


def _age(row: OperationStatus) -> str:
    if row.create_time is None:
        return "-"
    seconds = max(0, int(((row.end_time or datetime.now(UTC)) - row.create_time).total_seconds()))
    return f"{seconds // 60}:{seconds % 60:02d}"


def _caption(overview: Overview) -> str:
    if overview.away:
        return f"the broker is away, trying again: {clean(overview.away.message)}"
    if overview.more:
        return f"the oldest {MOST} of more"
    return f"{len(overview.live)} unfinished, {overview.ended} ended, Ctrl-C leaves them alone"


async def _live(board: Board, overview: Overview, *, until_idle: bool) -> None:
    from rich.live import Live  # noqa: PLC0415 - for terminals only

    clock = asyncio.get_running_loop().time
    with Live(board.table(overview, clock()), console=console(sys.stdout), auto_refresh=False) as live:

        async def redraw() -> None:
            while True:
                live.update(board.table(overview, clock()), refresh=True)
                await asyncio.sleep(REDRAW_SECONDS)

        drawing = asyncio.create_task(redraw(), name="redraw")
        try:
            await overview.run(until_idle=until_idle)
        finally:
            drawing.cancel()
            await asyncio.gather(drawing, return_exceptions=True)
            live.update(board.table(overview, clock()), refresh=True)
