"""The operations that one operation caused, told beside its progress as they change; always on stderr.

Guarantee: each change that is there when the parent moves is told once, the end of each child included.
Limit: a child that moves while its parent does not is told with the parent's next move.
"""

from __future__ import annotations

import asyncio
from contextlib import asynccontextmanager, suppress
from typing import TYPE_CHECKING, Any

from purveyor.cli.progress import sentence
from purveyor.cli.words import clean
from purveyor.errors import PurveyorError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from purveyor.cli.session import Session
    from purveyor.operations import OperationHandle
    from purveyor.values import OperationStatus


class Children:
    """What was told of them."""

    def __init__(self, session: Session, handle: OperationHandle[Any]) -> None:
        self._session = session
        self._handle = handle
        self._told: dict[str, str] = {}
        self._moved = asyncio.Event()

    def parent_moved(self, _status: OperationStatus) -> None:
        """There may be news."""
        self._moved.set()

    async def tell_all(self) -> None:
        """Tell what has changed. Raises PurveyorError."""
        async for child in self._handle.children():
            line = f"  {child.verb.lower()} {child.binding_id or child.instance_id}: {child.state}  {sentence(child)}"
            if child.failure is not None:
                line += f": {child.failure.message}"
            if self._told.get(child.operation_id) != line:
                self._told[child.operation_id] = line
                self._session.say(clean(line.rstrip()))

    async def run(self) -> None:
        """Tell again and again."""
        while True:
            await self._moved.wait()
            self._moved.clear()
            await self.tell_all()


@asynccontextmanager
async def told(session: Session, handle: OperationHandle[Any]) -> AsyncIterator[Children]:
    """Tell of the children of an operation until its end."""
    children = Children(session, handle)
    task = asyncio.create_task(children.run())
    try:
        yield children
    finally:
        task.cancel()
        await asyncio.wait((task,))
        with suppress(PurveyorError):  # what ended the parent is the failure to tell
            await children.tell_all()
