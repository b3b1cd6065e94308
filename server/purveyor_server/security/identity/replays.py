"""Tokens that may be used once.

Guarantee: an id that was taken is refused until its token has expired; when there is room for no more, new ones are refused
rather than old ones forgotten.
Limit: of this process: after a restart an unexpired token works once more. Let such tokens live for minutes.
"""

from __future__ import annotations

import heapq

from purveyor_server.security.identity.text import refused


class Replays:
    """Ids that were used, with the time (seconds since the epoch) after which their tokens are void."""

    def __init__(self, limit: int = 100_000) -> None:
        self._limit = limit
        self._seen: set[str] = set()
        self._ends: list[tuple[float, str]] = []

    def __len__(self) -> int:
        return len(self._seen)

    def take(self, token_id: str, end: float, now: float) -> None:
        """Use an id. Raises UNAUTHENTICATED when it was used before, or nothing more can be remembered."""
        while self._ends and self._ends[0][0] <= now:
            self._seen.discard(heapq.heappop(self._ends)[1])
        if token_id in self._seen:
            raise refused("replayed", "the token was used before")
        if len(self._seen) >= self._limit:
            raise refused("replays_full", "too many tokens for one use are in use: try again later")
        self._seen.add(token_id)
        heapq.heappush(self._ends, (end, token_id))
