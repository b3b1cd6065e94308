"""Services and plans by name, where an operator's call takes their ids.

Guarantee: what was given is sent as it is first, so that an id is taken before a name; only when the broker knows no such id
is the tenant's catalog asked for the names.
Limit: a plan that no catalog shows any more (retired, removed) has its id alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import typer

from purveyor.errors import NotFoundError, PurveyorError
from purveyor.lookup import Lookup

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from purveyor.cli.session import Session

T = TypeVar("T")
UNKNOWN = frozenset({"UNKNOWN_SERVICE", "UNKNOWN_PLAN"})


def split(text: str) -> tuple[str, str]:
    """Service and plan of SERVICE/PLAN. Raises typer.BadParameter."""
    service, slash, plan = text.partition("/")
    if not (slash and service and plan):
        raise typer.BadParameter("give SERVICE/PLAN, by names or ids", param_hint="SERVICE/PLAN")
    return service, plan


async def by_name(
    session: Session, service: str, plans: tuple[str, ...], call: Callable[[str, tuple[str, ...]], Awaitable[T]]
) -> T:
    """What `call` answers to a service and its plans. Raises what it raises; a name that nobody knows is told as it was given."""
    try:
        return await call(service, plans)
    except NotFoundError as error:
        found = await _ids(session, service, plans) if error.reason in UNKNOWN else (service, plans)
        if found == (service, plans):
            raise
    return await call(*found)


async def _ids(session: Session, service: str, plans: tuple[str, ...]) -> tuple[str, tuple[str, ...]]:
    """The ids as the tenant's catalog has them; as they are given where it cannot be read."""
    try:
        async with session.client() as client:
            lookup = Lookup(client.catalog)
            pairs = [await lookup.plan(service, plan) for plan in plans]
    except PurveyorError:
        return service, plans
    return pairs[0][0], tuple(plan for _, plan in pairs)
