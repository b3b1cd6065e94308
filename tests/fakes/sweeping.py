"""Sweeps on a simulated clock: the real store and use-cases over a backend that is a list of marked things."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing, asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from purveyor_server.app.levels import LogLevels
from purveyor_server.domain.catalog import Catalog, Plan, Service
from purveyor_server.domain.catalogchanges import Contents
from purveyor_server.domain.model import Instance, ProviderRef
from purveyor_server.domain.orphans import Inventory, Sighting, SightingState
from purveyor_server.domain.policies import InventoryPolicy
from purveyor_server.domain.states import Drift, InstanceState
from purveyor_server.kit.clock import ManualClock
from purveyor_server.kit.ids import new_id
from purveyor_server.lifecycle.admin.administration import Administration
from purveyor_server.lifecycle.admin.contract import Act, AdminParts, Backends
from purveyor_server.lifecycle.catalogs import LiveCatalog
from purveyor_server.lifecycle.contract import ITSELF
from purveyor_server.lifecycle.door import Door
from purveyor_server.providers.contract import (
    Ability,
    Done,
    Known,
    NotYet,
    Observed,
    Owned,
)
from purveyor_server.providers.inspection import Finding, Health
from purveyor_server.reconcile.inventory import InventoryLoop
from purveyor_server.security.keyfile import KeyFile
from purveyor_server.security.keyring import unlock
from purveyor_server.store.contract import Page, Store, Writes
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.store.sqlite.store import open_store
from tests.store_contract import records

START = datetime(2026, 1, 1, tzinfo=UTC)
REF = ProviderRef("main", "listed")
PLAN = Plan(id="p", name="p", description="A plan.", provider=REF)
SERVICE = Service(id="s", name="s", description="A service.", plans=(PLAN,))
ALL = frozenset({Ability.LIST_OWNED, Ability.QUARANTINE, Ability.RECLAIM})
ACT = Act(reason="a test")


class ListedBackends:
    """Marked things by provider, in the order of the list. `breaks` raises after so many things; `faults` are raised by calls.
    `on_call` runs before each call takes effect."""

    def __init__(self) -> None:
        self.things: list[Owned] = []
        self.quarantined: set[str] = set()
        self.calls: list[str] = []
        self.able = ALL
        self.breaks: tuple[int, Exception] | None = None
        self.faults: dict[str, Exception] = {}

    def health(self, ref: ProviderRef) -> Finding:
        return Finding(Health.READY)

    def abilities(self, ref: ProviderRef) -> frozenset[Ability]:
        return self.able

    async def owned(self, ref: ProviderRef, store_id: str) -> AsyncIterator[Owned]:
        for number, thing in enumerate(tuple(self.things)):
            if self.breaks is not None and number >= self.breaks[0]:
                raise self.breaks[1]
            yield thing
        if self.breaks is not None and len(self.things) <= self.breaks[0]:
            raise self.breaks[1]

    async def observe(self, ref: ProviderRef, known: Known) -> Observed:
        return Observed(Drift.IN_SYNC, healthy=True, at=START)

    async def quarantine(self, ref: ProviderRef, owned: Owned) -> None:
        await self._called("quarantine", owned)
        self.quarantined.add(owned.name)

    async def release(self, ref: ProviderRef, owned: Owned) -> None:
        await self._called("release", owned)
        self.quarantined.discard(owned.name)

    async def reclaim(self, ref: ProviderRef, owned: Owned) -> Done | NotYet:
        await self._called("reclaim", owned)
        self.things.remove(owned)
        return Done()

    async def _called(self, call: str, owned: Owned) -> None:
        self.calls.append(f"{call} {owned.name}")
        if call in self.faults:
            raise self.faults[call]


class Rig:
    """A store in a folder, opened again and again, and the sweeps over it."""

    def __init__(self, folder: Path, policy: InventoryPolicy) -> None:
        self.folder = folder
        self.policy = policy
        self.clock = ManualClock(START)
        self.backends: Any = ListedBackends()
        self.ref = REF
        self.store: Store
        self.admin: Administration
        self.loop: InventoryLoop

    async def open(self) -> None:
        """Open it; a start of the broker as far as sweeps are concerned."""
        self.store = await open_store(self.folder / "store.db", clock=self.clock, settings=SqliteSettings())
        keys = await unlock(self.store, KeyFile(self.folder / "keys"))
        plan = PLAN if self.ref is REF else Plan(id="p", name="p", description="A plan.", provider=self.ref)
        service = Service(id="s", name="s", description="A service.", plans=(plan,))
        backends: Backends = self.backends
        unused: Any = None  # no sweep orders anything, nor judges a catalog
        snapshots = list(Catalog((service,)).snapshots.values())
        version = await self.store.apply_catalog("c1", "services: []", snapshots)
        catalog = LiveCatalog(self.store, unused, self.clock)
        catalog.serve(Contents((service,), {self.ref.name: self.ref}, {self.ref.name: self.policy}), version)
        self.parts = AdminParts(
            store=self.store,
            catalogs=catalog,
            backends=backends,
            levels=LogLevels(),
            clock=self.clock,
            door=Door(),
            token_key=keys.page_key,
            keys=keys,
            scratch=self.folder,
            version="test",
            started_at=self.clock.now(),
            running=dict,
            orders=unused,
            book=unused,
        )
        self.admin = Administration(self.parts)
        self.loop = InventoryLoop(self.admin, self.store, self.clock)

    async def restart(self) -> None:
        """Close it and open it again."""
        await self.store.close()
        await self.open()

    async def later(self, after: timedelta) -> None:
        """Let time pass."""
        self.clock.advance(after.total_seconds())

    async def sweep(self, act: Act = ACT) -> Inventory:
        """One sweep in the broker's own name."""
        sweeping: Any = self.admin.sweep(ITSELF, self.ref.name, act)
        async with aclosing(sweeping) as told:
            parts = [swept async for swept in told]
        assert [swept.done for swept in parts].index(True) == len(parts) - 1
        inventory: Inventory = parts[-1].inventory
        return inventory

    async def states(self) -> dict[str, SightingState]:
        """Every sighting by name."""
        found = await self.store.sightings(Page(1000))
        return {sighting.thing.name: sighting.state for _, sighting in found}

    async def sighting(self, name: str) -> Sighting:
        """One of them."""
        return next(s for _, s in await self.store.sightings(Page(1000)) if s.thing.name == name)

    def stray(self, name: str, *, revision: int = 0, uid: str = "", kind: str = "database") -> Owned:
        """A thing that nobody has a record of."""
        made = Owned(kind, name, uid or new_id(), revision)
        self.backends.things.append(made)
        return made

    async def known(self, instance_id: str, state: InstanceState = InstanceState.READY, **values: Any) -> Instance:
        """An instance with its thing; of a DELETED one the thing is what remains."""
        made = records.instance(instance_id=instance_id, state=state, **values)
        await records.write(self.store, Writes(instances=(made,)), instance_id=instance_id)
        self.stray(f"of-{instance_id}", uid=made.uid)
        return made

    async def crowd(self, count: int = 20) -> None:
        """So many instances that a few orphans are few."""
        for number in range(count):
            await self.known(f"i{number}")


@asynccontextmanager
async def rig(folder: Path, policy: InventoryPolicy | None = None) -> AsyncIterator[Rig]:
    """An open rig."""
    made = Rig(folder, policy or InventoryPolicy())
    await made.open()
    try:
        yield made
    finally:
        await made.store.close()
