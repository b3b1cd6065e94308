"""Finds due operations, leases them, runs them within bounds, and keeps the leases alive.

Guarantee: every unfinished operation is looked at when it is due, whoever crashed; the number of running ones is bounded in
all, per provider and per tenant; a waiting operation holds no task, connection or worker.
Limit: one event loop; a provider that blocks it delays everything (leases then run out and others take over).
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Protocol

import structlog
from msgspec.structs import replace

from purveyor_server.domain.model import PlanSnapshot, ProviderRef, Settings
from purveyor_server.domain.states import REMOVALS
from purveyor_server.engine.agenda import Agenda
from purveyor_server.engine.calls import Calls, Origin
from purveyor_server.engine.context import Lease
from purveyor_server.engine.forward import Forward
from purveyor_server.engine.journal import Journal, Parked
from purveyor_server.engine.rollback import Rollback
from purveyor_server.engine.runner import Runner
from purveyor_server.engine.settings import EngineSettings
from purveyor_server.engine.slots import Slots
from purveyor_server.engine.unveiling import VeiledError, unveiled
from purveyor_server.engine.vault import Sealing, Vault
from purveyor_server.engine.work import MissingPlanError, assignment
from purveyor_server.kit import failpoints
from purveyor_server.kit.clock import Clock
from purveyor_server.kit.hiding import hiding
from purveyor_server.kit.ids import new_id
from purveyor_server.kit.signals import Signals
from purveyor_server.kit.tasks import TaskGroup
from purveyor_server.providers.facade import ProviderFacade
from purveyor_server.providers.registry import ProviderMissingError
from purveyor_server.store.contract import Claimed, Commit, Fence, LeaseLostError, Progress, Store

_log = structlog.get_logger(__name__)
ASLEEP = timedelta(milliseconds=50)  # how soon an engine that a test keeps from claiming looks whether it may


class Providers(Protocol):
    """Where guarded providers come from."""

    def facade(self, ref: ProviderRef) -> ProviderFacade:
        """The provider of `ref`; raises ProviderMissingError."""
        ...


class Engine:
    """The durable executor of one process."""

    def __init__(
        self,
        store: Store,
        providers: Providers,
        sealer: Sealing,
        digest_key: bytes,
        clock: Clock,
        settings: EngineSettings | None = None,
        show_progress: Callable[[str, float, str], None] = lambda _id, _percent, _sentence: None,
    ) -> None:
        self._store = store
        self._providers = providers
        self._sealer = sealer
        self._digest_key = digest_key
        self._clock = clock
        self._settings = settings or EngineSettings()
        self._show_progress = show_progress
        self._owner = new_id()
        self._slots = Slots(self._settings)
        self._work = TaskGroup("engine")
        self._loops = TaskGroup("engine-loops")
        self._wake = asyncio.Event()
        self._leases: dict[str, tuple[Fence, Lease]] = {}
        self._tasks: dict[str, asyncio.Task[None]] = {}
        self._progress: dict[str, Progress] = {}
        self._agenda = Agenda()
        self._due_now = False
        self._after_tenant = ""
        self._started_at = clock.now()
        self._seen: set[str] = set()  # overdue operations that had their attempt since the start
        self._stopping = False
        self._unsubscribe: Callable[[], None] = lambda: None
        self.signals = Signals()

    @property
    def running(self) -> int:
        """Operations working now."""
        return len(self._slots)

    def running_by_provider(self) -> dict[str, int]:
        """Operations working now, by provider."""
        return self._slots.by_provider

    async def start(self) -> None:
        """Begin to look for due operations."""
        self._started_at = self._clock.now()
        self._unsubscribe = self._store.subscribe(self._on_commit)
        if not await self._store.freezes():
            await self._store.unfreeze()  # a thaw may have been cut off by the end of the process
        self._wake_up()
        self._loops.start("claim", self._forever(self._claim_due))
        self._loops.start("renew", self._forever(self._renew_leases))
        self._loops.start("progress", self._forever(self._store_progress))

    async def stop(self) -> None:
        """Claim nothing more, let running steps end within the grace time, then give every lease back."""
        self._stopping = True
        self._unsubscribe()
        await self._loops.close()
        if self._tasks:
            await asyncio.wait(list(self._tasks.values()), timeout=self._settings.stop_grace)
        await self._work.close()
        await self._store.release(self._owner)

    def circuit_closed(self, provider: str) -> None:
        """A backend answers again: what waited for it is due."""
        if not self._stopping:
            self._work.start("wake", self._wake_waiting(provider))

    async def _wake_waiting(self, provider: str) -> None:
        await self._store.wake(provider)

    async def _forever(self, turn: Callable[[], Awaitable[None]]) -> None:
        """Run `turn` again and again; a failure is logged and slowed down, never the end of the loop."""
        while True:
            try:
                await turn()
            except Exception:  # noqa: BLE001 - the loop outlives whatever one turn met
                _log.exception("engine loop failed", turn=getattr(turn, "__name__", "?"))
                await asyncio.sleep(self._settings.poll)

    # Claiming

    def _wake_up(self) -> None:
        """Look for due operations now."""
        self._due_now = True
        self._wake.set()

    def _on_commit(self, commit: Commit) -> None:
        if commit.due:
            self._wake_up()
        for operation in commit.operations:
            if operation.due_at is not None and not operation.lease_owner:
                self._agenda.add(operation.due_at)
                self._wake.set()

    async def _claim_due(self) -> None:
        await self._sleep_until_due()
        self._wake.clear()
        self._agenda.drop_until(self._clock.now())
        if failpoints.is_off("claim"):  # the recovery suite accepts verbs while nothing works on them
            self._agenda.add(self._clock.now() + ASLEEP)
            return
        for claim in self._slots.claims(self._owner, self._after_tenant):
            asked = self._clock.monotonic()
            for claimed in await self._store.claim(claim):
                self._begin(claimed, asked)
                self._after_tenant = claimed.operation.tenant
        self.signals.emit("claimed")

    async def _sleep_until_due(self) -> None:
        """Until the next time on the agenda, a commit that makes something due, or the poll interval."""
        while True:
            seconds = min(self._settings.poll, self._agenda.seconds_from(self._clock.now()))
            if seconds <= 0:
                return
            try:
                async with asyncio.timeout(seconds):
                    await self._wake.wait()
            except TimeoutError:
                return
            self._wake.clear()
            if self._due_now:
                self._due_now = False
                return

    def _begin(self, claimed: Claimed, asked: float) -> None:
        operation = claimed.operation
        if operation.operation_id in self._tasks:
            # Our own lease ran out and this claim took it over: the old run may write nothing more.
            self._forget(operation.operation_id, self._tasks[operation.operation_id])
        self._slots.take(operation)
        lease = Lease(self._settings.lease.total_seconds(), self._clock.monotonic, asked)
        self._leases[operation.operation_id] = (claimed.fence, lease)
        task = self._work.start(operation.operation_id, self._run(claimed, lease))
        self._tasks[operation.operation_id] = task
        task.add_done_callback(lambda done: self._end(operation.operation_id, done))

    def _forget(self, operation_id: str, task: asyncio.Task[None]) -> None:
        """Take a run out of the books and stop it."""
        task.cancel()
        self._slots.give_back(operation_id)
        for book in (self._leases, self._tasks, self._progress):
            book.pop(operation_id, None)

    def _end(self, operation_id: str, task: asyncio.Task[None]) -> None:
        if self._tasks.get(operation_id) is task:
            self._forget(operation_id, task)
        self._wake_up()
        self.signals.emit("ended")

    # Running

    async def _run(self, claimed: Claimed, lease: Lease) -> None:
        operation = claimed.operation
        # Bound to the context of this task, which ends with it.
        structlog.contextvars.bind_contextvars(operation_id=operation.operation_id, tenant=operation.tenant)
        try:
            await self._run_claimed(claimed, lease)
        except Parked:
            pass
        except LeaseLostError:
            _log.warning("lease lost", verb=str(operation.verb))
        except Exception:  # noqa: BLE001 - one operation's bug is not the end of the engine
            # The lease runs out by itself and the operation is due again: that is the back-off of a bug.
            _log.exception("operation could not be worked on", verb=str(operation.verb))

    async def _run_claimed(self, claimed: Claimed, lease: Lease) -> None:
        journal = Journal(self._store, self._clock, self._settings, claimed)
        claimed = await self._with_plans(claimed)
        try:
            secrets = unveiled(claimed, self._sealer)
            assigned = assignment(claimed, secrets)
            facade = self._providers.facade(assigned.provider)
        except (MissingPlanError, ProviderMissingError, VeiledError) as error:
            await journal.hold(str(error))
        if claimed.operation.contract and claimed.operation.contract != facade.contract:
            await journal.hold(
                f"begun under the contract {claimed.operation.contract!r}, the provider now has {facade.contract!r}"
            )
        vault = Vault(self._sealer, self._digest_key, assigned.uid, claimed.secrets)
        origin = Origin(self._store.store_id, self._store.epoch)
        calls = Calls(journal, assigned, facade, lease, vault, origin, self._report)
        forward = Forward(
            journal, calls, vault, facade, assigned, self._settings, overdue=self._overdue_attempt(claimed)
        )
        rollback = Rollback(journal, calls, facade, assigned, self._settings)
        with hiding(secrets.values):
            await Runner(journal, calls, forward, rollback, self._settings).run()

    async def _with_plans(self, claimed: Claimed) -> Claimed:
        """Plan snapshots that the claim did not bring."""
        about = claimed.origin or claimed.operation
        wanted: list[Settings | None] = [about.want, about.was, claimed.instance.applied, claimed.instance.desired]
        digests = {settings.plan for settings in wanted if settings is not None}
        if claimed.binding is not None:
            digests.add(claimed.binding.plan)
        plans: dict[str, PlanSnapshot] = dict(claimed.plans)
        for digest in digests - plans.keys():
            plan = await self._store.plan(digest)
            if plan is not None:
                plans[digest] = plan
        return claimed if plans == claimed.plans else replace(claimed, plans=plans)

    def _overdue_attempt(self, claimed: Claimed) -> bool:
        """One forward attempt for an operation whose time ran out while no broker was there to work on it."""
        operation = claimed.operation
        if operation.verb in REMOVALS and not claimed.steps:
            return True  # what was never tried is tried once, however late its turn came
        deadline = operation.deadline
        if deadline is None or deadline > self._started_at or operation.operation_id in self._seen:
            return False
        self._seen.add(operation.operation_id)
        return True

    # Leases and progress

    async def _renew_leases(self) -> None:
        await asyncio.sleep(self._settings.lease.total_seconds() / 3)
        asked = self._clock.monotonic()
        fences = [fence for fence, _ in self._leases.values()]
        if not fences:
            return
        held = await self._store.renew(fences, self._settings.lease)
        for fence in fences:
            entry = self._leases.get(fence.operation_id)
            if entry is None or entry[0] != fence:
                continue
            if fence.operation_id in held:
                entry[1].renewed_at(asked)
            else:
                self._tasks[fence.operation_id].cancel()

    def _report(self, operation_id: str, percent: float, sentence: str) -> None:
        """Watchers see progress at once; the store gets the newest of it, at most once per interval."""
        self._show_progress(operation_id, percent, sentence)
        entry = self._leases.get(operation_id)
        if entry is not None:
            self._progress[operation_id] = Progress(entry[0], percent, sentence)

    async def _store_progress(self) -> None:
        await asyncio.sleep(self._settings.progress_interval)
        if self._progress:
            marks = tuple(self._progress.values())
            self._progress.clear()
            await self._store.progress(marks)
