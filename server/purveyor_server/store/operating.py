"""The part of the store's contract that operators use: freezes, audit records, facts, backups.

Guarantee: as `store/contract.py`; an act and its audit record are one command.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Protocol

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.freezes import Freeze

if TYPE_CHECKING:
    from purveyor_server.store.contract import Page


class OperatorCommands(Protocol):
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


class OperatorReads(Protocol):
    """The committed reads; of every tenant, for operators only."""

    async def freezes(self) -> tuple[Freeze, ...]:
        """What is frozen, by name."""
        ...

    async def audit(self, page: Page) -> tuple[AuditRecord, ...]:
        """Audit records of operators' acts, newest first; `after` is the number of the last one seen."""
        ...
