"""The part of the store's contract that operators use: catalogs, freezes, audit records, facts, backups.

Guarantee: as `store/contract.py`; an act and its audit record are one command.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.auditchain import ChainKeys, Link, Marks
from purveyor_server.domain.filters import Filter
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.quotas import PlanKey, Quota, Usage, Used
from purveyor_server.domain.recovery import Recovery
from purveyor_server.domain.states import SLOT_WAITS, Waiting
from purveyor_server.domain.tokens import Token, Use
from purveyor_server.store.campaigns import CampaignCommands, CampaignReads
from purveyor_server.store.catalogs import CatalogCommands, CatalogReads
from purveyor_server.store.leases import LeaseReads
from purveyor_server.store.observing import ObservingCommands, ObservingReads
from purveyor_server.store.platforms import PlatformCommands, PlatformReads
from purveyor_server.store.sightings import SightingCommands, SightingReads

if TYPE_CHECKING:
    from pathlib import Path

    from purveyor_server.domain.model import Instance, Operation, SealedSecret
    from purveyor_server.store.contract import Page


WHOLE = 2**31 - 1  # bytes; no value is longer


def work_place(operation: Operation) -> str:
    """Where an unfinished operation is among all of them, for the page after it."""
    return f"{operation.instance_uid}/{operation.operation_id}"


class Queue(msgspec.Struct, frozen=True):
    """Unfinished operations of one provider that wait for the same thing."""

    provider: str
    waiting: Waiting
    operations: int
    cleanups: int  # of them, CLEANUP operations
    oldest_at: datetime
    oldest_id: str


class Facts(msgspec.Struct, frozen=True):
    """The store as an operator sees it. Sizes in bytes."""

    head: int
    earliest: int
    queues: tuple[Queue, ...]
    store_bytes: int
    free_bytes: int
    low_water_bytes: int
    drift: Mapping[str, int] = {}  # instances by drift, without those IN_SYNC
    campaigns: Mapping[str, int] = {}  # those that are not over, by state
    held: int = 0  # failed operations whose remains are kept for an operator
    platform_orphans: int = 0

    @property
    def pending(self) -> int:
        """Operations that run or wait for a slot."""
        return sum(queue.operations for queue in self.queues if queue.waiting in SLOT_WAITS)

    @property
    def parked(self) -> int:
        """Operations that wait for anything else."""
        return sum(queue.operations for queue in self.queues if queue.waiting not in SLOT_WAITS)

    @property
    def cleanups(self) -> int:
        """Clean-ups that are not done."""
        return sum(queue.cleanups for queue in self.queues)

    @property
    def oldest(self) -> Queue | None:
        """The queue with the oldest unfinished operation."""
        return min(self.queues, key=lambda queue: queue.oldest_at, default=None)


class Copied(msgspec.Struct, frozen=True):
    """A backup file: when it was taken, and the newest revision in it."""

    taken_at: datetime
    revision: int


class Resealed(msgspec.Struct, frozen=True):
    """A sealed value and what shall stand in its place, unless it has changed meanwhile."""

    owner: str
    name: str
    was: bytes
    now: bytes


class MetaSwap(msgspec.Struct, frozen=True):
    """A value of the store itself and what shall stand in its place (None: nothing), unless it has changed meanwhile."""

    name: str
    was: bytes
    now: bytes | None


class TenantUsage(msgspec.Struct, frozen=True):
    """What a tenant has by plan, and the quotas that operators set for it."""

    tenant: str
    used: dict[PlanKey, Used]
    quotas: tuple[Quota, ...]

    @property
    def usage(self) -> Usage:
        """As quotas are judged by."""
        return Usage(self.used, {quota.plan: quota.limits for quota in self.quotas})


class AuditLook(msgspec.Struct, frozen=True):
    """Where to look for audit records: from `start` on (0: from the end that the order begins with), at most `limit` of
    them, among at most `span` numbers."""

    limit: int
    start: int = 0
    newest_first: bool = True
    span: int = 20_000


class ChainedRecord(msgspec.Struct, frozen=True):
    """A record with its place in the chain. `body` is the record as it was chained; `previous` is empty where the record before
    it is not there."""

    record: AuditRecord
    body: bytes
    key: str = ""
    chain: bytes = b""
    previous: bytes = b""


class AuditPage(msgspec.Struct, frozen=True):
    """What was found, and the number to go on with; 0 is the end."""

    records: tuple[ChainedRecord, ...]
    more: int = 0


class OperatorCommands(
    CatalogCommands, CampaignCommands, ObservingCommands, PlatformCommands, SightingCommands, Protocol
):
    """The writes."""

    async def freeze(self, freeze: Freeze, record: AuditRecord) -> Freeze:
        """Keep a freeze, unless there is one of its name; returns the one that is kept. Both leave the record."""
        ...

    async def thaw(self, name: str, record: AuditRecord) -> Freeze | None:
        """Take a freeze away and leave the record; returns what was there. `unfreeze` follows."""
        ...

    async def unfreeze(self) -> int:
        """Make every operation due that a freeze held: one that is held still is let go again at once. Returns how many."""
        ...

    async def note(self, *records: AuditRecord) -> None:
        """Leave the records of acts that write nothing else."""
        ...

    async def open_chain(self, keys: ChainKeys, minted: Mapping[str, bytes]) -> str:
        """From now on chain audit records with these keys, and keep `minted` meta values in the same command.

        What is wrong with the end of the chain as it was found, "" for nothing; a record tells of it then.
        """
        ...

    async def set_quota(self, quota: Quota, record: AuditRecord) -> None:
        """Keep a quota in the place of the one before, and leave the record."""
        ...

    async def delete_quota(self, tenant: str, plan: PlanKey, record: AuditRecord) -> Quota | None:
        """Take a quota away and leave the record; returns what was there."""
        ...

    async def recount(self, tenant: str) -> int:
        """Count a tenant's instances and bindings anew; returns how many counters were wrong."""
        ...

    async def reseal(self, changes: Sequence[Resealed]) -> int:
        """Put sealed values in the place of others that are as they were; returns how many were."""
        ...

    async def swap_metas(self, swaps: Sequence[MetaSwap], record: AuditRecord | None = None) -> int:
        """The same for values of the store itself, and leave the record; returns how many were."""
        ...

    async def create_token(self, token: Token, record: AuditRecord) -> None:
        """Keep a new token and leave the record."""
        ...

    async def revoke_token(self, token_id: str, record: AuditRecord) -> Token | None:
        """Take a token back, unless it was before, and leave the record; returns it as it is now, None when there is none."""
        ...

    async def note_uses(self, uses: Sequence[Use]) -> None:
        """Keep when tokens were last used; a later use that is noted already stays."""
        ...

    async def finish_recovery(self, record: AuditRecord) -> Recovery | None:
        """Forget the recovery, lift the freezes that the restore set, leave the record; returns what was there."""
        ...


