"""A whole broker in this process: real store, lifecycle, engine and face, over a scripted provider."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from pathlib import Path

from msgspec.structs import replace

from purveyor_server.app.catalogs import CatalogJudge
from purveyor_server.app.levels import LogLevels
from purveyor_server.domain.catalog import Catalog, Plan, PlanSchemas, Service
from purveyor_server.domain.catalogchanges import Contents
from purveyor_server.domain.model import ProviderRef
from purveyor_server.engine.engine import Engine
from purveyor_server.kit.clock import SystemClock
from purveyor_server.lifecycle.admin.administration import Administration
from purveyor_server.lifecycle.admin.contract import AdminParts
from purveyor_server.lifecycle.catalogs import LiveCatalog
from purveyor_server.lifecycle.catalogtext import Judged
from purveyor_server.lifecycle.door import Door
from purveyor_server.lifecycle.lifecycle import Lifecycle
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.providers.contract import ProviderFactory
from purveyor_server.providers.facade import FacadeSettings
from purveyor_server.providers.inspection import Inspector
from purveyor_server.providers.registry import ProviderRegistry
from purveyor_server.rpc import RpcServer, RpcSettings, admin_service, broker_service
from purveyor_server.rpc.convert.event import encode_event
from purveyor_server.security.identity.authenticator import Authenticator
from purveyor_server.security.identity.static import StaticTokens
from purveyor_server.security.keyfile import KeyFile
from purveyor_server.security.keyring import unlock
from purveyor_server.store.contract import Store
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.store.sqlite.store import open_store
from purveyor_server.watch.events import EventLog
from purveyor_server.watch.operations import OperationHub
from purveyor_server.watch.settings import WatchSettings
from tests.engine.bench import SETTINGS
from tests.fakes.provider import ScriptedProvider, World

GRACE_SECONDS = 5.0
NO_FACTORIES: Mapping[str, ProviderFactory] = {}
SCHEMA = {"type": "object", "properties": {"size": {"type": "integer", "minimum": 1}}, "additionalProperties": False}
SMALL = Plan(
    id="small",
    name="small",
    description="A small one.",
    provider=ProviderRef("main", "scripted"),
    schemas=PlanSchemas(SCHEMA, SCHEMA, None),
)
BIG = replace(SMALL, id="big", name="big", description="A big one.", plan_updateable=True)
SERVICE = Service(id="svc", name="service", description="Things.", plans=(SMALL, BIG))


def judge(text: bytes, *, ask_providers: bool = True) -> Judged:
    """A text by the rules of the file; providers are not asked."""
    return CatalogJudge({}, {})(text, ask_providers=False)


class Whole:
    """The parts of a running broker; `world` is its backend."""

    def __init__(
        self,
        world: World,
        server: RpcServer,
        engine: Engine,
        admin_parts: AdminParts,
        use_cases: Lifecycle,
        log: EventLog,
        provider: ScriptedProvider,
    ) -> None:
        self.world = world
        self.server = server
        self.engine = engine
        self.use_cases = use_cases
        self.log = log
        self.admin_parts = admin_parts
        self.provider = provider
        self.store: Store = admin_parts.store

    @property
    def address(self) -> str:
        """Where it listens."""
        return self.server.addresses[0]


@asynccontextmanager
async def whole_broker(
    folder: Path,
    settings: RpcSettings | None = None,
    *,
    work: bool = True,
    watch: WatchSettings | None = None,
    service: Service | None = None,
    scripted: type[ScriptedProvider] = ScriptedProvider,
    local: bool = True,
    factories: Mapping[str, ProviderFactory] = NO_FACTORIES,
    world: World | None = None,
    bounds: LifecycleSettings | None = None,
) -> AsyncIterator[Whole]:
    """Run a broker on `folder/s`. With `work` false nothing is ever done: operations stay PENDING. Without `local` who shows
    nothing is refused. `factories` make providers of further kinds. `world` is that of a broker before."""
    clock, hub = SystemClock(), OperationHub()
    world = world or World()
    provider = scripted(world)
    store = await open_store(folder / "store.db", clock=clock, settings=SqliteSettings())
    keys = await unlock(store, KeyFile(folder / "keys"))
    offered = (service or SERVICE,)
    catalog = LiveCatalog(store, judge, clock)
    version = await store.apply_catalog("c1", "services: []", list(Catalog(offered).snapshots.values()))
    catalog.serve(Contents(offered, {"main": SMALL.provider}), version)
    store.subscribe(hub.on_commit)
    log = EventLog(store, encode_event, watch)
    store.subscribe(log.on_commit)
    registry = ProviderRegistry(
        {"scripted": lambda _config, _environment: provider, **factories},
        folder,
        store.store_id,
        clock,
        settings=FacadeSettings(call=5.0, settle=2.0, grace=0.5),
    )
    engine = Engine(store, registry, keys.sealer, keys.digest_key, clock, SETTINGS, hub.progress)
    registry.on_close = engine.circuit_closed
    use_cases = Lifecycle(
        store,
        catalog,
        registry,
        hub,
        keys.sealer,
        log=log,
        digest_key=keys.digest_key,
        token_key=keys.page_key,
        clock=clock,
        settings=bounds or LifecycleSettings(),
        catalog_moved=catalog.moved,
    )
    identity = Authenticator(clock, tokens=StaticTokens(store), local=local)
    parts = AdminParts(
        store=store,
        catalogs=catalog,
        backends=Inspector(registry),
        levels=LogLevels(),
        clock=clock,
        door=Door(),
        token_key=keys.page_key,
        keys=keys,
        scratch=folder,
        version="test",
        started_at=clock.now(),
        running=engine.running_by_provider,
        book=use_cases.book,
        use_case_settings=bounds or LifecycleSettings(),
        orders=use_cases,
        tokens_changed=identity.forget,
    )
    services = [broker_service(use_cases), admin_service(Administration(parts))]
    server = RpcServer(services, store.ping, [f"unix:{folder / 's'}"], settings, clock, identity)
    try:
        await server.start()
        if work:
            await engine.start()
        yield Whole(world, server, engine, parts, use_cases, log, provider)
        use_cases.drain()
        await server.drain(GRACE_SECONDS)
    finally:
        if work:
            await engine.stop()
        await registry.close()
        await store.close()
