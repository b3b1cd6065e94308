"""How late the loop is, measured on a loop that is held up on purpose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from purveyor_server.kit.lateness import BEATS, Lateness

BEAT = 0.01


@pytest.fixture
async def lateness() -> AsyncIterator[Lateness]:
    measured = Lateness(BEAT)
    measured.start()
    yield measured
    measured.stop()


async def hold_up(turns: int) -> None:
    for _ in range(turns):
        time.sleep(0.2)  # noqa: ASYNC251 - what is measured is a loop that is held up
        await asyncio.sleep(0)


async def test_turn_after_turn_that_takes_long_is_lateness(lateness: Lateness) -> None:
    await hold_up(BEATS + 3)
    assert lateness.seconds >= 0.15


async def test_one_long_turn_is_none(lateness: Lateness) -> None:
    await hold_up(1)
    assert lateness.seconds < 0.15


async def test_it_passes_when_the_loop_turns_again(lateness: Lateness) -> None:
    await hold_up(BEATS + 3)
    await asyncio.sleep(0.1)  # some beats: what is measured is time
    assert lateness.seconds < 0.15
