"""A provider over a small real world in memory, with faults that a test plants.

The world keeps things by outside name, and counts every change. Like a real backend it can finish a call late: a call whose
caller was cancelled still takes effect when the test opens its gate, and `settle` is false until then.
"""

from __future__ import annotations

import asyncio
from collections import Counter, defaultdict, deque
from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

from purveyor_server.domain.states import Drift, Make, Verb
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import (
    Ability,
    Ambiguous,
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
    Schemas,
    Work,
)


class Late:
    """The call is sent and lost; it takes effect `seconds` later, unless its thing was removed under its lock before."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds


class Hanging(Late):
    """As Late, and the caller waits for an answer that never comes."""


Fault = Exception | NotYet | asyncio.Event | Late


class World:
    """Things that exist, by outside name, and what was done to them."""

    def __init__(self) -> None:
        self.things: dict[str, dict[str, Any]] = {}
        self.calls: list[str] = []
        self.made: Counter[str] = Counter()
        self.faults: defaultdict[str, deque[Fault]] = defaultdict(deque)
        self.late: set[asyncio.Task[None]] = set()
        self.busy: set[str] = set()
        self.entered: defaultdict[str, asyncio.Event] = defaultdict(asyncio.Event)
        self.markers: dict[str, str] = {}
        self.quarantined: set[str] = set()
        self.on_call: Callable[[str], None] = lambda _call: None

    def plant(self, call: str, *faults: Fault) -> None:
        """The next runs of `call` (`<piece>.<ensure|absent|settle>`) meet these, one each.

        An Event holds the call until it is set; an exception is raised; a NotYet is answered.
        """
        self.faults[call].extend(faults)

    def next_fault(self, call: str) -> Fault | None:
        """Take the fault of this run."""
        self.calls.append(call)
        self.entered[call].set()
        self.on_call(call)
        return self.faults[call].popleft() if self.faults[call] else None


class WorldPiece:
    """One thing in the world."""

    weight = 1.0

    def __init__(self, world: World, name: str, kind: str, mints: tuple[str, ...] = ()) -> None:
        self._world = world
        self.name = name
        self.mints = mints
        self._kind = kind

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Make the thing, perhaps late."""
        answer = await self._met("ensure", ctx)
        if answer is not None:
            return answer
        ctx.outside(f"make_{self.name}")
        name = ctx.name(self._kind)
        self._world.made[name] += name not in self._world.things
        parameters = ctx.want.parameters if ctx.want is not None else {}
        self._world.things[name] = dict(parameters)
        self._world.markers[name] = ctx.marker
        ctx.report(100, f"{self.name} made")
        return Done({"name": name, "parameters": dict(parameters)})

    async def absent(self, ctx: Context) -> Done | NotYet:
        """Remove the thing."""
        answer = await self._met("absent", ctx)
        if answer is not None:
            return answer
        ctx.outside(f"remove_{self.name}")
        self._world.things.pop(ctx.name(self._kind), None)
        return Done()

    async def settle(self, ctx: Context) -> bool:
        """True once no late call of this thing is on its way."""
        fault = self._world.next_fault(f"{self.name}.settle")
        if isinstance(fault, Exception):
            raise fault
        return ctx.name(self._kind) not in self._world.busy

    async def _met(self, make: str, ctx: Context) -> NotYet | None:
        fault = self._world.next_fault(f"{self.name}.{make}")
        if isinstance(fault, asyncio.Event):
            await fault.wait()
        elif isinstance(fault, Late):
            gate = asyncio.Event()
            asyncio.get_running_loop().call_later(fault.seconds, gate.set)
            self.happens_late(ctx, gate)
            if isinstance(fault, Hanging):
                await asyncio.Event().wait()
            message = "the connection broke"
            raise Ambiguous(message)
        elif isinstance(fault, Exception):
            raise fault
        elif isinstance(fault, NotYet):
            return fault
        return None

    def happens_late(self, ctx: Context, gate: asyncio.Event) -> None:
        """The call was sent; its caller will not hear of it, and it takes effect when `gate` opens."""
        name = ctx.name(self._kind)
        self._world.busy.add(name)
        task = asyncio.create_task(self._later(name, gate))
        self._world.late.add(task)
        task.add_done_callback(self._world.late.discard)

    async def _later(self, name: str, gate: asyncio.Event) -> None:
        await gate.wait()
        self._world.things[name] = {"late": True}
        self._world.busy.discard(name)


class LatePiece(WorldPiece):
    """A piece whose first ensure is lost on the way and takes effect late."""

    def __init__(self, world: World, name: str, kind: str, gate: asyncio.Event) -> None:
        super().__init__(world, name, kind)
        self._gate = gate
        self.lost = asyncio.Event()

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """The first run is ambiguous; later ones are ordinary."""
        if not self.lost.is_set():
            self.lost.set()
            self.happens_late(ctx, self._gate)
            message = "the connection broke"
            raise Ambiguous(message)
        return await super().ensure(ctx)


