"""A lane: one PostgreSQL server, one broker on it, and the listing that everything is compared with.

Guarantee: `close` stops broker and server and removes the folder, whatever state they are in. A lane runs one scenario at a
time, so whatever appears in its listing belongs to that scenario.
"""

from __future__ import annotations

import asyncio
import shutil
import time
from collections.abc import Awaitable, Coroutine
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil

from purveyor import Client
from purveyor.admin import AdminClient
from purveyor_server.domain.names import outside_name
from purveyor_server.providers.postgresql.cluster import ADMIN, SUPERUSER, Folders, load_state
from purveyor_server.providers.postgresql.embedded import EmbeddedServer
from purveyor_server.providers.postgresql.host import CLUSTER
from purveyor_server.providers.postgresql.pieces import DATABASE, GROUP, LOGIN, SCHEMA
from tests.recovery.broker import Broker, BrokerError
from tests.recovery.listings import Backend, Listing, Target, differences, files, processes

ACT_SECONDS = 60.0
LATE_SECONDS = 2.0  # a point may lie after what the client waits for
QUIET_SECONDS = 15.0  # at most so long until no session of a dead broker is left
SERVICE, PLAN, SCHEMA_PLAN, DEDICATED_PLAN, DELAYED_PLAN = "postgresql", "shared", "schema", "dedicated", "delayed"
SERVICE_ID, PROVIDER = "0b1f3c52-7f0e-4d3a-9a57-3f6f4c1d2e99", "main"
PLAN_ID, LARGE_PLAN_ID = "5d1f7c1e-3f2b-4c55-8f0f-6a0b9f4f7a99", "5d1f7c1e-3f2b-4c55-8f0f-6a0b9f4f7a96"
PORTS, PORTS_OF_LANE = 17_000, 50  # of dedicated servers
# Folders that a broker makes when it first looks for dedicated servers, and keeps.
OF_EVERY_BROKER = frozenset(f"file {name}" for name in ("providers", "providers/main", "providers/main/dedicated"))
COMMON_DATABASE = "purveyor_schemas"
NO_SUCH_EXTENSION = "no_such_extension"  # the plan offers it, the server does not have it: a failure for good
CATALOG = """\
providers:
  main:
    kind: postgresql
    config:
      server:
        {{host: 127.0.0.1, port: {port}, user: {user}, password: {{file: {password}}}, sslmode: disable}}
      dedicated: {{folder: {places}, port_low: {port_low}, port_high: {port_high}}}
      limits: {{lock_timeout_seconds: 30}}
services:
  - id: {service}
    name: postgresql
    description: Databases that are killed for.
    bindable: true
    plan_updateable: true
    plans:
      - id: {plan}
        name: shared
        description: One database.
        provider: main
        binding_rotatable: true
        settings: &shared
          {{kind: shared, connection_limit: 5, max_connection_limit: 20, extensions: [citext, pgcrypto, {extension}]}}
        schemas: &schemas
          service_instance:
            create: &any
              parameters: {{$schema: "https://json-schema.org/draft/2020-12/schema", type: object}}
            update: *any
          service_binding:
            create: *any
      - id: {large_plan}
        name: large
        description: One larger database.
        provider: main
        settings: {{kind: shared, connection_limit: 9, max_connection_limit: 20, extensions: [citext]}}
        schemas: *schemas
      - id: 5d1f7c1e-3f2b-4c55-8f0f-6a0b9f4f7a95
        name: delayed
        description: What fails stays for a while.
        provider: main
        settings: *shared
        schemas: *schemas
        cleanup: {{mode: delayed, delay: 300ms}}
      - id: 5d1f7c1e-3f2b-4c55-8f0f-6a0b9f4f7a98
        name: schema
        description: One schema.
        provider: main
        settings: {{kind: schema}}
        schemas: *schemas
      - id: 5d1f7c1e-3f2b-4c55-8f0f-6a0b9f4f7a97
        name: dedicated
        description: A server.
        provider: main
        settings:
          {{kind: dedicated, connection_limit: 5, max_connection_limit: 20, extensions: [citext, {extension}],
            shared_buffers_mb: 8, final_backup: {{folder: {backups}}}}}
        schemas: *schemas
"""
CONFIGURATION = """\
data_dir = "{data}"
catalog = "{catalog}"
[listen]
addresses = ["unix:{socket}"]
[log]
format = "console"
[engine]
retry_first = "100ms"
cleanup_retry_first = "1s"
[reconcile]
expiry = "200ms"
campaigns = "200ms"
"""


