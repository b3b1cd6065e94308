"""What the event log answers when it cannot give what is asked for."""

from __future__ import annotations


class CompactedError(LookupError):
    """Events behind the place asked for are no longer kept; `earliest` is the earliest revision that is.

    Found in the same snapshot as the page that could not be given.
    """

    def __init__(self, earliest: int) -> None:
        super().__init__(f"events up to revision {earliest - 1} are no longer kept")
        self.earliest = earliest
