"""Services and plans by name.

Guarantee: an id is taken before a name; what the catalog does not have is sent as it is, so that the server's own reason
(UNKNOWN_SERVICE, UNKNOWN_PLAN) comes back.
Limit: the catalog is kept for a minute; a name that moved to another id within that time is resolved to the old one.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterable

    from purveyor.values import Catalog, Service

CATALOG_SECONDS = 60.0


class _Named(Protocol):
    @property
    def id(self) -> str: ...
    @property
    def name(self) -> str: ...


Found = TypeVar("Found", bound=_Named)


class Lookup:
    """Resolves names by the catalog that `read` returns, fetched when needed."""

    def __init__(self, read: Callable[[], Awaitable[Catalog]]) -> None:
        self._read = read
        self._catalog: Catalog | None = None
        self._until = 0.0

    async def plan(self, service: str, plan: str) -> tuple[str, str]:
        """The ids of a service and its plan, each given by id or name. Raises PurveyorError when the catalog cannot be read."""
        found = await self._service(service, plan)
        if found is None:
            return service, plan
        chosen = _pick(found.plans, plan)
        return found.id, chosen.id if chosen else plan

    async def plan_of(self, service_id: str, plan: str) -> str:
        """The id of a plan of a known service."""
        return (await self.plan(service_id, plan))[1]

    async def _service(self, service: str, plan: str) -> Service | None:
        """The service; a miss is looked up once more in a fresh catalog."""
        found: Service | None = None
        for fresh in (False, True):
            found = _pick((await self._current(fresh=fresh)).services, service)
            if found and _pick(found.plans, plan):
                return found
        return found

    async def _current(self, *, fresh: bool) -> Catalog:
        now = asyncio.get_running_loop().time()
        if self._catalog is None or fresh or now > self._until:
            self._catalog = await self._read()
            self._until = now + CATALOG_SECONDS
        return self._catalog


def _pick(candidates: Iterable[Found], wanted: str) -> Found | None:
    """By id first, then by name."""
    listed = tuple(candidates)
    by_id = (found for found in listed if found.id == wanted)
    by_name = (found for found in listed if found.name == wanted)
    return next(by_id, None) or next(by_name, None)
