"""The part of the store's contract about catalogs: every one that was applied, and what there is of each plan.

Guarantee: as `store/contract.py`; a catalog, its plan snapshots and its audit record are one command; a version is never changed.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import TYPE_CHECKING, Protocol

import msgspec

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.quotas import PlanKey, Used

if TYPE_CHECKING:
    from purveyor_server.domain.model import Instance, PlanSnapshot
    from purveyor_server.store.contract import Page


class Origin(StrEnum):
    """Where a catalog came from."""

    FILE = "FILE"  # the file of the settings, at a start or while running
    CALL = "CALL"  # an operator's ApplyCatalog


class CatalogVersion(msgspec.Struct, frozen=True):
    """An applied catalog: its number (1, 2, ...), the SHA-256 of its text, its text ("" where only lists are asked for), when, and
    who for what reason."""

    version: int
    digest: str
    body: str
    applied_at: datetime
    principal: str = ""
    reason: str = ""
    origin: Origin = Origin.FILE
    request_id: str = ""


class CatalogChange(msgspec.Struct, frozen=True, kw_only=True):
    """How a catalog comes to be applied.

    `expected`: only on top of this version (None: of any). `used`: what was there of each plan when the change was judged (None:
    nobody asked); the command is refused when plans have come into use, or out of it, since. `record` makes the audit record of the version.
    """

    principal: str = ""
    reason: str = ""
    origin: Origin = Origin.FILE
    request_id: str = ""
    expected: int | None = None
    used: Mapping[PlanKey, Used] | None = None
    record: Callable[[CatalogVersion], AuditRecord] | None = None


class CatalogCommands(Protocol):
    """The writes."""

    async def apply_catalog(
        self, digest: str, body: str, plans: Sequence[PlanSnapshot], change: CatalogChange | None = None
    ) -> CatalogVersion:
        """Store a catalog and its plan snapshots as the newest version; the same digest as the newest changes nothing.

        The version that the same principal made with the same request id is answered again. Raises REQUEST_ID_REUSED,
        ETAG_MISMATCH when another version is the newest, OPERATION_IN_PROGRESS when other plans are in use than was said.
        """
        ...


class CatalogReads(Protocol):
    """The committed reads."""

    async def catalog(self) -> CatalogVersion | None:
        """The newest applied catalog."""
        ...

    async def catalog_version(self, version: int) -> CatalogVersion | None:
        """One of them."""
        ...

    async def catalog_history(self, before: int, limit: int) -> tuple[CatalogVersion, ...]:
        """Versions below `before` (0: all), the newest first, without their texts."""
        ...

    async def catalog_of_file(self) -> CatalogVersion | None:
        """The newest one that came from the file, without its text."""
        ...

    async def catalog_of_request(self, principal: str, request_id: str) -> CatalogVersion | None:
        """The one that a request made, without its text."""
        ...

    async def plan_usage(self) -> dict[PlanKey, Used]:
        """What there is of each plan in all tenants, of plans in no catalog too; plans of which there is nothing are left out."""
        ...

    async def instances_of_plan(self, plan: PlanKey, page: Page) -> tuple[Instance, ...]:
        """Instances by uid that count for a plan, without tombstones; by an index."""
        ...
