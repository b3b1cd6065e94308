"""The part of the store's contract that looks at backends are written to.

Guarantee: as `store/contract.py`. A look is one command that reads the instance as it is by then, so that whatever began
meanwhile wins; what it writes beside the instance makes no event.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import TYPE_CHECKING, Protocol

import msgspec

from purveyor_server.domain.drift import Observation
from purveyor_server.domain.model import Binding, Instance, Operation

if TYPE_CHECKING:
    from purveyor_server.domain.audit import AuditRecord
    from purveyor_server.store.contract import Page


class Sight(msgspec.Struct, frozen=True):
    """What a look is judged by, as one transaction has it: live bindings and unfinished operations, the bindings' included."""

    now: datetime
    instance: Instance
    bindings: tuple[Binding, ...]
    operations: tuple[Operation, ...]
    observation: Observation | None


class Seen(msgspec.Struct, frozen=True):
    """What is kept of a look; `instance`, where it changes with it, is told as an event."""

    observation: Observation
    instance: Instance | None = None


class Drifted(msgspec.Struct, frozen=True):
    """An instance that is not in order, or of which that cannot be told."""

    instance: Instance
    observation: Observation


class ObservingCommands(Protocol):
    """The writes."""

    async def observe(
        self, uid: str, decide: Callable[[Sight], Seen | None], record: AuditRecord | None = None
    ) -> Seen | None:
        """Decide on one incarnation and keep what that gives, with the record; None when it is gone or nothing is to be kept."""
        ...


class ObservingReads(Protocol):
    """The committed reads; of every tenant."""

    async def due_looks(self, now: datetime, limit: int) -> tuple[Instance, ...]:
        """READY instances of which a look is due, the one that waits longest first."""
        ...

    async def observation(self, uid: str) -> Observation | None:
        """What the looks at one incarnation have come to."""
        ...

    async def drifted(self, page: Page) -> tuple[Drifted, ...]:
        """Instances that are not in order, by uid."""
        ...

    async def drift_counts(self) -> dict[str, int]:
        """How many there are of each drift but IN_SYNC."""
        ...
