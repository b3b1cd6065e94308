"""The part of the store's contract that remembers what sweeps of backends have seen.

Guarantee: as `store/contract.py`. A decision sees, in its own transaction, what the store knows of the thing's uid: what was
accepted before is seen, what is accepted later finds the decision's writes.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.orphans import Inventory, Knowledge, Sighting, SightingKey, SightingState, Thing

if TYPE_CHECKING:
    from purveyor_server.domain.model import PlanSnapshot
    from purveyor_server.store.contract import Page


class Glimpse(msgspec.Struct, frozen=True):
    """All that a decision about one thing sees. `recovering`: the store was restored, and nobody has finished that."""

    now: datetime
    head: int
    sighting: Sighting
    knowledge: Knowledge
    inventory: Inventory | None
    freezes: tuple[Freeze, ...] = ()
    recovering: bool = False


class SightingChange(msgspec.Struct, frozen=True):
    """What a decision about one thing puts down."""

    sighting: Sighting
    audit: tuple[AuditRecord, ...] = ()


class InventoryChange(msgspec.Struct, frozen=True):
    """What a decision about a provider's sweeps puts down."""

    inventory: Inventory
    audit: tuple[AuditRecord, ...] = ()


class Due(msgspec.Struct, frozen=True):
    """A place in a walk over what a sweep may act upon: never tried first, then the longest ago. `seq` orders equals."""

    sighting: Sighting
    tried: int
    seq: int


class SightingCommands(Protocol):
    """The writes."""

    async def see(
        self,
        provider: str,
        things: Sequence[Thing],
        decide: Callable[[Thing, Sighting | None, Knowledge, datetime], Sighting | None],
    ) -> None:
        """Remember what `decide` says of each thing, as one command; None leaves what is there. At most a page of things."""
        ...

    async def change_sighting(self, key: SightingKey, decide: Callable[[Glimpse], SightingChange]) -> Sighting:
        """Change one; returns it as it is after that. Raises ORPHAN_NOT_FOUND, and what `decide` raises."""
        ...

    async def change_inventory(
        self, provider: str, decide: Callable[[Inventory | None, datetime], InventoryChange]
    ) -> Inventory:
        """Change what is remembered of a provider's sweeps; returns it as it is after that."""
        ...

    async def lose_sightings(self, provider: str, sweep: int, limit: int) -> int:
        """Call GONE what an earlier sweep than `sweep` was the last to see; returns how many. Again while it is `limit`."""
        ...

    async def forget_sightings(self, before: datetime, limit: int) -> int:
        """Forget those that have ended and were last seen before that time; returns how many."""
        ...


class SightingReads(Protocol):
    """The committed reads; for operators only."""

    async def knowledge(self, uids: Sequence[str]) -> dict[str, Knowledge]:
        """What the store has of each of the uids that it has anything of; at most a page of uids."""
        ...

    async def sighted(self, provider: str, uids: Sequence[str]) -> tuple[Sighting, ...]:
        """Sightings of these uids that have not ended; at most a page of uids."""
        ...

    async def sighting(self, key: SightingKey) -> Sighting | None:
        """One sighting."""
        ...

    async def sightings(
        self, page: Page, provider: str = "", states: Collection[SightingState] = ()
    ) -> tuple[tuple[str, Sighting], ...]:
        """Sightings and their keys for pages, in the order of their first being seen; of every provider and state when none is
        named."""
        ...

    async def due_sightings(
        self, provider: str, sweep: int, state: SightingState, after: tuple[int, int], limit: int
    ) -> tuple[Due, ...]:
        """What sweep `sweep` has seen and what is in `state`, after that place."""
        ...

    async def count_sightings(self) -> dict[tuple[str, SightingState], int]:
        """How many there are by provider and state."""
        ...

    async def inventory(self, provider: str) -> Inventory | None:
        """What is remembered of a provider's sweeps."""
        ...

    async def inventories(self) -> tuple[Inventory, ...]:
        """The same of every provider that was ever swept, by name; there are as many as there were providers."""
        ...

    async def every_plan(self, page: Page) -> tuple[PlanSnapshot, ...]:
        """Plan snapshots of every catalog that was ever applied, by digest."""
        ...
