"""Builders of records and commands for the suite: a caller names what matters, the rest is filled in."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec
from msgspec.structs import replace

from purveyor_server.domain.digests import plan_digest
from purveyor_server.domain.model import (
    Binding,
    Event,
    EventKind,
    Instance,
    Operation,
    PlanSnapshot,
    ProviderRef,
    RequestKey,
    Settings,
    Step,
)
from purveyor_server.domain.states import BindingState, InstanceState, Make, OperationState, StepState, Verb, Waiting
from purveyor_server.kit.ids import new_id
from purveyor_server.store.contract import (
    SYSTEM,
    Accept,
    Claim,
    Claimed,
    Decision,
    Job,
    Situation,
    Store,
    Writes,
)

START = datetime(2026, 1, 1, tzinfo=UTC)
LEASE = timedelta(seconds=30)
SETTINGS = Settings("digest-1", "service-1", "plan-1", {"size": 1})


def plan(name: str = "plan-1") -> PlanSnapshot:
    bare = PlanSnapshot("", "service-1", "service", name, name, ProviderRef("pg", "postgresql"))
    return replace(bare, digest=plan_digest(bare))


def instance(tenant: str = "acme", instance_id: str = "db", **values: Any) -> Instance:
    given: dict[str, Any] = {
        "uid": new_id(),
        "state": InstanceState.PROVISIONING,
        "desired": SETTINGS,
        "created_at": START,
        "updated_at": START,
        "version": 1,
    }
    return Instance(tenant=tenant, instance_id=instance_id, **{**given, **values})


def binding(of: Instance, binding_id: str = "app", **values: Any) -> Binding:
    given: dict[str, Any] = {
        "uid": new_id(),
        "state": BindingState.BINDING,
        "plan": SETTINGS.plan,
        "service_id": "service-1",
        "plan_id": "plan-1",
        "created_at": START,
        "updated_at": START,
        "version": 1,
    }
    base = {"tenant": of.tenant, "instance_id": of.instance_id, "instance_uid": of.uid, "binding_id": binding_id}
    return Binding(**{**given, **base, **values})


def operation(of: Instance, verb: Verb = Verb.PROVISION, on: Binding | None = None, **values: Any) -> Operation:
    given: dict[str, Any] = {
        "operation_id": new_id(),
        "binding_id": on.binding_id if on else "",
        "binding_uid": on.uid if on else "",
        "provider": "pg",
        "due_at": START,
        "created_at": START,
        "version": 1,
    }
    base = {"tenant": of.tenant, "instance_id": of.instance_id, "instance_uid": of.uid, "verb": verb}
    return Operation(**{**given, **base, **values})


def step(of: Operation, index: int = 0, **values: Any) -> Step:
    given: dict[str, Any] = {"name": f"piece-{index}", "make": Make.ENSURE, "state": StepState.STARTED}
    return Step(operation_id=of.operation_id, index=index, started_at=START, **{**given, **values})


def request(request_id: str, method: str = "Provision", principal: str = "local") -> RequestKey:
    return RequestKey(principal, method, request_id, "fingerprint")


def ended(of: Operation, state: OperationState = OperationState.SUCCEEDED, at: datetime = START) -> Operation:
    return replace(of, state=state, due_at=None, lease_owner="", ended_at=at, version=of.version + 1)


def parked(of: Operation, until: datetime | None, waiting: Waiting = Waiting.PARKED) -> Operation:
    return replace(of, due_at=until, waiting=waiting, version=of.version + 1)


async def write(store: Store, writes: Writes, tenant: str = "acme", instance_id: str = "db", **more: Any) -> Decision:
    """Put `writes` down by an accept of `tenant`."""

    def decide(_: Situation) -> Decision:
        return Decision(writes)

    return await store.accept(Accept(SYSTEM, tenant, instance_id, decide, **more))


async def provision(store: Store, tenant: str = "acme", instance_id: str = "db", **values: Any) -> Operation:
    """An accepted provision; `values` go to the operation."""
    made = instance(tenant, instance_id)
    accepted = operation(made, **values)
    made = replace(made, last_operation=accepted.operation_id)
    await write(store, Writes(instances=(made,), operations=(accepted,)), tenant, instance_id)
    return accepted


async def look(store: Store, tenant: str = "acme", instance_id: str = "db", **more: Any) -> Situation:
    """What an accept would see."""
    seen: list[Situation] = []

    def decide(situation: Situation) -> Decision:
        seen.append(situation)
        return Decision()

    await store.accept(Accept(SYSTEM, tenant, instance_id, decide, dry_run=True, **more))
    return seen[-1]


async def claim(store: Store, limit: int = 10, owner: str = "worker", **more: Any) -> tuple[Claimed, ...]:
    return await store.claim(Claim(owner, LEASE, limit, **more))


def finishing(job: Job) -> Writes:
    return Writes(operations=(ended(job.operation, at=job.now),))


async def log_of(store: Store, after: int = 0, page: int = 100) -> list[Event]:
    """The whole log after `after`, page by page."""
    events: list[Event] = []
    while found := await store.events(after, page):
        events.extend(found)
        after = found[-1].revision
    return events


def event_of(made: Instance, revision: int = 1) -> Event:
    """The event of an instance's present state."""
    return Event(
        revision=revision,
        kind=EventKind.INSTANCE,
        tenant=made.tenant,
        instance_id=made.instance_id,
        operation_id=made.last_operation,
        uid=made.uid,
        state=made.state,
        body=msgspec.json.encode(made),
        at=made.updated_at,
    )
