"""Defects of the product, planted for random stories to find: nobody tells these what to look for.

Guarantee: each mutant takes one rule away from the product's own code, by a part that is swapped or a failpoint; nothing else
differs from a sound story of the same seed.
Limit: chance finds them. How many stories it takes varies by seed; `most` stories without a finding count as not found.
"""

from __future__ import annotations

from datetime import datetime
from typing import Any, NamedTuple

from msgspec.structs import replace

from purveyor_server.domain import orphans
from purveyor_server.domain.leases import renewal_target
from purveyor_server.domain.model import Instance
from purveyor_server.domain.policies import LeasePolicy
from purveyor_server.engine import journal, succession
from purveyor_server.lifecycle import renew
from purveyor_server.lifecycle.admin import sweeping
from purveyor_server.lifecycle.admin.campaign_moves import update_of
from purveyor_server.reconcile import campaigns, leases
from purveyor_server.store.sqlite import sightings
from tests.year.catalogs import LEASE
from tests.year.house import Spoil

SCENE = sweeping.scene


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


def _nameless(aim: Any, version: str, instance: Instance, _request_id: str = "", **more: Any) -> Any:
    """A campaign's update without its request id, of whatever state the instance is in."""
    return update_of(aim, version, instance, "", **more)


MUTANTS = (
    Mutant("the expiry loop skips bindings", Spoil(swap=(leases, "Walk", _Forgetful))),
    Mutant("a sweep does not ask what is known", Spoil(swap=(sightings, "_told", lambda *_: {}))),
    Mutant("what an attempt has made is not undone", Spoil("undo=off")),
    Mutant("a clean-up that is due is forgotten", Spoil("cleanup=off")),
    Mutant("a rotation ends its predecessor at once", Spoil(swap=(succession, "earlier", _at_once))),
    Mutant("a renewal does not look at max_ttl", Spoil(swap=(renew, "renewal_target", _endless))),
    Mutant("a sweep does not look at freezes", Spoil(swap=(sweeping, "scene", _unfrozen))),
    Mutant("operations do not look at freezes", Spoil(swap=(journal, "holding", lambda *_about: None))),
    Mutant("a campaign forgets its request id", Spoil(swap=(campaigns, "update_of", _nameless))),
    Mutant("a sweep has no grace", Spoil(catalog="hasty")),
    Mutant("there is no brake", Spoil(swap=(orphans, "excess", lambda *_about: ""))),
    Mutant("what was interrupted is not settled", Spoil("settle=off")),
)
