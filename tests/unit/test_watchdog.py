"""A blocked event loop is said while it is blocked, with who blocks it and where; it is counted, and its end is said."""

from __future__ import annotations

import asyncio
import threading
from functools import partial
from typing import Any

import pytest
import structlog

from purveyor_server.domain.states import Make
from purveyor_server.kit.watchdog import Watchdog
from purveyor_server.providers.contract import Ambiguous
from tests.fakes.provider import ScriptedProvider, World
from tests.unit.test_facade import WORK, BadPiece, facade

SOON = 0.08  # seconds


def _set(loop: asyncio.AbstractEventLoop, event: asyncio.Event) -> None:
    loop.call_soon_threadsafe(event.set)


class Kennel:
    """A watchdog that lets go whoever blocks the loop once it has said so."""

    def __init__(self) -> None:
        self.let_go = threading.Event()
        self.blocks = 0
        self.dog = Watchdog(SOON)
        self.dog.on_blocked = self._blocked
        self.free = asyncio.Event()
        loop = asyncio.get_running_loop()
        self.dog.on_free = partial(_set, loop, self.free)

    def _blocked(self) -> None:
        self.blocks += 1
        self.let_go.set()

    def block(self) -> None:
        """Stand still until the watchdog has said so."""
        assert self.let_go.wait(10)
        self.let_go.clear()


async def watched(block: Any) -> tuple[list[Any], int]:
    """What the watchdog said while `block(kennel)` ran, and how often it counted."""
    kennel = Kennel()
    with structlog.testing.capture_logs() as lines:
        kennel.dog.start()
        try:
            await block(kennel)
            await asyncio.wait_for(kennel.free.wait(), 10)
        finally:
            kennel.dog.stop()
    return [line for line in lines if line["event"] == "event loop is blocked"], kennel.blocks


async def test_a_blocking_piece_is_named_with_its_place() -> None:
    async def block(kennel: Kennel) -> None:
        async def ensure() -> None:
            kennel.block()

        with pytest.raises(Ambiguous, match="neither Done nor NotYet"):
            await facade(call=5.0).make(BadPiece(ensure), Make.ENSURE, None)  # type: ignore[arg-type] # looks at nothing

    said, blocks = await watched(block)

    assert (len(said), blocks) == (1, 1)
    assert said[0]["busy_with"] == "provider main: bad.ensure"
    assert "Kennel.block" in said[0]["at"]


async def test_a_blocking_plan_is_named() -> None:
    async def block(kennel: Kennel) -> None:
        provider = ScriptedProvider(World())

        def plan(_work: Any, _done: Any) -> Any:
            kennel.block()
            return ()

        vars(provider)["plan"] = plan
        facade(provider).plan(WORK, {})

    said, _ = await watched(block)

    assert said[0]["busy_with"] == "provider main: plan"


class Looks(threading.Event):
    """Counts how often the watchdog looks, and says when it has looked enough."""

    def __init__(self) -> None:
        super().__init__()
        self._left = 8
        self._loop, self.enough = asyncio.get_running_loop(), asyncio.Event()

    def wait(self, timeout: float | None = None) -> bool:
        self._left -= 1
        if not self._left:
            _set(self._loop, self.enough)
        return super().wait(timeout)


async def test_a_loop_that_turns_is_left_in_peace() -> None:
    """Negative control: nothing is said of a loop that turns."""
    dog = Watchdog(1.0)
    dog._stop = looks = Looks()
    with structlog.testing.capture_logs() as lines:
        dog.start()
        await asyncio.wait_for(looks.enough.wait(), 10)
        dog.stop()

    assert lines == []
