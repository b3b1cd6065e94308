"""Runs verbs of the PostgreSQL provider as the engine would, one step after the other, without an engine."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Awaitable, Callable, Collection, Coroutine
from datetime import UTC, datetime, timedelta
from typing import Any

from purveyor_server.domain.model import Json, ProviderRef
from purveyor_server.domain.names import outside_name
from purveyor_server.domain.states import Make, Verb
from purveyor_server.kit.clock import SystemClock
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import (
    BindingWork,
    Done,
    Known,
    NotYet,
    Observed,
    Outputs,
    Piece,
    Work,
    WorkSettings,
)
from purveyor_server.providers.facade import ProviderFacade
from purveyor_server.providers.postgresql import PostgresProvider
from purveyor_server.providers.testing.context import Pools
from tests.postgres_server import TestServer

PLAN: dict[str, Json] = {
    "kind": "shared",
    "connection_limit": 5,
    "extensions": ["hstore", "pg_trgm", "citext", "dblink"],
}
SCHEMA_PLAN: dict[str, Json] = {"kind": "schema", "binding_connection_limit": 5}
PATIENCE = 30.0  # seconds


class Stopped(BaseException):
    """The broker dies here."""


class FakePools(Pools):
    """Numbers as the store gives them, some of which strangers have."""

    def keep(self, pool: str, value: int) -> None:
        """Somebody has that one."""
        if value not in {given for (_, name), given in self._given.items() if name == pool}:
            self._given[f"{pool} {value}", pool] = value


class FakeContext:
    """A piece's context. `die_at` is the number of the outside call (0 is the first) before which the broker dies."""

    def __init__(self, work: Work, store: str, password: Secret, pools: FakePools, die_at: int | None = None) -> None:
        self.work = work
        self.want = work.want
        self.was = work.was
        self.epoch = 1
        self.deadline = datetime.now(UTC) + timedelta(minutes=5)
        self.saved: Json = None
        self.calls: list[str] = []
        self.marker = f"purveyor:{store}:{self.uid}:7"
        self._password = password
        self._pools = pools
        self._die_at = die_at

    @property
    def uid(self) -> str:
        return self.work.binding.uid if self.work.binding else self.work.instance_uid

    def name(self, kind: str, limit: int = 63) -> str:
        return outside_name(kind, self.uid, limit)

    def instance_name(self, kind: str, limit: int = 63) -> str:
        return outside_name(kind, self.work.instance_uid, limit)

    def secret(self, label: str) -> Secret:
        return {"password": self._password}[label]

    async def save(self, value: Json) -> None:
        self.saved = value

    async def allocate(self, pool: str, low: int, high: int, avoid: Collection[int] = ()) -> int:
        return self._pools.allocate(self.uid, pool, low, high, avoid)

    def report(self, percent: float, sentence: str) -> None:
        assert 0 <= percent <= 100
        assert sentence

    def outside(self, call: str) -> None:
        if self._die_at == len(self.calls):
            raise Stopped(call)
        self.calls.append(call)


