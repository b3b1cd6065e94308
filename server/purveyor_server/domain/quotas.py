"""How much a tenant may have: instances and bindings, in all, of one plan, and bindings of one instance.

Guarantee: everything that is not DELETED counts, failed ones too, for until their clean-up is done something of them may
be there. An instance that is being moved to another plan counts there from the moment that is accepted, and goes back when
it fails. A quota refuses what is new and nothing else: no removal, no retry, no way back of an update.
Limit: an instance's bindings of a plan are those that were made while it had that plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime

import msgspec

from purveyor_server.domain.errors import PurveyorError, Reason, invalid
from purveyor_server.domain.names import check_id, check_tenant

UNLIMITED = -1
MOST = 1_000_000_000
MOST_PER_INSTANCE = 10_000  # they are counted each time


class Limits(msgspec.Struct, frozen=True):
    """How many there may be; None: nothing is said here, the next place decides. UNLIMITED: as many as one likes."""

    instances: int | None = None
    bindings: int | None = None
    bindings_per_instance: int | None = None

    def over(self, weaker: Limits) -> Limits:
        """These, and where they say nothing the weaker ones."""
        return Limits(
            weaker.instances if self.instances is None else self.instances,
            weaker.bindings if self.bindings is None else self.bindings,
            weaker.bindings_per_instance if self.bindings_per_instance is None else self.bindings_per_instance,
        )


NOTHING = Limits()


class Standard(msgspec.Struct, frozen=True):
    """What the settings say: of a tenant as a whole, and of each plan in it."""

    whole: Limits = NOTHING
    each_plan: Limits = NOTHING


class Quotas(msgspec.Struct, frozen=True):
    """The settings: for every tenant, and for some of them."""

    general: Standard = Standard()
    tenants: Mapping[str, Standard] = {}

    def whole(self, tenant: str) -> Limits:
        """Of a tenant as a whole."""
        own = self.tenants.get(tenant)
        return self.general.whole if own is None else own.whole.over(self.general.whole)

    def each_plan(self, tenant: str) -> Limits:
        """Of each plan in a tenant."""
        own = self.tenants.get(tenant)
        return self.general.each_plan if own is None else own.each_plan.over(self.general.each_plan)


class PlanKey(msgspec.Struct, frozen=True, order=True):
    """A plan of the catalog; empty: the tenant as a whole."""

    service_id: str = ""
    plan_id: str = ""


WHOLE = PlanKey()


class Quota(msgspec.Struct, frozen=True, kw_only=True):
    """What an operator set for a tenant, or for one plan in it; goes before the settings."""

    tenant: str
    plan: PlanKey = WHOLE
    limits: Limits
    reason: str
    principal: str
    at: datetime


class Used(msgspec.Struct, frozen=True):
    """What is there."""

    instances: int = 0
    bindings: int = 0


class Usage(msgspec.Struct, frozen=True):
    """A tenant's use by plan, what operators set for it, and how many bindings one instance has."""

    plans: Mapping[PlanKey, Used] = {}
    set: Mapping[PlanKey, Limits] = {}
    instance_bindings: int = 0

    def of(self, plan: PlanKey) -> Used:
        """The use of one plan, or of the whole."""
        if plan != WHOLE:
            return self.plans.get(plan, Used())
        found = self.plans.values()
        return Used(sum(used.instances for used in found), sum(used.bindings for used in found))


def limits_of(quotas: Quotas, usage: Usage, tenant: str, plan: PlanKey) -> Limits:
    """What holds for a plan in a tenant, or for the tenant as a whole."""
    standard = quotas.whole(tenant) if plan == WHOLE else quotas.each_plan(tenant)
    return usage.set.get(plan, NOTHING).over(standard)


def check_new_instance(quotas: Quotas, usage: Usage, tenant: str, plan: PlanKey) -> None:
    """Raise QUOTA_EXCEEDED when the tenant may not have one more instance of the plan."""
    _check(tenant, WHOLE, "instances", usage.of(WHOLE).instances, limits_of(quotas, usage, tenant, WHOLE).instances)
    check_moved_instance(quotas, usage, tenant, plan)


def check_moved_instance(quotas: Quotas, usage: Usage, tenant: str, plan: PlanKey) -> None:
    """Raise QUOTA_EXCEEDED when the tenant may not have one more of its instances in the plan."""
    _check(tenant, plan, "instances", usage.of(plan).instances, limits_of(quotas, usage, tenant, plan).instances)


def check_new_binding(quotas: Quotas, usage: Usage, tenant: str, plan: PlanKey, instance_id: str) -> None:
    """Raise QUOTA_EXCEEDED when the tenant, the plan or the instance may not have one more binding."""
    whole, ours = limits_of(quotas, usage, tenant, WHOLE), limits_of(quotas, usage, tenant, plan)
    _check(tenant, WHOLE, "bindings", usage.of(WHOLE).bindings, whole.bindings)
    _check(tenant, plan, "bindings", usage.of(plan).bindings, ours.bindings)
    each = ours.over(whole).bindings_per_instance
    _check(tenant, plan, "bindings_per_instance", usage.instance_bindings, each, instance_id)


def _check(tenant: str, plan: PlanKey, name: str, used: int, limit: int | None, instance_id: str = "") -> None:
    if limit is None or limit == UNLIMITED or used < limit:
        return
    noun = "instances" if name == "instances" else "bindings"
    metadata = {"tenant": tenant, "quota": name, "limit": str(limit), "used": str(used)}
    if instance_id:
        metadata["instance_id"] = instance_id
        subject, what = f"tenant/{tenant}/instance/{instance_id}", f"the instance {instance_id!r}"
    elif plan != WHOLE:
        metadata |= {"service_id": plan.service_id, "plan_id": plan.plan_id}
        subject = f"tenant/{tenant}/service/{plan.service_id}/plan/{plan.plan_id}"
        what = f"the tenant {tenant!r} in the plan {plan.plan_id!r}"
    else:
        subject, what = f"tenant/{tenant}", f"the tenant {tenant!r}"
    raise PurveyorError(
        Reason.QUOTA_EXCEEDED,
        f"{what} has {used} of at most {limit} {noun}",
        metadata=metadata,
        quota_subject=f"{subject}/{noun}",
    )


def check_limits(limits: Limits) -> Limits:
    """The limits, or INVALID_REQUEST."""
    for name in ("instances", "bindings", "bindings_per_instance"):
        value, most = getattr(limits, name), MOST_PER_INSTANCE if name == "bindings_per_instance" else MOST
        if value is not None and not UNLIMITED <= value <= most:
            raise invalid(f"limits.{name}", f"must be {UNLIMITED} (no limit), or 0 to {most}")
    return limits


def check_place(tenant: str, plan: PlanKey) -> None:
    """Raise INVALID_REQUEST unless this names a tenant, or a plan in one."""
    check_tenant(tenant)
    if plan != WHOLE:
        check_id(plan.service_id, "service_id")
        check_id(plan.plan_id, "plan_id")
