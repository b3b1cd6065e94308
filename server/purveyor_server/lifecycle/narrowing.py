"""Whom a new catalog concerns: which instances have parameters that its schemas no longer take, and which are on plans that a
change endangers.

Guarantee: instances are read page by page, of plans whose schemas changed alone; one that the old schema did not take either
is not counted. A masked secret is not judged.
Limit: a rule that speaks of a secret from outside its place (anyOf, if) may be judged by the mask.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping

import msgspec

from purveyor_server.domain.catalog import Offer, PlanSchemas
from purveyor_server.domain.catalogchanges import MOST_NAMED, Change, Contents, Level, Named
from purveyor_server.domain.catalogdiff import Usage, narrowed
from purveyor_server.domain.model import Instance, Json, Settings
from purveyor_server.domain.parameters import fits, for_update
from purveyor_server.domain.quotas import PlanKey
from purveyor_server.store.contract import Page, Store

PAGE = 500  # instances judged at once


async def narrowings(store: Store, old: Contents, new: Contents, used: Usage) -> tuple[Change, ...]:
    """A change for each plan whose new schemas refuse what the old ones took of its instances."""
    before, after = _offers(old), _offers(new)
    found = []
    for key, offer in after.items():
        was = before.get(key)
        if was is None or was.plan.schemas == offer.plan.schemas or not (key in used and used[key].instances):
            continue
        named, count = await _misfits(store, key, was, offer)
        if count:
            found.append(narrowed(key, named, count))
    return tuple(found)


async def with_names(store: Store, changes: tuple[Change, ...]) -> tuple[Change, ...]:
    """The changes that endanger something with the names of some of the instances that they concern."""
    return tuple([await _named(store, change) if _unnamed(change) else change for change in changes])


def _unnamed(change: Change) -> bool:
    return change.level in {Level.DANGEROUS, Level.REFUSED} and not change.named


async def _named(store: Store, change: Change) -> Change:
    named: list[Named] = []
    for plan in change.plans:
        if left := MOST_NAMED - len(named):
            page = await store.instances_of_plan(plan, Page(left))
            named += [Named(instance.tenant, instance.instance_id) for instance in page]
    return msgspec.structs.replace(change, named=tuple(named))


def _offers(contents: Contents) -> dict[PlanKey, Offer]:
    return {
        PlanKey(service.id, plan.id): Offer(service, plan) for service in contents.services for plan in service.plans
    }


async def _misfits(store: Store, key: PlanKey, was: Offer, offer: Offer) -> tuple[tuple[Named, ...], int]:
    named: list[Named] = []
    count, after = 0, ""
    while page := await store.instances_of_plan(key, Page(PAGE, after)):
        found = await asyncio.to_thread(_refused, page, key, was, offer)
        count += len(found)
        named += found[: MOST_NAMED - len(named)]
        after = page[-1].uid
    return tuple(named), count


def _refused(page: Iterable[Instance], key: PlanKey, was: Offer, offer: Offer) -> list[Named]:
    return [
        Named(instance.tenant, instance.instance_id)
        for instance in page
        if any(_narrowed(settings, was, offer) for settings in _settings(instance, key))
    ]


def _settings(instance: Instance, key: PlanKey) -> list[Settings]:
    """What it has, and what it is on its way to, of this plan."""
    kept = (instance.present, instance.in_flight)
    return [s for s in kept if s is not None and (s.service_id, s.plan_id) == (key.service_id, key.plan_id)]


def _narrowed(settings: Settings, was: Offer, offer: Offer) -> bool:
    merged = for_update(offer, settings.parameters, {})
    old, new = was.plan.schemas, offer.plan.schemas
    return _lost(old, new, "instance_create", settings, merged) or _lost(
        old, new, "instance_update", settings, settings.parameters
    )


def _lost(old: PlanSchemas, new: PlanSchemas, which: str, settings: Settings, merged: Mapping[str, Json]) -> bool:
    """Taken by the old schema and not by the new one."""
    before, after = getattr(old, which), getattr(new, which)
    if before == after or fits(after, merged, settings.sealed):
        return False
    return fits(before, settings.parameters, settings.sealed)
