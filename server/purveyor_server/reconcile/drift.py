"""The loop that looks at backends in turn: the instance that waits longest first.

Guarantee: at most a page of looks per round, few of them at once; once a backend does not answer the rest of its instances wait
for their next turn, and none is looked at while it is frozen. Looks change nothing in a backend. They go on while its circuit is open:
without operations nothing else would find out that it is there again.
Limit: how late a drift is noticed is the interval of looks and however long the looks before it take.
"""

from __future__ import annotations

import asyncio

import structlog

from purveyor_server.domain.freezes import ALL, PROVIDER
from purveyor_server.domain.model import Instance
from purveyor_server.lifecycle.admin import looking
from purveyor_server.lifecycle.admin.contract import AdminParts
from purveyor_server.lifecycle.contract import ITSELF

_log = structlog.get_logger(__name__)
ABREAST = 8  # looks at once


class DriftLoop:
    """Looks that are due."""

    name = "drift"

    def __init__(self, parts: AdminParts, page: int) -> None:
        self._parts = parts
        self._page = page

    @property
    def interval(self) -> float:
        """Seconds: an instance whose first look found nothing is looked at again after that."""
        return min(self._parts.pace.confirm, self._parts.pace.every).total_seconds()

    async def once(self) -> float | None:
        """Look at a page of instances."""
        parts = self._parts
        frozen = {freeze.name for freeze in await parts.store.freezes()}
        if ALL in frozen:
            return None
        due = await parts.store.due_looks(parts.clock.now(), self._page)
        down: set[str] = set()
        for start in range(0, len(due), ABREAST):
            await asyncio.gather(*(self._look(one, frozen, down) for one in due[start : start + ABREAST]))
        return 0.0 if len(due) == self._page else None

    async def _look(self, instance: Instance, frozen: set[str], down: set[str]) -> None:
        provider = await self._provider(instance)
        if provider is None or provider in down or PROVIDER + provider in frozen:
            await looking.postpone(self._parts, instance)
            return
        try:
            await looking.look_in_turn(self._parts, ITSELF, instance)
        except looking.BackendDownError as error:
            down.add(provider)
            _log.info("looks of a provider are postponed", provider=provider, problem=str(error)[:200])

    async def _provider(self, instance: Instance) -> str | None:
        """The name of its provider; None for a plan that is not known."""
        settings = instance.present
        plan = await self._parts.store.plan(settings.plan)
        return None if plan is None else plan.provider.name
