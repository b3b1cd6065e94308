"""The lifecycle's pure rules over a small store in memory, ended by the engine's own pure outcomes.

No commit, no clock, no provider: what is left is what the rules decide. `World.ask_*` return the decision or raise.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import timedelta
from functools import partial
from typing import Any

from msgspec.structs import replace

from purveyor_server.domain.model import Binding, CleanupStep, Failure, Instance, Operation, RequestKey
from purveyor_server.domain.states import BindingState, InstanceState, Make, OperationState, Verb
from purveyor_server.engine.outcomes import Ending, finish
from purveyor_server.engine.transitions import stops_for_cancel
from purveyor_server.kit.ids import new_id
from purveyor_server.lifecycle.bind import BindAsk, decide_bind
from purveyor_server.lifecycle.contract import Bind, Deprovision, Provision, Unbind, Update
from purveyor_server.lifecycle.deprovision import DeprovisionAsk, decide_deprovision
from purveyor_server.lifecycle.making import Order
from purveyor_server.lifecycle.operations import decide_cancel
from purveyor_server.lifecycle.plans import KnownPlan, PlanBook
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.lifecycle.provision import ProvisionAsk, decide_provision
from purveyor_server.lifecycle.unbind import UnbindAsk, decide_unbind
from purveyor_server.lifecycle.update import Target, UpdateAsk, decide_update
from purveyor_server.providers.contract import Ability
from purveyor_server.store.contract import Backlog, Decision, Job, Situation, Writes
from tests.fakes.situations import CATALOG, INSTANCE, NOW, SMALL, TENANT, FakePlans, settings

KNOWN = KnownPlan(SMALL, "scripted/1", frozenset(Ability), 60.0)
OFFER = CATALOG.offer("db", "small")
SETTINGS = LifecycleSettings()
REMOVING = frozenset({InstanceState.DEPROVISIONING, BindingState.UNBINDING})


def book() -> PlanBook:
    """A book that knows the plans of the fake catalog."""
    made = PlanBook(None, lambda: CATALOG, FakePlans(), SETTINGS)  # type: ignore[arg-type] # it has nothing to learn
    for offer in CATALOG.offers:
        made.of(offer)
    return made


BOOK = book()


def order(verb: Verb, instance_id: str = INSTANCE, binding_id: str = "", request: RequestKey | None = None) -> Order:
    """What a use-case orders."""
    return Order(
        operation_id=new_id(),
        verb=verb,
        tenant=TENANT,
        instance_id=instance_id,
        binding_id=binding_id,
        principal="local",
        request=request,
    )


def provision_ask(instance_id: str = INSTANCE, digest: str = "d1", **changes: Any) -> ProvisionAsk:
    fields: dict[str, Any] = {
        "request": Provision(tenant=TENANT, instance_id=instance_id, service_id="db", plan_id="small"),
        "order": order(Verb.PROVISION, instance_id),
        "uid": new_id(),
        "digest": digest,
        "settings": SETTINGS,
        "plan": KNOWN,
        "wanted": settings(size=1),
    }
    return ProvisionAsk(**(fields | changes))


def update_ask(instance_id: str = INSTANCE, parameters: dict[str, Any] | None = None, **changes: Any) -> UpdateAsk:
    fields: dict[str, Any] = {
        "request": Update(tenant=TENANT, instance_id=instance_id, parameters=parameters),
        "order": order(Verb.UPDATE, instance_id),
        "settings": SETTINGS,
        "seen": KNOWN,
        "target": Target(KNOWN, OFFER) if parameters is not None else None,
    }
    return UpdateAsk(**(fields | changes))


def deprovision_ask(instance_id: str = INSTANCE, **changes: Any) -> DeprovisionAsk:
    cascade = {name: changes.pop(name) for name in ("cascade", "allow_missing", "etag") if name in changes}
    fields: dict[str, Any] = {
        "request": Deprovision(tenant=TENANT, instance_id=instance_id, **cascade),
        "order": order(Verb.DEPROVISION, instance_id),
        "book": BOOK,
        "settings": SETTINGS,
    }
    return DeprovisionAsk(**(fields | changes))


def bind_ask(instance_id: str = INSTANCE, binding_id: str = "app", digest: str = "d1", **changes: Any) -> BindAsk:
    ttl = changes.pop("ttl", None)
    fields: dict[str, Any] = {
        "request": Bind(tenant=TENANT, instance_id=instance_id, binding_id=binding_id, ttl=ttl),
        "order": order(Verb.BIND, instance_id, binding_id),
        "uid": new_id(),
        "digest": digest,
        "settings": SETTINGS,
        "plan": KNOWN,
    }
    return BindAsk(**(fields | changes))


def unbind_ask(instance_id: str = INSTANCE, binding_id: str = "app", **changes: Any) -> UnbindAsk:
    sent = {name: changes.pop(name) for name in ("allow_missing", "etag") if name in changes}
    fields: dict[str, Any] = {
        "request": Unbind(tenant=TENANT, instance_id=instance_id, binding_id=binding_id, **sent),
        "order": order(Verb.UNBIND, instance_id, binding_id),
        "book": BOOK,
        "settings": SETTINGS,
    }
    return UnbindAsk(**(fields | changes))


class World:
    """Instances, bindings and operations by their keys; incarnations of an id are told apart by uid (creation order)."""

    def __init__(self) -> None:
        self.instances: dict[str, Instance] = {}
        self.bindings: dict[str, Binding] = {}
        self.operations: dict[str, Operation] = {}
        self.now = NOW

    @property
    def unfinished(self) -> list[Operation]:
        return [operation for operation in self.operations.values() if not operation.done]

    def newest(self, instance_id: str) -> Instance | None:
        found = [record for record in self.instances.values() if record.instance_id == instance_id]
        return max(found, key=lambda record: record.uid, default=None)

    def accept(self, decide: Callable[[Situation], Decision], instance_id: str, binding_id: str = "") -> Decision:
        """One store command."""
        decision = decide(self.situation(instance_id, binding_id))
        self.write(decision.writes)
        return decision

    def situation(self, instance_id: str, binding_id: str = "") -> Situation:
        self.now += timedelta(seconds=1)
        instance = self.newest(instance_id)
        own = [b for b in self.bindings.values() if instance is not None and b.instance_uid == instance.uid]
        named = [b for b in own if b.binding_id == binding_id]
        binding = max(named, key=lambda record: record.uid, default=None)
        subject = binding if binding_id else instance
        return Situation(
            now=self.now,
            head=1,
            instance=instance,
            binding=binding,
            bindings=tuple(b for b in own if b.state is not BindingState.DELETED),
            operations=tuple(op for op in self.unfinished if instance is not None and op.instance_uid == instance.uid),
            replay=None,
            last_operation=self.operations.get(subject.last_operation) if subject is not None else None,
            backlog=Backlog(0, 0),
        )

    def write(self, writes: Writes) -> None:
        self.instances |= {record.uid: record for record in writes.instances}
        self.bindings |= {record.uid: record for record in writes.bindings}
        self.operations |= {record.operation_id: record for record in (*writes.operations, *writes.quiet)}

    def job(self, operation: Operation) -> Job:
        self.now += timedelta(seconds=1)
        return Job(
            now=self.now,
            head=1,
            operation=operation,
            instance=self.instances[operation.instance_uid],
            binding=self.bindings.get(operation.binding_uid),
            dependents=tuple(op for op in self.unfinished if operation.operation_id in op.blocked_by),
            siblings=tuple(
                op
                for op in self.unfinished
                if op.instance_uid == operation.instance_uid and op.operation_id != operation.operation_id
            ),
        )

    def provision(self, instance_id: str, digest: str) -> Decision:
        return self.accept(partial(decide_provision, ask=provision_ask(instance_id, digest)), instance_id)

    def update(self, instance_id: str, size: int) -> Decision:
        return self.accept(partial(decide_update, ask=update_ask(instance_id, {"size": size})), instance_id)

    def deprovision(self, instance_id: str, *, cascade: bool) -> Decision:
        return self.accept(partial(decide_deprovision, ask=deprovision_ask(instance_id, cascade=cascade)), instance_id)

    def bind(self, instance_id: str, binding_id: str, digest: str) -> Decision:
        ask = bind_ask(instance_id, binding_id, digest)
        return self.accept(partial(decide_bind, ask=ask), instance_id, binding_id)

    def unbind(self, instance_id: str, binding_id: str) -> Decision:
        ask = unbind_ask(instance_id, binding_id)
        return self.accept(partial(decide_unbind, ask=ask), instance_id, binding_id)

    def cancel(self, operation: Operation) -> None:
        self.write(decide_cancel(self.job(operation)))

    def pass_pivot(self, operation: Operation) -> None:
        """The engine starts the pivot step, unless a cancel came first."""
        if not stops_for_cancel(operation):
            self.write(Writes(operations=(replace(operation, past_pivot=True, version=operation.version + 1),)))

    def end(self, operation: Operation, *, well: bool, leaving: bool) -> None:
        """The engine ends a due operation: well if it may, else as a failure that leaves something behind or nothing."""
        job = self.job(operation)
        if well and not stops_for_cancel(operation) and operation.failure is None:
            self.write(finish(job, Ending(state=OperationState.SUCCEEDED)))
            return
        failure = Failure(reason="PROVIDER_FAILED", message="it failed")
        taken = bool(operation.taken_over_by) and operation.verb in {Verb.PROVISION, Verb.BIND}
        if taken:
            self.write(finish(job, Ending(state=OperationState.CANCELLED, failure=failure)))
            return
        removal = operation.verb in {Verb.DEPROVISION, Verb.UNBIND}
        left = (
            (CleanupStep("role", Make.ABSENT),) if not removal and (leaving or operation.verb is Verb.CLEANUP) else ()
        )
        unfinished = ("role",) if removal else ()
        self.write(finish(job, Ending(state=OperationState.FAILED, failure=failure, left=left, unfinished=unfinished)))
