"""How much may run at once: in all, per provider, per tenant, and the slots kept for removals.

Guarantee: no tenant and no provider can take every slot, and deprovision, unbind and clean-up find `reserved` slots that
nothing else can take.
"""

from __future__ import annotations

from collections import Counter

from purveyor_server.domain.model import Operation
from purveyor_server.domain.states import REMOVALS
from purveyor_server.engine.settings import EngineSettings
from purveyor_server.store.contract import Claim


class Slots:
    """Counts of running operations."""

    def __init__(self, settings: EngineSettings) -> None:
        self._settings = settings
        self._running: dict[str, Operation] = {}
        self._tenants: Counter[str] = Counter()
        self._providers: Counter[str] = Counter()

    def __len__(self) -> int:
        return len(self._running)

    def __contains__(self, operation_id: str) -> bool:
        return operation_id in self._running

    @property
    def by_provider(self) -> dict[str, int]:
        """Operations working now, by provider."""
        return dict(self._providers)

    def take(self, operation: Operation) -> None:
        """Count `operation` as running."""
        self._running[operation.operation_id] = operation
        self._tenants[operation.tenant] += 1
        self._providers[operation.provider] += 1

    def give_back(self, operation_id: str) -> None:
        """It runs no more."""
        operation = self._running.pop(operation_id, None)
        if operation is None:
            return
        for counts, key in ((self._tenants, operation.tenant), (self._providers, operation.provider)):
            counts[key] -= 1
            if not counts[key]:
                del counts[key]

    @property
    def _others(self) -> int:
        """Slots that removals beyond the reserved ones and everything else hold."""
        removals = sum(operation.verb in REMOVALS for operation in self._running.values())
        return len(self._running) - min(removals, self._settings.reserved)

    def claims(self, owner: str, after_tenant: str) -> tuple[Claim, ...]:
        """What may be claimed now: anything for the common slots, then removals for the reserved ones."""
        settings = self._settings
        common = settings.running - self._others
        claims = []
        if common > 0:
            claims.append(
                Claim(
                    owner=owner,
                    lease=settings.lease,
                    limit=common,
                    after_tenant=after_tenant,
                    tenant_room={t: max(settings.per_tenant - n, 0) for t, n in self._tenants.items()},
                    tenant_limit=settings.per_tenant,
                    provider_room={p: max(settings.per_provider - n, 0) for p, n in self._providers.items()},
                    provider_limit=settings.per_provider,
                )
            )
        reserved = settings.running + settings.reserved - len(self._running) - max(common, 0)
        if reserved > 0:
            claims.append(
                Claim(
                    owner=owner,
                    lease=settings.lease,
                    limit=reserved,
                    after_tenant=after_tenant,
                    removals_only=True,
                )
            )
        return tuple(claims)
