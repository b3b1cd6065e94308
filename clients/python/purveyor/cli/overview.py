"""Every unfinished operation of a tenant, kept current.

Guarantee: the list is asked for at a bounded interval, and at once after an end, never more often than MIN_GAP_SECONDS; the
oldest MAX_STREAMS operations are followed by streams of their own, the others by the list. Each end is told once, also of an
operation that began and ended between two looks. A broker that is away is waited for, OUTAGE_SECONDS long; one that was never
there is an error at once.
Limit: at most MOST unfinished operations. What ended between two looks is found by this machine's clock, so a clock that is
ahead of the broker's may miss operations that lived no longer than an interval.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

from purveyor.cli.completing import UNFINISHED
from purveyor.connection import is_passing
from purveyor.errors import NotFoundError, PurveyorError
from purveyor.v1.operation_pb2 import OPERATION_VIEW_BASIC
from purveyor.values import OperationState
from purveyor.watch import follow

if TYPE_CHECKING:
    from collections.abc import Callable

    from purveyor.client import Client
    from purveyor.values import OperationStatus

INTERVAL_SECONDS = 2.0
MIN_GAP_SECONDS = 0.25
OUTAGE_SECONDS = 300.0
MAX_STREAMS = 16
MOST = 1000
OVERLAP = timedelta(seconds=10)  # ends are not stored in the order of their times


class Overview:
    """`live` is what has not ended, by id; `failed` what ended otherwise than SUCCEEDED. `changed` is told each news."""

    def __init__(self, client: Client, changed: Callable[[OperationStatus], None]) -> None:
        self._client = client
        self._changed = changed
        self.live: dict[str, OperationStatus] = {}
        self.failed: list[OperationStatus] = []
        self.ended = 0
        self.away: PurveyorError | None = None
        self.more = False
        self._told: dict[str, datetime] = {}
        self._since = datetime.now(UTC)
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._listed_only: set[str] = set()
        self._news = asyncio.Event()
        self._heard: float | None = None

    async def run(self, *, until_idle: bool) -> None:
        """Keep current until cancelled or, with `until_idle`, until nothing is unfinished. Raises PurveyorError."""
        clock = asyncio.get_running_loop().time
        try:
            while True:
                looked = clock()
                self._news.clear()
                if await self._look() and until_idle and not self.live:
                    return
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._news.wait(), INTERVAL_SECONDS)
                await asyncio.sleep(max(0.0, looked + MIN_GAP_SECONDS - clock()))
        finally:
            for stream in self._streams.values():
                stream.cancel()
            await asyncio.gather(*self._streams.values(), return_exceptions=True)

    async def _look(self) -> bool:
        """Ask once. Returns whether there was an answer; raises PurveyorError when waiting does not help, or no longer."""
        now = asyncio.get_running_loop().time()
        try:
            await self._list()
        except PurveyorError as error:
            if self._heard is None or not is_passing(error) or now > self._heard + OUTAGE_SECONDS:
                raise
            self.away = error
            return False
        self._heard, self.away = now, None
        self._open_streams()
        return True

    async def _list(self) -> None:
        unfinished = await self._found(UNFINISHED)
        recent = await self._found(f'end_time > "{self._since.isoformat()}"')
        self.more = len(unfinished) == MOST
        for status in unfinished.values():
            if status.operation_id not in self._streams:
                self._note(status)
        for status in recent.values():
            if self._heard is None:  # ended before this began, by the broker's clock
                self._told[status.operation_id] = status.end_time or self._since
            else:
                self._note(status)
        if not self.more:
            for operation_id in self.live.keys() - unfinished.keys() - recent.keys():
                await self._ask(operation_id)
        newest = max((status.end_time for status in recent.values() if status.end_time), default=self._since)
        self._since = max(self._since, newest - OVERLAP)
        self._told = {name: time for name, time in self._told.items() if time > self._since - OVERLAP}

    async def _found(self, wanted: str) -> dict[str, OperationStatus]:
        """The first MOST operations, oldest first."""
        found: dict[str, OperationStatus] = {}
        async with aclosing(self._client.operations(wanted, page_size=MOST)) as items:
            async for status in items:
                found[status.operation_id] = status
                if len(found) == MOST:
                    break
        return found

    async def _ask(self, operation_id: str) -> None:
        """About one that is on no list: it ended by another clock, or was purged."""
        try:
            self._note((await self._client.operation(operation_id)).status)
        except NotFoundError:
            self.live.pop(operation_id, None)

    def _note(self, status: OperationStatus) -> None:
        operation_id = status.operation_id
        if operation_id in self._told or self.live.get(operation_id) == status:
            return
        if status.done:
            self.live.pop(operation_id, None)
            self._told[operation_id] = max(status.end_time or self._since, self._since)
            self.ended += 1
            if status.state != OperationState.SUCCEEDED:
                self.failed.append(status)
            self._news.set()
        else:
            self.live[operation_id] = status
        self._changed(status)

    def _open_streams(self) -> None:
        for operation_id, stream in list(self._streams.items()):
            if stream.done():
                del self._streams[operation_id]
                if not stream.cancelled():
                    stream.result()  # a defect is not kept silent
            elif operation_id not in self.live:
                stream.cancel()
        self._listed_only &= self.live.keys()
        for operation_id in self.live:
            if len(self._streams) == MAX_STREAMS:
                return
            if operation_id not in self._streams and operation_id not in self._listed_only:
                self._streams[operation_id] = asyncio.create_task(
                    self._follow(operation_id), name=f"watch {operation_id}"
                )

    async def _follow(self, operation_id: str) -> None:
        client = self._client
        states = follow(client.connection, client.tenant, operation_id, OPERATION_VIEW_BASIC)
        try:
            async with aclosing(states):
                async for status in states:
                    self._note(status)
        except PurveyorError:
            self._listed_only.add(operation_id)  # the list knows better, or fails too
            self._news.set()
