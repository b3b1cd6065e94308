"""Watchers: one at the wire, with every bad habit that a client can have, and one that uses the library.

Guarantee: a watcher goes on after whatever breaks its stream, from the last token that it took in; once `finishing` is set
it ends when a stream that it opened after that has told it everything.
Limit: what it was told is only written down here; `judge` says whether it was right.
"""

from __future__ import annotations

import asyncio
import base64
import random
from abc import ABC, abstractmethod
from collections.abc import Sequence
from contextlib import aclosing
from pathlib import Path
from typing import Any

import grpc
import msgspec

import purveyor
from purveyor.failures import from_rpc
from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from purveyor.v1.event_pb2 import Event as EventMessage
from tests.watching.house import Fact, Ledger
from tests.watching.judge import Fault, Story, Wish
from tests.watching.pacing import rest

PATIENCE_SECONDS = 30.0
AWAY_SECONDS = 3.0
ANEW = 0.1  # share of the times at which who takes snapshots takes another one
START = pb.WatchEventsRequest.Start
PRESENT = EventMessage.TYPE_PRESENT


class Watcher(ABC):
    """One watcher with its story; `start` is NOW, EARLIEST or SNAPSHOT."""

    exact = True  # whether its place is right behind what it was told

    def __init__(self, name: str, wish: Wish, start: str, ledger: Ledger, seed: int) -> None:
        self.story = Story(name, wish, picture={} if start == "SNAPSHOT" else None)
        self.finishing = asyncio.Event()
        self.streams = 0
        self.lost = 0
        self._start = start
        self._ledger = ledger
        self._random = random.Random(seed)
        self._head_before = 0
        self._begun = False
        self._lost_after: int | None = None

    async def run(self) -> None:
        """Watch until everything was told."""
        while True:
            last = self.finishing.is_set()
            if self.fresh:  # also who died in its first message
                self._head_before = self._ledger.head
                if self._begun and self.story.told:
                    self._lost_after = self.story.last
                self._begun = False
            self.streams += 1
            try:
                if await (self.stream(last=True) if last else self._until_finishing()):
                    return
            except purveyor.PurveyorError as error:
                await self._take_failure(error)
            if not self.fresh:
                await self.begin()
            if self._start == "SNAPSHOT" and not last and self._random.random() < ANEW:
                self.forget_place()
            await rest(self.finishing, 0.0 if last else self._pause())

    @abstractmethod
    async def stream(self, *, last: bool) -> bool:
        """Watch for a while; True when it was the `last` stream and came to its end."""

    async def _until_finishing(self) -> bool:
        """A stream like any other, which is cut off when the end has come."""
        stream = asyncio.create_task(self.stream(last=False))
        end = asyncio.create_task(self.finishing.wait())
        try:
            await asyncio.wait({stream, end}, return_when=asyncio.FIRST_COMPLETED)
        finally:
            end.cancel()
            stream.cancel()
            await asyncio.gather(stream, end, return_exceptions=True)
        return False if stream.cancelled() else stream.result()

    @property
    def had(self) -> int:
        """Up to where it was told everything, as it believes: what is lost is lost behind that."""
        return self.story.last

    @property
    @abstractmethod
    def fresh(self) -> bool:
        """Whether it has no place to go on from."""

    @abstractmethod
    def forget_place(self) -> None:
        """Begin anew."""

    async def _take_failure(self, error: purveyor.PurveyorError) -> None:
        if error.reason == "COMPACTED":
            had = self.had
            assert not self.exact or had < int(error.metadata["earliest_revision"]) - 1
            self.lost += 1
            self.story.path.append(f"told that it lost {error.metadata['earliest_revision']}, has {self.story.last}")
            self._lost_after = had
            self.forget_place()
            self._begun = False
        elif not isinstance(error, purveyor.UnavailableError) and error.reason != "TOO_MANY_STREAMS":
            raise error

    async def begin(self) -> None:
        """It has a place after a fresh beginning: what it is told begins somewhere between two readings of the log."""
        if self._begun:
            return
        earliest = self._start == "EARLIEST"
        up_to = await self._ledger.earliest() - 1 if earliest else await self._ledger.read()
        if self._lost_after is None and not earliest:
            self.story.floor = self._head_before
        self.story.path.append(f"began between {self._head_before} and {up_to}, had {self._lost_after}")
        self.story.unsure.append((self.story.floor if self._lost_after is None else self._lost_after, up_to))
        self._begun = True

    def _pause(self) -> float:
        return self._random.choice((0.0, 0.02, 0.1, AWAY_SECONDS * self._random.random()))


