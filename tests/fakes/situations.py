"""Records and situations for tests of the lifecycle's pure rules."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from msgspec.structs import replace

from purveyor_server.domain import principal
from purveyor_server.domain.catalog import Catalog, Plan, PlanLimits, PlanSchemas, Service
from purveyor_server.domain.model import Binding, Instance, Operation, ProviderRef, Settings
from purveyor_server.domain.states import BindingState, InstanceState, Make, OperationState, Verb
from purveyor_server.kit.ids import new_id
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.providers.contract import Ability, Owned, PlannedStep, Work
from purveyor_server.store.contract import Backlog, Situation
from tests.fakes.provider import World, WorldPiece

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TENANT = "acme"
INSTANCE = "orders"
BINDING = "app"
LOCAL = Caller(principal.LOCAL)


def somebody(**changes: Any) -> Caller:
    """A caller like `local`, but for `changes` of its principal."""
    return Caller(replace(principal.LOCAL, **changes))


REF = ProviderRef("pg", "scripted")

SIZE_SCHEMA = {
    "type": "object",
    "properties": {"size": {"type": "integer", "minimum": 1}, "colour": {"type": "string"}},
    "additionalProperties": False,
}


def plan(plan_id: str, **changes: Any) -> Plan:
    """A plan of the provider `pg`."""
    fields: dict[str, Any] = {
        "id": plan_id,
        "name": plan_id,
        "description": plan_id,
        "provider": REF,
        "plan_updateable": True,
        "schemas": PlanSchemas(instance_create=SIZE_SCHEMA, instance_update=SIZE_SCHEMA, binding_create=SIZE_SCHEMA),
        "limits": PlanLimits(operation=timedelta(seconds=60)),
    }
    return Plan(**(fields | changes))


def catalog(*plans: Plan, **changes: Any) -> Catalog:
    """One service with these plans (`small` and `large` when none is given)."""
    offered = plans or (plan("small"), plan("large"))
    return Catalog((Service(id="db", name="db", description="db", plans=offered, **changes),), version=1)


CATALOG = catalog()
SMALL = CATALOG.snapshots["db", "small"]
LARGE = CATALOG.snapshots["db", "large"]


class FakePlans:
    """What providers say, as a test wants it."""

    def __init__(self) -> None:
        self.said: frozenset[Ability] = frozenset({Ability.BIND, Ability.UPDATE, Ability.EXPIRY})
        self.missing: Exception | None = None

    def contract(self, ref: ProviderRef) -> str:
        if self.missing is not None:
            raise self.missing
        return f"{ref.kind}/1"

    def abilities(self, ref: ProviderRef) -> frozenset[Ability]:
        return self.said

    def plan_steps(self, ref: ProviderRef, work: Work) -> tuple[PlannedStep, ...]:
        make = Make.ABSENT if work.verb in {Verb.DEPROVISION, Verb.UNBIND} else Make.ENSURE
        world = World()
        names = (f"{work.verb.lower()}-one", f"{work.verb.lower()}-two")
        return tuple(PlannedStep(WorldPiece(world, name, name), make, pivot=name.endswith("two")) for name in names)

    async def adoptable(self, ref: ProviderRef, source: Mapping[str, Any]) -> Owned | None:
        return None


def settings(plan_id: str = "small", **parameters: Any) -> Settings:
    """A wish for one of the two plans."""
    snapshot = {"small": SMALL, "large": LARGE}[plan_id]
    return Settings(snapshot.digest, "db", plan_id, parameters)


def instance(state: InstanceState = InstanceState.READY, **changes: Any) -> Instance:
    """An instance with applied settings unless it never got that far."""
    wish = settings()
    never = state in {InstanceState.PROVISIONING, InstanceState.FAILED}
    fields: dict[str, Any] = {
        "uid": new_id(),
        "tenant": TENANT,
        "instance_id": INSTANCE,
        "state": state,
        "desired": wish,
        "applied": None if never else wish,
        "version": 1,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Instance(**(fields | changes))


def binding(of: Instance, state: BindingState = BindingState.ACTIVE, **changes: Any) -> Binding:
    """A binding of `of`."""
    fields: dict[str, Any] = {
        "uid": new_id(),
        "tenant": TENANT,
        "instance_id": of.instance_id,
        "instance_uid": of.uid,
        "binding_id": BINDING,
        "state": state,
        "plan": SMALL.digest,
        "service_id": "db",
        "plan_id": "small",
        "version": 1,
        "created_at": NOW,
        "updated_at": NOW,
    }
    return Binding(**(fields | changes))


def operation(of: Instance, verb: Verb, on: Binding | None = None, **changes: Any) -> Operation:
    """A running operation."""
    fields: dict[str, Any] = {
        "operation_id": new_id(),
        "tenant": TENANT,
        "verb": verb,
        "instance_id": of.instance_id,
        "instance_uid": of.uid,
        "binding_id": on.binding_id if on is not None else "",
        "binding_uid": on.uid if on is not None else "",
        "state": OperationState.RUNNING,
        "contract": "scripted/1",
        "due_at": NOW,
        "version": 1,
        "created_at": NOW,
    }
    return Operation(**(fields | changes))


def situation(of: Instance | None = None, on: Binding | None = None, **changes: Any) -> Situation:
    """What an accept sees."""
    fields: dict[str, Any] = {
        "now": NOW + timedelta(seconds=5),
        "head": 7,
        "instance": of,
        "binding": on,
        "bindings": (),
        "operations": (),
        "replay": None,
        "last_operation": None,
        "backlog": Backlog(0, 0),
    }
    return Situation(**(fields | changes))
