"""The part of the store's contract that inventories of platforms are written to.

Guarantee: as `store/contract.py`; what an inventory changes, its report and its audit record are one command.
"""

from __future__ import annotations

from datetime import timedelta
from typing import TYPE_CHECKING, Protocol

import msgspec

from purveyor_server.domain.model import Instance
from purveyor_server.domain.platforms import InventoryReport, Placed, Verdict

if TYPE_CHECKING:
    from datetime import datetime

    from purveyor_server.domain.audit import AuditRecord
    from purveyor_server.store.contract import Page


class PlatformOrphan(msgspec.Struct, frozen=True):
    """An instance that its platform does not name, and when an inventory last left it out."""

    instance: Instance
    seen_at: datetime
    bindings: int = 0  # live ones


class PlatformCommands(Protocol):
    """The writes."""

    async def take_inventory(self, verdict: Verdict, record: AuditRecord) -> InventoryReport:
        """Do what an inventory changes, as far as it still can be, and keep the report; one that is kept already stays."""
        ...


class PlatformReads(Protocol):
    """The committed reads."""

    async def placed(self, tenant: str, owner: str, page: Page) -> tuple[Placed, ...]:
        """Instances of a platform in a tenant, by uid, without tombstones."""
        ...

    async def last_inventory(self, tenant: str, owner: str) -> InventoryReport | None:
        """What became of the last inventory."""
        ...

    async def platform_orphans(self, page: Page, grace: timedelta | None = None) -> tuple[PlatformOrphan, ...]:
        """Platform-orphans of every tenant by uid; with `grace` those that were left out again so much later."""
        ...

    async def platform_orphan_count(self) -> int:
        """How many there are."""
        ...
