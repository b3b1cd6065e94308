"""What sweeps, reviews and reports share: which providers there are, and their lists in batches.

Guarantee: a provider of the catalog has its policy there; one that only plans of earlier catalogs name is reported about and
never swept clean. No list is held in memory as a whole.
Limit: of two configurations under one name the catalog's is asked, else any.
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, Mapping, Sequence
from contextlib import aclosing

import msgspec

from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource, invalid
from purveyor_server.domain.model import ProviderRef
from purveyor_server.domain.orphans import NOTHING, Inventory, Knowledge, Standing
from purveyor_server.domain.policies import InventoryPolicy
from purveyor_server.lifecycle.admin.acts import enter
from purveyor_server.lifecycle.admin.contract import AdminParts
from purveyor_server.lifecycle.admin.reporting import providers
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.lifecycle.door import Action
from purveyor_server.providers.contract import Ability, Owned
from purveyor_server.providers.registry import ProviderMissingError
from purveyor_server.store.contract import Page

PAGE = 200  # things, or rows, at once
FORMER = InventoryPolicy()  # of a provider that no catalog has any more


class Watched(msgspec.Struct, frozen=True):
    """A provider and how its backend is compared with the records. `inventory` is None before the first sweep."""

    ref: ProviderRef
    policy: InventoryPolicy
    inventory: Inventory | None = None


async def watched(parts: AdminParts, caller: Caller) -> tuple[Watched, ...]:
    """Providers that are swept by themselves, by name, with what is remembered of their sweeps: those of the catalog, and former
    ones that were swept while they were in it. Raises PERMISSION_DENIED."""
    enter(parts, caller, Action.GET_STATUS)
    before = {one.provider: one for one in await parts.store.inventories()}
    current = {ref.name for ref in providers(parts)}
    refs = [ref for ref in await known_providers(parts) if ref.name in before or ref.name in current]
    return tuple([Watched(ref, policy_of(parts, ref), before.get(ref.name)) for ref in refs])


async def known_providers(parts: AdminParts) -> tuple[ProviderRef, ...]:
    """Those of the catalog, and those that plans of earlier catalogs name, by name."""
    found: dict[str, ProviderRef] = {}
    after = ""
    while plans := await parts.store.every_plan(Page(PAGE, after)):
        found |= {plan.provider.name: plan.provider for plan in plans}
        after = plans[-1].digest
    found |= {ref.name: ref for ref in providers(parts)}
    return tuple(found[name] for name in sorted(found))


async def find_provider(parts: AdminParts, name: str) -> ProviderRef:
    """One of them. Raises INVALID_REQUEST."""
    known = {ref.name: ref for ref in await known_providers(parts)}
    if name not in known:
        raise invalid("provider", f"{name[:80]!r} is not one of {', '.join(known) or 'none'}")
    return known[name]


def abilities_of(parts: AdminParts, ref: ProviderRef) -> frozenset[Ability]:
    """What a provider can do; nothing when none of its kind is installed."""
    try:
        return parts.backends.abilities(ref)
    except ProviderMissingError:
        return frozenset()


def policy_of(parts: AdminParts, ref: ProviderRef) -> InventoryPolicy:
    """Its policy."""
    current = {one.name for one in providers(parts)}
    return parts.catalog().inventories.get(ref.name, FORMER) if ref.name in current else FORMER


async def batches(
    parts: AdminParts, ref: ProviderRef
) -> AsyncGenerator[tuple[list[Owned], Mapping[str, Knowledge]], None]:
    """What a backend has with our marker, and what the store has of it. Raises what the provider raises, after all that it
    has listed before."""
    batch: list[Owned] = []
    failure: Exception | None = None
    listing = parts.backends.owned(ref, parts.store.store_id)
    async with aclosing(listing):  # type: ignore[type-var] # a generator behind an iterator's type
        while failure is None:
            try:
                batch.append(await anext(listing))
            except StopAsyncIteration:
                break
            except Exception as error:  # noqa: BLE001 - raised again below
                failure = error
            if len(batch) >= PAGE:
                yield batch, await parts.store.knowledge([one.uid for one in batch])
                batch = []
    if batch:
        yield batch, await parts.store.knowledge([one.uid for one in batch])
    if failure is not None:
        raise failure


def strangers(batch: Sequence[Owned], known: Mapping[str, Knowledge]) -> list[tuple[Owned, Knowledge]]:
    """Those for which no record and no unfinished operation stands."""
    pairs = [(owned, known.get(owned.uid, NOTHING)) for owned in batch]
    return [(owned, found) for owned, found in pairs if found.standing is not Standing.KNOWN]


def refused(text: str, resource: Resource, kind: str, **metadata: str) -> PurveyorError:
    """WRONG_STATE with one precondition."""
    return PurveyorError(
        Reason.WRONG_STATE,
        text,
        metadata=metadata,
        resource=resource,
        preconditions=(Precondition(kind, resource.name, text),),
    )
