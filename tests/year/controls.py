"""Planted faults: a safeguard is taken away, and a story that goes wrong without it every time has to be found.

Guarantee: `found` is true only if the same story is in order with the safeguard and the judge finds, without it, what it is for.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.year.actions import Bind, Plant, Provision, Story, Wait
from tests.year.backend import Fault
from tests.year.house import DAY, SOUND, Spoil
from tests.year.telling import tell

FURNISHED = (Provision("a", "small"), Wait(60.0), Bind("a", "x", 20), Wait(60.0))


class Control(NamedTuple):
    """What is taken away, the story, and words of what must be found."""

    name: str
    spoil: Spoil
    story: Story
    words: str


class Verdict(NamedTuple):
    """What the judge said of a control's story, without and with its safeguard."""

    name: str
    planted: list[str]
    sound: list[str]
    found: bool


CONTROLS = (
    Control(
        "forget a clean-up",
        Spoil("undo=off"),
        (Plant("space.ensure", Fault.REFUSED), Provision("a"), Wait(60.0)),
        "is left over",
    ),
    Control(
        "undo what may still happen",
        Spoil("settle=off"),
        (Plant("space.ensure", Fault.LATE), Plant("space.ensure", Fault.REFUSED), Provision("a"), Wait(60.0)),
        "is left over",
    ),
    Control("skip an expiry", Spoil(loops=frozenset({"expiry"})), (*FURNISHED, Wait(60 * DAY)), "stays open"),
    Control(
        "let the backend forget an end",
        Spoil(keeps_ends=False),
        (*FURNISHED, Wait(20 * DAY - 60.0), Wait(600.0)),
        "open a session, and the binding has ended",
    ),
)


def check(control: Control) -> Verdict:
    """Tell the story with and without the safeguard."""
    planted, sound = tell(control.story, 7, control.spoil), tell(control.story, 7, SOUND)
    found = not sound and any(control.words in line for line in planted)
    return Verdict(control.name, planted, sound, found)
