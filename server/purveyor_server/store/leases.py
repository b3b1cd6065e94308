"""The part of the store's contract that is about the time of bindings: which end, which are to be rotated, which to be revoked.

Guarantee: as `store/contract.py`; a list is in the order of the times, so that whoever works it off begins with what is due
for longest, and it costs what it returns however many bindings there are.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from purveyor_server.domain.model import Binding
    from purveyor_server.store.contract import Page

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_TICK = timedelta(microseconds=1)


class Due(StrEnum):
    """What a binding can be due for."""

    EXPIRY = "EXPIRY"  # ACTIVE or EXPIRED, by the end
    ROTATION = "ROTATION"  # ACTIVE, by the time at which the broker rotates it
    REVOCATION = "REVOCATION"  # REVOCATION_BLOCKED, by the next attempt


def due_time(binding: Binding, due: Due) -> datetime | None:
    """When it is, None for never."""
    match due:
        case Due.EXPIRY:
            return binding.expires_at
        case Due.ROTATION:
            return binding.rotate_at
        case Due.REVOCATION:
            return binding.retry_at


def place_of(binding: Binding, due: Due) -> str:
    """The key of a row in its list: what `Page.after` takes."""
    at = due_time(binding, due)
    return f"{0 if at is None else (at - _EPOCH) // _TICK}:{binding.uid}"


class LeaseReads(Protocol):
    """The committed reads; of every tenant, for the broker's loops and for operators."""

    async def due_bindings(self, due: Due, until: datetime, page: Page, tenant: str = "") -> tuple[Binding, ...]:
        """Bindings that are due at `until` or before, by that time and uid; of one tenant when it is named."""
        ...

    async def rotations_since(self, at: datetime) -> int:
        """How many successors the broker has made by itself since `at`."""
        ...
