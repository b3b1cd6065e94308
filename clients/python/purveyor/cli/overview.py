"""Every unfinished operation of a tenant, kept current.

Guarantee: what begins and what ends is told by the event log, from a snapshot on: each end once, in the order of the commits,
also of an operation that began and ended within a moment or while the broker was away. Percent and sentence, which are no
events, come by streams of their own for the oldest MAX_STREAMS operations, for the others by a list every INTERVAL_SECONDS;
while there are no others, no list is asked for. A broker that is away is waited for, OUTAGE_SECONDS long; one that was never
there is an error at once.
Limit: `live` holds at most MOST operations, the oldest; of those beyond only the ids are kept until there is room. When the log
no longer holds what was missed, operations that are gone are asked for one by one, and what began and ended meanwhile is not told.
"""

from __future__ import annotations

import asyncio
from contextlib import aclosing, suppress
from typing import TYPE_CHECKING

from purveyor.cli.completing import UNFINISHED
from purveyor.errors import EventsLostError, InvalidRequestError, NotFoundError, PurveyorError, ResourceExhaustedError
from purveyor.events import follow_events, question
from purveyor.v1.operation_pb2 import OPERATION_VIEW_BASIC
from purveyor.values import EventKind, EventType, OperationState, OperationStatus
from purveyor.watch import follow

if TYPE_CHECKING:
    from collections.abc import Callable

    from purveyor.client import Client
    from purveyor.values import Event

INTERVAL_SECONDS = 2.0
OUTAGE_SECONDS = 300.0
MAX_STREAMS = 16
MOST = 1000
OF_ANOTHER_STORE = "INVALID_RESUME_TOKEN"  # after a restore
NO_OUTAGE = "STREAM_EXPIRED"


