"""The ring and the cursor: nothing missed, nothing twice, wherever an event is taken from.

The store is a list; what the cursor gives is compared with a plain filter over that list.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purveyor_server.domain.model import Event, EventKind
from purveyor_server.store.contract import Commit
from purveyor_server.store.log import CompactedError
from purveyor_server.watch.events import Cursor, EventLog, Wanted
from purveyor_server.watch.pace import Pace
from purveyor_server.watch.ring import Record, Ring
from purveyor_server.watch.settings import WatchSettings

AT = datetime(2026, 1, 1, tzinfo=UTC)
LONG = 30.0
SMALL = WatchSettings(ring_events=4, message_events=3, page_events=2)


def event(revision: int, tenant: str = "t", kind: EventKind = EventKind.INSTANCE, instance_id: str = "i") -> Event:
    return Event(
        revision=revision,
        kind=kind,
        tenant=tenant,
        instance_id=instance_id,
        uid="u",
        state="READY",
        body=b"0123",
        at=AT,
    )


def encode(event: Event, record: Record | None = None) -> bytes:
    assert record is None
    return str(event.revision).encode()


class ListStore:
    """The reads of a log, over a list; `told` are the listeners' notices."""

    def __init__(self) -> None:
        self.events_: list[Event] = []
        self.earliest = 1
        self.head = 0

    def append(self, *events: Event) -> Commit:
        self.events_ += events
        self.head = events[-1].revision
        return Commit(self.head, events, (), due=False)

    def compact(self, earliest: int) -> None:
        self.earliest = max(self.earliest, min(earliest, len(self.events_)))

    async def events(self, after: int, limit: int) -> tuple[Event, ...]:
        if after < self.earliest - 1:
            raise CompactedError(self.earliest)
        return tuple(self.events_[after : after + limit])


def opened(store: ListStore, settings: WatchSettings = SMALL) -> EventLog:
    return EventLog(store, encode, settings)  # type: ignore[arg-type] # only its reads are used


async def all_of(cursor: Cursor) -> list[int]:
    """Everything that is ready, as revisions."""
    found: list[int] = []
    while True:
        parts = await cursor.read(0)
        found += [int(part) for part in parts]
        if not parts and cursor.position >= cursor._log.last:
            return found


def test_the_ring_is_bounded_by_count_and_by_bytes_and_encodes_once() -> None:
    asked: list[int] = []

    def counting(event: Event, record: Record | None = None) -> bytes:
        asked.append(event.revision)
        return encode(event, record)

    ring = Ring(10, 3, 1000, counting)
    ring.append([event(n) for n in range(11, 16)], 0.0)
    assert (ring.first, ring.last, len(ring), ring.bytes) == (13, 15, 3, 12)
    assert ring.encoded(ring[14]) == ring.encoded(ring[14]) == b"14"
    assert (asked, ring.bytes) == ([14], 14)
    tight = Ring(0, 100, 10, encode)
    tight.append([event(n) for n in range(1, 9)], 0.0)
    assert (tight.first, tight.last) == (7, 8)
    tight.skip_to(20)
    assert (tight.first, tight.last, tight.bytes) == (21, 20, 0)


async def test_a_parked_cursor_is_woken_by_its_tenant_alone() -> None:
    store = ListStore()
    log = opened(store)
    with log.cursor(Wanted("t"), 0) as cursor:
        reading = asyncio.create_task(cursor.read(LONG))
        await asyncio.sleep(0)
        for revision in range(1, 8):  # more than the ring holds
            log.on_commit(store.append(event(revision, tenant="other")))
        await asyncio.sleep(0)
        assert not reading.done()
        store.compact(7)  # what went by must not be asked for again
        log.on_commit(store.append(event(8)))
        assert (await reading, cursor.position) == ((b"8",), 8)
    assert (log.watchers, log.behind, log._parked) == (0, 0, {})