class Lane:
    """`number` names it."""

    def __init__(self, base: Path, number: int) -> None:
        self.number = number
        self.folder = base / f"lane-{number}"
        self.data = self.folder / "data"
        self.places = self.folder / "places"  # of dedicated servers
        self.backups = self.folder / "backups"
        self.broker = Broker(self.folder)
        self.empty: Listing = frozenset()  # before anything was asked for
        self.baseline: Listing = frozenset()  # before a run
        self._keep = self.folder / "postgresql"
        self._server = EmbeddedServer(self._keep, cluster_dir=str(self.folder / "cluster"))
        self._backend: Backend | None = None
        self._clients: dict[str, Client] = {}
        self._started_at = 0.0

    @property
    def backend(self) -> Backend:
        """The reader of the server."""
        assert self._backend is not None
        return self._backend

    async def open(self) -> None:
        """Start the server and write the broker's configuration."""
        self.folder.mkdir(mode=0o711)
        for folder, mode in ((self.folder / "run", 0o700), (self.places, 0o711), (self.backups, 0o700)):
            folder.mkdir(mode=mode)
        running = await asyncio.to_thread(self._server.start)
        folders = Folders(self._keep, self.folder / "cluster")
        password = folders.password(SUPERUSER).read_text(encoding="utf-8").strip()
        self._backend = Backend(Target(running.port, password), ADMIN)
        self.write_configuration(running.port)

    async def begin(self) -> None:
        """Start the broker for the first time and note what there is without anything asked for."""
        await self.start_broker()
        self.empty = self.baseline = await self.listing()

    @property
    def server_port(self) -> int:
        """Where the server listens."""
        state = load_state(self._keep)
        assert state is not None
        return state.port

    def write_configuration(self, port: int) -> None:
        """What the broker reads at its start; `port` is where it finds the PostgreSQL server."""
        catalog = self.folder / "catalog.yaml"
        folders = Folders(self._keep, self.folder / "cluster")
        text = CATALOG.format(
            port=port, user=ADMIN, password=folders.password(ADMIN), extension=NO_SUCH_EXTENSION, places=self.places,
            backups=self.backups, service=SERVICE_ID, plan=PLAN_ID, large_plan=LARGE_PLAN_ID, port_low=PORTS + self.number * PORTS_OF_LANE,
            port_high=PORTS + (self.number + 1) * PORTS_OF_LANE - 1,
        )  # fmt: skip
        catalog.write_text(text, encoding="utf-8")
        values = {"data": self.data, "catalog": catalog, "socket": self.broker.socket}
        self.broker.config.write_text(CONFIGURATION.format(**values), encoding="utf-8")

    async def start_broker(self, plan: str = "", trace: Path | None = None) -> None:
        """Start or start again; clients of the dead one are dropped."""
        await self.drop_clients()
        self._started_at = time.time()
        await self.broker.start(plan, trace)

    async def dies_during(self, act: Coroutine[Any, Any, None]) -> bool:
        """Do `act` while the broker may be killed. True when it died; else `act` was finished, or its failure is raised."""
        task, death = asyncio.ensure_future(act), asyncio.ensure_future(self.broker.died())
        try:
            await asyncio.wait({task, death}, timeout=ACT_SECONDS, return_when=asyncio.FIRST_COMPLETED)
            if not death.done():
                await asyncio.wait({death}, timeout=LATE_SECONDS)
            if death.done() and self.broker.was_killed:
                return True
            if death.done():
                await asyncio.wait({task}, timeout=ACT_SECONDS)  # the act itself stopped it
            if not task.done():
                raise TimeoutError(f"nothing came to its end, and the broker lives: {self.broker.tail()}")
            task.result()
            return False
        finally:
            task.cancel()
            death.cancel()
            await asyncio.gather(task, death, return_exceptions=True)

    async def dies_starting(self, plan: str) -> bool:
        """Start with `plan` armed; True when it was killed before it listened."""
        try:
            await self.start_broker(plan)
        except BrokerError:
            if self.broker.was_killed:
                return True
            raise
        return False

    def client(self, tenant: str) -> Client:
        """A client of the running broker."""
        if tenant not in self._clients:
            client = Client(self.broker.address, tenant=tenant, timeout=20.0, retry_for=10.0, outage_limit=30.0)
            self._clients[tenant] = client
        return self._clients[tenant]

    def admin(self) -> AdminClient:
        """An operator's client of the running broker."""
        return AdminClient(f"unix:{self.data}/admin.sock", timeout=20.0, retry_for=10.0)

    async def connected(self, tenant: str) -> Client:
        """The same, opened."""
        client = self.client(tenant)
        if client._connection is None:
            await client.__aenter__()
        return client

    async def drop_clients(self) -> None:
        """Close every client."""
        clients, self._clients = self._clients, {}
        for client in clients.values():
            await client.close()

    async def listing(self) -> Listing:
        """Server, files, processes."""
        allowed = frozenset({self.broker.pid})
        there = await self.backend.listing()
        there |= (files(self.data) - OF_EVERY_BROKER) | self._clusters() | files(self.backups)
        return there | await asyncio.to_thread(processes, self.folder, allowed, self._postmaster())

    async def names(self) -> frozenset[str]:
        """Names of everything that the broker may have made."""
        own = self.data / "providers" / "main" / "dedicated"
        folders = {path.name for path in (*self.places.glob("pv_*"), *own.glob("pv_*[0-9a-f]"))}
        return await self.backend.names() | {f"cluster {name}" for name in folders if not name.endswith(".lock")}

    def _clusters(self) -> Listing:
        """The servers' side of dedicated servers, without what changes while they run."""
        paths = (*self.places.glob("pv_*"), *self.places.glob("pv_*/*"))
        return frozenset(f"place {path.relative_to(self.places)}" for path in paths)

    def _postmaster(self) -> int:
        return int((self.folder / "cluster" / "data" / "postmaster.pid").read_text(encoding="utf-8").split("\n")[0])

    async def changes(self, since: Listing) -> list[str]:
        """What is different from `since`, sessions of dead brokers included, once those had time to end."""
        left = await self.backend.become_quiet(self._started_at, QUIET_SECONDS)
        return differences(since, await self.listing()) + [f"+ {line}" for line in sorted(left)]

    async def recorded(self, tenant: str) -> frozenset[str]:
        """Names in the server that the records of `tenant` account for."""
        client = await self.connected(tenant)
        names: set[str] = set()
        dedicated: set[str] = set()
        async for instance in client.instances():
            if instance.state not in {"FAILED", "DELETED"} or instance.cleanup_required:
                if instance.plan_name == DEDICATED_PLAN:
                    names.add(f"cluster {outside_name(CLUSTER, instance.uid)}")
                    continue
                kind = SCHEMA if instance.plan_name == SCHEMA_PLAN else DATABASE
                names.add(f"{'schema' if kind is SCHEMA else 'database'} {outside_name(kind, instance.uid)}")
                names.add(f"role {outside_name(GROUP, instance.uid)}")
        async for binding in client.bindings():
            if outside_name(CLUSTER, binding.instance_uid) in dedicated:
                continue  # its role is in a server of its own
            if binding.state not in {"FAILED", "DELETED"} or binding.cleanup_required:
                names.add(f"role {outside_name(LOGIN, binding.uid)}")
        return frozenset(names)

    async def close(self) -> None:
        """Stop and remove everything; the first failure of several is raised at the end."""
        backend, self._backend = self._backend, None
        steps: list[Awaitable[Any]] = [self.drop_clients(), self.broker.close()]
        if backend is not None:
            steps.append(backend.close())
        failures = []
        for step in (*steps, asyncio.to_thread(self._stop_server)):
            try:
                await step
            except Exception as error:  # noqa: BLE001 - the rest must be stopped all the same
                failures.append(error)
        shutil.rmtree(self.folder, ignore_errors=True)
        if failures:
            raise failures[0]

    def _stop_server(self) -> None:
        for process in psutil.process_iter(["cmdline"]):
            if any(str(self.places) in word for word in process.info["cmdline"] or []):
                with suppress(psutil.NoSuchProcess):
                    process.kill()  # a dedicated server that a run has left behind
        if self._keep.exists():
            self._server.stop("immediate")
