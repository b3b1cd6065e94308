"""A whole broker without its faces, in simulated time: store, engine, use-cases, operators' side, loops; killed and started again.

Guarantee: every part is the product's own. A crash is what `kill -9` is: whatever is not committed is lost, nobody says
goodbye, and calls that were on their way to the backend may still arrive.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from collections.abc import Callable, Collection, Coroutine
from datetime import timedelta
from pathlib import Path
from types import ModuleType
from typing import Any, NamedTuple, TypeVar, cast

from purveyor_server.app.levels import LogLevels
from purveyor_server.app.reconciling import LoopParts, loops, start_loops
from purveyor_server.app.upkeep import keep_retention
from purveyor_server.config.settings import ReconcileSection
from purveyor_server.engine.engine import Engine
from purveyor_server.engine.settings import EngineSettings
from purveyor_server.kit.tasks import TaskGroup
from purveyor_server.lifecycle.admin.administration import Administration
from purveyor_server.lifecycle.admin.contract import AdminParts
from purveyor_server.lifecycle.catalogs import LiveCatalog
from purveyor_server.lifecycle.catalogtext import Judged
from purveyor_server.lifecycle.door import Door
from purveyor_server.lifecycle.lifecycle import Lifecycle
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.providers.inspection import Inspector
from purveyor_server.providers.registry import ProviderRegistry
from purveyor_server.reconcile.loop import Loop
from purveyor_server.rpc.convert.event import encode_event
from purveyor_server.security.keyring import Keyring
from purveyor_server.security.keysource import KeySource
from purveyor_server.security.sealing import Sealer
from purveyor_server.store.contract import Commit, Retention
from purveyor_server.store.sqlite.store import SqliteStore
from purveyor_server.watch.events import EventLog
from purveyor_server.watch.operations import OperationHub
from tests.year import catalogs
from tests.year.backend import Backend
from tests.year.inline import drop, open_inline, writer_of
from tests.year.provider import KIND, SimProvider
from tests.year.virtual import LoopClock, pass_time

HOUR, DAY = 3600.0, 86_400.0  # seconds
STORE = "store.db"
KEYS = Keyring(Sealer({"k1": b"k" * 32}), b"d" * 32, b"t" * 32, cast("KeySource", None))
# What would only be asked again and again is asked rarely: what is due is on the agenda, and no second process takes leases.
ENGINE = EngineSettings(
    lease=timedelta(days=30),
    poll=10 * DAY,
    progress_interval=30 * DAY,
    settle_poll=5.0,
    hold_poll=3600.0,
    rights_poll=60.0,
    max_attempts=8,
)
RETENTION = Retention(
    operations=timedelta(days=60), tombstones=timedelta(days=60), events=timedelta(days=30), max_events=10_000
)
RETAIN_EVERY = timedelta(days=10)
SWEEP = timedelta(days=2)
LOOK_AGAIN = 3 * DAY
RECONCILE = ReconcileSection(
    expiry=SWEEP,
    rotation=SWEEP,
    drift=timedelta(days=10),
    drift_confirm=timedelta(days=2),
    campaigns=timedelta(days=10),
    stuck=timedelta(days=5),
    platform_every=timedelta(days=5),
)
USE_CASES = LifecycleSettings()

Answer = TypeVar("Answer")


class Spoil(NamedTuple):
    """What a negative control takes away: safeguards by failpoint, loops by name, what the backend looks after, parts of
    modules (the module, its name, what stands there instead); and the catalog, whose policies the judge does not know."""

    failpoints: str = ""
    loops: frozenset[str] = frozenset()
    keeps_ends: bool = True
    reads_markers: bool = True
    catalog: str = "plain"
    swaps: tuple[tuple[ModuleType, str, Any], ...] = ()


SOUND = Spoil()


class Counted:
    """A loop whose rounds are counted."""

    def __init__(self, loop: Loop, rounds: Counter[str]) -> None:
        self._loop = loop
        self._rounds = rounds
        self.name = loop.name
        self.wake = getattr(loop, "wake", None)

    @property
    def interval(self) -> float:
        """As the loop's, but for one that would look every minute whether it is time: it says itself when that is."""
        return self._loop.interval if self._loop.interval > HOUR else LOOK_AGAIN

    async def once(self) -> float | None:
        """One round."""
        self._rounds[self.name] += 1
        wanted = await self._loop.once()
        return None if wanted == self._loop.interval else wanted


