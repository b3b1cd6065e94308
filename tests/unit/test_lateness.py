"""How late the loop is, measured on a loop that is held up on purpose."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator

import pytest

from purveyor_server.kit.lateness import Lateness

BEAT = 0.01


@pytest.fixture
async def lateness() -> AsyncIterator[Lateness]:
    measured = Lateness(BEAT)
    measured.start()
    yield measured
    measured.stop()


async def test_a_turn_that_takes_long_shows_while_it_lasts(lateness: Lateness) -> None:
    time.sleep(0.2)  # noqa: ASYNC251 - what is measured is a loop that is held up
    assert lateness.seconds >= 0.15
    await asyncio.sleep(0)
    assert lateness.seconds >= 0.15  # the beat that was late tells so until the next one


async def test_it_passes_when_the_loop_turns_again(lateness: Lateness) -> None:
    time.sleep(0.2)  # noqa: ASYNC251 - as above
    await asyncio.sleep(0.1)  # some beats: what is measured is time
    assert lateness.seconds < 0.15
