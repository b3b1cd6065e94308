"""What operators ask for and get, as values; what the use-cases need from the process, as Protocols."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from typing import Protocol

import msgspec

from purveyor_server.domain import auditchain
from purveyor_server.domain.catalog import Catalog
from purveyor_server.domain.drift import Pace
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.model import Binding, Instance, Operation, ProviderRef
from purveyor_server.domain.orphans import Inventory, SightingState
from purveyor_server.domain.quotas import Limits, PlanKey, Quota, Quotas, Used
from purveyor_server.domain.recovery import Recovery
from purveyor_server.domain.stuck import Rule
from purveyor_server.kit.clock import Clock
from purveyor_server.lifecycle.catalogs import LiveCatalog, Refused
from purveyor_server.lifecycle.contract import Adopt, Caller, Outcome, Repair, Update
from purveyor_server.lifecycle.door import Door
from purveyor_server.lifecycle.plans import PlanBook
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.providers.abilities import RootRotated
from purveyor_server.providers.contract import Ability, Done, Known, NotYet, Observed, Owned
from purveyor_server.providers.inspection import Finding, Health
from purveyor_server.security.keyring import Keyring
from purveyor_server.store.contract import Store
from purveyor_server.store.operating import Copied, Facts


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """What every act of an operator carries."""

    reason: str
    request_id: str = ""
    validate_only: bool = False


class ProviderReport(msgspec.Struct, frozen=True):
    """How a provider does."""

    ref: ProviderRef
    health: Health
    problem: str = ""
    running: int = 0


class Report(msgspec.Struct, frozen=True):
    """How the broker does, at `at`."""

    at: datetime
    version: str
    store_id: str
    epoch: int
    started_at: datetime
    facts: Facts
    providers: tuple[ProviderReport, ...]
    freezes: tuple[Freeze, ...]
    recovery: Recovery | None
    catalog_version: int
    log_level: str
    stuck: int = 0  # operations that the last walk found stuck
    inventories: tuple[Inventory, ...] = ()
    sightings: dict[tuple[str, SightingState], int] = {}
    catalog_refused: Refused | None = None  # the catalog file that is not taken


class Cause(msgspec.Struct, frozen=True):
    """One thing that keeps an operation where it is."""

    code: str
    sentence: str
    until: datetime | None = None
    operation_id: str = ""


class Abandoned(msgspec.Struct, frozen=True):
    """An operation that was given up, and what it may have left behind."""

    operation: Operation
    left_behind: tuple[str, ...] = ()


class Purged(msgspec.Struct, frozen=True):
    """What a purge forgot, what it may have left behind, what it ended."""

    instance: Instance
    binding: Binding | None = None
    left_behind: tuple[str, ...] = ()
    ended: tuple[str, ...] = ()


class Mark(StrEnum):
    """What a step is declared to be."""

    DONE = "DONE"
    ABSENT = "ABSENT"


class DifferenceKind(StrEnum):
    """How a restored store and the backends differ."""

    UNKNOWN_RESOURCE = "UNKNOWN_RESOURCE"
    MISSING = "MISSING"
    DRIFTED = "DRIFTED"
    UNFINISHED = "UNFINISHED"
    UNREADABLE = "UNREADABLE"


class Difference(msgspec.Struct, frozen=True, kw_only=True):
    """One difference."""

    kind: DifferenceKind
    resource: str
    sentence: str
    provider: str = ""
    tenant: str = ""
    instance_id: str = ""
    operation_id: str = ""


class QuotaReport(msgspec.Struct, frozen=True, kw_only=True):
    """What a tenant, or a plan in it, has and may have; `quota` is what an operator set."""

    tenant: str
    plan: PlanKey
    limits: Limits
    used: Used
    quota: Quota | None = None


class KeyReport(msgspec.Struct, frozen=True):
    """A labelled key, or a label without its key, and how many values are sealed with it."""

    label: str
    values: int
    primary: bool  # what is sealed now is sealed with it
    present: bool  # its source has it


class Rotation(msgspec.Struct, frozen=True, kw_only=True):
    """How far a rotation of keys is."""

    label: str  # of the key that everything is sealed with in the end
    checked: int = 0
    resealed: int = 0
    unreadable: int = 0
    done: bool = False


class AuditListing(msgspec.Struct, frozen=True, kw_only=True):
    """Which audit records are asked for."""

    page_size: int = 0
    page_token: str = ""
    filter: str = ""
    oldest_first: bool = False


class Verification(msgspec.Struct, frozen=True, kw_only=True):
    """How far a verification is: it has judged the record `number`, whose chain value is `chain`."""

    checked: int
    before_chain: int  # of them, older than the chain
    faults: int
    number: int
    chain: bytes
    cut: auditchain.Cut | None = None  # the checkpoint that it began behind
    findings: tuple[auditchain.Finding, ...] = ()  # the first of the faults; at the end
    done: bool = False


@dataclass(slots=True)
class Verified:
    """When a verification last found nothing wrong, and how much the last one found."""

    at: datetime | None = None
    faults: int = 0


@dataclass(slots=True)
class Stuck:
    """How many operations the last walk found stuck, and what was done about how many since the start, by rule."""

    now: int = 0
    cured: Counter[Rule] = field(default_factory=Counter)


class BackupFile(msgspec.Struct, frozen=True):
    """A copy of the store in a temporary file, gone when its caller is done with it."""

    path: Path
    copied: Copied


class Backends(Protocol):
    """What operators may ask of providers; `providers.inspection.Inspector` has this shape. Each call is bounded in time."""

    def health(self, ref: ProviderRef) -> Finding: ...
    def abilities(self, ref: ProviderRef) -> frozenset[Ability]: ...
    def owned(self, ref: ProviderRef, store_id: str) -> AsyncIterator[Owned]: ...
    async def observe(self, ref: ProviderRef, known: Known) -> Observed: ...
    async def quarantine(self, ref: ProviderRef, owned: Owned) -> None: ...
    async def release(self, ref: ProviderRef, owned: Owned) -> None: ...
    async def reclaim(self, ref: ProviderRef, owned: Owned) -> Done | NotYet: ...
    async def rotate_root(self, ref: ProviderRef) -> RootRotated: ...


class Orders(Protocol):
    """What operators order for a tenant; `lifecycle.Lifecycle` has this shape. It knows what a caller's orders know."""

    async def repair(self, caller: Caller, request: Repair) -> Outcome: ...
    async def adopt(self, caller: Caller, request: Adopt) -> Outcome: ...
    async def update(self, caller: Caller, request: Update) -> Outcome: ...


