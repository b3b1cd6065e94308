"""A broker as a user runs it: a process of its own on a unix socket, its configuration and catalog in files, a real server.

`House` calls it through the generated stubs; `Gate` and `holding` hold steps back in the PostgreSQL server itself, so that an
operation is in flight for as long as a test wants. Everything is given back at the end, which a listing of the server shows.
"""

from __future__ import annotations

import asyncio
import hashlib
import signal
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import grpc
from google.protobuf import duration_pb2, json_format, struct_pb2
from google.protobuf.message import Message

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from purveyor.v1.binding_pb2 import Binding
from purveyor.v1.instance_pb2 import Instance
from purveyor.v1.operation_pb2 import Operation
from purveyor_server.domain.names import outside_name
from tests.postgres_server import TestServer
from tests.rpc.failures import Failure, failure_of, read_failure
from tests.unit.app_process import Process, Site

TENANT = "acme"
SECONDS = 30.0  # of one call, or of waiting for one thing
LEFT = ("roles", "databases", "memberships", "comments", "settings")  # what must be as before at the end
SETTINGS = """\
[engine]
per_tenant = 64
per_provider = 64
running = 96
cleanup_retry_first = "250ms"
cleanup_retry_ceiling = "1s"
[listen]
drain = "1s"
"""
CATALOG = """\
providers:
  main:
    kind: postgresql
    config:
      server: {{host: 127.0.0.1, port: {port}, user: {user}, sslmode: disable, password: {{file: {password}}}}}
      limits: {{connections: 48, lock_timeout_seconds: 60}}
services:
  - id: s1
    name: database
    description: A database.
    bindable: true
    plan_updateable: true
    plans:
      - id: small
        name: small
        description: Small.
        provider: main
        settings: &settings {{kind: shared, connection_limit: 5, extensions: [citext, not_there]}}
        binding_rotatable: true
        maintenance_info: {{version: 1.2.0}}
        schemas: &schemas
          service_instance:
            create: &parameters
              parameters:
                type: object
                properties:
                  connection_limit: {{type: integer, minimum: 1, maximum: 20}}
                  extensions: {{type: array, maxItems: 2, items: {{type: string}}}}
                  token: {{type: string, pattern: '^[a-z]{{4}}$'}}
                additionalProperties: false
            update: *parameters
          service_binding: {{create: *parameters}}
      - {{id: big, name: big, description: Big., provider: main, settings: *settings, schemas: *schemas}}
      # Too little time: what is held back fails; of `unlucky` only on the way back.
      - id: hasty
        name: hasty
        description: Hasty.
        binding_rotatable: true
        provider: main
        settings: *settings
        schemas: *schemas
        limits: {{operation: 3s, rollback: 500ms}}
      - id: unlucky
        name: unlucky
        description: Unlucky.
        binding_rotatable: true
        provider: main
        settings: *settings
        schemas: *schemas
        limits: {{rollback: 500ms}}
      # What fails is left as it is.
      - id: kept
        name: kept
        description: Kept.
        binding_rotatable: true
        provider: main
        settings: *settings
        schemas: *schemas
        limits: {{operation: 3s}}
        cleanup: {{mode: manual}}
      - id: unchecked
        name: unchecked
        description: No schemas.
        provider: main
        settings: *settings
        binding_rotatable: true
      - {{id: unbound, name: unbound, description: Not bindable., provider: main, settings: *settings, bindable: false}}
      - {{id: fixed, name: fixed, description: Stays., provider: main, settings: *settings, plan_updateable: false}}
  - id: s2
    name: other
    description: Another service.
    bindable: true
    plans:
      - {{id: other, name: other, description: Of another service., provider: main, settings: *settings}}
"""


def catalog(port: int, password: Path, user: str = "purveyor_admin") -> str:
    """The catalog file over a server on `port`."""
    return CATALOG.format(port=port, password=password, user=user)


def catalog_of(postgres: TestServer) -> str:
    """The catalog file over the test server."""
    return catalog(postgres.port, postgres.keep / "admin.password")


@contextmanager
def broker(folder: Path, text: str, settings: str = SETTINGS) -> Iterator[Process]:
    """A broker on the socket in `folder`; its SIGTERM must end it with 0 and take its socket away."""
    folder.mkdir(exist_ok=True)
    site = Site(folder, settings, text)
    with Process(site) as process:
        yield process
        assert process.send(signal.SIGTERM) == 0, process.events
        assert process.wait_for("stopped")
    assert not (site.data / "endpoint").exists()
    assert not (site.data / "broker.sock").exists()