async def test_commits_while_watchers_are_served_come_to_them_together() -> None:
    """Without a pace every watcher was woken for every commit, and had a message for each (1,000 watchers: 38 for 64)."""
    store, clock = ListStore(), Hand()
    log = opened(store, WatchSettings(longest_rest=LONG))
    log._pace = Pace(clock, LONG, 0)
    with log.cursor(Wanted("t"), 0) as one, log.cursor(Wanted("t"), 0) as other:
        reading = [asyncio.create_task(cursor.read(LONG)) for cursor in (one, other)]
        await asyncio.sleep(0)
        log.on_commit(store.append(event(1)))
        assert [await task for task in reading] == [(b"1",), (b"1",)]
        reading = [asyncio.create_task(cursor.read(LONG)) for cursor in (one, other)]
        clock.now = 0.02
        await asyncio.sleep(0)  # both are served: that took 0.02 s, so they rest until 0.03
        for revision in (2, 3, 4):
            log.on_commit(store.append(event(revision)))
        await asyncio.sleep(0)
        assert not any(task.done() for task in reading)
        clock.now = 0.03
        log.on_commit(store.append(event(5)))
        assert [await task for task in reading] == [(b"2", b"3", b"4", b"5")] * 2


async def test_a_wait_that_ends_while_news_are_held_passes_none_of_them() -> None:
    store, clock = ListStore(), Hand()
    log = opened(store, WatchSettings(longest_rest=LONG))
    log._pace = Pace(clock, LONG, 0)
    with log.cursor(Wanted("t"), 0) as lazy, log.cursor(Wanted("t"), 0) as cursor:
        reading = [asyncio.create_task(one.read(LONG)) for one in (lazy, cursor)]
        await asyncio.sleep(0)
        log.on_commit(store.append(event(1)))
        await asyncio.gather(*reading)  # `lazy` does not come back: the round goes on
        short = asyncio.create_task(cursor.read(0.02))
        await asyncio.sleep(0)
        log.on_commit(store.append(event(2)))
        assert await short == ()
        assert (await all_of(cursor), await all_of(lazy)) == ([2], [2])


async def test_closing_does_not_wait_for_a_rest() -> None:
    store = ListStore()
    log = opened(store)
    log._pace = Pace(Hand(), LONG, 0)
    with log.cursor(Wanted("t"), 0) as cursor:
        log._pace.begin([object()])
        reading = asyncio.create_task(cursor.read(LONG))
        await asyncio.sleep(0)
        log.on_commit(store.append(event(1)))
        log.close()
        async with asyncio.timeout(5):
            await reading


class Hand:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.now = 0.0

    def __call__(self) -> float:
        return self.now


def test_a_rest_is_half_as_long_as_serving_took_and_not_longer_than_its_bound() -> None:
    clock = Hand()
    pace = Pace(clock, 1.0, 0.01)
    assert pace.wait <= 0  # the first news are told at once
    pace.begin(range(100))
    assert pace.wait == pytest.approx(2.0)
    clock.now = 0.2
    assert [pace.back(one) for one in range(90)] == [False] * 89 + [True]  # a tenth is not waited for
    assert pace.wait == pytest.approx(0.1)
    clock.now = 0.31
    assert pace.wait <= 0
    pace.begin(["busy", "dead"])
    assert not pace.back("busy")
    assert not pace.back("a stranger")
    clock.now = 1.33
    assert pace.wait <= 0  # who never comes back is waited for no longer than that


async def test_a_silent_cursor_moves_on_with_the_log() -> None:
    store = ListStore()
    log = opened(store)
    with log.cursor(Wanted("t"), 0) as cursor:
        reading = asyncio.create_task(cursor.read(0.01))
        await asyncio.sleep(0)
        log.on_commit(store.append(event(1, tenant="other")))
        assert (await reading, cursor.position) == ((), 1)


async def test_a_slow_cursor_reads_from_the_store_and_is_told_what_is_gone() -> None:
    store = ListStore()
    log = opened(store)
    with log.cursor(Wanted("t"), 0) as cursor:
        for revision in range(1, 10):
            log.on_commit(store.append(event(revision)))
        assert (await cursor.read(0), log.behind) == ((b"1", b"2"), 7)
        store.compact(5)
        with pytest.raises(CompactedError) as refused:
            await cursor.read(0)
        assert (refused.value.earliest, cursor.position) == (5, 2)


