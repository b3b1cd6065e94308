"""A bench for the engine: the real SQLite store, a scripted provider, and verbs accepted without the lifecycle's rules."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from msgspec.structs import replace

from purveyor_server.domain.digests import plan_digest
from purveyor_server.domain.model import (
    Binding,
    CleanupStep,
    Instance,
    Operation,
    PlanSnapshot,
    ProviderRef,
    Settings,
    Step,
)
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import BindingState, InstanceState, Make, OperationState, Verb, Waiting
from purveyor_server.engine.engine import Engine
from purveyor_server.engine.outcomes import Ending, cleanup_of
from purveyor_server.engine.settings import EngineSettings
from purveyor_server.kit.backoff import Backoff
from purveyor_server.kit.clock import SystemClock
from purveyor_server.kit.ids import new_id
from purveyor_server.providers.facade import FacadeSettings, ProviderFacade
from purveyor_server.providers.registry import ProviderRegistry
from purveyor_server.security.sealing import Sealer
from purveyor_server.store.contract import SYSTEM, Accept, Amend, Commit, Decision, Job, Situation, Store, Writes
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.store.sqlite.store import open_store
from tests.fakes.provider import ScriptedProvider, World

QUICK = Backoff(first=0.01, factor=1.5, ceiling=0.05)
SETTINGS = EngineSettings(
    retry=QUICK,
    cleanup_retry=QUICK,
    poll=0.2,
    settle_poll=0.02,
    hold_poll=0.05,
    progress_interval=0.02,
    rights_poll=0.02,
    stop_grace=2.0,
    max_attempts=5,
)
REF = ProviderRef("main", "scripted")
TENANT = "team-a"


def snapshot() -> PlanSnapshot:
    """The one plan of the bench."""
    plan = PlanSnapshot("", "svc", "service", "plan", "small", REF, {"kind": "scripted"})
    return replace(plan, digest=plan_digest(plan))


PLAN = snapshot()
NEXT_DOOR = ProviderRef("beside", "good")


def plan_next_door() -> PlanSnapshot:
    """The plan of another provider, that does well."""
    plan = PlanSnapshot("", "svc2", "service2", "plan2", "small", NEXT_DOOR, {"kind": "good"})
    return replace(plan, digest=plan_digest(plan))


PLAN_NEXT_DOOR = plan_next_door()


class ShiftedClock(SystemClock):
    """The system's clock, with a wall time that a test can move."""

    def __init__(self) -> None:
        self.shift = timedelta(0)

    def now(self) -> datetime:
        """Wall time plus the shift."""
        return datetime.now(UTC) + self.shift