class WireWatcher(Watcher):
    """Reads the stream itself: disconnects, reads slowly, stops reading."""

    def __init__(self, address: str, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._address = address
        self._token = ""

    @property
    def had(self) -> int:
        return max(self.story.last, position_of(self._token))

    @property
    def fresh(self) -> bool:
        return not self._token

    def forget_place(self) -> None:
        self._token = ""

    async def stream(self, *, last: bool) -> bool:
        if self._start == "SNAPSHOT" and not self._token:
            self.story.picture = {}
        async with grpc.aio.insecure_channel(
            self._address, options=(("grpc.use_local_subchannel_pool", 1),)
        ) as channel:
            call = broker_service_pb2_grpc.BrokerServiceStub(channel).WatchEvents(self._request())
            try:
                return await self._read(call, last=last)
            except grpc.aio.AioRpcError as error:
                raise from_rpc(error, self._address) from error
            finally:
                call.cancel()

    def _request(self) -> pb.WatchEventsRequest:
        wish = self.story.wish
        request = pb.WatchEventsRequest(
            tenant=wish.tenant,
            kinds=[EventMessage.Kind.Value(f"KIND_{kind}") for kind in wish.kinds],
            instance_id=wish.instance_id,
            resume_token=self._token,
            start=START.START_UNSPECIFIED if self._token else START.Value(f"START_{self._start}"),
        )
        request.heartbeat_interval.FromSeconds(1)
        self.story.path.append(f"opened at {position_of(self._token)}, told up to {self.story.last}")
        return request

    async def _read(self, call: Any, *, last: bool) -> bool:
        left = 10**9 if last else self._random.choice((1, 3, 10, 100))
        slow = 0.0 if last else self._random.choice((0.0, 0.0, 0.05, 1.5))
        while left:
            async with asyncio.timeout(PATIENCE_SECONDS):
                message = await call.read()
            if message is grpc.aio.EOF:
                raise AssertionError("the stream ended OK")
            await self.begin()
            self.take(message)
            if last and message.synced:
                return position_of(self._token) >= self.story.until
            left -= 1
            await rest(self.finishing, slow)
        return False

    def take(self, message: Any) -> None:
        """Take a message in, then its token."""
        for event in message.events:
            fact = Fact(
                event.revision,
                EventMessage.Kind.Name(event.kind).removeprefix("KIND_"),
                event.tenant,
                event.instance_id,
                event.uid,
                event.state,
                event.version,
            )
            if event.type == PRESENT:
                self.story.show(fact)
            else:
                self.story.tell(fact)
        self._token = message.resume_token


class LibraryWatcher(Watcher):
    """Uses `client.events` with a place in a file, and is itself stopped and started again."""

    exact = False  # the place is behind the last message that it took in whole

    def __init__(self, address: str, place: Path, *arguments: Any) -> None:
        super().__init__(*arguments)
        self._address = address
        self._place = place

    @property
    def fresh(self) -> bool:
        return not self._place.exists()

    def forget_place(self) -> None:
        self._place.unlink(missing_ok=True)

    async def stream(self, *, last: bool) -> bool:
        left = 10**9 if last else self._random.choice((1, 5, 50))
        if self._start == "SNAPSHOT" and not self._place.exists():
            self.story.picture = {}
        async with (
            purveyor.Client(self._address, tenant=self.story.wish.tenant, outage_limit=PATIENCE_SECONDS) as client,
            aclosing(self._events(client, last=last)) as events,
        ):
            async for event in events:
                await self.begin()
                self._tell(event)
                left -= 1
                if not left:
                    return False
        await self.begin()
        return last and position_of(self._place.read_text(encoding="ascii").strip()) >= self.story.until

    def _events(self, client: purveyor.Client, *, last: bool) -> Any:
        wish = self.story.wish
        return client.events(
            self._start.lower(), kinds=wish.kinds, instance_id=wish.instance_id, place=self._place, follow=not last
        )

    def _tell(self, event: purveyor.Event) -> None:
        fact = Fact(
            event.revision, event.kind, event.tenant, event.instance_id, event.uid, event.state, event.version
        )  # fmt: skip
        if event.type == "PRESENT":
            self.story.show(fact)
        elif event.revision > self.story.last:  # the rest of a message is told again to a reader that died in it
            self.story.tell(fact)


def position_of(token: str) -> int:
    """The revision in a token, behind its seal; 0 without one."""
    if not token:
        return 0
    payload = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[16:]
    return int(msgspec.msgpack.decode(payload)[2])


class Tampered(WireWatcher):
    """A planted fault: what it is told is falsified once, on its way in."""

    fault: Fault

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


FAULTS: Sequence[type[Tampered]] = (Drop, Repeat, Reorder, Skip)