@contextmanager
def nothing_left(postgres: TestServer) -> Iterator[None]:
    """The server has the same roles, databases, memberships and comments afterwards as before."""
    before = asyncio.run(postgres.listing())
    yield
    after = asyncio.run(postgres.listing())
    assert [(part, after[part]) for part in LEFT] == [(part, before[part]) for part in LEFT]


class House:
    """A caller of a broker; requests are keyword arguments, a missing tenant is the caller's own."""

    def __init__(self, channel: grpc.aio.Channel, tenant: str = TENANT) -> None:
        self.channel = channel
        self.tenant = tenant
        self.stub: Any = broker_service_pb2_grpc.BrokerServiceStub(channel)

    def ask(self, method: str, **fields: Any) -> Any:
        """The call, started when it is awaited."""
        return getattr(self.stub, method)(request(method, **{"tenant": self.tenant} | fields), timeout=SECONDS)

    async def refused(self, method: str, **fields: Any) -> Failure:
        """The failure of a call that must fail."""
        return await failure_of(self.ask(method, **fields))

    async def answers(self, times: int, method: str, **fields: Any) -> list[Any]:
        """`times` of the same call at once: each one's answer, or its `Failure`."""
        return await gather(*(self.ask(method, **fields) for _ in range(times)))

    async def provision(self, instance_id: str, plan: str = "small", **fields: Any) -> Any:
        """Accept a provision."""
        return await self.ask("Provision", instance_id=instance_id, service_id="s1", plan_id=plan, **fields)

    async def ready(self, instance_id: str, plan: str = "small", **fields: Any) -> Instance:
        """A READY instance."""
        made = await self.provision(instance_id, plan, wait=span(20), **fields)
        assert made.instance.state == Instance.STATE_READY, made
        instance: Instance = made.instance
        return instance

    async def bind(self, instance_id: str, binding_id: str = "app", **fields: Any) -> Any:
        """Accept a bind."""
        return await self.ask("Bind", instance_id=instance_id, binding_id=binding_id, **fields)

    async def active(self, instance_id: str, binding_id: str = "app", **fields: Any) -> Any:
        """An ACTIVE binding's answer, credentials included."""
        made = await self.bind(instance_id, binding_id, wait=span(20), **fields)
        assert made.binding.state == Binding.STATE_ACTIVE, made
        return made

    async def ended(self, operation_id: str) -> Operation:
        """The operation in its terminal state."""
        waited = await self.ask("WaitOperation", operation_id=operation_id, timeout=span(25))
        assert waited.operation.done, waited
        return waited.operation  # type: ignore[no-any-return] # the stub is untyped

    async def follow(self, operation_id: str, fits: Any) -> Operation:
        """The first watched state of an operation that `fits`."""
        watch = self.stub.WatchOperation(
            request("WatchOperation", operation_id=operation_id, heartbeat_interval=span(1), view=2), timeout=SECONDS
        )
        seen: Any = None
        async for message in watch:
            seen = message.operation
            if fits(seen):
                watch.cancel()
                return seen  # type: ignore[no-any-return] # as above
        raise AssertionError(f"never so before the end: {seen}")

    async def records(self, tenant: str = TENANT) -> list[Message]:
        """All that the broker tells of a tenant, tombstones included."""
        found: list[Message] = []
        found += (await self.ask("ListInstances", tenant=tenant, show_deleted=True, page_size=1000)).instances
        found += (await self.ask("ListBindings", tenant=tenant, show_deleted=True, page_size=1000)).bindings
        found += (await self.ask("ListOperations", tenant=tenant, page_size=1000, view=2)).operations
        return found

    async def instances(self, *, deleted: bool = False) -> list[Instance]:
        """All instances of TENANT."""
        return list((await self.ask("ListInstances", show_deleted=deleted, page_size=1000)).instances)

    async def operations(self, text: str = "") -> list[Operation]:
        """All operations of TENANT that fit a filter."""
        return list((await self.ask("ListOperations", filter=text, page_size=1000)).operations)

    async def settle(self) -> None:
        """Every operation has ended, clean-ups included."""
        while unfinished := [op.operation_id for op in await self.operations() if not op.done]:
            for operation_id in unfinished:
                await self.ended(operation_id)

    async def give_back(self) -> None:
        """Deprovision all; every operation ends, and nothing but tombstones is left."""
        await self.settle()
        for instance in await self.instances():
            if instance.deletion_protected:
                await self.ask("UpdateInstance", instance_id=instance.instance_id, deletion_protected=False)
            await self.ask("Deprovision", instance_id=instance.instance_id, cascade=True)
        await self.settle()
        assert await self.instances() == []
        assert (await self.ask("ListBindings")).bindings == []


