"""Exponential backoff with full jitter and a ceiling.

Source: "Exponential Backoff And Jitter" (AWS Architecture Blog): the delay is drawn from the upper half of the
exponential step, so that retries spread out yet never come at once.
"""

from __future__ import annotations

import random
from typing import NamedTuple


class Backoff(NamedTuple):
    """Delays in seconds: `first` * `factor` ** attempt, never above `ceiling`, half of it random."""

    first: float = 0.5
    factor: float = 2.0
    ceiling: float = 60.0

    def delay(self, attempt: int) -> float:
        """Seconds to wait after failed attempt number `attempt` (0 is the first)."""
        step = min(self.ceiling, self.first * self.factor ** min(max(attempt, 0), 32))
        return step / 2 + random.random() * step / 2  # noqa: S311 - jitter, not a secret
