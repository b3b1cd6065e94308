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
from contextlib import aclosing, suppress
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
from tests.watching.judge import Story, Wish
from tests.watching.pacing import rest

PATIENCE_SECONDS = 30.0
AWAY_SECONDS = 3.0
ANEW = 0.25  # share of the times at which who takes snapshots takes another one
NARROW = 0.3  # share of the streams of which the server cannot write ahead
NARROW_OPTIONS = (("grpc.http2.lookahead_bytes", 1), ("grpc.http2.bdp_probe", 0))
HELD_SECONDS = 0.5  # half of the server's patience
PASSING = (purveyor.UnavailableError, purveyor.DeadlineExceededError)  # the latter: cut off for not reading
START = pb.WatchEventsRequest.Start
PRESENT = EventMessage.TYPE_PRESENT


class Watcher(ABC):
    """One watcher with its story; `start` is NOW, EARLIEST or SNAPSHOT."""

    exact = True  # whether its place is right behind what it was told
    anew = ANEW

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
                self._head_before = self._ledger.heard
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
            if self._start == "SNAPSHOT" and not last and self._random.random() < self.anew:
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
        elif not isinstance(error, PASSING) and error.reason != "TOO_MANY_STREAMS":
            raise error

    def hear(self, fact: Fact) -> None:
        """An event came: the broker knows of it, so who begins after this must not be told it."""
        self.story.tell(fact)
        self._ledger.heard = max(self._ledger.heard, fact.revision)

    async def begin(self, snapshot_at: int = 0) -> None:
        """It has a place after a fresh beginning: behind `snapshot_at`, where its snapshot began; without one, what it is told
        begins somewhere between two readings of the log."""
        if self._begun:
            return
        earliest = self._start == "EARLIEST"
        up_to = snapshot_at or (await self._ledger.earliest() - 1 if earliest else await self._ledger.read())
        if self._lost_after is None and not earliest:
            self.story.floor = self._head_before
        self.story.path.append(f"began between {self._head_before} and {up_to}, had {self._lost_after}")
        self.story.unsure.append((self.story.floor if self._lost_after is None else self._lost_after, up_to))
        self._begun = True

    def _pause(self) -> float:
        return self._random.choice((0.0, 0.02, 0.1, AWAY_SECONDS * self._random.random()))


class WireWatcher(Watcher):
    """Reads the stream itself: disconnects, reads slowly, stops reading."""

    narrow = NARROW

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

    @property
    def _is_beginning_with_a_snapshot(self) -> bool:
        return self._start == "SNAPSHOT" and not self._token

    async def stream(self, *, last: bool) -> bool:
        if self._start == "SNAPSHOT" and not self._token:
            self.story.picture = {}
        narrow = self._random.random() < self.narrow or self._is_beginning_with_a_snapshot
        options = (("grpc.use_local_subchannel_pool", 1), *(NARROW_OPTIONS if narrow else ()))
        async with grpc.aio.insecure_channel(self._address, options=options) as channel:
            stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
            call = stub.WatchEvents(self._request())
            try:
                return await self._read(stub, call, last=last)
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

    async def _read(self, _stub: Any, call: Any, *, last: bool) -> bool:
        left = 10**9 if last else self._random.choice((1, 3, 10, 100))
        slow = 0.0 if last else self._random.choice((0.0, 0.0, 0.05, 1.5))
        if (
            self._is_beginning_with_a_snapshot and not last
        ):  # others write while it is read, and it breaks off in the middle
            left, slow = self._random.choice(((4, 0.0), (5, 0.0), (6, 0.0), (left, slow)))
        while left:
            message = await next_message(call)
            await self.begin(snapshot_at(message))
            self.take(message)
            if not last:
                await self._commit_behind(snapshot_at(message))
            if last and message.synced:
                return position_of(self._token) >= self.story.until
            left -= 1
            await rest(self.finishing, slow)
        return False

    async def _commit_behind(self, revision: int) -> None:
        """Wait until something wanted was stored after the snapshot began, but not until the server gives us up."""
        if not revision:
            return
        with suppress(TimeoutError):
            async with asyncio.timeout(HELD_SECONDS):
                while not any(map(self.story.wish.wants, self._ledger.facts[revision:])):
                    self._ledger.news.clear()
                    await self._ledger.news.wait()

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
                self.hear(fact)
        self._token = message.resume_token


async def next_message(call: Any) -> Any:
    """The next message of a stream; AssertionError when it ends OK, or does not come."""
    async with asyncio.timeout(PATIENCE_SECONDS):
        message = await call.read()
    if message is grpc.aio.EOF:
        raise AssertionError("the stream ended OK")
    return message


def snapshot_at(message: Any) -> int:
    """The revision at which the snapshot began whose records these are; 0 when they are none."""
    return next((int(event.revision) for event in message.events if event.type == PRESENT), 0)


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
                await self.begin(event.revision if event.type == "PRESENT" else 0)
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
            self.hear(fact)


def position_of(token: str) -> int:
    """The revision in a token, behind its seal; 0 without one."""
    if not token:
        return 0
    payload = base64.urlsafe_b64decode(token + "=" * (-len(token) % 4))[16:]
    return int(msgspec.msgpack.decode(payload)[2])
