"""How late the loop is, measured on a loop whose time is ours."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from purveyor_server.kit.lateness import BEAT, BEATS, Lateness


class Loop:
    """A loop of which one timer and the time are known."""

    def __init__(self) -> None:
        self.now = 100.0
        self.due: tuple[float, Callable[[], None]] | None = None

    def time(self) -> float:
        return self.now

    def call_at(self, when: float, call: Callable[[], None]) -> Any:
        self.due = when, call
        return self

    def cancel(self) -> None:
        self.due = None

    def beat(self, late: float) -> None:
        """The next beat comes `late` seconds after its time."""
        assert self.due is not None
        when, call = self.due
        self.now = when + late
        call()


def measured() -> tuple[Loop, Lateness]:
    loop = Loop()
    lateness = Lateness(loop)
    lateness.start()
    return loop, lateness


def test_beat_after_beat_that_is_late_is_lateness() -> None:
    loop, lateness = measured()
    for late in (0.4, 0.3, 0.6)[:BEATS]:
        loop.beat(late)
    assert abs(lateness.seconds - 0.3) < 1e-6


def test_one_late_beat_is_none() -> None:
    loop, lateness = measured()
    for late in (0.0, 5.0, 0.0):
        loop.beat(late)
    assert lateness.seconds < 1e-6


def test_it_passes_when_a_beat_is_in_time() -> None:
    loop, lateness = measured()
    for late in (0.4, 0.4, 0.4, 0.0):
        loop.beat(late)
    assert lateness.seconds < 1e-6
    assert loop.due is not None
    assert abs(loop.due[0] - loop.now - BEAT) < 1e-6


def test_it_ends() -> None:
    loop, lateness = measured()
    lateness.stop()
    assert loop.due is None
