"""An object that always holds credentials that work.

Guarantee: once it is entered, `current` is the newest working binding of the chain that the broker was last heard to have. It is
kept up by a task of its own, which outlives restarts and absences of the broker; whoever opens connections with `current` each
time needs to know nothing of rotations.
A binding whose time ends is renewed in time, else rotated (see `lifeline`).
Limit: belongs to one event loop. Connections that are open already are their owner's: `changed()` says when to make new ones, and
predecessors work for the plan's overlap.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Any, Protocol, Self

from purveyor import encode
from purveyor.errors import UnavailableError
from purveyor.lifeline import Lifeline
from purveyor.live import follow_credentials

if TYPE_CHECKING:
    from types import TracebackType

    from purveyor.errors import PurveyorError
    from purveyor.lifeline import Prolongs
    from purveyor.live import Reads
    from purveyor.values import ActiveBinding, Seconds

    class Follows(Reads, Prolongs, Protocol):
        """What is asked of a client."""


class CredentialSource:
    """`async with CredentialSource(client, "db", "web") as source: connect(source.current.credentials["uri"])`

    `first_within`: seconds to wait for the first credentials when it is entered. `keep_alive`: ask for a later end, else for a
    successor, before the end comes; without it the binding is only followed.
    """

    def __init__(
        self,
        client: Follows,
        instance_id: str,
        binding_id: str,
        *,
        first_within: Seconds = 30.0,
        keep_alive: bool = True,
    ) -> None:
        self._client = client
        self._lifeline = Lifeline(client, self._fail) if keep_alive else None
        self._names = (instance_id, binding_id)
        self._first_within = encode.seconds("first_within", first_within) or 0.0
        self._current: ActiveBinding | None = None
        self._next: asyncio.Future[ActiveBinding] | None = None
        self._task: asyncio.Task[None] | None = None
        self.missed: PurveyorError | None = None
        """Why the broker is not heard at present; None while it is."""
        self.unprolonged: PurveyorError | None = None
        """Why the last attempt to keep the binding alive did not help; None when it did."""
        self._keeping: asyncio.Task[None] | None = None

    async def __aenter__(self) -> Self:
        """Raises what `follow_credentials` raises, and UnavailableError after `first_within` seconds."""
        if self._task is not None:
            raise RuntimeError("the source is entered already")
        self._next = asyncio.get_running_loop().create_future()
        self._task = asyncio.create_task(self._follow(), name="purveyor credential source")
        if self._lifeline is not None:
            self._keeping = asyncio.create_task(self._lifeline.run(), name="purveyor credential source: lifeline")
        try:
            async with asyncio.timeout(self._first_within):
                await self.changed()
        except TimeoutError:
            await self._end()
            raise self.missed or _silent(*self._names) from None
        except BaseException:
            await self._end()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self._end()

    @property
    def current(self) -> ActiveBinding:
        """The binding to use now, with its credentials. Raises what ended the chain; RuntimeError outside `async with`."""
        task = self._task
        if task is None or self._current is None:
            raise RuntimeError("the source is not entered: use `async with CredentialSource(...) as source:`")
        if task.done() and not task.cancelled() and (failure := task.exception()) is not None:
            raise failure
        return self._current

    async def changed(self) -> ActiveBinding:
        """Wait until `current` is another one. Raises what ended the chain; RuntimeError outside `async with`."""
        task, waited = self._task, self._next
        if task is None or waited is None:
            raise RuntimeError("the source is not entered: use `async with CredentialSource(...) as source:`")
        both: set[asyncio.Future[Any]] = {task, waited}
        await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
        if waited.done():
            return waited.result()
        task.result()
        raise RuntimeError("the source was left")

    async def _follow(self) -> None:
        async with aclosing(follow_credentials(self._client, *self._names, self._miss)) as found:
            async for live in found:
                self.missed = None
                self._tell(live)

    def _miss(self, failure: PurveyorError) -> None:
        self.missed = failure

    def _fail(self, failure: PurveyorError | None) -> None:
        self.unprolonged = failure

    def _tell(self, live: ActiveBinding) -> None:
        if self._lifeline is not None:
            self._lifeline.hold(live)
        told, self._current = self._next, live
        self._next = asyncio.get_running_loop().create_future()
        if told is not None:
            told.set_result(live)

    async def _end(self) -> None:
        running = {task for task in (self._task, self._keeping) if task is not None}
        self._task = self._keeping = None
        for task in running:
            task.cancel()
        if running:
            await asyncio.wait(running)
        self._current = self._next = None


def _silent(instance_id: str, binding_id: str) -> UnavailableError:
    return UnavailableError(f"the binding {binding_id!r} of {instance_id!r} had no credentials in time")
