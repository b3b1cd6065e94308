"""What platforms and operators are told about inventories, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime


@dataclass(frozen=True, kw_only=True)
class InventoryOutcome:
    """What became of an inventory. `orphaned`: have become platform-orphans with it; `healed`: are none any more; `orphans`:
    how many there are after it.
    """

    snapshot_id: str
    named: int
    known: int
    unknown: int
    orphaned: tuple[str, ...] = ()
    healed: tuple[str, ...] = ()
    orphans: int = 0
    replayed: bool = False


@dataclass(frozen=True, kw_only=True)
class PlatformOrphan:
    """An instance that its platform no longer names. `kept`: why it is not given back by itself; empty when it will be."""

    tenant: str
    instance_id: str
    uid: str
    owner: str
    since_time: datetime | None = None
    seen_time: datetime | None = None
    due_time: datetime | None = None
    kept: str = ""