class Process:
    """One life of the broker."""

    def __init__(self, store: SqliteStore, folder: Path, backend: Backend, clock: LoopClock) -> None:
        self.store = store
        self._catalog = catalog = LiveCatalog(store, catalogs.read, clock)
        self.hub = OperationHub()
        store.subscribe(self.hub.on_commit)
        self.registry = ProviderRegistry(
            {KIND: lambda _config, _environment: SimProvider(backend)}, folder / "p", store.store_id, clock
        )
        self.engine = Engine(store, self.registry, KEYS.sealer, KEYS.digest_key, clock, ENGINE, self.hub.progress)
        self.registry.on_close = self.engine.circuit_closed
        door = Door()
        self.use_cases = Lifecycle(
            store,
            catalog,
            self.registry,
            self.hub,
            KEYS.sealer,
            log=EventLog(store, encode_event),
            digest_key=KEYS.digest_key,
            token_key=KEYS.page_key,
            clock=clock,
            settings=USE_CASES,
            door=door,
            catalog_moved=catalog.moved,
        )
        self.parts = AdminParts(
            store=store,
            catalogs=catalog,
            backends=Inspector(self.registry),
            levels=LogLevels(),
            clock=clock,
            door=door,
            token_key=KEYS.page_key,
            keys=KEYS,
            scratch=folder,
            version="year",
            started_at=clock.now(),
            running=self.engine.running_by_provider,
            orders=self.use_cases,
            book=self.use_cases.book,
            use_case_settings=USE_CASES,
            pace=RECONCILE.pace,
        )
        self.admin = Administration(self.parts)
        self.upkeep = TaskGroup("upkeep")
        self.loops = TaskGroup("reconcile")
        self._parts = LoopParts(store, self.use_cases, self.parts, self.registry, catalog, clock, RECONCILE)

    async def start(self, first: Judged, rounds: Counter[str], without: frozenset[str]) -> None:
        """Begin to work, in the order of a real start, with the catalog file `first`; rounds of loops are counted."""
        self.upkeep.start("retention", keep_retention(self.store, RETENTION, RETAIN_EVERY))
        await self._catalog.begin(first)
        await self.engine.start()
        chosen = [Counted(loop, rounds) for loop in loops(self._parts) if loop.name not in without]
        start_loops(self.loops, chosen)

    async def die(self, outlive: Collection[asyncio.Task[None]]) -> None:
        """Stop at once, and everything that runs but for `outlive`: the store first, so that nothing more is written."""
        drop(self.store)
        tasks = [task for task in asyncio.all_tasks() if task is not asyncio.current_task() and task not in outlive]
        for task in tasks:
            task.cancel()
        if tasks:
            await asyncio.wait(tasks)


class House:
    """The broker's host: starts it, kills it, starts it again, and lets time pass meanwhile."""

    def __init__(self, folder: Path, seed: int, spoil: Spoil = SOUND) -> None:
        loop = asyncio.get_running_loop()
        self.chance = random.Random(seed)
        self.clock = LoopClock(loop)
        self.backend = Backend(LoopClock(loop, skew=self.chance.choice((0.0, 90.0, -90.0))), random.Random(seed + 1))
        self.backend.keeps_ends = spoil.keeps_ends
        self.backend.reads_markers = spoil.reads_markers
        self.rounds: Counter[str] = Counter()
        self.crashes = 0
        self.on_commit: Callable[[Commit], None] = lambda _commit: None
        self.on_die: Callable[[], None] = lambda: None
        self.on_start: Callable[[Process], Coroutine[Any, Any, None]] = _nothing
        self.process: Process
        self._folder = folder
        self._first = catalogs.read(spoil.catalog.encode())
        self._spoil = spoil
        self._cut = asyncio.Event()

    @property
    def now(self) -> float:
        """The loop's seconds."""
        return self.clock.monotonic()

    async def start(self) -> None:
        """Start a process on the store that is there."""
        self._cut.clear()
        store = await open_inline(self._folder / STORE, self.clock)
        store.subscribe(self.on_commit)
        self.process = Process(store, self._folder, self.backend, self.clock)
        await self.on_start(self.process)
        await self.process.start(self._first, self.rounds, self._spoil.loops)

    async def stop(self) -> None:
        """The end of the story: nothing is left running."""
        await self.process.die(self.backend.late)
        late = list(self.backend.late)
        for task in late:
            task.cancel()
        if late:
            await asyncio.wait(late)

    async def crash(self, down: float) -> None:
        """Kill the broker; start it again after `down` seconds."""
        self.crashes += 1
        self.on_die()
        await self.process.die(self.backend.late)
        await pass_time(down)
        await self.start()

    def cut_at_commit(self, count: int) -> None:
        """Kill it right behind one of the next commits, before anybody hears of it."""
        writer = writer_of(self.process.store)
        writer.cut_at = writer.commits + count
        writer.on_cut = self._cut.set

    def spare(self) -> None:
        """Take a cut that has not come yet back."""
        writer_of(self.process.store).cut_at = 0

    async def live(self, seconds: float) -> None:
        """Let time pass; a cut that comes meanwhile is a crash."""
        end = self.now + seconds
        while (left := end - self.now) > 0:
            try:
                async with asyncio.timeout(left):
                    await self._cut.wait()
            except TimeoutError:
                return
            await self.crash(self.chance.uniform(1.0, 300.0))

    async def ask(self, call: Coroutine[Any, Any, Answer]) -> Answer | None:
        """The answer of a call to the broker; None when the broker died before it. Raises what the call raises."""
        asking = asyncio.ensure_future(call)
        cut = asyncio.ensure_future(self._cut.wait())
        await asyncio.wait({asking, cut}, return_when=asyncio.FIRST_COMPLETED)
        cut.cancel()
        if not self._cut.is_set():
            return asking.result()
        asking.cancel()
        await asyncio.wait({asking})
        await self.crash(self.chance.uniform(1.0, 300.0))
        return None if asking.cancelled() or asking.exception() is not None else asking.result()


async def _nothing(_process: Process) -> None:
    return None