class Bench:
    """Store, world, engine; `restart` makes a new engine as a new process would (new epoch, nothing remembered)."""

    def __init__(self, folder: Path, settings: EngineSettings = SETTINGS) -> None:
        self.folder = folder
        self.settings = settings
        self.world = World()
        self.provider = ScriptedProvider(self.world)
        self.next_door = World()
        self.facade: type[ProviderFacade] = ProviderFacade  # negative controls take another one
        self.clock = ShiftedClock()
        self.sealer = Sealer({"k1": b"k" * 32})
        self.store: Store
        self.engine: Engine
        self.commits: list[Commit] = []
        self._changed = asyncio.Event()
        self.facade_settings = FacadeSettings(call=5.0, settle=2.0, grace=0.5)

    async def open(self, *, work: bool = True) -> None:
        """Open the store and start the engine."""
        self.store = await open_store(self.folder / "store.db", clock=self.clock, settings=SqliteSettings())
        self.store.subscribe(self._committed)
        await self.store.apply_catalog("c1", "services: []", [PLAN, PLAN_NEXT_DOOR])
        self.registry = ProviderRegistry(
            {
                "scripted": lambda _config, _environment: self.provider,
                "good": lambda _config, _environment: ScriptedProvider(self.next_door),
            },
            self.folder,
            self.store.store_id,
            self.clock,
            settings=self.facade_settings,
            guard=self.facade,
        )
        self.engine = Engine(self.store, self.registry, self.sealer, b"d" * 32, self.clock, self.settings)
        self.registry.on_close = self.engine.circuit_closed
        if work:
            await self.engine.start()

    def _committed(self, commit: Commit) -> None:
        self.commits.append(commit)
        self._changed.set()

    async def close(self) -> None:
        """Stop as a graceful process does."""
        await self.engine.stop()
        await self.store.close()

    async def crash(self) -> None:
        """Stop as a killed process does: nothing is given back, nothing is written."""
        await self.engine._loops.close(0.1)
        await self.engine._work.close(0.1)
        await self.store.close()

    async def until(self, enough: Callable[[Operation], bool], operation_id: str, seconds: float = 8.0) -> Operation:
        """The operation once `enough` says so; each commit is a signal to look again."""
        async with asyncio.timeout(seconds):
            while True:
                self._changed.clear()
                operation = await self.operation(operation_id)
                if enough(operation):
                    return operation
                await self._changed.wait()

    async def ended(self, operation: Operation, seconds: float = 8.0) -> Operation:
        """The operation in its final state."""
        return await self.until(lambda now: now.done, operation.operation_id, seconds)

    async def cleaned(self, seconds: float = 8.0) -> Instance:
        """The instance once nothing is left behind."""
        async with asyncio.timeout(seconds):
            while True:
                self._changed.clear()
                instance = await self.instance()
                if not instance.cleanup_required:
                    return instance
                await self._changed.wait()

    async def operation(self, operation_id: str) -> Operation:
        """A committed read."""
        found = await self.store.operation(SYSTEM, operation_id)
        assert found is not None
        return found

    async def instance(self, instance_id: str = "one") -> Instance:
        """A committed read."""
        found = await self.store.instance(SYSTEM, TENANT, instance_id)
        assert found is not None
        return found

    async def binding(self, binding_id: str = "b1", instance_id: str = "one") -> Binding:
        """A committed read."""
        found = await self.store.binding(SYSTEM, TENANT, instance_id, binding_id)
        assert found is not None
        return found

    async def steps(self, operation: Operation) -> tuple[Step, ...]:
        """The journal."""
        return await self.store.steps(SYSTEM, operation.operation_id)

    async def cleanups(self) -> tuple[Operation, ...]:
        """Every CLEANUP operation seen in commits, newest state of each."""
        found = {o.operation_id: o for commit in self.commits for o in commit.operations if o.verb is Verb.CLEANUP}
        return tuple(found.values())

    # Verbs

    def _operation(self, situation: Situation, verb: Verb, instance: Instance, **more: Any) -> Operation:
        budget = more.pop("budget", 30.0)
        values: dict[str, Any] = {
            "operation_id": new_id(),
            "tenant": instance.tenant,
            "verb": verb,
            "instance_id": instance.instance_id,
            "instance_uid": instance.uid,
            "provider": REF.name,
            "contract": "scripted/1",
            "due_at": situation.now,
            "budget": budget,
            "deadline": situation.now + timedelta(seconds=budget),
            "created_at": situation.now,
            "marked_revision": situation.head,
            "version": 1,
        }
        return Operation(**(values | more))

    async def _accept(
        self, decide: Callable[[Situation], Writes], instance_id: str, tenant: str = TENANT, binding_id: str = ""
    ) -> Operation:
        def decided(situation: Situation) -> Decision:
            writes = decide(situation)
            return Decision(writes, writes.operations[0])

        decision = await self.store.accept(Accept(SYSTEM, tenant, instance_id, decided, binding_id=binding_id))
        assert decision.operation is not None
        return decision.operation

    async def provision(
        self,
        instance_id: str = "one",
        parameters: dict[str, Any] | None = None,
        tenant: str = TENANT,
        plan: PlanSnapshot = PLAN,
        **more: Any,
    ) -> Operation:
        """Accept a provision."""
        wanted = Settings(plan.digest, plan.service_id, plan.plan_id, parameters or {"size": 1})
        more = {"provider": plan.provider.name} | more

        def decide(situation: Situation) -> Writes:
            instance = Instance(
                uid=new_id(),
                tenant=tenant,
                instance_id=instance_id,
                state=InstanceState.PROVISIONING,
                desired=wanted,
                in_flight=wanted,
                created_at=situation.now,
                updated_at=situation.now,
                version=1,
            )
            operation = self._operation(situation, Verb.PROVISION, instance, want=wanted, **more)
            instance = replace(instance, last_operation=operation.operation_id)
            return Writes(instances=(instance,), operations=(operation,))

        return await self._accept(decide, instance_id, tenant)

    async def update(self, parameters: dict[str, Any], instance_id: str = "one", **more: Any) -> Operation:
        """Accept an update of the parameters."""
        wanted = Settings(PLAN.digest, "svc", "plan", parameters)

        def decide(situation: Situation) -> Writes:
            assert situation.instance is not None
            before = situation.instance
            operation = self._operation(situation, Verb.UPDATE, before, want=wanted, was=before.applied, **more)
            after = touch(before, situation.now, state=InstanceState.UPDATING, desired=wanted, in_flight=wanted)
            return Writes(instances=(after,), operations=(operation,))

        return await self._accept(decide, instance_id)

    async def deprovision(self, instance_id: str = "one", over: Operation | None = None, **more: Any) -> Operation:
        """Accept a deprovision, taking over from `over`."""

        def decide(situation: Situation) -> Writes:
            assert situation.instance is not None
            before = situation.instance
            was, running = before.applied or before.desired, _running(situation, over)
            operation = self._operation(situation, Verb.DEPROVISION, before, was=was, **_waits(running), **more)
            after = touch(before, situation.now, state=InstanceState.DEPROVISIONING)
            taken = tuple(_taken_over(other, situation.now, operation.operation_id) for other in running)
            return Writes(instances=(after,), operations=(operation, *taken))

        return await self._accept(decide, instance_id)

    async def bind(self, binding_id: str = "b1", instance_id: str = "one", **more: Any) -> Operation:
        """Accept a bind."""

        def decide(situation: Situation) -> Writes:
            assert situation.instance is not None
            instance = situation.instance
            binding = Binding(
                uid=new_id(),
                tenant=instance.tenant,
                instance_id=instance_id,
                instance_uid=instance.uid,
                binding_id=binding_id,
                state=BindingState.BINDING,
                plan=PLAN.digest,
                service_id="svc",
                plan_id="plan",
                created_at=situation.now,
                updated_at=situation.now,
                version=1,
            )
            named = {"binding_id": binding_id, "binding_uid": binding.uid, "want": instance.applied}
            operation = self._operation(situation, Verb.BIND, instance, **(named | more))
            return Writes(bindings=(binding,), operations=(operation,))

        return await self._accept(decide, instance_id, binding_id=binding_id)

    async def unbind(
        self, binding_id: str = "b1", instance_id: str = "one", over: Operation | None = None, **more: Any
    ) -> Operation:
        """Accept an unbind, taking over from `over`."""

        def decide(situation: Situation) -> Writes:
            assert situation.instance is not None
            assert situation.binding is not None
            named = {"binding_id": binding_id, "binding_uid": situation.binding.uid, "want": situation.instance.applied}
            running = _running(situation, over)
            operation = self._operation(situation, Verb.UNBIND, situation.instance, **(named | _waits(running) | more))
            after = touch(situation.binding, situation.now, state=BindingState.UNBINDING)
            taken = tuple(_taken_over(other, situation.now, operation.operation_id) for other in running)
            return Writes(bindings=(after,), operations=(operation, *taken))

        return await self._accept(decide, instance_id, binding_id=binding_id)

    async def clean_up(self, failed: Operation) -> Operation:
        """Clean up by hand what was kept, as the lifecycle does."""
        left = tuple(CleanupStep(name, Make.ABSENT) for name in failed.cleanup_required)
        ending = Ending(state=failed.state, failure=failed.failure, left=left)
        made: list[Operation] = []

        def decide(job: Job) -> Writes:
            made[:] = [cleanup_of(job.operation, job.now, ending)]
            released = touch(job.operation, job.now, waiting=Waiting.NONE, waiting_detail="")
            return Writes(operations=(*made, released))

        await self.store.amend(Amend(SYSTEM, failed.operation_id, decide))
        return made[0]

    async def cancel(self, operation: Operation) -> Operation:
        """Ask for cancellation, as the lifecycle does."""

        def decide(job: Job) -> Writes:
            changes: dict[str, Any] = {"cancel_requested": True, "state": OperationState.CANCELLING}
            if not job.operation.lease_owner:
                changes["due_at"] = job.now
            return Writes(operations=(touch(job.operation, job.now, **changes),))

        return await self.store.amend(Amend(SYSTEM, operation.operation_id, decide))


def _running(situation: Situation, over: Operation | None) -> tuple[Operation, ...]:
    """The operation to take over, when it is still unfinished inside the transaction."""
    return tuple(o for o in situation.operations if over is not None and o.operation_id == over.operation_id)


def _waits(running: tuple[Operation, ...]) -> dict[str, Any]:
    if not running:
        return {}
    blocked_by = tuple(operation.operation_id for operation in running)
    return {"blocked_by": blocked_by, "due_at": None, "deadline": None, "waiting": Waiting.BLOCKED}


def _taken_over(other: Operation, now: datetime, by: str) -> Operation:
    changes: dict[str, Any] = {"cancel_requested": True, "state": OperationState.CANCELLING, "taken_over_by": by}
    if not other.lease_owner:
        changes["due_at"] = now
    return touch(other, now, **changes)


@asynccontextmanager
async def bench(folder: Path, settings: EngineSettings = SETTINGS, *, work: bool = True) -> AsyncIterator[Bench]:
    """An open bench, closed at the end."""
    made = Bench(folder, settings)
    await made.open(work=work)
    try:
        yield made
    finally:
        await made.close()