class Overview:
    """`live` is what has not ended, by id; `failed` what ended otherwise than SUCCEEDED. `changed` is told each news."""

    def __init__(self, client: Client, changed: Callable[[OperationStatus], None]) -> None:
        self._client = client
        self._changed = changed
        self.live: dict[str, OperationStatus] = {}
        self.failed: list[OperationStatus] = []
        self.ended = 0
        self.away: PurveyorError | None = None
        self._beyond: set[str] = set()
        self._early: set[str] = set()  # a stream told the end, the log has not yet
        self._unseen: set[str] | None = (
            None  # of those known before a snapshot, what it has not told; None when it is over
        )
        self._streams: dict[str, asyncio.Task[None]] = {}
        self._listed_only: set[str] = set()
        self._heard: float | None = None
        self._defect: asyncio.Future[None] | None = None

    @property
    def more(self) -> bool:
        """Whether there are more than `live` holds."""
        return bool(self._beyond)

    async def run(self, *, until_idle: bool) -> None:
        """Keep current until cancelled or, with `until_idle`, until nothing is unfinished. Raises PurveyorError."""
        self._defect = asyncio.get_running_loop().create_future()
        parts: set[asyncio.Future[None]] = {
            asyncio.create_task(self._follow_log(until_idle=until_idle), name="watch the log"),
            asyncio.create_task(self._ask_for_the_others(), name="list the others"),
            self._defect,
        }
        try:
            done, _ = await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            for part in done:
                part.result()
        finally:
            tasks = (*parts, *self._streams.values())
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def _follow_log(self, *, until_idle: bool) -> None:
        """Take events in; from a new snapshot on when the log no longer goes back to where we were."""
        client = self._client
        while True:
            self._unseen = self.live.keys() | self._beyond
            self._early.clear()  # the new snapshot is from behind those ends
            request = question(
                client.tenant, "snapshot", (EventKind.OPERATION,), "", client.connection.limits.heartbeat
            )
            events = follow_events(client.connection, request, None, follow=True, reached=self._reached)
            try:
                async with aclosing(events):
                    async for event in events:
                        await self._take(event)
                        if until_idle and self._is_idle():
                            return
            except EventsLostError:
                continue
            except InvalidRequestError as error:
                if error.reason != OF_ANOTHER_STORE:
                    raise

    def _is_idle(self) -> bool:
        return self._unseen is None and not (self.live or self._beyond or self._early)

    def _reached(self, failure: PurveyorError | None) -> None:
        """A message came (None), or a stream ended by `failure`, which is raised when waiting does not help, or no longer."""
        now = asyncio.get_running_loop().time()
        if failure is None:
            self._heard, self.away = now, None
        elif self._is_hopeless(failure, now):
            raise failure
        elif failure.reason != NO_OUTAGE:
            self.away = failure

    def _is_hopeless(self, failure: PurveyorError, now: float) -> bool:
        if self._heard is None:
            return not isinstance(failure, ResourceExhaustedError)  # one that is full is there
        return now > self._heard + OUTAGE_SECONDS

    async def _take(self, event: Event) -> None:
        if event.type == EventType.SYNCED:
            await self._compare()
            return
        name, ended = event.operation_id, event.type == EventType.ENDED
        if self._unseen is not None:
            self._unseen.discard(name)
        told = isinstance(event.record, OperationStatus)
        status = event.record if isinstance(event.record, OperationStatus) else _brief(event)
        if name in self._early:
            if ended:
                self._early.discard(name)
        elif ended:
            self._drop(name)  # before anything is waited for: its stream would tell the end too
            if event.state != OperationState.SUCCEEDED or not told:  # the log has nothing that is for operators
                status = await self._asked(name) or status
            self._end(status)
        elif name in self.live or len(self.live) < MOST:
            if name not in self._streams:  # a stream knows more, and not less
                self._show(status)
        else:
            self._beyond.add(name)

    async def _compare(self) -> None:
        """All of a snapshot has come: what it has not, but an earlier one had, is gone."""
        gone, self._unseen = self._unseen or set(), None
        for name in gone:
            self._drop(name)
            status = await self._asked(name)
            if status is not None and status.done:
                self._end(status)

    async def _asked(self, name: str) -> OperationStatus | None:
        """One operation; None when there is none, or no answer."""
        with suppress(PurveyorError):
            return (await self._client.operation(name)).status
        return None

    def _show(self, status: OperationStatus) -> None:
        """One that has not ended is so now."""
        self._beyond.discard(status.operation_id)
        if self.live.get(status.operation_id) != status:
            self.live[status.operation_id] = status
            self._changed(status)
        self._open_streams()

    def _end(self, status: OperationStatus) -> None:
        self._drop(status.operation_id)
        self.ended += 1
        if status.state != OperationState.SUCCEEDED:
            self.failed.append(status)
        self._changed(status)

    def _drop(self, name: str) -> None:
        self.live.pop(name, None)
        self._beyond.discard(name)
        self._listed_only.discard(name)
        stream = self._streams.pop(name, None)
        if stream is not None and stream is not asyncio.current_task():
            stream.cancel()
        self._open_streams()

    def _open_streams(self) -> None:
        for name in self.live:
            if len(self._streams) >= MAX_STREAMS:
                return
            if name not in self._streams and name not in self._listed_only:
                self._streams[name] = asyncio.create_task(self._follow(name), name=f"watch {name}")

    async def _follow(self, name: str) -> None:
        """The progress of one operation, and its end if the log has not told it yet."""
        client = self._client
        states = follow(client.connection, client.tenant, name, OPERATION_VIEW_BASIC)
        try:
            async with aclosing(states):
                async for status in states:
                    if status.done:
                        self._early.add(name)
                        self._end(status)
                    else:
                        self._show(status)
        except NotFoundError:
            self._drop(name)  # purged
        except PurveyorError:
            self._listed_only.add(name)  # the list knows better, or fails too
            self._streams.pop(name, None)
        except Exception as defect:  # noqa: BLE001 - raised where `run` waits
            if self._defect is not None and not self._defect.done():
                self._defect.set_exception(defect)

    async def _ask_for_the_others(self) -> None:
        """The progress of those that have no stream, and room for those beyond."""
        while True:
            await asyncio.sleep(INTERVAL_SECONDS)
            if self._beyond or self.live.keys() - self._streams.keys():
                with suppress(PurveyorError):  # `away` is told by the log's stream
                    await self._list()

    async def _list(self) -> None:
        looked = 0
        async with aclosing(self._client.operations(UNFINISHED, page_size=MOST)) as items:
            async for status in items:
                name, looked = status.operation_id, looked + 1
                room = name in self._beyond and len(self.live) < MOST
                if room or (name in self.live and name not in self._streams):  # others are the log's to tell
                    self._show(status)
                if looked == MOST:
                    return


def _brief(event: Event) -> OperationStatus:
    """What an event tells of an operation whose record was too large for it."""
    return OperationStatus(
        operation_id=event.operation_id,
        tenant=event.tenant,
        instance_id=event.instance_id,
        binding_id=event.binding_id,
        state=event.state,
        done=event.type == EventType.ENDED,
    )
