"""The operators' use-cases about inventories and orphans; a part of `Administration`."""

from __future__ import annotations

from collections.abc import AsyncIterator

from purveyor_server.domain.orphans import Inventory, Sighting, SightingKey, SightingState
from purveyor_server.lifecycle.admin import inventories, orphans, rebuilding, sweeping
from purveyor_server.lifecycle.admin.contract import Act, AdminParts
from purveyor_server.lifecycle.contract import Caller, PageOf


class OrphanCases:
    """See `Administration`."""

    _parts: AdminParts

    async def watched(self, caller: Caller) -> tuple[inventories.Watched, ...]:
        """Which providers are swept, how, and when they were."""
        return await inventories.watched(self._parts, caller)

    def sweep(self, caller: Caller, provider: str, act: Act) -> AsyncIterator[sweeping.Swept]:
        """Compare a backend with the records, and do what its policy says."""
        return sweeping.sweep(self._parts, caller, provider, act)

    async def list_orphans(
        self, caller: Caller, provider: str, states: frozenset[SightingState], page_size: int, page_token: str
    ) -> PageOf:
        """What no record stands for."""
        return await orphans.list_orphans(self._parts, caller, provider, states, page_size, page_token)

    async def quarantine_orphan(self, caller: Caller, key: SightingKey, act: Act) -> Sighting:
        """Make one unusable."""
        return await orphans.quarantine(self._parts, caller, key, act)

    async def release_orphan(self, caller: Caller, key: SightingKey, act: Act) -> Sighting:
        """Make it usable again."""
        return await orphans.release(self._parts, caller, key, act)

    async def reap_orphan(self, caller: Caller, key: SightingKey, act: Act) -> Sighting:
        """Remove one for good."""
        return await orphans.reap(self._parts, caller, key, act)

    async def ignore_orphan(self, caller: Caller, key: SightingKey, act: Act, *, undo: bool = False) -> Sighting:
        """Leave one alone."""
        return await orphans.ignore(self._parts, caller, key, act, undo=undo)

    async def resume_sweep(self, caller: Caller, provider: str, act: Act) -> tuple[Inventory | None, bool]:
        """Go on after a brake."""
        return await orphans.resume(self._parts, caller, provider, act)

    def rebuild_report(self, caller: Caller) -> AsyncIterator[rebuilding.Rebuilt]:
        """What the markers say that the store should hold."""
        return rebuilding.rebuild_report(self._parts, caller)
