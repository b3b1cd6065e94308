"""A provider over a dictionary, right in every topic of the contract suite, with flaws that can be switched on one by one.

A thing is made, changed and removed by two calls each, so that a broker can die in between.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, ClassVar

from purveyor_server.domain.model import Json
from purveyor_server.domain.names import outside_name
from purveyor_server.domain.states import Drift, Make, Verb
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import (
    Ability,
    Context,
    Credentials,
    Done,
    Known,
    MarkerChanged,
    NotYet,
    Observed,
    Outputs,
    Owned,
    Permanent,
    PlannedStep,
    Provider,
    Retryable,
    Schemas,
    Work,
)
from purveyor_server.providers.testing import Case, Held

ANY = {"type": "object"}
TICK = count()


class World:
    """Things by name, those that a call is on its way to, and the gate that holds a call up."""

    def __init__(self, *flaws: str) -> None:
        self.flaws = set(flaws)
        self.things: dict[str, dict[str, Any]] = {}
        self.busy: set[str] = set()
        self.fences: dict[str, int] = {}  # calls that began before are refused
        self.held = ""
        self.reached = asyncio.Event()
        self.gate = asyncio.Event()
        self.calls: set[asyncio.Task[None]] = set()

    def has(self, flaw: str) -> bool:
        return flaw in self.flaws

    def forget(self, name: str) -> None:
        """It is gone."""
        self.things.pop(name, None)

    async def change(self, kind: str, name: str, work: Callable[[], None]) -> None:
        """A call that takes effect whether or not anybody waits for it."""
        self.busy.add(name)
        task = asyncio.create_task(self._effect(kind, name, work, self.fences.get(name, 0)))
        self.calls.add(task)
        task.add_done_callback(self.calls.discard)
        await asyncio.shield(task)

    async def _effect(self, kind: str, name: str, work: Callable[[], None], fence: int) -> None:
        if self.held == kind:
            self.held = ""
            self.reached.set()
            await self.gate.wait()
        await asyncio.sleep(0)
        try:
            if fence == self.fences.get(name, 0):
                work()
        finally:
            self.busy.discard(name)


class MemoryPiece:
    """One thing."""

    weight = 1.0

    def __init__(self, world: World, name: str, mints: tuple[str, ...] = ()) -> None:
        self._world = world
        self.name = name
        self.mints = mints

    async def ensure(self, ctx: Context) -> Done | NotYet:
        name, world = ctx.name(self.name), self._world
        if name in world.busy and not world.has("two at once"):
            return NotYet(0.01)
        size = ctx.want.parameters.get("size", 1) if ctx.want else 1
        if world.has("remembers") and ctx.work.verb is Verb.UPDATE and ctx.want is not ctx.work.want:
            return Done()
        thing = world.things.get(name)
        if thing is None or world.has("two at once"):
            await asyncio.sleep(0)
            # Read before the call: the context serves nobody once the broker has died.
            password = ctx.secret("password").reveal() if self.mints else ""
            await self._change(ctx, "make", name, lambda: self._make(ctx, name, size, password))
        elif world.has("half make") or (world.has("half update") and thing["size"] == size):
            return self._done(ctx, name, size)
        if world.things[name]["size"] != size or world.has("not idempotent"):
            await self._change(ctx, "resize", name, lambda: world.things[name].update(size=size, tick=self._tick()))
        if world.things[name]["ready"] != size:
            await self._change(ctx, "finish", name, lambda: world.things[name].update(ready=size))
        return self._done(ctx, name, size)

    def _tick(self) -> int:
        return next(TICK) if self._world.has("not idempotent") else 0

    def _make(self, ctx: Context, name: str, size: int, password: str) -> None:
        expires_at = ctx.work.binding.expires_at if ctx.work.binding else None
        thing = {"size": size, "ready": 0, "tick": 0, "marker": ctx.marker, "expires_at": expires_at}
        if self._world.has("two at once") and name in self._world.things:
            self._world.things[f"{name}_again"] = thing
        self._world.things[name] = thing
        if self.mints:
            thing["password"] = password
        if self._world.has("leak"):
            self._world.things[f"{name}_data"] = {}

    def _done(self, ctx: Context, name: str, size: int) -> Done:
        shown = ctx.secret("password").reveal() if self._world.has("secret in outputs") and self.mints else ""
        return Done({"name": name, "size": size, "shown": shown})

    async def absent(self, ctx: Context) -> Done | NotYet:
        name, world = ctx.name(self.name), self._world
        if name in world.busy:
            return NotYet(0.01)
        if not world.has("drops what it adopted") and give_back(world, name):
            return Done()
        thing = world.things.get(name)
        if thing is None:
            if world.has("no absent before ensure"):
                raise Retryable("not found")
            return Done()
        if world.has("half removal") and not thing["ready"]:
            return Done()
        if world.has("needs outputs") and not (ctx.was or ctx.want):
            return Done()
        if world.has("keeps access") and self.mints:
            return Done()
        await self._change(ctx, "close", name, lambda: thing.update(ready=0))
        await self._change(ctx, "remove", name, lambda: world.forget(name))
        return Done()

    async def settle(self, ctx: Context) -> bool:
        if self._world.has("settle lies"):
            return True
        if self._world.has("fences") or self._world.has("fences nothing"):
            name = ctx.name(self.name)
            self._world.busy.discard(name)
            self._world.fences[name] = self._world.fences.get(name, 0) + self._world.has("fences")
            return True
        return ctx.name(self.name) not in self._world.busy and not self._world.has("never settles")

    async def _change(self, ctx: Context, call: str, name: str, work: Callable[[], None]) -> None:
        ctx.outside(f"{call}_{self.name}")
        await self._world.change(self.name, name, work)


class AdoptedPiece(MemoryPiece):
    """The box that `Work.adopt` names. Until it is finished it remembers its old name."""

    async def ensure(self, ctx: Context) -> Done | NotYet:
        name, world = ctx.name("box"), self._world
        if name not in world.things:
            source = world.things.get(str((ctx.work.adopt or {}).get("box")))
            if source is None or "marker" in source:
                raise Permanent("not there, or somebody's")
            ctx.outside("adopt_box")
            world.things.pop(str(source["name"]))
            world.things[name] = {**source, "was": source, "size": 3, "ready": 3, "marker": ctx.marker}
            if world.has("adopts again"):
                world.things[str(source["name"])] = source
        return Done({"name": name, "size": 3, "shown": ""})

    async def absent(self, ctx: Context) -> Done | NotYet:
        give_back(self._world, ctx.name("box"))
        return Done()


class FinishedPiece(MemoryPiece):
    """The pivot of an adoption."""

    async def ensure(self, ctx: Context) -> Done | NotYet:
        self._world.things[ctx.name("box")].pop("was", None)
        return Done()


def give_back(world: World, name: str) -> bool:
    """Make a box that is being adopted what it was; False when there is none."""
    was = world.things.get(name, {}).get("was")
    if was is not None:
        del world.things[name]
        world.things[was["name"]] = was
    return was is not None


class MemoryProvider:
    """A box per instance, a key per binding."""

    contract = "memory/1"
    abilities = frozenset(Ability) - {Ability.ROTATE_ROOT, Ability.REISSUE}

    def __init__(self, world: World, store_id: str) -> None:
        self._world = world
        self._store_id = store_id
        self._box, self._key = MemoryPiece(world, "box"), MemoryPiece(world, "key", ("password",))
        self._asked = 0

    @property
    def schemas(self) -> Schemas:
        outputs = {} if self._world.has("no schema") else {"box": ANY, "key": ANY}
        unique = frozenset({"user", "password"}) if not self._world.has("marks nothing") else frozenset[str]()
        return Schemas(ANY, outputs, ANY, frozenset({"password"}), unique)

    async def check(self) -> None:
        """Always there."""

    def plan(self, work: Work, done: Mapping[str, Outputs]) -> Sequence[PlannedStep]:
        self._asked += 1
        piece = self._key if work.binding else self._box
        if self._world.has("impure plan") and self._asked % 2:
            piece = MemoryPiece(self._world, "cask")
        if work.adopt is not None:
            adopted, finished = AdoptedPiece(self._world, "adopted"), FinishedPiece(self._world, "finished")
            return [PlannedStep(adopted), PlannedStep(finished, pivot=True)]
        make = Make.ABSENT if work.verb in {Verb.DEPROVISION, Verb.UNBIND} else Make.ENSURE
        return [PlannedStep(piece, make)]

    def credentials(self, work: Work, done: Mapping[str, Outputs], secrets: Mapping[str, Secret]) -> Credentials:
        user = "admin" if self._world.has("sibling") else done["key"]["name"]
        return Credentials({"user": user, "name": done["key"]["name"], "password": secrets["password"].reveal()})

    async def observe(self, instance: Known) -> Observed:
        name = outside_name("box", instance.uid)
        if self._world.has("observe changes"):
            self._world.things.setdefault(name, {"size": 1, "ready": 1})["seen"] = next(TICK)
        thing = self._world.things.get(name)
        now = datetime.now(UTC)
        if thing is None and not self._world.has("blind"):
            return Observed(Drift.MISSING, False, now, (f"{name} is gone",))
        if thing is not None and thing["ready"] != thing["size"]:
            return Observed(Drift.DRIFTED, False, now, (f"{name} is not finished",))
        return Observed(Drift.IN_SYNC, True, now)

    async def list_owned(self, store_id: str) -> AsyncIterator[Owned]:
        for name, thing in list(self._world.things.items()):
            _, store, uid, revision = str(thing.get("marker", ":::0")).split(":")
            if store == store_id or self._world.has("foreign"):
                yield Owned(name.split("_")[1], name, uid, int(revision))

    async def quarantine(self, owned: Owned) -> None:
        if self._is_there(owned) and not self._world.has("holds nothing"):
            self._world.things[owned.name]["held"] = True

    async def release(self, owned: Owned) -> None:
        if self._is_there(owned):
            self._world.things[owned.name].pop("held", None)

    async def reclaim(self, owned: Owned) -> Done | NotYet:
        if not self._is_there(owned):
            return Done()
        if self._world.has("reclaims the last alone") and len(self._world.things) > 1:
            raise Retryable("there are others")
        self._world.forget(owned.name)
        return Done()

    def _is_there(self, owned: Owned) -> bool:
        thing = self._world.things.get(owned.name)
        marker = f"purveyor:{self._store_id}:{owned.uid}:{owned.revision}"
        if thing is not None and thing["marker"] != marker and not self._world.has("any marker"):
            raise MarkerChanged("another marker")
        return thing is not None

    async def adoptable(self, source: Mapping[str, Json]) -> Owned | None:
        if source["box"] not in self._world.things:
            raise Permanent("not there")
        return None

    async def close(self) -> None:
        """Nothing to let go of."""


class MemoryCase(Case):
    """The provider with flaws."""

    name = "memory"
    parameters: ClassVar[dict[str, Json]] = {"size": 3}
    changed: ClassVar[dict[str, Json]] = {"size": 5}
    patience = 2.0

    def __init__(self, folder: Path, *flaws: str) -> None:
        super().__init__(folder)
        self.world = World(*flaws)

    def open(self, store_id: str) -> Provider:
        return MemoryProvider(self.world, store_id)

    async def listing(self) -> object:
        return {name: dict(thing) for name, thing in self.world.things.items()}

    async def use(self, credentials: dict[str, Json]) -> None:
        thing = self.world.things[credentials["name"]]
        assert thing["password"] == credentials["password"]
        assert thing["ready"] == thing["size"]
        assert "held" not in thing
        expires_at = thing["expires_at"]
        assert expires_at is None or expires_at > datetime.now(UTC) or self.world.has("no expiry")

    async def stray(self) -> dict[str, Json]:
        self.world.things["old"] = {"name": "old", "size": 9}
        return {"box": "old"}

    async def destroy(self, uid: str) -> None:
        del self.world.things[outside_name("box", uid)]

    def hold(self, piece: str) -> AbstractAsyncContextManager[Held]:
        return self._holding(piece)

    @asynccontextmanager
    async def _holding(self, piece: str) -> AsyncIterator[Held]:
        self.world.reached, self.world.gate, self.world.held = asyncio.Event(), asyncio.Event(), piece
        try:
            yield Gate(self.world)
        finally:
            self.world.gate.set()


class Gate:
    """The call that is held."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def reached(self) -> None:
        await self._world.reached.wait()

    async def release(self) -> None:
        self._world.gate.set()
