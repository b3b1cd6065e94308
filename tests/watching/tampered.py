"""Planted faults: watchers that falsify what they are told, once, so that the judge must find it.

Guarantee: `planted` is true only when something that was wanted was in fact lost, repeated or turned round.
"""

from __future__ import annotations

import asyncio
from abc import abstractmethod
from collections.abc import Sequence
from typing import Any

from purveyor.v1.event_pb2 import Event as EventMessage
from tests.watching.judge import Fault
from tests.watching.watchers import START, WireWatcher, next_message, snapshot_at


class Tampered(WireWatcher):
    """A planted fault: what it is told is falsified once, on its way in."""

    fault: Fault
    start = "NOW"
    anew = 0.0  # a new beginning would forgive what was planted

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.done = asyncio.Event()

    @property
    def planted(self) -> bool:
        """Whether it has falsified something."""
        return self.done.is_set()

    def _pause(self) -> float:
        return 0.0  # who goes away may lose more than what was planted

    def _is_sure(self, message: Any) -> bool:
        return bool(message.events) and all(message.events[0].revision > up_to for _, up_to in self.story.unsure)

    def take(self, message: Any) -> None:
        if not self.planted and self._is_sure(message) and self.falsify(message):
            self.done.set()
            if not message.events:
                self._token = message.resume_token
                return
        super().take(message)

    @abstractmethod
    def falsify(self, message: Any) -> bool:
        """Change the message; False when there is nothing in it to be changed."""


class Drop(Tampered):
    """One event is lost."""

    fault = Fault.MISSED

    def falsify(self, message: Any) -> bool:
        del message.events[0]
        return True


class Repeat(Tampered):
    """One event comes twice."""

    fault = Fault.REPEATED

    def falsify(self, message: Any) -> bool:
        message.events.append(message.events[-1])
        return True


class Reorder(Tampered):
    """Two events change places."""

    fault = Fault.DISORDERED

    def falsify(self, message: Any) -> bool:
        if len(message.events) < 2:
            return False
        first = EventMessage()
        first.CopyFrom(message.events[0])
        del message.events[0]
        message.events.append(first)
        return True


class Skip(Tampered):
    """A token is taken of a message whose events are not."""

    fault = Fault.MISSED

    def falsify(self, message: Any) -> bool:
        del message.events[:]
        return True


class Ahead(Tampered):
    """The places of a snapshot are the newest of the log, not where the snapshot began: what was committed while it was read is
    lost to who goes on after one. Only at the snapshot's end can that place be made from outside: there it is the one of `now`.
    """

    fault = Fault.MISSED
    start = "SNAPSHOT"
    narrow = 1.0  # the server has to wait in the middle of its snapshot

    def falsify(self, message: Any) -> bool:
        return False

    async def _read(self, stub: Any, call: Any, *, last: bool) -> bool:
        if self.planted or last:
            return await super()._read(stub, call, last=last)
        while (began := snapshot_at(message := await next_message(call))) or not (message.events or message.synced):
            await self.begin(began)  # without records: a stretch of ended operations
            self.take(message)
            await self._commit_behind(began)
        if message.events and not self.fresh and self._is_sure(message):
            self._token = await self._newest_place(stub)
            self.done.set()
        else:
            self.forget_place()  # nobody wrote while it was read
        return False

    async def _newest_place(self, stub: Any) -> str:
        request = self._request()
        request.resume_token, request.start = "", START.START_NOW
        call = stub.WatchEvents(request)
        try:
            return str((await next_message(call)).resume_token)
        finally:
            call.cancel()


FAULTS: Sequence[type[Tampered]] = (Drop, Repeat, Reorder, Skip, Ahead)