class AdoptedPiece(WorldPiece):
    """The thing that `Work.adopt` names, under the name of this piece's kind. Taken back it has its old name, and all it held."""

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Rename and mark it."""
        answer = await self._met("ensure", ctx)
        if answer is not None:
            return answer
        source, name = str((ctx.work.adopt or {}).get("thing")), ctx.name(self._kind)
        if name not in self._world.things:
            if source not in self._world.things or source in self._world.markers:
                raise Permanent(f"{source} is not there, or is somebody's")
            ctx.outside("adopt")
            self._world.things[name] = self._world.things.pop(source)
            self._world.markers[name] = ctx.marker
        return Done({"name": name})

    async def absent(self, ctx: Context) -> Done | NotYet:
        """Give it back."""
        answer = await self._met("absent", ctx)
        if answer is not None:
            return answer
        name = ctx.name(self._kind)
        if name in self._world.things:
            ctx.outside("give_back")
            self._world.things[str((ctx.work.adopt or {}).get("thing"))] = self._world.things.pop(name)
            del self._world.markers[name]
        return Done()


class ScriptedProvider:
    """Three pieces for an instance (`role`, `space`, `grant`), one for a binding (`login`).

    `{"thing": name}` adopts a thing that nobody marks as the `space`. What is in quarantine is in `World.quarantined`; faults
    for `quarantine`, `release` and `reclaim` are planted under these words.
    """

    contract = "scripted/1"
    abilities = frozenset(
        {
            *(Ability.BIND, Ability.UPDATE, Ability.OBSERVE, Ability.LIST_OWNED, Ability.QUARANTINE, Ability.RECLAIM),
            *(Ability.ADOPT, Ability.REISSUE),
        }
    )
    schemas = Schemas(secret_fields=frozenset({"password"}), unique_fields=frozenset({"username", "password"}))

    def __init__(self, world: World, names: Sequence[str] = ("role", "space", "grant")) -> None:
        self.world = world
        self.pieces: list[Any] = [WorldPiece(world, name, name) for name in names]
        self.login: Any = WorldPiece(world, "login", "login", ("password",))
        self.adopted: Any = AdoptedPiece(world, "adopted", "space")
        self.pivot = ""
        self.closed = False
        self.moves = False  # updates leave bindings with old credentials

    async def check(self) -> None:
        """The world is always there."""

    def plan(self, work: Work, done: Mapping[str, Outputs]) -> Sequence[PlannedStep]:
        """Instance pieces forward, or backward for a deletion; the login for a binding."""
        match work.verb:
            case Verb.BIND:
                return (PlannedStep(self.login),)
            case Verb.UNBIND:
                return (PlannedStep(self.login, Make.ABSENT),)
            case Verb.DEPROVISION:
                return tuple(PlannedStep(piece, Make.ABSENT) for piece in reversed(self.pieces))
            case Verb.PROVISION if work.adopt is not None:
                adopting = (self.adopted if piece.name == "space" else piece for piece in self.pieces)
                return tuple(PlannedStep(piece) for piece in adopting)
            case _:
                return tuple(PlannedStep(piece, pivot=piece.name == self.pivot) for piece in self.pieces)

    def credentials(self, work: Work, done: Mapping[str, Outputs], secrets: Mapping[str, Secret]) -> Credentials:
        """A username and a password."""
        assert work.binding is not None
        return Credentials({"username": done["login"]["name"], "password": secrets["password"].reveal()})

    async def observe(self, instance: Known) -> Observed:
        """Missing unless every piece is there."""
        there = all(f"pv_{p.name}_{instance.uid.replace('-', '')}" in self.world.things for p in self.pieces)
        return Observed(Drift.IN_SYNC if there else Drift.MISSING, there, datetime.now(UTC))

    async def list_owned(self, store_id: str) -> AsyncIterator[Owned]:
        """Everything marked by `store_id`."""
        for name, marker in self.world.markers.items():
            _, store, uid, revision = marker.split(":")
            if store == store_id and name in self.world.things:
                yield Owned(name.split("_")[1], name, uid, int(revision))

    async def quarantine(self, owned: Owned) -> None:
        """Note it as unusable."""
        if self._is_there("quarantine", owned):
            self.world.quarantined.add(owned.name)

    async def release(self, owned: Owned) -> None:
        """Note it as usable."""
        if self._is_there("release", owned):
            self.world.quarantined.discard(owned.name)

    async def reclaim(self, owned: Owned) -> Done | NotYet:
        """Remove it, unless a late call is on its way."""
        if not self._is_there("reclaim", owned):
            return Done()
        if owned.name in self.world.busy:
            return NotYet(0.05, "an operation is at work")
        self.world.things.pop(owned.name)
        self.world.quarantined.discard(owned.name)
        return Done()

    def _is_there(self, call: str, owned: Owned) -> bool:
        fault = self.world.next_fault(call)
        if isinstance(fault, Exception):
            raise fault
        if owned.name not in self.world.things:
            return False
        _, _, uid, revision = self.world.markers.get(owned.name, ":::").split(":")
        if (uid, revision) != (owned.uid, str(owned.revision)):
            raise MarkerChanged(f"{owned.name} does not carry that marker")
        return True

    async def adoptable(self, source: Mapping[str, Any]) -> Owned | None:
        """By the marker of the thing."""
        name = str(source.get("thing"))
        if name not in self.world.things:
            raise Permanent(f"{name} is not there")
        if name not in self.world.markers:
            return None
        _, _, uid, revision = self.world.markers[name].split(":")
        return Owned(name.split("_")[1], name, uid, int(revision))

    def reissues(self, work: Work) -> bool:
        """As the test says."""
        return self.moves

    async def close(self) -> None:
        """Note it."""
        self.closed = True
