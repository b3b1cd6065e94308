"""A circuit breaker per backend.

Guarantee: after `threshold` unreachable answers in a row the circuit is open: calls are postponed, none is sent, until
the probe time; then exactly one call is let through at a time, and its answer closes the circuit or opens it for longer.
Limit: the state lives in this process; each replica finds out by itself.
Source: M. Nygard, "Release It!", Circuit Breaker.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from purveyor_server.kit.backoff import Backoff
from purveyor_server.kit.clock import Clock


class Circuit:
    """Closed, open until a time, or probing."""

    def __init__(
        self, clock: Clock, on_close: Callable[[], None], threshold: int = 2, backoff: Backoff | None = None
    ) -> None:
        self._clock = clock
        self._on_close = on_close
        self._threshold = threshold
        self._backoff = backoff or Backoff(first=1.0, factor=2.0, ceiling=30.0)
        self._failures = 0
        self._open_until = 0.0
        self._probing = False

    @property
    def is_open(self) -> bool:
        """True while calls are postponed."""
        return self._failures >= self._threshold

    def postponed(self) -> float:
        """Seconds that a call has to wait before it may be sent; 0 lets it through (as the probe, when open)."""
        if not self.is_open:
            return 0.0
        left = self._open_until - self._clock.monotonic()
        if left <= 0 and not self._probing:
            self._probing = True
            return 0.0
        return max(left, 0.2)

    @contextmanager
    def before_call(self) -> Iterator[None]:
        """Around what stands between leave to call and the call: when it breaks off, no call follows, and the next is the probe."""
        try:
            yield
        except BaseException:
            self.abandoned()
            raise

    def answered(self) -> None:
        """The backend answered, whatever it said."""
        was_open = self.is_open
        self._failures = 0
        self._probing = False
        if was_open:
            self._on_close()

    def heard(self) -> None:
        """The backend answered a question that no operation asked: when it is time for a probe, that was one. So an idle broker
        finds out, too."""
        if self.is_open and self._open_until <= self._clock.monotonic():
            self.answered()

    def abandoned(self) -> None:
        """A call that was let through ended without a verdict; the next one is the probe."""
        self._probing = False

    def unreachable(self) -> None:
        """The backend did not answer at all."""
        self._probing = False
        self._failures += 1
        if self.is_open:
            delay = self._backoff.delay(self._failures - self._threshold)
            self._open_until = self._clock.monotonic() + delay