class LogLevels(Protocol):
    """How much the process logs."""

    def current(self) -> str:
        """debug, info, warning or error."""
        ...

    def change(self, level: str) -> str:
        """Set it; returns what it was. Raises INVALID_REQUEST."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class AdminParts:
    """What the operators' use-cases share."""

    store: Store
    catalogs: LiveCatalog
    backends: Backends
    levels: LogLevels
    clock: Clock
    door: Door
    token_key: bytes
    keys: Keyring
    scratch: Path  # a folder for backups under way, 0700
    version: str
    started_at: datetime
    running: Callable[[], dict[str, int]]  # operations being worked on, by provider
    orders: Orders
    book: PlanBook
    use_case_settings: LifecycleSettings = field(default_factory=LifecycleSettings)
    tokens_changed: Callable[[], None] = lambda: None  # called when a static token was taken back
    quotas: Quotas = field(default_factory=Quotas)  # the settings
    pace: Pace = field(default_factory=Pace)  # of looks at backends
    stop: Callable[[], None] = lambda: None  # begins the stop of the process
    verified: Verified = field(default_factory=Verified)
    stuck: Stuck = field(default_factory=Stuck)
    rotating: asyncio.Lock = field(default_factory=asyncio.Lock)
    sweeping: asyncio.Lock = field(default_factory=asyncio.Lock)

    @property
    def catalog(self) -> Callable[[], Catalog]:
        """The catalog as it is now."""
        return self.catalogs
