"""Defects of the product, planted for random stories to find: nobody tells these what to look for.

Guarantee: each mutant takes one rule away from the product's own code, by a part that is swapped or a failpoint; nothing else
differs from a sound story of the same seed.
Limit: chance finds them. How many stories it takes varies by seed; `most` stories without a finding count as not found.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from msgspec.structs import replace

from purveyor_server.domain import campaign_items, orphans
from purveyor_server.domain.campaigns import Item, ItemState
from purveyor_server.domain.leases import renewal_target
from purveyor_server.domain.model import Operation
from purveyor_server.domain.policies import LeasePolicy
from purveyor_server.engine import journal, succession
from purveyor_server.lifecycle import renew
from purveyor_server.lifecycle.admin import sweeping
from purveyor_server.reconcile import leases
from purveyor_server.store.sqlite import sightings
from tests.year.catalogs import LEASE
from tests.year.house import Spoil

SCENE, ENDED = sweeping.scene, campaign_items.ended


class Mutant(NamedTuple):
    """A name, and what is taken away."""

    name: str
    spoil: Spoil


class _Forgetful(leases.Walk):
    """Passes over every other binding."""

    async def page(self) -> tuple[Any, bool]:
        found, more = await super().page()
        return tuple(binding for binding in found if int(binding.uid[-1], 16) % 2), more


def _endless(policy: LeasePolicy, *about: Any, **more: Any) -> datetime:
    return renewal_target(replace(policy, max_ttl=None), *about, **more)


def _at_once(_own: datetime | None, end: datetime) -> datetime:
    """The end of a predecessor: its successor's beginning."""
    return end - LEASE.overlap


def _unfrozen(*about: Any) -> orphans.Scene:
    return replace(SCENE(*about), freezes=())


def asked_again(item: Item, operation: Operation, now: datetime) -> Item:
    """A campaign's item whose update has ended: one that failed is begun anew, by another request."""
    found = ENDED(item, operation, now)
    if found.state is not ItemState.FAILED:
        return found
    return replace(item, state=ItemState.PENDING, operation_id="", attempt=item.attempt + 1)


TWICE = Spoil(swaps=((campaign_items, "ended", asked_again),))
UNFROZEN = Spoil(swaps=((journal, "holding", lambda *_about: None),))
UNBRAKED = Spoil(swaps=((orphans, "excess", lambda *_about: ""),))
MUTANTS = (
    Mutant("the expiry loop skips bindings", Spoil(swaps=((leases, "Walk", _Forgetful),))),
    Mutant("a sweep does not ask what is known", Spoil(swaps=((sightings, "_told", lambda *_: {}),))),
    Mutant("what an attempt has made is not undone", Spoil("undo=off")),
    Mutant("a clean-up that is due is forgotten", Spoil("cleanup=off")),
    Mutant("a rotation ends its predecessor at once", Spoil(swaps=((succession, "earlier", _at_once),))),
    Mutant("a renewal does not look at max_ttl", Spoil(swaps=((renew, "renewal_target", _endless),))),
    Mutant("a sweep does not look at freezes", Spoil(swaps=((sweeping, "scene", _unfrozen),))),
    Mutant("operations do not look at freezes", UNFROZEN),
    Mutant("a campaign asks again for what has failed", TWICE),
    Mutant("a sweep has no grace", Spoil(catalog="hasty")),
    Mutant("there is no brake", UNBRAKED),
    Mutant("what was interrupted is not settled", Spoil("settle=off")),
)
