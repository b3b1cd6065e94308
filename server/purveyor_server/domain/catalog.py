"""The catalog as values: services, plans, and the look-ups that every verb needs.

Guarantee: all OSBAPI v2.17 fields of ServiceOffering and ServicePlan are kept; ids are unique in a `Catalog` that was
made by the loader; `snapshot` gives all that delete paths need, so they never look here.
Source: OSBAPI v2.17, Catalog Management.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any

import msgspec

from purveyor_server.domain.digests import plan_digest
from purveyor_server.domain.errors import PurveyorError, Reason, Resource
from purveyor_server.domain.model import Json, MaintenanceInfo, PlanSnapshot, ProviderRef
from purveyor_server.domain.policies import CleanupPolicy, InventoryPolicy, LeasePolicy, PlanState

JsonSchema = dict[str, Any]
NO_LABELS: Mapping[str, Mapping[str, str]] = MappingProxyType({})
NO_INVENTORIES: Mapping[str, InventoryPolicy] = MappingProxyType({})
NO_SNAPSHOTS: Mapping[tuple[str, str], PlanSnapshot] = MappingProxyType({})
MAX_VIEWS = 10_000  # tenants' catalogs in memory


class PlanSchemas(msgspec.Struct, frozen=True):
    """JSON Schemas of the parameters of create, update and bind; None = no parameters are checked."""

    instance_create: JsonSchema | None = None
    instance_update: JsonSchema | None = None
    binding_create: JsonSchema | None = None


class PlanDefaults(msgspec.Struct, frozen=True):
    """Parameters merged below those of a request (class < plan < request)."""

    instance: dict[str, Json] = {}
    binding: dict[str, Json] = {}


class PlanLimits(msgspec.Struct, frozen=True):
    """How long an operation of a plan may take, forward and for its rollback (None = as the engine's settings say)."""

    operation: timedelta = timedelta(minutes=10)
    rollback: timedelta | None = None


class Visibility(msgspec.Struct, frozen=True):
    """Who may know of a plan or service: the named tenants, and those that carry all of `labels` (none: nobody by labels)."""

    tenants: frozenset[str] = frozenset()
    labels: dict[str, str] = {}

    def shows(self, tenant: str, labels: Mapping[str, str]) -> bool:
        """Whether a tenant with these labels may know of it."""
        return tenant in self.tenants or (bool(self.labels) and self.labels.items() <= labels.items())


class Plan(msgspec.Struct, frozen=True, kw_only=True):
    """OSBAPI ServicePlan, and which provider makes it with which settings."""

    id: str
    name: str
    description: str
    provider: ProviderRef
    settings: dict[str, Json] = {}
    metadata: dict[str, Json] = {}
    free: bool = True
    bindable: bool = True
    binding_rotatable: bool = False
    plan_updateable: bool = False
    schemas: PlanSchemas = PlanSchemas()
    defaults: PlanDefaults = PlanDefaults()
    limits: PlanLimits = PlanLimits()
    maximum_polling_duration: timedelta | None = None
    maintenance_info: MaintenanceInfo | None = None
    visible_to: Visibility | None = None  # None: to everybody
    state: PlanState = PlanState.ACTIVE
    transitions_from: tuple[str, ...] | None = None  # plans that may be left for it; None: `plan_updateable` decides
    lease: LeasePolicy = LeasePolicy()
    cleanup: CleanupPolicy = CleanupPolicy()


class DashboardClient(msgspec.Struct, frozen=True):
    """OSBAPI DashboardClient without its secret, which is never served."""

    id: str
    redirect_uri: str = ""


class Service(msgspec.Struct, frozen=True, kw_only=True):
    """OSBAPI ServiceOffering."""

    id: str
    name: str
    description: str
    plans: tuple[Plan, ...]
    tags: tuple[str, ...] = ()
    requires: tuple[str, ...] = ()
    bindable: bool = True
    instances_retrievable: bool = True
    bindings_retrievable: bool = True
    allow_context_updates: bool = False
    metadata: dict[str, Json] = {}
    dashboard_client: DashboardClient | None = None
    plan_updateable: bool = False
    defaults: PlanDefaults = PlanDefaults()
    visible_to: Visibility | None = None  # None: to everybody; a plan is seen by who may see both


class Offer(msgspec.Struct, frozen=True):
    """A plan with its service; `made` is its snapshot where the catalog has worked it out."""

    service: Service
    plan: Plan
    made: PlanSnapshot | None = None

    @property
    def snapshot(self) -> PlanSnapshot:
        """What is kept with every instance and binding that this plan makes."""
        if self.made is not None:
            return self.made
        service, plan = self.service, self.plan
        snapshot = PlanSnapshot(
            digest="",
            service_id=service.id,
            service_name=service.name,
            plan_id=plan.id,
            plan_name=plan.name,
            provider=plan.provider,
            settings=plan.settings,
            bindable=plan.bindable,
            plan_updateable=plan.plan_updateable,
            maintenance_info=plan.maintenance_info,
            lease=plan.lease,
            binding_rotatable=plan.binding_rotatable,
            cleanup=plan.cleanup,
        )
        return msgspec.structs.replace(snapshot, digest=plan_digest(snapshot))


class Catalog:
    """An applied catalog with its number (`version`) and look-ups by id; `labels` are those of tenants, by name, `inventories` the
    policies of providers, by name."""

    def __init__(
        self,
        services: tuple[Service, ...],
        version: int = 0,
        etag: str = "",
        labels: Mapping[str, Mapping[str, str]] = NO_LABELS,
        inventories: Mapping[str, InventoryPolicy] = NO_INVENTORIES,
        snapshots: Mapping[tuple[str, str], PlanSnapshot] = NO_SNAPSHOTS,
    ) -> None:
        """`snapshots` are those that are worked out already, by service and plan id."""
        self.services = services
        self.inventories = inventories
        self.version = version
        self.etag = etag
        self._labels = labels
        self._views: dict[str, Catalog] = {}
        plans = [plan for service in services for plan in service.plans]
        parts: list[Service | Plan] = [*services, *plans]
        self._restricted = any(part.visible_to is not None for part in parts)
        self._retiring = any(plan.state is PlanState.RETIRED for plan in plans)
        self._services = {service.id: service for service in services}
        bare = {(s.id, p.id): Offer(s, p) for s in services for p in s.plans}
        self.snapshots = {key: snapshots.get(key) or offer.snapshot for key, offer in bare.items()}
        self._offers = {key: Offer(offer.service, offer.plan, self.snapshots[key]) for key, offer in bare.items()}

    @property
    def offers(self) -> tuple[Offer, ...]:
        """Every plan with its service."""
        return tuple(self._offers.values())

    def seen_by(self, tenant: str) -> Catalog:
        """What a tenant may order, with an etag of its own: a plan that it may not see, or that is RETIRED, is as if it did not
        exist."""
        if not self._restricted:
            if not self._retiring:
                return self
            tenant = ""  # the same for everybody
        found = self._views.get(tenant)
        if found is None:
            if len(self._views) >= MAX_VIEWS:
                self._views.clear()
            found = self._views[tenant] = self._view(tenant)
        return found

    def _view(self, tenant: str) -> Catalog:
        labels = self._labels.get(tenant, {})

        def shown(part: Service | Plan) -> bool:
            return part.visible_to is None or part.visible_to.shows(tenant, labels)

        def orders(plan: Plan) -> bool:
            return shown(plan) and plan.state is not PlanState.RETIRED

        def bare(
            plan: Plan,
        ) -> Plan:  # who else may see it is not told, not even by the etag, nor are plans that are hidden
            kept = plan.transitions_from
            if kept is not None and self._restricted:
                kept = tuple(name for name in kept if name in told)
            return msgspec.structs.replace(plan, visible_to=None, transitions_from=kept)

        told = {plan.id for service in self.services if shown(service) for plan in service.plans if shown(plan)}
        services = tuple(
            msgspec.structs.replace(service, plans=plans, visible_to=None)
            for service in self.services
            if shown(service) and (plans := tuple(bare(plan) for plan in service.plans if orders(plan)))
        )
        etag = hashlib.sha256(msgspec.json.encode(services, order="sorted")).hexdigest()
        return Catalog(services, self.version, etag, snapshots=self.snapshots)

    def state_of(self, service_id: str, plan_id: str) -> PlanState:
        """Where a plan is in its life; REMOVED when this catalog does not have it."""
        found = self._offers.get((service_id, plan_id))
        return PlanState.REMOVED if found is None else found.plan.state

    def offer(self, service_id: str, plan_id: str) -> Offer:
        """The plan of exactly this service; raises UNKNOWN_SERVICE or UNKNOWN_PLAN. Ids only: names are for people."""
        if service_id not in self._services:
            raise _unknown(Reason.UNKNOWN_SERVICE, "service", service_id)
        found = self._offers.get((service_id, plan_id))
        if found is None:
            raise _unknown(Reason.UNKNOWN_PLAN, "plan", plan_id)
        return found


def _unknown(reason: Reason, kind: str, name: str) -> PurveyorError:
    return PurveyorError(
        reason,
        f"the catalog has no {kind} with the id {name!r}",
        metadata={f"{kind}_id": name},
        resource=Resource(kind, name),
    )
