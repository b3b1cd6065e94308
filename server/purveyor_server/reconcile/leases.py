"""The loops that look after the times of bindings: what has ended, what is to be rotated, what could not be revoked.

Guarantee: what is due for longest comes first; a page per round, whatever is refused is passed over until the next walk, so
that nothing stands in the way of the others; every change goes through the lifecycle's door. Freezes: `deletes` and `all`
leave it at marking what has ended, `rotation` and `all` stop rotations, `deletes` and `all` stop further revocations; while a
restored store is being reviewed nothing is done at all, for its records may be older than what was promised since.
Limit: an end is noticed as late as the interval, and the sessions that are open then end with the UNBIND that follows; new
logins end on time in backends that can. The place in a walk is not stored: after a start it begins with the oldest.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from datetime import timedelta
from typing import Any

import structlog

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.freezes import ALL, DELETES, RECOVERY, ROTATION
from purveyor_server.domain.model import Binding
from purveyor_server.domain.states import BindingState
from purveyor_server.kit.clock import Clock
from purveyor_server.lifecycle.contract import ITSELF, Rotate, Unbind
from purveyor_server.lifecycle.expire import Lapse
from purveyor_server.lifecycle.lifecycle import Lifecycle
from purveyor_server.store.contract import Page, Store
from purveyor_server.store.leases import Due, place_of

_log = structlog.get_logger(__name__)
ABREAST = 16  # commands at once: the store puts them into few commits
HOUR = timedelta(hours=1)
ROUND_ENDS = frozenset(
    {Reason.DRAINING, Reason.STORE_UNAVAILABLE, Reason.STORE_FULL}
)  # the others would fare no better


class Walk:
    """Due bindings page by page, then from the oldest again."""

    def __init__(self, store: Store, clock: Clock, due: Due, page: int) -> None:
        self._store = store
        self._clock = clock
        self._due = due
        self._page = page
        self._after = ""

    async def page(self) -> tuple[tuple[Binding, ...], bool]:
        """The next of them, and whether there may be more."""
        found = await self._store.due_bindings(self._due, self._clock.now(), Page(self._page, self._after))
        more = len(found) == self._page
        self._after = place_of(found[-1], self._due) if more else ""
        return found, more

    def stop_at(self, binding: Binding) -> None:
        """Go on after `binding` the next time."""
        self._after = place_of(binding, self._due)


class ExpiryLoop:
    """Ends bindings whose time is over."""

    name = "expiry"

    def __init__(self, store: Store, use_cases: Lifecycle, clock: Clock, *, every: timedelta, page: int) -> None:
        self._store = store
        self._use_cases = use_cases
        self._walk = Walk(store, clock, Due.EXPIRY, page)
        self._every = every

    @property
    def interval(self) -> float:
        """Seconds."""
        return self._every.total_seconds()

    async def once(self) -> float | None:
        """End a page of bindings."""
        frozen = await _frozen(self._store)
        if RECOVERY in frozen:
            return None
        revoke = frozen.isdisjoint({DELETES, ALL})
        found, more = await self._walk.page()
        ending = [binding for binding in found if revoke or binding.state is BindingState.ACTIVE]
        for start in range(0, len(ending), ABREAST):
            batch = ending[start : start + ABREAST]
            lapses = (self._use_cases.expire(Lapse(binding, revoke)) for binding in batch)
            await asyncio.gather(*(_tried(lapse, "expiry", one) for lapse, one in zip(lapses, batch, strict=True)))
        return 0.0 if more else None


class RevocationLoop:
    """Tries again to take away what could not be taken away."""

    name = "revocation"

    def __init__(self, store: Store, use_cases: Lifecycle, clock: Clock, *, every: timedelta, page: int) -> None:
        self._store = store
        self._use_cases = use_cases
        self._walk = Walk(store, clock, Due.REVOCATION, page)
        self._every = every

    @property
    def interval(self) -> float:
        """Seconds."""
        return self._every.total_seconds()

    async def once(self) -> float | None:
        """Accept a page of unbinds."""
        if not (await _frozen(self._store)).isdisjoint({DELETES, ALL, RECOVERY}):
            return None
        found, more = await self._walk.page()
        for binding in found:
            request = Unbind(tenant=binding.tenant, instance_id=binding.instance_id, binding_id=binding.binding_id)
            await _tried(self._use_cases.unbind(ITSELF, request), "revocation", binding)
        return 0.0 if more else None


class RotationLoop:
    """Makes successors where a plan says so; at most `per_hour` of them begin in any hour."""

    name = "rotation"

    def __init__(
        self, store: Store, use_cases: Lifecycle, clock: Clock, *, every: timedelta, page: int, per_hour: int
    ) -> None:
        self._store = store
        self._use_cases = use_cases
        self._clock = clock
        self._walk = Walk(store, clock, Due.ROTATION, page)
        self._every = every
        self._per_hour = per_hour

    @property
    def interval(self) -> float:
        """Seconds."""
        return self._every.total_seconds()

    async def once(self) -> float | None:
        """Rotate a page of bindings, as far as the hour has room."""
        if not (await _frozen(self._store)).isdisjoint({ROTATION, ALL, RECOVERY}):
            return None
        room = self._per_hour - await self._store.rotations_since(self._clock.now() - HOUR)
        if room <= 0:
            return None
        found, more = await self._walk.page()
        for binding in found:
            request = Rotate(tenant=binding.tenant, instance_id=binding.instance_id, binding_id=binding.binding_id)
            room -= await _tried(self._use_cases.rotate(ITSELF, request), "rotation", binding)
            if room <= 0:
                self._walk.stop_at(binding)
                return None
        return 0.0 if more else None


async def _frozen(store: Store) -> set[str]:
    return {freeze.name for freeze in await store.freezes()}


async def _tried(doing: Awaitable[Any], what: str, binding: Binding) -> bool:
    """Whether it was accepted. Raises what would meet every other binding as well."""
    try:
        await doing
    except PurveyorError as refusal:
        if refusal.reason in ROUND_ENDS:
            raise
        named = {"tenant": binding.tenant, "instance": binding.instance_id, "binding": binding.binding_id}
        _log.info("passed over", loop=what, reason=str(refusal.reason), problem=refusal.message, **named)
        return False
    return True
