"""A backend in memory with what a real one has: markers, passwords with an end, open sessions, delays, and calls that take
effect after their caller is gone.

Guarantee: nothing happens but by `call`, by what was on its way when a call was cut off, and by strangers' hands; each
removal is told to `on_remove` before it is done, so that a judge meets it at that moment.
Limit: one server; names are unique in it.
"""

from __future__ import annotations

import asyncio
import random
from collections import defaultdict, deque
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from typing import Any

from purveyor_server.kit.clock import Clock
from purveyor_server.providers.contract import Ambiguous, NotYet, Permanent, Retryable, Unreachable
from tests.year.virtual import pass_time

NEVER_ANSWERS = 600.0  # seconds; longer than the broker waits for a call


class Fault(StrEnum):
    """What may become of a call."""

    BUSY = "busy"  # it did not happen; again may help
    REFUSED = "refused"  # it did not happen and never will
    LOST = "lost"  # it did not happen, and the caller cannot know
    DEAF = "deaf"  # it happened, and the caller cannot know
    LATE = "late"  # it happens later, and the caller cannot know
    SLOW = "slow"  # it happens after the caller has given up
    LATER = "later"  # the caller is to ask again
    GARBAGE = "garbage"  # it happened, and the answer is none


@dataclass
class Thing:
    """A database, a role, a grant: whatever has a name. `login` and `until` (its end) are for what can log in."""

    kind: str
    name: str
    uid: str  # as the marker says; "" for a stranger's
    marker: str
    settings: dict[str, Any] = field(default_factory=dict)
    password: str = ""
    until: datetime | None = None
    space: str = ""  # what a login opens
    disabled: bool = False  # quarantined
    made_at: float = 0.0


@dataclass
class Session:
    """An open connection, and when it ended."""

    login: str
    uid: str
    opened_at: datetime
    closed_at: datetime | None = None


class Backend:
    """One server. `chance` decides how long things take and what becomes of calls that are cut off."""

    def __init__(self, clock: Clock, chance: random.Random) -> None:
        self.clock = clock  # its own: it may be ahead of the broker's, or behind
        self.things: dict[str, Thing] = {}
        self.sessions: list[Session] = []
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.keeps_ends = True  # a negative control's backend does not
        self.reads_markers = True  # nor does it look whose things are
        self.away_until = 0.0  # by its own monotonic clock
        self.calls = 0
        self.late: set[asyncio.Task[None]] = set()
        self.on_remove: Callable[[Thing], None] = lambda _thing: None
        self.on_call: Callable[[str], None] = lambda _what: None
        self.on_trouble: Callable[[float], None] = lambda _seconds: None  # told when it fails, and for how many seconds
        self.on_disable: Callable[[Thing], None] = lambda _thing: None
        self._chance = chance
        self._busy: defaultdict[str, int] = defaultdict(int)

    @property
    def down(self) -> bool:
        """Whether nobody gets an answer now."""
        return self.clock.monotonic() < self.away_until

    def go_away(self, seconds: float) -> None:
        """Answer nobody for so long from now on."""
        self.on_trouble(seconds)
        self.away_until = self.clock.monotonic() + seconds

    # What the broker does

    async def call(self, what: str, name: str, effect: Callable[[], Any]) -> Any:
        """Let `effect` happen to the thing `name`, now, later or never; its answer or NotYet. Raises a ProviderError."""
        self.calls += 1
        self.on_call(what)
        waiting = self.faults[what] or self.faults["*"]
        fault = waiting.popleft() if waiting else None
        if fault is not None:
            self.on_trouble(0.0)
        await self._travel(name, effect, NEVER_ANSWERS if fault is Fault.SLOW else self._chance.uniform(0.05, 2.0))
        if self.down:
            raise Unreachable("the backend does not answer")
        match fault:
            case Fault.BUSY:
                raise Retryable("busy")
            case Fault.REFUSED:
                raise Permanent("refused")
            case Fault.LATER:
                return NotYet(self._chance.uniform(1.0, 30.0), "later")
            case Fault.LOST:
                raise Ambiguous("lost on the way")
            case Fault.LATE:
                self._happens_late(name, effect)
                raise Ambiguous("lost on the way")
            case Fault.DEAF:
                effect()
                raise Ambiguous("no answer came")
            case Fault.GARBAGE:
                effect()
                return "no answer of the contract"
            case _:
                return effect()

    async def settled(self, name: str) -> bool:
        """Whether nothing is on its way to `name` any more. Raises Unreachable."""
        await pass_time(self._chance.uniform(0.01, 0.2))
        if self.down:
            raise Unreachable("the backend does not answer")
        return not self._busy[name]

    async def look(self) -> None:
        """A question that changes nothing. Raises Unreachable."""
        await pass_time(self._chance.uniform(0.01, 0.5))
        if self.down:
            raise Unreachable("the backend does not answer")

    async def _travel(self, name: str, effect: Callable[[], Any], seconds: float) -> None:
        """The way of a call; whose caller goes away meanwhile may still take effect."""
        try:
            await pass_time(seconds)
        except asyncio.CancelledError:
            if self._chance.random() < 0.7 and not self.down:
                self._happens_late(name, effect)
            raise

    def _happens_late(self, name: str, effect: Callable[[], Any]) -> None:
        self._busy[name] += 1
        task = asyncio.get_running_loop().create_task(self._later(name, effect, self._chance.uniform(0.5, 120.0)))
        self.late.add(task)
        task.add_done_callback(self.late.discard)

    async def _later(self, name: str, effect: Callable[[], Any], seconds: float) -> None:
        await pass_time(seconds)
        effect()
        self._busy[name] -= 1

    # Effects

    def put(self, thing: Thing) -> Thing:
        """Make it, or make it as `thing` says; what is disabled stays so."""
        there = self.things.get(thing.name)
        if there is None:
            thing.made_at = self.clock.monotonic()
            self.things[thing.name] = thing
            return thing
        there.settings, there.password, there.until = dict(thing.settings), thing.password, thing.until
        return there

    def remove(self, name: str) -> None:
        """Drop it, with the sessions of a login."""
        thing = self.things.get(name)
        if thing is None:
            return
        self.on_remove(thing)
        del self.things[name]
        self.close_sessions(name)

    def disable(self, name: str, *, disabled: bool = True) -> None:
        """Make it unusable, or usable again."""
        thing = self.things.get(name)
        if thing is None:
            return
        if disabled and not thing.disabled:
            self.on_disable(thing)
        thing.disabled = disabled

    def close_sessions(self, login: str) -> None:
        """End what is open."""
        for session in self.sessions:
            if session.login == login and session.closed_at is None:
                session.closed_at = self.clock.now()

    # What applications do

    def log_in(self, login: str, password: str) -> Session | None:
        """Open a session, as a driver does; None when the backend refuses."""
        thing = self.things.get(login)
        if self.down or thing is None or thing.password != password or thing.disabled:
            return None
        if self.keeps_ends and thing.until is not None and thing.until <= self.clock.now():
            return None
        space = self.things.get(thing.space)
        if space is None or space.disabled:
            return None
        session = Session(login, thing.uid, self.clock.now())
        self.sessions.append(session)
        return session
