"""Whose turn it is to work: what is served at once is bounded and shared between those who call, one after the other.

Guarantee: at most `slots` work at once; who waits is asked in turn, name by name, so that a crowd of one name waits for itself
alone. While several names call, one of them works on at most its share of the slots (never less than LEAST): the others
find free ones, and few before them in whatever is behind. A name that calls alone has them all.
What takes longer than LONGEST gives its slot back and goes on without one.
Limit: a name counts as calling until a second or two after its last call. Nothing is bounded here but the slots: how many
may wait is for the caller to say.
"""

from __future__ import annotations

import asyncio
from collections import Counter, OrderedDict, deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from contextvars import ContextVar

LEAST = 4  # slots of a name, however many call
WINDOW = 1.0  # seconds
LONGEST = 1.0  # seconds: what hangs for longer does not stand in the way of others any more

_PAUSE: ContextVar[Callable[[], None] | None] = ContextVar("purveyor_turn_pause", default=None)


def pause() -> None:
    """What runs here only waits from now on, and does not need its turn any more."""
    if (done := _PAUSE.get()) is not None:
        done()


class Turns:
    """The slots, and who waits for one."""

    def __init__(self, slots: int, monotonic: Callable[[], float], longest: float = LONGEST) -> None:
        self._slots = slots
        self._longest = longest
        self._monotonic = monotonic
        self._working: Counter[str] = Counter()
        self._waiting: OrderedDict[str, deque[asyncio.Future[None]]] = OrderedDict()
        self._seen: set[str] = set()
        self._seen_before: set[str] = set()
        self._window_ends = 0.0
        self.working = 0

    @property
    def waiting(self) -> int:
        """How many wait."""
        return sum(map(len, self._waiting.values()))

    @asynccontextmanager
    async def turn(self, name: str) -> AsyncIterator[None]:
        """Wait for a slot, hold it until the end or until `pause`."""
        self._see(name)
        if self.working < self._slots and self._may_work(name) and name not in self._waiting:
            self._take(name)
        else:
            await self._wait(name)
        held = True

        def give() -> None:
            nonlocal held
            if held:
                held = False
                self._give(name)

        token = _PAUSE.set(give)
        late = asyncio.get_running_loop().call_later(self._longest, give)
        try:
            yield
        finally:
            late.cancel()
            _PAUSE.reset(token)
            give()

    def _see(self, name: str) -> None:
        now = self._monotonic()
        if now >= self._window_ends:
            stale = now >= self._window_ends + WINDOW
            self._seen_before, self._seen = (set() if stale else self._seen), set()
            self._window_ends = now + WINDOW
        if len(self._seen) < self._slots:  # more would not make a share smaller
            self._seen.add(name)

    def _may_work(self, name: str) -> bool:
        calling = len(self._seen | self._seen_before)
        return self._working[name] < max(LEAST, self._slots // max(1, calling))

    def _take(self, name: str) -> None:
        self.working += 1
        self._working[name] += 1

    def _give(self, name: str) -> None:
        self.working -= 1
        self._working[name] -= 1
        if not self._working[name]:
            del self._working[name]
        if name in self._waiting:
            self._waiting.move_to_end(name)  # it has just had its turn
        self._call_next()

    async def _wait(self, name: str) -> None:
        mine: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._waiting.setdefault(name, deque()).append(mine)
        self._call_next()  # another name may have made room by going quiet
        try:
            await mine
        except asyncio.CancelledError:
            if mine.done() and not mine.cancelled():
                self._give(name)  # it was called just now
            else:
                self._forget(name, mine)
            raise

    def _forget(self, name: str, mine: asyncio.Future[None]) -> None:
        queue = self._waiting.get(name)
        if queue is not None and mine in queue:
            queue.remove(mine)
            if not queue:
                del self._waiting[name]

    def _call_next(self) -> None:
        """Give free slots to those who wait, name by name, as long as there are any."""
        refused = 0  # names in a row that may not work now
        while self._waiting and self.working < self._slots and refused < len(self._waiting):
            name, queue = next(iter(self._waiting.items()))
            if self._may_work(name):
                refused = 0
                mine = queue.popleft()
                if not mine.done():  # else its caller has gone
                    self._take(name)
                    mine.set_result(None)
            else:
                refused += 1
            if queue:
                self._waiting.move_to_end(name)
            else:
                del self._waiting[name]
