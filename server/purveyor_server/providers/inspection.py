"""Questions to providers that no operation asks: how they do, what they own, how an instance looks.

Guarantee: every answer comes through the facade: waited for within a bound, the pauses of a list included, and checked; but
for quarantine, release and reclaim nothing is changed.
Limit: the last answer is that of this process.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing
from enum import StrEnum
from typing import NamedTuple

from purveyor_server.domain.model import ProviderRef
from purveyor_server.providers.abilities import RootRotated
from purveyor_server.providers.contract import Ability, Done, Known, NotYet, Observed, Owned, ProviderError
from purveyor_server.providers.registry import ProviderMissingError, ProviderRegistry

MAX_PROBLEM = 300  # characters


class Health(StrEnum):
    """The last answer of a backend."""

    UNKNOWN = "UNKNOWN"
    READY = "READY"
    CIRCUIT_OPEN = "CIRCUIT_OPEN"
    UNUSABLE = "UNUSABLE"


class Finding(NamedTuple):
    """How a provider does, and what is wrong, in words for operators."""

    health: Health
    problem: str = ""


class Inspector:
    """Asks the providers of a registry; remembers what the last check of each said."""

    def __init__(self, registry: ProviderRegistry) -> None:
        self._registry = registry
        self._checked: dict[str, Exception | None] = {}

    def note(self, name: str, failure: Exception | None) -> None:
        """Remember what a check said; None is well."""
        self._checked[name] = failure

    def health(self, ref: ProviderRef) -> Finding:
        """As far as this process knows."""
        try:
            facade = self._registry.facade(ref)
        except ProviderMissingError as error:
            return Finding(Health.UNUSABLE, str(error)[:MAX_PROBLEM])
        failure = self._checked.get(ref.name)
        if facade.circuit.is_open:
            return Finding(Health.CIRCUIT_OPEN, _words(failure) or "its backend does not answer")
        if failure is not None:
            return Finding(Health.UNUSABLE, _words(failure))
        return Finding(Health.READY if ref.name in self._checked else Health.UNKNOWN)

    def abilities(self, ref: ProviderRef) -> frozenset[Ability]:
        """What the provider can do. Raises ProviderMissingError."""
        return self._registry.abilities(ref)

    async def owned(self, ref: ProviderRef, store_id: str) -> AsyncIterator[Owned]:
        """What carries the marker of `store_id`. Raises ProviderError, ProviderMissingError."""
        async with aclosing(self._registry.facade(ref).owned(store_id)) as items:
            async for item in items:
                yield item

    async def observe(self, ref: ProviderRef, known: Known) -> Observed:
        """How an instance looks. Raises ProviderError, ProviderMissingError."""
        return await self._registry.facade(ref).observe(known)

    # What is done to things that no operation makes or removes.

    async def quarantine(self, ref: ProviderRef, owned: Owned) -> None:
        """Make it unusable and keep it. Raises ProviderError, ProviderMissingError."""
        await self._registry.facade(ref).quarantine(owned)

    async def release(self, ref: ProviderRef, owned: Owned) -> None:
        """Take that back. Raises as `quarantine`."""
        await self._registry.facade(ref).release(owned)

    async def reclaim(self, ref: ProviderRef, owned: Owned) -> Done | NotYet:
        """Remove it for good. Raises as `quarantine`."""
        return await self._registry.facade(ref).reclaim(owned)

    async def rotate_root(self, ref: ProviderRef) -> RootRotated:
        """New credentials for the broker's own accounts. Raises as `quarantine`."""
        return await self._registry.facade(ref).rotate_root()


def _words(failure: Exception | None) -> str:
    if failure is None:
        return ""
    if isinstance(failure, ProviderError):
        return f"{failure.message}: {failure.detail}"[:MAX_PROBLEM] if failure.detail else failure.message[:MAX_PROBLEM]
    return type(failure).__name__