@asynccontextmanager
async def calling(process: Process, tenant: str = TENANT) -> AsyncIterator[House]:
    """A caller of the broker, with a connection of its own."""
    options = [("grpc.max_send_message_length", -1), ("grpc.enable_retries", 0)]
    async with grpc.aio.insecure_channel(process.site.socket, options=options) as channel:
        yield House(channel, tenant)


def request(method: str, **fields: Any) -> Message:
    """The request message of `method`; dicts become what the field is, a list an update_mask."""
    made: Message = getattr(pb, f"{method}Request")()
    for name, value in ({"tenant": TENANT} | fields).items():
        kind = made.DESCRIPTOR.fields_by_name[name]
        target = getattr(made, name)
        if isinstance(value, list):
            target.paths.extend(value)  # a FieldMask
        elif isinstance(value, dict) and kind.message_type and kind.message_type.GetOptions().map_entry:
            target.update(value)
        elif isinstance(value, dict):
            json_format.ParseDict(value, target)
            target.SetInParent()
        elif isinstance(value, Message):
            target.CopyFrom(value)
            target.SetInParent()
        else:
            setattr(made, name, value)
    return made


async def gather(*calls: Any) -> list[Any]:
    """Calls at once: each one's answer, or its `Failure`."""
    return [_outcome(found) for found in await asyncio.gather(*calls, return_exceptions=True)]


def _outcome(found: Any) -> Any:
    if isinstance(found, grpc.aio.AioRpcError):
        return read_failure(found)
    if isinstance(found, BaseException):
        raise found
    return found


def span(seconds: float) -> duration_pb2.Duration:
    """Seconds as the contract has them."""
    made = duration_pb2.Duration()
    made.FromNanoseconds(round(seconds * 1_000_000_000))
    return made


def struct(**values: Any) -> struct_pb2.Struct:
    """A Struct; unlike JSON it can hold NaN."""
    made = struct_pb2.Struct()
    made.update(values)
    return made


class Gate:
    """Holds back every CREATE, ALTER and DROP of roles and databases in the server while it is shut. Reads go on."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self._held: Any = None

    async def shut(self) -> None:
        """From now on such a statement waits."""
        self._held = self._connection.transaction()
        await self._held.start()
        await self._connection.execute("LOCK TABLE pg_catalog.pg_authid, pg_catalog.pg_database IN SHARE MODE")

    async def open(self) -> None:
        """Let all go on."""
        if self._held is not None:
            await self._held.rollback()
            self._held = None


@asynccontextmanager
async def gate(postgres: TestServer) -> AsyncIterator[Gate]:
    """A gate that is shut; open again at the end."""
    async with postgres.superuser() as connection:
        made = Gate(connection)
        await made.shut()
        try:
            yield made
        finally:
            await made.open()


@asynccontextmanager
async def holding(postgres: TestServer, *pieces: tuple[str, str]) -> AsyncIterator[None]:
    """The locks of `pieces` (name, uid), as if an earlier run of each were still at work in the server."""
    async with postgres.superuser() as connection:
        for piece, uid in pieces:
            digest = hashlib.sha256(f"{piece}:{outside_name('lock', uid)}".encode()).digest()
            key = int.from_bytes(digest[:8], "big", signed=True)
            await connection.execute("SELECT pg_advisory_lock($1)", key)
        yield


async def until_waiting(postgres: TestServer, count: int, kind: str = "advisory") -> None:
    """Return once `count` sessions wait for advisory locks, or with `relation` before a `Gate`."""
    async with postgres.superuser() as connection, asyncio.timeout(SECONDS):
        question = "SELECT count(*) FROM pg_locks WHERE locktype = $1 AND NOT granted"
        while await connection.fetchval(question, kind) < count:
            await connection.execute("SELECT pg_sleep(0.02)")
