"""What the lifecycle needs from others, as Protocols, and its settings."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta
from typing import Protocol

import msgspec

from purveyor_server.domain.model import Json, ProviderRef
from purveyor_server.domain.platforms import PlatformRules
from purveyor_server.domain.quotas import Quotas
from purveyor_server.providers.contract import Ability, Owned, PlannedStep, Work


class Plans(Protocol):
    """What providers say of themselves. Each may raise `ProviderMissingError`, and `plan_steps` a `ProviderError`."""

    def contract(self, ref: ProviderRef) -> str:
        """Version of the provider's step names."""
        ...

    def abilities(self, ref: ProviderRef) -> frozenset[Ability]:
        """What the provider can do."""
        ...

    def plan_steps(self, ref: ProviderRef, work: Work) -> tuple[PlannedStep, ...]:
        """The steps that `work` would take."""
        ...

    async def adoptable(self, ref: ProviderRef, source: Mapping[str, Json]) -> Owned | None:
        """What of ours owns the thing `source` already, None when it may be adopted. Raises ProviderError."""
        ...


class Opener(Protocol):
    """Opens what was sealed, raises `security.sealing.SealError`; seals secret parameters."""

    def seal(self, owner: str, name: str, clear: bytes) -> bytes:
        """`clear`, sealed for the column `name` of the row `owner`."""
        ...

    def open(self, owner: str, name: str, sealed: bytes) -> bytes:
        """The clear text that was sealed for the column `name` of the row `owner`."""
        ...


class LifecycleSettings(msgspec.Struct, frozen=True):
    """Bounds of the use-cases."""

    max_wait: timedelta = timedelta(seconds=60)
    wait_margin: timedelta = timedelta(milliseconds=250)  # kept of a call's deadline for the answer
    max_pending: int = 10_000  # operations that run or wait for a slot; above it nothing new is accepted
    max_parked: int = 1_000_000  # operations that wait for anything else
    max_lag: float = 1.0  # seconds that the store is behind; above it nothing new is accepted
    full_retry: float = 5.0  # seconds that a caller is told to wait when there are too many operations
    busy_retry: float = 1.0  # seconds that a caller is told to wait for an operation in progress
    default_page: int = 100
    max_page: int = 1000
    removal_budget: timedelta = timedelta(minutes=10)  # of a plan that the catalog no longer has
    max_ttl: timedelta = timedelta(days=3650)
    max_overlap: timedelta = timedelta(days=7)  # of a predecessor with its successor
    max_predecessors: int = 1  # live ones that a new successor may have behind it
    max_named: int = 20  # bindings that an error names
    max_rounds: int = 4  # times an accept is prepared anew when its instance changes meanwhile
    max_kept: int = 32 * 1024 * 1024  # bytes of encoded answers that are kept
    shortest_heartbeat: float = 1.0  # seconds
    quotas: Quotas = Quotas()
    platforms: PlatformRules = PlatformRules()
