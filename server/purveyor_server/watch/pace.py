"""When watchers may be woken again: after a rest half as long as serving them took.

Guarantee: after a rest news are told at once; while commits keep coming, serving watchers leaves a third of the event
loop's time to calls, whatever their number, and a message holds what was committed in between. Without this a thousand watchers got
a message each for every single commit, and the calls behind those commits waited for them (measured: 38 messages for 64
changes by 16 callers, and a quarter of the deliveries per second).
Limit: who does not come back, as a client that does not read, makes the others wait `longest` seconds and `each` for every
one that was woken with him, once; a tenth of them is not waited for.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

REST = 0.5  # of the time that the round took
NOT_AWAITED = 10  # one in so many of a round may still be out when it ends


class Pace:
    """Rounds: some are woken, most come back, then a rest. `free_at` is when the next round may begin."""

    def __init__(self, clock: Callable[[], float], longest: float, each: float) -> None:
        self._clock = clock
        self._longest = longest
        self._each = each
        self._out: set[object] = set()
        self._enough = 0
        self._began = 0.0
        self.free_at = 0.0

    @property
    def wait(self) -> float:
        """Seconds until the next round may begin; 0 or less when it may now."""
        return self.free_at - self._clock()

    def begin(self, woken: Iterable[object]) -> None:
        """A round begins. Whoever is still out from the last one is forgotten."""
        self._out = set(woken)
        self._enough = len(self._out) // NOT_AWAITED
        self._began = self._clock()
        self.free_at = self._began + self._longest + self._each * len(self._out)

    def back(self, one: object) -> bool:
        """`one` has been served, or is gone; True when that ends the round."""
        if one not in self._out:
            return False
        self._out.discard(one)
        if len(self._out) > self._enough:
            return False
        self._out.clear()
        now = self._clock()
        self.free_at = min(self.free_at, now + (now - self._began) * REST)
        return True
