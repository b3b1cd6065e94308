"""A lifecycle on the real SQLite store, without an engine: tests end operations by hand, as the engine would."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from purveyor_server.domain.catalog import Catalog
from purveyor_server.domain.model import Failure, Operation, SealedSecret
from purveyor_server.domain.states import OperationState
from purveyor_server.engine.outcomes import Ending, finish
from purveyor_server.kit.clock import Clock, SystemClock
from purveyor_server.lifecycle.contract import Bind, Deprovision, Provision, Unbind, Update
from purveyor_server.lifecycle.lifecycle import Lifecycle
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.rpc.convert.event import encode_event
from purveyor_server.security.sealing import Sealer
from purveyor_server.store.contract import Advance, Claim, Claimed, Job, Store, Writes
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.store.sqlite.store import open_store
from purveyor_server.watch.events import EventLog
from purveyor_server.watch.operations import OperationHub
from tests.fakes.situations import CATALOG, INSTANCE, TENANT, FakePlans

SEALER = Sealer({"k1": b"s" * 32})
CREDENTIALS = {"username": "u", "password": "p"}


class Broker(NamedTuple):
    """The lifecycle and what is around it."""

    door: Lifecycle
    store: Store
    hub: OperationHub
    plans: FakePlans
    catalog: list[Catalog]  # the last one is served
    leased: dict[str, Claimed]
    log: EventLog

    async def claim(self, operation_id: str) -> Claimed:
        """Lease what is due, as a worker would, and return the one asked for; the others stay leased for later."""
        due = await self.store.claim(Claim(owner="worker", lease=timedelta(seconds=30), limit=1000))
        self.leased.update({claimed.operation.operation_id: claimed for claimed in due})
        return self.leased.pop(operation_id)

    async def accepted(self) -> None:
        """Return after the next commit."""
        told = asyncio.Event()
        forget = self.store.subscribe(lambda _commit: told.set())
        try:
            async with asyncio.timeout(10):
                await told.wait()
        finally:
            forget()

    async def end(self, operation: Operation | None, state: OperationState = OperationState.SUCCEEDED) -> Operation:
        """Run an operation to this end, as the engine would."""
        assert operation is not None
        claimed = await self.claim(operation.operation_id)
        secrets: tuple[SealedSecret, ...] = ()
        if claimed.binding is not None and state is OperationState.SUCCEEDED:
            uid = claimed.binding.uid
            clear = msgspec.json.encode(CREDENTIALS)
            secrets = (SealedSecret(uid, "credentials", SEALER.seal(uid, "credentials", clear)),)
        failure = None if state is OperationState.SUCCEEDED else Failure(reason="PROVIDER_FAILED", message="it failed")
        ending = Ending(state=state, secrets=secrets, failure=failure)

        def decide(job: Job) -> Writes:
            return finish(job, ending)

        return await self.store.advance(Advance(claimed.fence, decide, with_resources=True))


@asynccontextmanager
async def open_broker(folder: Path, clock: Clock | None = None, **settings: Any) -> AsyncIterator[Broker]:
    """A broker whose store is in `folder`."""
    clock = clock or SystemClock()
    store = await open_store(folder / "store.db", clock=clock, settings=SqliteSettings(low_water_bytes=0))
    try:
        await store.apply_catalog("digest", "body", tuple(CATALOG.snapshots.values()))
        hub, plans, served = OperationHub(), FakePlans(), [CATALOG]
        store.subscribe(hub.on_commit)
        log = EventLog(store, encode_event)
        store.subscribe(log.on_commit)
        door = Lifecycle(
            store,
            lambda: served[-1],
            plans,
            hub,
            SEALER,
            log=log,
            digest_key=b"d" * 32,
            token_key=b"t" * 32,
            clock=clock,
            settings=LifecycleSettings(**settings),
        )
        yield Broker(door, store, hub, plans, served, {}, log)
    finally:
        await store.close()


def provision(instance_id: str = INSTANCE, **changes: Any) -> Provision:
    """A provision of the plan `small`; its body follows its parameters."""
    fields: dict[str, Any] = {
        "tenant": TENANT,
        "instance_id": instance_id,
        "service_id": "db",
        "plan_id": "small",
        "parameters": {"size": 1},
    } | changes
    return Provision(body={"plan": fields["plan_id"], "parameters": fields["parameters"]}, **fields)


def update(instance_id: str = INSTANCE, **changes: Any) -> Update:
    return Update(tenant=TENANT, instance_id=instance_id, body={"parameters": changes.get("parameters")}, **changes)


def deprovision(instance_id: str = INSTANCE, **changes: Any) -> Deprovision:
    return Deprovision(tenant=TENANT, instance_id=instance_id, **changes)


def bind(binding_id: str = "app", **changes: Any) -> Bind:
    parameters = changes.setdefault("parameters", {})
    return Bind(tenant=TENANT, instance_id=INSTANCE, binding_id=binding_id, body={"parameters": parameters}, **changes)


def unbind(binding_id: str = "app", **changes: Any) -> Unbind:
    return Unbind(tenant=TENANT, instance_id=INSTANCE, binding_id=binding_id, **changes)
