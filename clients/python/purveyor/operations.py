"""A handle on accepted work: await its result, iterate over its states, cancel it.

Guarantee: `result()` and iteration survive a server restart (see `watch`). Dropping a handle, or cancelling a task that
waits on it, changes nothing on the server.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from typing import TYPE_CHECKING, Generic, TypeVar

from purveyor import encode
from purveyor.failures import from_operation
from purveyor.v1.operation_pb2 import OPERATION_VIEW_BASIC, OPERATION_VIEW_FULL
from purveyor.values import OperationState
from purveyor.watch import follow

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable

    from purveyor.client import Client
    from purveyor.values import OperationStatus, Seconds

Result_co = TypeVar("Result_co", covariant=True)


class OperationHandle(Generic[Result_co]):
    """One operation; `Result_co` is what it ends with: an Instance, an ActiveBinding, or a tombstone.

    `replayed`: whether the server answered an earlier request again and started nothing.
    """

    replayed: bool

    def __init__(
        self,
        client: Client,
        status: OperationStatus,
        fetch: Callable[[OperationStatus], Awaitable[Result_co]],
        *,
        replayed: bool = False,
    ) -> None:
        self._client = client
        self._status = status
        self._fetch = fetch
        self.replayed = replayed

    @property
    def id(self) -> str:
        """The operation's id; empty when nothing was started (validate_only, or nothing to do)."""
        return self._status.operation_id

    @property
    def status(self) -> OperationStatus:
        """The newest state that this handle has seen; asks nobody."""
        return self._status

    @property
    def done(self) -> bool:
        """Whether that state is an end."""
        return self._status.done

    async def result(self, timeout: Seconds | None = None) -> Result_co:  # noqa: ASYNC109 - a caller's bound, by asyncio.timeout
        """Wait for the end and return what was made.

        `timeout`: seconds; None waits as long as the server is heard from. Raises TimeoutError (the operation goes on),
        OperationFailedError or OperationCancelledError, PurveyorError, and ValueError for a handle of validate_only.
        """
        async with asyncio.timeout(encode.seconds("timeout", timeout)):
            async with aclosing(self.watch()) as states:
                async for _ in states:
                    pass
            if self._status.state != OperationState.SUCCEEDED:
                raise from_operation(self._status)
            return await self._fetch(self._status)

    def __aiter__(self) -> AsyncIterator[OperationStatus]:
        """The states as they change, the present one first, until the end. Raises PurveyorError."""
        return self.watch()

    async def watch(self, *, steps: bool = False) -> AsyncGenerator[OperationStatus, None]:
        """As iteration over the handle; `steps` adds the steps. Raises PurveyorError, and ValueError as `result` does."""
        if not self.id and not self.done:
            raise _nothing_started()
        if self.done and not (steps and self.id):
            yield self._status
            return
        view = OPERATION_VIEW_FULL if steps else OPERATION_VIEW_BASIC
        async with aclosing(follow(self._client.connection, self._client.tenant, self.id, view)) as states:
            async for status in states:
                self._status = status
                yield status

    async def children(self) -> AsyncGenerator[OperationStatus, None]:
        """The operations that this one caused: the unbinds of a cascade, the clean-ups of a failure. Raises PurveyorError."""
        if self.id:
            async for child in self._client.operations(f'parent_operation_id = "{self.id}"'):
                yield child

    async def refresh(self) -> OperationStatus:
        """Ask for the present state. Raises PurveyorError, and ValueError as `result` does."""
        if not self.id:
            if self.done:
                return self._status
            raise _nothing_started()
        self._status = (await self._client.operation(self.id)).status
        return self._status

    async def cancel(self, wait: Seconds | None = None, *, request_id: str | None = None) -> OperationStatus:
        """Ask the operation to stop and undo what it did. Raises FailedPreconditionError past its pivot.

        Raises ValueError where there is no operation: validate_only, or nothing to do.
        """
        if not self.id:
            raise _nothing_started()
        self._status = await self._client.cancel(self.id, wait=wait, request_id=request_id)
        return self._status

    def __repr__(self) -> str:
        status = self._status
        return f"<OperationHandle {self.id or '-'} {status.verb} {status.state} {status.percent:.0f}%>"


def _nothing_started() -> ValueError:
    return ValueError("nothing was started: the request had validate_only, or there was nothing to do")
