"""The commands about sightings, as a part of the store."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeVar

from purveyor_server.domain.orphans import Inventory, Knowledge, Sighting, SightingKey, Thing
from purveyor_server.store.sightings import Glimpse, InventoryChange, SightingChange
from purveyor_server.store.sqlite import sightings
from purveyor_server.store.sqlite.transaction import Transaction

T = TypeVar("T")


class SightingWriter:
    """See `store/sightings.py`."""

    async def _run(self, name: str, work: Callable[[Transaction], T], label: str = "") -> T:
        raise NotImplementedError  # the store's

    async def see(
        self,
        provider: str,
        things: Sequence[Thing],
        decide: Callable[[Thing, Sighting | None, Knowledge, datetime], Sighting | None],
    ) -> None:
        batch = tuple(things)
        await self._run("see", lambda tx: sightings.see(tx, provider, batch, decide))

    async def change_sighting(self, key: SightingKey, decide: Callable[[Glimpse], SightingChange]) -> Sighting:
        return await self._run("change_sighting", lambda tx: sightings.change(tx, key, decide))

    async def change_inventory(
        self, provider: str, decide: Callable[[Inventory | None, datetime], InventoryChange]
    ) -> Inventory:
        return await self._run("change_inventory", lambda tx: sightings.change_inventory(tx, provider, decide))

    async def lose_sightings(self, provider: str, sweep: int, limit: int) -> int:
        return await self._run("lose_sightings", lambda tx: sightings.lose(tx, provider, sweep, limit))

    async def forget_sightings(self, before: datetime, limit: int) -> int:
        return await self._run("forget_sightings", lambda tx: sightings.forget(tx, before, limit))