class Shop:
    """Verbs on one provider; `made` is what `clear` gives back."""

    def __init__(self, server: TestServer, provider: PostgresProvider, store: str) -> None:
        self.server = server
        self.provider = provider
        self.store = store
        self.settings = PLAN  # of the instances that are made from now on
        self.facade = ProviderFacade(ProviderRef("postgres", "postgresql"), provider, SystemClock())
        self.pools = FakePools()
        self.given: dict[str, dict[str, Secret]] = {}  # what pieces gave for a binding
        self.passwords: dict[str, Secret] = {}
        self.instances: dict[str, WorkSettings] = {}
        self.bindings: dict[str, str] = {}  # binding uid -> instance uid

    def work(
        self, verb: Verb, uid: str, parameters: dict[str, Json] | None = None, binding: BindingWork | None = None
    ) -> Work:
        """The work of a verb on the instance `uid`."""
        settings = WorkSettings("service", "plan", self.settings, parameters or {})
        return Work(verb, uid, None if verb is Verb.DEPROVISION else settings, None, {}, binding)

    def context(self, work: Work, die_at: int | None = None) -> FakeContext:
        """A context for one step of `work`."""
        password = self.passwords.setdefault(work.binding.uid if work.binding else "", Secret.mint())
        return FakeContext(work, self.store, password, self.pools, die_at)

    async def run(self, work: Work) -> dict[str, Outputs]:
        """Every step to its end."""
        done: dict[str, Outputs] = {}
        for step in self.provider.plan(work, {}):
            done[step.piece.name] = await self.step(step.piece, step.make, work)
        return done

    async def step(self, piece: Piece, make: Make, work: Work) -> Outputs:
        """One step, asked again while it says NotYet."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            answer = await self.facade.make(piece, make, self.context(work))
            if isinstance(answer, Done):
                self.given.setdefault(work.binding.uid if work.binding else "", {}).update(answer.secrets)
                return answer.outputs
            assert isinstance(answer, NotYet)
        raise AssertionError(f"{piece.name} does not end")

    def work_of_new(self, **parameters: Json) -> Work:
        """The work of a provision of a new instance, which `clear` gives back."""
        work = self.work(Verb.PROVISION, str(uuid.uuid4()), parameters)
        assert work.want is not None
        self.instances[work.instance_uid] = work.want
        return work

    async def stopped(self, call: Awaitable[object]) -> None:
        """Wait for a call during which the broker dies."""
        try:
            await call
        except Stopped:
            return
        raise AssertionError("the broker did not die")

    async def provision(self, **parameters: Json) -> str:
        """A new instance; its uid."""
        work = self.work_of_new(**parameters)
        await self.run(work)
        return work.instance_uid

    async def update(self, uid: str, **parameters: Json) -> None:
        """Other parameters for an instance."""
        work = self.work(Verb.UPDATE, uid, parameters)
        await self.run(work)
        assert work.want is not None
        self.instances[uid] = work.want

    async def bind(
        self, uid: str, *, expires_at: datetime | None = None, **parameters: Json
    ) -> tuple[BindingWork, dict[str, Json]]:
        """A new binding and its credentials."""
        binding = BindingWork(str(uuid.uuid4()), parameters, expires_at=expires_at)
        self.bindings[binding.uid] = uid
        work = self.work(Verb.BIND, uid, binding=binding)
        done = await self.run(work)
        secrets = {"password": self.passwords[binding.uid], **self.given.get(binding.uid, {})}
        return binding, self.facade.credentials(work, done, secrets).values

    async def unbind(self, uid: str, binding_uid: str) -> None:
        """Take a binding away."""
        await self.run(self.work(Verb.UNBIND, uid, binding=BindingWork(binding_uid, {})))
        self.bindings.pop(binding_uid, None)

    async def deprovision(self, uid: str) -> None:
        """Give an instance back."""
        await self.run(self.work(Verb.DEPROVISION, uid))
        self.instances.pop(uid, None)
        self.pools.free(uid)

    async def observe(self, uid: str) -> Observed:
        """What the provider sees."""
        bindings = tuple(binding for binding, instance in self.bindings.items() if instance == uid)
        return await self.provider.observe(Known(uid, self.instances[uid], {}, bindings))

    def start(self, call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
        """Let a call run beside the test."""
        return asyncio.create_task(call)

    async def waits_for_lock(self) -> bool:
        """Whether a session of the broker waits for somebody's lock. Within a transaction the view would stand still."""
        sql = "SELECT count(*) FROM pg_stat_activity WHERE usename = $1 AND wait_event_type = 'Lock'"
        async with self.server.superuser() as superuser:
            return bool(await superuser.fetchval(sql, self.server.running.user))

    async def clear(self) -> None:
        """Give back all that is left."""
        for binding, instance in list(self.bindings.items()):
            await self.unbind(instance, binding)
        for instance in list(self.instances):
            await self.deprovision(instance)


async def until(condition: Callable[[], Awaitable[Any]]) -> None:
    """Ask again and again, each time over the network, until `condition` holds; at most PATIENCE seconds."""
    end = time.monotonic() + PATIENCE
    while not await condition():
        assert time.monotonic() < end, "it never came to be"
        await asyncio.sleep(0)