async def test_closing_ends_a_wait() -> None:
    log = opened(ListStore())
    with log.cursor(Wanted("t"), 0) as cursor:
        reading = asyncio.create_task(cursor.read(LONG))
        await asyncio.sleep(0)
        log.close()
        assert await reading == ()
        assert await cursor.read(LONG) == ()


async def test_a_hole_in_the_store_is_never_passed() -> None:
    store = ListStore()
    log = opened(store)
    for revision in range(1, 10):
        log.on_commit(store.append(event(revision)))
    del store.events_[2]
    with log.cursor(Wanted("t"), 1) as cursor, pytest.raises(RuntimeError, match="hole"):
        await cursor.read(0)


@pytest.mark.parametrize("later", [False, True])
async def test_a_commit_that_was_not_told_of_is_found(*, later: bool) -> None:
    store = ListStore()
    log = opened(store)
    with log.cursor(Wanted("t"), 0) as cursor:
        reading = asyncio.create_task(cursor.read(LONG))
        await asyncio.sleep(0)
        store.append(event(1), event(2))
        if later:
            log.on_commit(store.append(event(3)))
        else:
            await log.check()  # its notice may be on its way
            assert log.last == 0
            await log.check()
        assert await reading == (b"1", b"2")
        assert await all_of(cursor) == ([3] if later else [])


TENANTS, KINDS, NAMES = ("t", "u"), tuple(EventKind), ("a", "b")
changes = st.tuples(st.sampled_from(TENANTS), st.sampled_from(KINDS), st.sampled_from(NAMES))
acts = st.lists(
    st.one_of(
        st.tuples(st.just("commit"), st.lists(changes, min_size=1, max_size=6)),
        st.tuples(st.just("lost"), st.lists(changes, min_size=1, max_size=3)),
        st.tuples(st.just("read"), st.booleans()),
        st.tuples(st.just("compact"), st.integers(1, 40)),
        st.tuples(st.just("restart"), st.just(None)),
    ),
    max_size=30,
)
wishes = st.builds(
    Wanted,
    st.sampled_from(TENANTS),
    st.frozensets(st.sampled_from(KINDS), min_size=1),
    st.sampled_from(("", *NAMES)),
)


@given(acts, wishes, st.integers(1, 6), st.integers(1, 4), st.integers(1, 4))
def test_a_cursor_gives_the_log_as_its_filter_has_it(
    done: list[tuple[str, Any]], wanted: Wanted, ring: int, page: int, message: int
) -> None:
    settings = WatchSettings(ring_events=ring, page_events=page, message_events=message)
    asyncio.run(play(done, wanted, settings))


async def play(done: list[tuple[str, Any]], wanted: Wanted, settings: WatchSettings) -> None:
    """Any order of commits, untold commits, reads, compactions and restarts; then read to the end."""
    store = ListStore()
    log = opened(store, settings)
    cursor, got, lost_up_to = Cursor(log, wanted, 0), list[int](), 0
    for act, value in [*done, ("check", None), ("read", True)]:
        if act in {"commit", "lost"}:
            start = len(store.events_) + 1
            commit = store.append(*(event(start + n, *change) for n, change in enumerate(value)))
            if act == "commit":
                log.on_commit(commit)
        elif act == "compact":
            store.compact(value)
        elif act == "restart":
            log = opened(store, settings)
            cursor = Cursor(log, wanted, cursor.position)
        elif act == "check":
            await log.check()
            await log.check()
        else:
            try:
                got += await all_of(cursor) if value else [int(part) for part in await cursor.read(0)]
            except CompactedError as error:
                lost_up_to = cursor.position = error.earliest - 1
                got += await all_of(cursor) if value else []
                got = [revision for revision in got if revision > lost_up_to]
    assert cursor.position == len(store.events_)
    assert got == list(expected(store, wanted, lost_up_to))


def expected(store: ListStore, wanted: Wanted, after: int) -> Iterator[int]:
    for found in store.events_[after:]:
        fits = found.tenant == wanted.tenant and found.kind in wanted.kinds
        if fits and (not wanted.instance_id or found.instance_id == wanted.instance_id):
            yield found.revision
