"""Turns: who waits for whom, and that no slot is lost whoever goes away."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from purveyor_server.kit import turns
from purveyor_server.kit.clock import ManualClock
from purveyor_server.kit.turns import LEAST, Turns

SLOTS = 16


class Work:
    """Tasks that hold a turn until they are let go."""

    def __init__(self, slots: int = SLOTS) -> None:
        self.clock = ManualClock()
        self.turns = Turns(slots, self.clock.monotonic)
        self.working: Counter[str] = Counter()
        self.order: list[str] = []
        self._go: dict[str, asyncio.Event] = {}
        self.tasks: list[asyncio.Task[None]] = []

    async def _one(self, name: str) -> None:
        async with self.turns.turn(name):
            self.order.append(name)
            self.working[name] += 1
            try:
                await self._go.setdefault(name, asyncio.Event()).wait()
            finally:
                self.working[name] -= 1

    async def call(self, name: str, times: int = 1) -> list[asyncio.Task[None]]:
        made = [asyncio.create_task(self._one(name)) for _ in range(times)]
        self.tasks += made
        await settled()
        return made

    async def finish(self, name: str) -> None:
        self._go.setdefault(name, asyncio.Event()).set()
        await settled()


async def settled() -> None:
    """Every task has gone as far as it can."""
    for _ in range(200):
        await asyncio.sleep(0)


@asynccontextmanager
async def working(slots: int = SLOTS) -> AsyncIterator[Work]:
    work = Work(slots)
    yield work
    for task in work.tasks:
        task.cancel()
    await asyncio.gather(*work.tasks, return_exceptions=True)
    assert (work.turns.working, work.turns.waiting) == (0, 0)


async def test_one_name_alone_has_every_slot() -> None:
    async with working() as work:
        await work.call("flood", 50)
        assert (work.working["flood"], work.turns.waiting) == (SLOTS, 50 - SLOTS)


async def test_another_name_is_the_next_and_the_crowd_shrinks_to_its_share() -> None:
    async with working() as work:
        await work.call("flood", 50)
        one, *_ = await work.call("other")
        assert work.working["other"] == 0

        work.tasks[0].cancel()
        await settled()
        assert (work.working["other"], work.working["flood"]) == (1, SLOTS - 1)
        for task in work.tasks[1:12]:
            task.cancel()
        await settled()
        assert work.working["flood"] == SLOTS // 2
        assert not one.done()
        await work.call("other", 3)
        assert work.working["other"] == 4


async def test_however_many_call_each_has_its_least() -> None:
    async with working(200) as work:
        for number in range(100):
            await work.call(f"n{number}")
        await work.call("n0", 20)
        assert work.working["n0"] == LEAST


async def test_a_crowd_has_every_slot_again_when_the_others_went_quiet() -> None:
    async with working() as work:
        await work.call("other")
        await work.call("flood", 50)
        assert work.working["flood"] == SLOTS // 2
        await work.finish("other")
        work.clock.advance(5)
        await work.call("flood")
        assert work.working["flood"] == SLOTS


async def test_names_take_turns() -> None:
    async with working(1) as work:
        await work.call("a", 3)
        await work.call("b", 3)
        await work.call("c", 3)
        for name in "abc":
            await work.finish(name)
        assert "".join(work.order) == "abcabcabc"


async def test_who_goes_away_while_waiting_takes_nothing_along() -> None:
    async with working(1) as work:
        await work.call("a")
        gone, *_ = await work.call("b")
        await work.call("c")
        gone.cancel()
        await work.finish("a")
        assert work.working["c"] == 1


async def test_who_is_called_and_goes_away_at_once_gives_its_slot_on() -> None:
    async with working(1) as work:
        await work.call("a")
        called, *_ = await work.call("b")
        await work.call("c")
        work._go["a"].set()
        await asyncio.sleep(0)  # a ends
        called.cancel()
        await settled()
        assert work.working["c"] == 1


async def test_who_only_waits_from_now_on_gives_its_slot_back_once() -> None:
    limited = Turns(1, ManualClock().monotonic)
    turns.pause()  # nobody's turn: nothing happens
    async with limited.turn("a"):
        turns.pause()
        turns.pause()
        assert limited.working == 0
        async with asyncio.timeout(1), limited.turn("b"):
            assert limited.working == 1
    assert limited.working == 0


async def test_a_failure_gives_the_slot_back() -> None:
    limited = Turns(1, ManualClock().monotonic)
    with pytest.raises(ZeroDivisionError):
        async with limited.turn("a"):
            raise ZeroDivisionError
    assert limited.working == 0


async def test_what_hangs_gives_its_slot_back() -> None:
    limited = Turns(1, ManualClock().monotonic, longest=0.01)
    async with limited.turn("a"), asyncio.timeout(5), limited.turn("b"):
        assert limited.working == 1
    assert limited.working == 0
