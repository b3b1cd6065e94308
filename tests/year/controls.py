"""Planted faults: a safeguard is taken away, and a story that goes wrong without it every time has to be found.

Guarantee: `found` is true only if the same story is in order with the safeguard and the judge finds, without it, what it is for.
"""

from __future__ import annotations

from typing import NamedTuple

from tests.year.actions import (
    Bind,
    Campaign,
    Flood,
    Freeze,
    FreezeName,
    Harm,
    Litter,
    Plant,
    Provision,
    Rotate,
    Story,
    Stranger,
    Tamper,
    Update,
    Wait,
)
from tests.year.backend import Fault
from tests.year.house import DAY, SOUND, Spoil
from tests.year.mutants import TWICE, UNBRAKED, UNFROZEN
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
        "reap without marker",
        Spoil(reads_markers=False),
        (*FURNISHED, Stranger("space", marked=True), Wait(30 * DAY)),
        "the stranger's space",
    ),
    Control(
        "reap before the grace is over",
        Spoil(catalog="hasty"),
        (*FURNISHED, Litter("space"), Wait(30 * DAY)),
        "before its grace is over",
    ),
    Control(
        "never sweep",
        Spoil(loops=frozenset({"inventory"})),
        (*FURNISHED, Litter("login"), Wait(60 * DAY)),
        "than its policy",
    ),
    Control(
        "never look for drift",
        Spoil(loops=frozenset({"drift"})),
        (Provision("a"), Wait(60.0), Tamper("a", Harm.DROP), Wait(DAY)),
        "is not as recorded",
    ),
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
    Control(
        "do not look at freezes",
        UNFROZEN,
        (*FURNISHED, Freeze(FreezeName.ALL), Wait(600.0), Update("a", 5), Wait(600.0)),
        "is frozen since",
    ),
    Control(
        "let a campaign update an instance twice",
        TWICE,
        (
            Provision("a", "small"),
            Wait(60.0),
            Plant("space.ensure", Fault.REFUSED),
            Campaign("small", "large"),
            Wait(20 * DAY),
        ),
        "campaigns have updated the instance",
    ),
    Control(
        "sweep on without a brake",
        UNBRAKED,
        (*FURNISHED, Flood(), Wait(20 * DAY)),
        "and nobody said go on",
    ),
    Control("skip an expiry", Spoil(loops=frozenset({"expiry"})), (*FURNISHED, Wait(60 * DAY)), "stays open"),
    Control(
        "end a predecessor with its successor's beginning",
        Spoil(catalog="without overlap"),
        (
            Provision("a", "leased"),
            Wait(60.0),
            Bind("a", "x"),
            Wait(60.0),
            Rotate("a", "x"),
            Wait(3600.0),
            Wait(3 * DAY),
        ),
        "of the live binding a/x",
    ),
    Control(
        "let a binding live longer than it may",
        Spoil(catalog="endless"),
        (
            Provision("a", "leased"),
            Wait(60.0),
            Bind("a", "x", 80),
            Wait(60.0),
            Freeze(FreezeName.ROTATION),
            Wait(70 * DAY),
        ),
        "open a session, and the binding has ended",
    ),
    Control(
        "let the backend forget an end",
        Spoil(keeps_ends=False),
        (*FURNISHED, Wait(20 * DAY - 60.0), Wait(600.0)),
        "open a session, and the binding has ended",
    ),
)


def check_number(number: int) -> Verdict:
    """Of `CONTROLS`: another process cannot be handed one."""
    return check(CONTROLS[number])


def check(control: Control) -> Verdict:
    """Tell the story with and without the safeguard."""
    # With the safeguard the judge finds nothing; where only the catalog differs, `SOUND` has the one that it knows.
    planted, sound = tell(control.story, 7, control.spoil), tell(control.story, 7, SOUND)
    found = not sound and any(control.words in line for line in planted)
    return Verdict(control.name, planted, sound, found)