class OperatorReads(CatalogReads, CampaignReads, LeaseReads, ObservingReads, PlatformReads, SightingReads, Protocol):
    """The committed reads; of every tenant, for operators only."""

    @property
    def lag(self) -> float:
        """Seconds that the oldest unanswered command has waited."""
        ...

    async def facts(self) -> Facts:
        """How much there is of everything."""
        ...

    async def earliest(self) -> int:
        """The earliest revision that is kept; one behind the head when none is."""
        ...

    async def recovery(self) -> Recovery | None:
        """The recovery that is going on."""
        ...

    async def every_unfinished(self, page: Page) -> tuple[Operation, ...]:
        """Unfinished operations of every tenant, by instance; the next page is after `work_place` of the last one."""
        ...

    async def every_instance(self, page: Page) -> tuple[Instance, ...]:
        """Instances of every tenant by uid, without tombstones."""
        ...

    async def backup(self, target: Path) -> Copied:
        """Write a consistent copy of the store, as of one moment, to `target` (0600), which must not exist. Serving goes on.

        Raises STORE_FULL when it does not fit above the low-water mark, STORE_UNAVAILABLE.
        """
        ...

    async def metas(self, prefix: str) -> dict[str, bytes]:
        """Values of the store itself whose names begin with `prefix`."""
        ...

    async def sealed(self, after: tuple[str, str], limit: int, first: int = WHOLE) -> tuple[SealedSecret, ...]:
        """Sealed secrets of every owner by (owner, name), after that key; of each value the `first` bytes."""
        ...

    async def freezes(self) -> tuple[Freeze, ...]:
        """What is frozen, by name."""
        ...

    async def quotas(self, page: Page, tenant: str = "") -> tuple[TenantUsage, ...]:
        """Tenants that have anything, or had, or for which a quota is set, by name; or the one that is named."""
        ...

    async def next_tenant(self, after: str) -> str | None:
        """The next tenant by name that has, had or is said to have anything."""
        ...

    async def miscounted(self, tenant: str) -> int:
        """How many counters of a tenant are wrong, as one read sees it."""
        ...

    async def audit(self, where: Filter, look: AuditLook) -> AuditPage:
        """Audit records that fit, in the order of their numbers or, `newest_first`, in the other one."""
        ...

    async def audit_marks(self) -> Marks:
        """Where the chain begins and ends, as of one moment."""
        ...

    async def audit_links(self, after: int, last: int, limit: int) -> tuple[Link, ...]:
        """Records as they are stored, by number: those after `after`, none beyond `last`."""
        ...

    async def token(self, token_id: str) -> Token | None:
        """A static token, revoked ones too."""
        ...

    async def tokens(self, page: Page) -> tuple[Token, ...]:
        """Static tokens by id, revoked ones too."""
        ...
