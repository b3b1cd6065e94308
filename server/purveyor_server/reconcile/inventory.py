"""The sweep of inventories: each provider in its turn, as often as its policy says.

Guarantee: a round sweeps one provider at most, the one that has waited longest. The first sweep of a provider comes soon after
each start: a store that was put back to an older state is found before it has grown past what it forgot.
Limit: a list is one round, however long it is. Under a freeze of everything, or of the provider, its sweeps wait.
Source: DESIGN.md section 10.
"""

from __future__ import annotations

from contextlib import aclosing
from datetime import datetime, timedelta

import structlog

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.orphans import forbidding
from purveyor_server.kit.clock import Clock
from purveyor_server.lifecycle.admin.administration import Administration
from purveyor_server.lifecycle.admin.contract import Act
from purveyor_server.lifecycle.admin.inventories import Watched
from purveyor_server.lifecycle.contract import ITSELF
from purveyor_server.store.contract import Store

_log = structlog.get_logger(__name__)
SETTLE = timedelta(seconds=10)  # from the start to the first sweep
AGAIN = timedelta(minutes=5)  # at most, after a backend that did not answer
UNABLE = timedelta(hours=1)
ACT = Act(reason="it is time")


class InventoryLoop:
    """See `reconcile.loop.Loop`."""

    name = "inventory"
    interval = 60.0

    def __init__(self, administration: Administration, store: Store, clock: Clock) -> None:
        self._administration = administration
        self._store = store
        self._clock = clock
        self._started = clock.now()
        self._unable: dict[str, datetime] = {}  # which cannot list what they own, and when they are asked again

    async def once(self) -> float:
        """Sweep the provider whose sweep is the longest overdue; seconds until the next one is due."""
        freezes = await self._store.freezes()
        watched = await self._administration.watched(ITSELF)
        due = {one.ref.name: self._due(one) for one in watched if forbidding(freezes, one.ref.name) is None}
        now = self._clock.now()
        name = min(due, key=lambda one: due[one], default="")
        if name and due[name] <= now:
            del due[name]
            await self._sweep(name)
        return max(0.0, min((at - now).total_seconds() for at in due.values())) if due else self.interval

    async def _sweep(self, name: str) -> None:
        sweeping = self._administration.sweep(ITSELF, name, ACT)
        try:
            async with aclosing(sweeping) as told:  # type: ignore[type-var] # a generator behind an iterator's type
                async for _ in told:
                    self._unable.pop(name, None)  # it is able now
        except PurveyorError as refusal:
            if refusal.reason is not Reason.WRONG_STATE:
                raise
            self._unable[name] = self._clock.now() + UNABLE
            _log.info("provider is not swept", provider=name, why=refusal.message)

    def _due(self, one: Watched) -> datetime:
        if one.ref.name in self._unable:
            return self._unable[one.ref.name]
        before = one.inventory
        if before is None or before.epoch != self._store.epoch:
            return self._started + SETTLE
        every = one.policy.every
        return before.began_at + (every if before.complete or before.brake is not None else min(every, AGAIN))
