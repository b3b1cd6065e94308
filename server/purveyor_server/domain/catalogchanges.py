"""A change of the catalog as a value: what it is, how dangerous, whom it concerns.

Guarantee: plain values; a change that is DANGEROUS names every plan that needs a policy for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from enum import StrEnum

import msgspec

from purveyor_server.domain.catalog import Catalog, Service
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Violation, invalid
from purveyor_server.domain.model import ProviderRef
from purveyor_server.domain.planrules import why_not_from
from purveyor_server.domain.policies import InventoryPolicy, PlanState
from purveyor_server.domain.quotas import PlanKey

MOST_NAMED = 20  # instances that a change names


class Level(StrEnum):
    """How dangerous a change is."""

    HARMLESS = "HARMLESS"
    NOTABLE = "NOTABLE"
    DANGEROUS = "DANGEROUS"  # needs a policy for every plan that it names
    REFUSED = "REFUSED"  # no policy helps


class Kind(StrEnum):
    """What a change is."""

    SERVICE_ADDED = "SERVICE_ADDED"
    SERVICE_REMOVED = "SERVICE_REMOVED"
    SERVICE_RENAMED = "SERVICE_RENAMED"
    SERVICE_ID_REUSED = "SERVICE_ID_REUSED"
    SERVICE_NAME_REUSED = "SERVICE_NAME_REUSED"
    SERVICE_VISIBILITY = "SERVICE_VISIBILITY"
    SERVICE_DETAILS = "SERVICE_DETAILS"
    PLAN_ADDED = "PLAN_ADDED"
    PLAN_RETURNED = "PLAN_RETURNED"
    PLAN_REMOVED = "PLAN_REMOVED"
    PLAN_RENAMED = "PLAN_RENAMED"
    PLAN_ID_REUSED = "PLAN_ID_REUSED"
    PLAN_NAME_REUSED = "PLAN_NAME_REUSED"
    PLAN_PROVIDER = "PLAN_PROVIDER"
    PLAN_STATE = "PLAN_STATE"
    PLAN_SETTINGS = "PLAN_SETTINGS"
    PLAN_UNBINDABLE = "PLAN_UNBINDABLE"
    PLAN_SCHEMAS = "PLAN_SCHEMAS"
    PLAN_NARROWED = "PLAN_NARROWED"
    PLAN_TRANSITIONS = "PLAN_TRANSITIONS"
    PLAN_VISIBILITY = "PLAN_VISIBILITY"
    PLAN_LIFE = "PLAN_LIFE"
    PLAN_DETAILS = "PLAN_DETAILS"
    TRANSITION_UNKNOWN = "TRANSITION_UNKNOWN"
    MAINTENANCE_RAISED = "MAINTENANCE_RAISED"
    MAINTENANCE_LOWERED = "MAINTENANCE_LOWERED"
    MAINTENANCE_DROPPED = "MAINTENANCE_DROPPED"
    PROVIDER_ADDED = "PROVIDER_ADDED"
    PROVIDER_REMOVED = "PROVIDER_REMOVED"
    PROVIDER_KIND = "PROVIDER_KIND"
    PROVIDER_CONFIG = "PROVIDER_CONFIG"
    PROVIDER_INVENTORY = "PROVIDER_INVENTORY"


class Named(msgspec.Struct, frozen=True, order=True):
    """An instance that a change concerns."""

    tenant: str
    instance_id: str


class Change(msgspec.Struct, frozen=True, kw_only=True):
    """One change. `plans` are those in use that it concerns; `named` some of their `instances`, at most MOST_NAMED."""

    kind: Kind
    level: Level
    subject: str  # service/ID, plan/SERVICE/PLAN or provider/NAME
    sentence: str
    plans: tuple[PlanKey, ...] = ()
    instances: int = 0
    bindings: int = 0
    named: tuple[Named, ...] = ()


class Contents(msgspec.Struct, frozen=True):
    """All that a catalog says."""

    services: tuple[Service, ...] = ()
    providers: dict[str, ProviderRef] = {}
    inventories: dict[str, InventoryPolicy] = {}


class PolicyMode(StrEnum):
    """What becomes of the instances of a plan that a change is dangerous for."""

    KEEP = "KEEP"  # they live on with the snapshot that they have
    MIGRATE = "MIGRATE"  # a campaign moves them


class Policy(msgspec.Struct, frozen=True):
    """What an operator decided; `to` is the plan (of the same service) that MIGRATE moves to."""

    mode: PolicyMode = PolicyMode.KEEP
    to: str = ""


Policies = Mapping[PlanKey, Policy]


def plan_name(key: PlanKey) -> str:
    """A plan in subjects and policies: SERVICE/PLAN, by ids."""
    return f"{key.service_id}/{key.plan_id}"


def worst(changes: Iterable[Change]) -> Level:
    """The most dangerous level there is."""
    order = list(Level)
    return max((change.level for change in changes), key=order.index, default=Level.HARMLESS)


def unsettled(changes: Iterable[Change], policies: Policies) -> tuple[Change, ...]:
    """Changes that cannot be made: refused ones, and dangerous ones with a plan that has no policy."""
    return tuple(
        change
        for change in changes
        if change.level is Level.REFUSED
        or (change.level is Level.DANGEROUS and any(plan not in policies for plan in change.plans))
    )


def check_policies(policies: Policies, changes: Iterable[Change], new: Catalog) -> None:
    """Raise INVALID_REQUEST that names every policy which makes no sense for these changes."""
    needed = {plan for change in changes if change.level is Level.DANGEROUS for plan in change.plans}
    faults = tuple(
        Violation(f"policies[{plan_name(plan)}]", why)
        for plan, policy in sorted(policies.items())
        if (why := _wrong(plan, policy, needed, policies, new))
    )
    if faults:
        first = faults[0]
        raise PurveyorError(
            Reason.INVALID_REQUEST, f"{first.field}: {first.description}", violations=faults[:MOST_NAMED]
        )


def _wrong(plan: PlanKey, policy: Policy, needed: set[PlanKey], policies: Policies, new: Catalog) -> str:
    if plan not in needed:
        return "nothing that this catalog changes for the plan needs a policy: is the name right?"
    if policy.mode is PolicyMode.KEEP:
        return "keep moves nothing: give no plan with it" if policy.to else ""
    target = PlanKey(plan.service_id, policy.to)
    if not policy.to:
        return "migrate needs a plan to migrate to"
    if target == plan:
        return "the plan cannot be migrated to itself"
    if (other := policies.get(target)) is not None and other.mode is PolicyMode.MIGRATE:
        return f"the plan {policy.to!r} is itself migrated: a migration goes to a plan that stays"
    state = new.state_of(target.service_id, target.plan_id)
    if state is PlanState.REMOVED:
        return f"the new catalog has no plan {policy.to!r} in the service {plan.service_id!r}"
    return f"the plan {policy.to!r} is retired: nothing moves to it" if state is PlanState.RETIRED else ""


def check_moves(policies: Policies, old: Contents, new: Catalog) -> None:
    """Raise INVALID_REQUEST that names every migration which the plans do not allow; `policies` make sense otherwise."""
    faults = tuple(
        Violation(f"policies[{plan_name(plan)}]", why)
        for plan, policy in sorted(policies.items())
        if policy.mode is PolicyMode.MIGRATE and (why := _immovable(plan, policy.to, old, new))
    )
    if faults:
        first = faults[0]
        raise PurveyorError(
            Reason.INVALID_REQUEST, f"{first.field}: {first.description}", violations=faults[:MOST_NAMED]
        )


def _immovable(plan: PlanKey, to: str, old: Contents, new: Catalog) -> str:
    before = next((p for s in old.services for p in s.plans if (s.id, p.id) == (plan.service_id, plan.plan_id)), None)
    if before is None:
        return ""  # it had been removed before: each instance is judged when its turn comes
    target = new.offer(plan.service_id, to).plan
    if why := why_not_from(target, before.id, leavable=before.plan_updateable):
        return f"nothing moves to the plan {to!r}: {why}"
    if (target.provider.name, target.provider.kind) != (before.provider.name, before.provider.kind):
        return f"nothing moves to the plan {to!r}: it is made by another provider"
    return ""


def parse_policy(text: str) -> tuple[PlanKey, Policy]:
    """The policy of `SERVICE/PLAN=keep` or `SERVICE/PLAN=migrate:PLAN`. Raises INVALID_REQUEST."""
    name, equals, word = text.partition("=")
    service_id, slash, plan_id = name.partition("/")
    mode, colon, to = word.partition(":")
    if not (equals and slash and service_id and plan_id) or mode not in {"keep", "migrate"} or bool(colon) != bool(to):
        raise invalid("policies", f"{text[:200]!r} is not SERVICE/PLAN=keep or SERVICE/PLAN=migrate:PLAN")
    return PlanKey(service_id, plan_id), Policy(PolicyMode(mode.upper()), to)


def refusal(blocking: Iterable[Change]) -> PurveyorError:
    """CATALOG_REFUSED that lists what stands in the way, with the instances."""
    found = tuple(blocking)
    first = found[0]
    more = f" (and {len(found) - 1} more)" if len(found) > 1 else ""
    return PurveyorError(
        Reason.CATALOG_REFUSED,
        f"the catalog is not taken: {first.sentence}{more}",
        metadata={"changes": str(len(found)), "first": str(first.kind), "subject": first.subject},
        preconditions=tuple(Precondition(str(c.kind), c.subject, told(c)) for c in found[:MOST_NAMED]),
    )


def told(change: Change) -> str:
    """A change in a sentence with its instances."""
    if not change.named:
        return change.sentence
    names = ", ".join(f"{one.tenant}/{one.instance_id}" for one in change.named)
    left = change.instances - len(change.named)
    return f"{change.sentence}: {names}{f' and {left} more' if left > 0 else ''}"
