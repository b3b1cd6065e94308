"""The catalog of the simulated broker."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from datetime import timedelta
from typing import Any

from msgspec.structs import replace

from purveyor_server.domain.catalog import Plan, PlanLimits, PlanSchemas, Service
from purveyor_server.domain.catalogchanges import Contents
from purveyor_server.domain.model import MaintenanceInfo, ProviderRef
from purveyor_server.domain.policies import (
    CleanupMode,
    CleanupPolicy,
    InventoryPolicy,
    LeasePolicy,
    OrphanMode,
    PlanState,
)
from purveyor_server.lifecycle.catalogtext import CatalogTextError, Judged, TextProblem
from tests.year.provider import KIND

SERVICE = "db"
REF = ProviderRef("main", KIND)
SIZE = {
    "type": "object",
    "properties": {"size": {"type": "integer", "minimum": 1}},
    "additionalProperties": False,
}


def plan(plan_id: str, **changes: Any) -> Plan:
    """A plan of the one provider."""
    fields: dict[str, Any] = {
        "id": plan_id,
        "name": plan_id,
        "description": plan_id,
        "provider": REF,
        "settings": {"plan": plan_id},
        "plan_updateable": True,
        "schemas": PlanSchemas(instance_create=SIZE, instance_update=SIZE),
        "limits": PlanLimits(operation=timedelta(minutes=5)),
    }
    return Plan(**(fields | changes))


LEASE = LeasePolicy(
    ttl=timedelta(days=30),
    max_ttl=timedelta(days=60),
    renew_before=timedelta(days=12),
    overlap=timedelta(days=5),
    auto_rotate=True,
)
CLEANUPS = {
    "delayed": CleanupPolicy(CleanupMode.DELAYED, timedelta(days=2)),
    "manual": CleanupPolicy(CleanupMode.MANUAL),
}
LEASES = {
    "delayed": LeasePolicy(),
    "manual": LeasePolicy(),
    "small": LeasePolicy(),
    "large": LeasePolicy(max_ttl=timedelta(days=45)),
    "leased": LEASE,
}


INVENTORY = InventoryPolicy(
    mode=OrphanMode.REAP,
    every=timedelta(days=3),
    grace=timedelta(days=6),
    cap=3,
    brake_percent=100.0,
    brake_count=8,
)


def contents(plans: Iterable[Plan], inventory: InventoryPolicy = INVENTORY) -> Contents:
    """One service with these plans."""
    services = (Service(id=SERVICE, name=SERVICE, description=SERVICE, plans=tuple(plans), plan_updateable=True),)
    return Contents(services, {REF.name: REF}, {REF.name: inventory})


def plans(**changes: dict[str, Any]) -> list[Plan]:
    """The plans, with other fields for some of them."""
    made = []
    for name, lease in LEASES.items():
        fields = {
            "lease": lease,
            "binding_rotatable": name == "leased",
            "cleanup": CLEANUPS.get(name, CleanupPolicy()),
            "maintenance_info": MaintenanceInfo("1.0.0"),
        }
        made.append(plan(name, **(fields | changes.get(name, {}))))
    return made


TEXTS = {
    "plain": contents(plans()),
    "retired": contents(plans(leased={"state": PlanState.RETIRED}, small={"state": PlanState.DEPRECATED})),
    "shrunk": contents(plan for plan in plans() if plan.id != "large"),
    "newer": contents(plans(small={"maintenance_info": MaintenanceInfo("1.1.0")})),
    # For negative controls: the judge believes in those of `plain`.
    "hasty": contents(plans(), replace(INVENTORY, grace=timedelta(0))),
    "without overlap": contents(plans(leased={"lease": replace(LEASE, overlap=timedelta(0))})),
    "endless": contents(plans(leased={"lease": replace(LEASE, ttl=timedelta(days=90), max_ttl=timedelta(days=900))})),
}
CHANGES: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("plain", ()),
    ("retired", ()),
    ("newer", ()),
    ("shrunk", ()),
    ("shrunk", ("db/large=keep",)),
    ("shrunk", ("db/large=migrate:small",)),
)
"""What operators have served, with which policies."""


def read(text: bytes, *, ask_providers: bool = True) -> Judged:
    """`lifecycle.catalogtext.Judge`: here a catalog's text is its name."""
    name = text.decode()
    if name not in TEXTS:
        raise CatalogTextError((TextProblem("", "there is no such catalog"),))
    return Judged(TEXTS[name], name, hashlib.sha256(text).hexdigest())
