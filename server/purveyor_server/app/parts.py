"""The composition root: which part gets what, in which order parts start, and in the reverse order stop.

Guarantee: callers are served only when everything below answers; what fails to start closes all that was started before
it; at the stop the store is closed last, after every handler, running step and provider has let go of it.
Limit: an unreachable backend does not stop the start: its operations are parked and the log names it.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AsyncExitStack
from datetime import timedelta
from importlib.metadata import version
from pathlib import Path

import msgspec
import structlog

from purveyor_server.app.bounds import lifecycle_settings, rpc_settings
from purveyor_server.app.catalogs import CatalogFileWatch, CatalogJudge, first_catalog, name_of
from purveyor_server.app.folders import ADMIN_ENDPOINT, note_endpoint, prepare_data_dir, scratch_dir
from purveyor_server.app.identity import Identity, check_identity, warn_of_loopback
from purveyor_server.app.keys import key_source
from purveyor_server.app.levels import LogLevels
from purveyor_server.app.listening import check_tls, listens
from purveyor_server.app.reconciling import LoopParts, loops, start_loops
from purveyor_server.app.refusals import Exit, StartRefusedError
from purveyor_server.app.upkeep import ProviderWatch, check_counters, keep_retention, tell_anchor
from purveyor_server.config.problems import ConfigError
from purveyor_server.config.settings import Settings
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.engine.engine import Engine
from purveyor_server.kit.clock import Clock, SystemClock
from purveyor_server.kit.lateness import Lateness
from purveyor_server.kit.tasks import TaskGroup
from purveyor_server.kit.watchdog import Watchdog
from purveyor_server.lifecycle.admin.administration import Administration
from purveyor_server.lifecycle.admin.contract import AdminParts
from purveyor_server.lifecycle.catalogs import LiveCatalog
from purveyor_server.lifecycle.denials import Denials
from purveyor_server.lifecycle.door import Door
from purveyor_server.lifecycle.lifecycle import Lifecycle
from purveyor_server.providers.contract import ProviderFactory
from purveyor_server.providers.inspection import Inspector
from purveyor_server.providers.registry import InstalledFactories, ProviderRegistry
from purveyor_server.rpc import ListenError, RpcServer, admin_service, broker_service
from purveyor_server.rpc.convert.event import encode_event
from purveyor_server.security.keyring import Keyring, unlock
from purveyor_server.security.keytext import KeyFileError
from purveyor_server.store.contract import Store
from purveyor_server.store.sqlite.errors import StoreOpenError
from purveyor_server.store.sqlite.store import open_store
from purveyor_server.watch.events import EventLog
from purveyor_server.watch.operations import OperationHub

_log = structlog.get_logger(__name__)
ADMIN_DRAIN = timedelta(seconds=2)
STOP_MARGIN = timedelta(seconds=15)  # on top of a part's own grace, before the next part is stopped all the same


class Broker:
    """One running broker; `start`, then `stop` once."""

    def __init__(
        self,
        settings: Settings,
        clock: Clock | None = None,
        factories: Mapping[str, ProviderFactory] | None = None,
        ask_to_stop: Callable[[], None] = lambda: None,
    ) -> None:
        self.settings = settings
        self._ask_to_stop = ask_to_stop
        self.addresses: tuple[str, ...] = ()
        self.admin_addresses: tuple[str, ...] = ()
        self.http_address = ""
        self._serving: Callable[[], bool] = lambda: False
        self._clock = clock or SystemClock()
        self._factories = InstalledFactories() if factories is None else factories
        self._stack = AsyncExitStack()
        self._on_blocked: Callable[[], None] = lambda: None
        self._servers: list[RpcServer] = []
        self._denials: Denials
        self._file_watch: CatalogFileWatch | None = None

    @property
    def serving(self) -> bool:
        """Whether callers are served: after the start, before the stop, while the store answers."""
        return self._serving()

    def _stop_serving(self) -> None:
        self._serving = lambda: False

    async def start(self) -> None:
        """Start every part; raises StartRefusedError after closing what was started."""
        watchdog = Watchdog()
        watchdog.on_blocked = lambda: self._on_blocked()  # noqa: PLW0108 - looked up late: metrics come later
        watchdog.start()
        self._stack.callback(watchdog.stop)
        self._lateness = Lateness()
        self._lateness.start()
        self._stack.callback(self._lateness.stop)
        try:
            await self._start()
        except BaseException as failure:
            await self._stack.aclose()
            refusal = _refusal(failure)
            if refusal is not None:
                raise refusal from failure
            raise

    async def stop(self) -> None:
        """Stop every part, the last started first. A part that fails to stop is logged and the next one is stopped."""
        await self._stack.aclose()
        _log.info("stopped")

    async def _start(self) -> None:
        settings = self.settings
        check_tls(settings, self._clock.now())
        check_identity(settings)
        of_file = CatalogJudge(self._factories, os.environ, name_of(settings.catalog))
        file = first_catalog(of_file, settings.catalog)
        prepare_data_dir(settings.data_dir)
        store = await self._open_store()
        keys = await unlock(store, key_source(settings))
        warn_of_loopback(settings)
        identity = self._start_identity(store)
        if keys.older:
            _log.warning("older keys are in use: rotate", primary=keys.sealer.primary, older=keys.older)
        judge = CatalogJudge(self._factories, os.environ)  # of texts that come by a call, which have no file
        catalog = LiveCatalog(store, judge, self._clock, settings.tenant_labels, of_file)
        await catalog.begin(file)
        registry = self._open_registry(store, settings.data_dir / "providers")
        hub = OperationHub()
        self._stack.callback(store.subscribe(hub.on_commit))
        log = EventLog(store, encode_event, self.settings.watch.values())
        self._stack.callback(store.subscribe(log.on_commit))
        inspector = Inspector(registry)
        self._start_upkeep(store, registry, catalog, inspector, log)
        engine = await self._start_engine(store, registry, keys, hub)
        door = Door(lambda: self._lateness.seconds, self.settings.limits.max_late.total_seconds())
        self._start_denials(store)
        use_cases = self._use_cases(store, catalog, registry, keys, hub, log, door)
        admin = self._admin_parts(store, catalog, inspector, keys, engine, door, identity, use_cases)
        self._start_loops(LoopParts(store, use_cases, admin, registry, catalog, self._clock, settings.reconcile))
        await self._serve_operators(admin, hub, log, engine, identity)
        await self._serve(use_cases, store, identity)

    async def _open_store(self) -> Store:
        settings = self.settings.store.values()
        store = await open_store(self.settings.database, clock=self._clock, settings=settings)
        self._on_stop("store", store.close, settings.close_timeout)
        _log.info("store opened", store_id=store.store_id, epoch=store.epoch, head=store.head)
        return store

    def _start_identity(self, store: Store) -> Identity:
        identity, tasks = Identity(self.settings.identity, store, self._clock), TaskGroup("identity")
        self._on_stop("identity", identity.close, timedelta(seconds=5))
        self._on_stop("identity tasks", tasks.close, timedelta(seconds=10))
        identity.start(tasks)
        return identity

    def _open_registry(self, store: Store, folder: Path) -> ProviderRegistry:
        registry = ProviderRegistry(
            self._factories, folder, store.store_id, self._clock, settings=self.settings.providers.values()
        )
        self._on_stop("providers", registry.close, timedelta(seconds=30))
        return registry

    def reload(self) -> None:
        """Look at the catalog file now, and judge once more what was refused (SIGHUP)."""
        if self._file_watch is not None:
            self._file_watch.ask()

    def _start_upkeep(
        self, store: Store, registry: ProviderRegistry, catalog: LiveCatalog, inspector: Inspector, log: EventLog
    ) -> None:
        tasks = TaskGroup("upkeep")
        self._on_stop("upkeep", tasks.close, timedelta(seconds=10))
        retention = self.settings.retention
        tasks.start("retention", keep_retention(store, retention.values(), retention.interval))
        tasks.start("counters", check_counters(store))
        tasks.start("event log", log.keep_up())
        tasks.start("audit anchor", tell_anchor(store, retention.interval))
        checks = ProviderWatch(registry, inspector, tasks)
        catalog.on_change = lambda contents: checks.follow(contents.providers)
        checks.follow(catalog.contents.providers)
        if self.settings.catalog is not None:
            self._file_watch = watch = CatalogFileWatch(self.settings.catalog, catalog)
            tasks.start("catalog file", watch.run())

    def _start_denials(self, store: Store) -> None:
        """Counted from the first call to the last: started before any face, stopped after all of them."""
        self._denials = denials = Denials(store, self._clock)
        self._on_stop("refused calls", denials.try_flush, timedelta(seconds=10))
        tasks = TaskGroup("denials")
        self._on_stop("denials", tasks.close, timedelta(seconds=10))
        tasks.start("flush", denials.run())

    async def _start_engine(self, store: Store, registry: ProviderRegistry, keys: Keyring, hub: OperationHub) -> Engine:
        settings = self.settings.engine.values()
        engine = Engine(store, registry, keys.sealer, keys.digest_key, self._clock, settings, hub.progress)
        registry.on_close = engine.circuit_closed
        await engine.start()
        self._on_stop("engine", engine.stop, timedelta(seconds=settings.stop_grace))
        return engine

    def _admin_parts(
        self,
        store: Store,
        catalog: LiveCatalog,
        inspector: Inspector,
        keys: Keyring,
        engine: Engine,
        door: Door,
        identity: Identity,
        use_cases: Lifecycle,
    ) -> AdminParts:
        return AdminParts(
            store=store,
            catalogs=catalog,
            backends=inspector,
            levels=LogLevels(),
            clock=self._clock,
            door=door,
            token_key=keys.page_key,
            keys=keys,
            scratch=scratch_dir(self.settings.data_dir),
            version=version("purveyor"),
            started_at=self._clock.now(),
            running=engine.running_by_provider,
            book=use_cases.book,
            use_case_settings=lifecycle_settings(self.settings),
            orders=use_cases,
            tokens_changed=identity.judge.forget,
            quotas=self.settings.tenant_quotas,
            pace=self.settings.reconcile.pace,
            stop=self._ask_to_stop,
        )

    async def _serve_operators(
        self, parts: AdminParts, hub: OperationHub, log: EventLog, engine: Engine, identity: Identity
    ) -> None:
        """AdminService and metrics: up before callers are served, down after the last of them is gone."""
        settings = self.settings
        listen = listens(settings.admin)
        if listen:
            served = [admin_service(Administration(parts))]
            # Whoever comes to help a broker that is called too often is not to be refused for calling too often.
            unhurried = msgspec.structs.replace(rpc_settings(settings), reads_per_second=0.0, writes_per_second=0.0)
            refused = self._denials.denied
            server = RpcServer(served, parts.store.ping, listen, unhurried, self._clock, identity.judge, refused)
            self._servers.append(server)
            self.admin_addresses = await server.start()
            self._on_stop("admin", lambda: server.drain(ADMIN_DRAIN.total_seconds()), ADMIN_DRAIN)
            endpoint = note_endpoint(settings.data_dir, self.admin_addresses, ADMIN_ENDPOINT)
            self._stack.callback(endpoint.unlink, missing_ok=True)
        if settings.admin.http is not None:
            await self._serve_metrics(settings.admin.http.text, parts, hub, log, engine, identity)

    async def _serve_metrics(
        self, listen: str, parts: AdminParts, hub: OperationHub, log: EventLog, engine: Engine, identity: Identity
    ) -> None:
        # Only here: a broker without metrics need not load an HTTP server and Prometheus at its start.
        from purveyor_server.app.tls_facts import tls_facts  # noqa: PLC0415 - see above
        from purveyor_server.monitor.http import MonitorServer  # noqa: PLC0415 - see above
        from purveyor_server.monitor.metrics import Metrics, Sizes, sample_loop_lag  # noqa: PLC0415 - see above

        metrics = Metrics(
            Sizes(
                hub.__len__,
                engine.running_by_provider,
                log,
                lambda: tls_facts(self._servers),
                identity.facts,
                lambda: self._denials.refused,
            )
        )
        self._stack.callback(parts.store.subscribe(metrics.on_commit))
        hub.observe_lag = metrics.watch_lag.observe
        log.observe_lag = metrics.event_lag.observe
        self._on_blocked = metrics.loop_blocked.inc
        tasks = TaskGroup("monitor")
        self._on_stop("monitor", tasks.close, timedelta(seconds=10))
        tasks.start("loop lag", sample_loop_lag(metrics.loop_lag.observe))
        server = MonitorServer(listen, lambda: metrics.text(parts), lambda: self.serving)
        self.http_address = await server.start()
        self._on_stop("metrics", server.stop, timedelta(seconds=10))

    def _use_cases(
        self,
        store: Store,
        catalog: LiveCatalog,
        registry: ProviderRegistry,
        keys: Keyring,
        hub: OperationHub,
        log: EventLog,
        door: Door,
    ) -> Lifecycle:
        return Lifecycle(
            store,
            catalog,
            registry,
            hub,
            keys.sealer,
            log=log,
            digest_key=keys.digest_key,
            token_key=keys.page_key,
            clock=self._clock,
            settings=lifecycle_settings(self.settings),
            door=door,
            catalog_moved=catalog.moved,
        )

    def _start_loops(self, parts: LoopParts) -> None:
        """After the engine, before the faces: what expired while the broker was away is the first thing that it does."""
        tasks = TaskGroup("reconcile")
        self._on_stop("reconcile", tasks.close, timedelta(seconds=10))
        if parts.settings.enabled:
            start_loops(tasks, loops(parts))

    async def _serve(self, use_cases: Lifecycle, store: Store, identity: Identity) -> None:
        settings = self.settings
        listen = listens(settings.listen)
        server = RpcServer(
            [broker_service(use_cases)],
            store.ping,
            listen,
            rpc_settings(settings),
            self._clock,
            identity.judge,
            self._denials.denied,
        )
        self._servers.append(server)
        self.addresses = await server.start()
        grace = settings.listen.drain
        self._on_stop("rpc", lambda: server.drain(grace.total_seconds()), grace)
        self._stack.callback(use_cases.drain)
        self._serving = lambda: server.health.serving
        self._stack.callback(self._stop_serving)
        endpoint = note_endpoint(settings.data_dir, self.addresses)
        self._stack.callback(endpoint.unlink, missing_ok=True)
        _log.info("started", addresses=self.addresses, endpoint=str(endpoint))

    def _on_stop(self, part: str, stop: Callable[[], Awaitable[None]], grace: timedelta) -> None:
        """Stop `part` when its turn comes, within its grace and a margin; what goes wrong there is logged."""

        async def run() -> None:
            try:
                async with asyncio.timeout((grace + STOP_MARGIN).total_seconds()):
                    await stop()
            except Exception:  # noqa: BLE001 - the parts below must be stopped whatever this one does
                _log.exception("part did not stop cleanly", part=part)

        self._stack.push_async_callback(run)


def _refusal(failure: BaseException) -> StartRefusedError | None:
    """The refusal that a failed start amounts to; None when it is a defect."""
    if isinstance(failure, ConfigError):
        return StartRefusedError(Exit.CONFIG, f"the configuration cannot be used:\n{failure}")
    if isinstance(failure, StoreOpenError):
        return StartRefusedError(Exit.STORE, f"the store cannot be opened: {failure.message}")
    if isinstance(failure, KeyFileError):
        return StartRefusedError(Exit.STORE, f"the store cannot be unlocked: {failure}")
    if isinstance(failure, PurveyorError):
        return StartRefusedError(Exit.STORE, f"the store does not answer: {failure}")
    if isinstance(failure, ListenError):
        return StartRefusedError(Exit.LISTEN, str(failure))
    return failure if isinstance(failure, StartRefusedError) else None
