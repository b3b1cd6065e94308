"""A provider over the simulated backend, with every ability: a role and a space for an instance, a login for a binding.

Guarantee: an honest provider of the contract, as an author would write one; whatever is amiss comes from its backend.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping, Sequence
from typing import Any

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
    PlannedStep,
    Schemas,
    Work,
)
from tests.year.backend import Backend, Thing

KIND = "sim"
INSTANCE_KINDS = ("role", "space")
LOGIN = "login"


class ThingPiece:
    """One thing of an instance; `kind` is its name, too."""

    weight = 1.0
    mints: tuple[str, ...] = ()

    def __init__(self, backend: Backend, kind: str) -> None:
        self._backend = backend
        self.name = kind

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Make it as wanted."""
        thing = self._wanted(ctx)
        ctx.outside(f"make_{self.name}")

        def effect() -> Done:
            made = self._backend.put(thing)
            return Done({"name": made.name, "settings": dict(made.settings)})

        return await self._call("ensure", ctx, effect)

    async def absent(self, ctx: Context) -> Done | NotYet:
        """Drop it."""
        name = ctx.name(self.name)
        ctx.outside(f"drop_{self.name}")

        def effect() -> Done:
            self._backend.remove(name)
            return Done()

        return await self._call("absent", ctx, effect)

    async def settle(self, ctx: Context) -> bool:
        """Whether nothing is on its way to it."""
        return await self._backend.settled(ctx.name(self.name))

    async def _call(self, make: str, ctx: Context, effect: Callable[[], Done]) -> Done | NotYet:
        answer: Done | NotYet = await self._backend.call(f"{self.name}.{make}", ctx.name(self.name), effect)
        return answer

    def _wanted(self, ctx: Context) -> Thing:
        assert ctx.want is not None
        name = ctx.name(self.name)
        return Thing(self.name, name, uid_of(ctx.marker), ctx.marker, settings_of(ctx.want.plan, ctx.want.parameters))


class LoginPiece(ThingPiece):
    """The login of a binding: its end is the backend's own to keep."""

    mints = ("password",)

    def _wanted(self, ctx: Context) -> Thing:
        binding = ctx.work.binding
        assert binding is not None
        return Thing(
            LOGIN,
            ctx.name(LOGIN),
            uid_of(ctx.marker),
            ctx.marker,
            dict(binding.parameters),
            password=ctx.secret("password").reveal(),
            until=binding.expires_at,
            space=ctx.instance_name("space"),
        )


class SimProvider:
    """The provider of one simulated server."""

    contract = "sim/1"
    abilities = frozenset(
        {
            *(Ability.BIND, Ability.UPDATE, Ability.EXPIRY, Ability.OBSERVE, Ability.LIST_OWNED),
            *(Ability.QUARANTINE, Ability.RECLAIM),
        }
    )
    schemas = Schemas(secret_fields=frozenset({"password"}), unique_fields=frozenset({"username", "password"}))

    def __init__(self, backend: Backend) -> None:
        self._backend = backend
        self._pieces = [ThingPiece(backend, kind) for kind in INSTANCE_KINDS]
        self._login = LoginPiece(backend, LOGIN)

    async def check(self) -> None:
        """Whether the server answers."""
        await self._backend.look()

    def plan(self, work: Work, done: Mapping[str, Outputs]) -> Sequence[PlannedStep]:
        """Forward, or backward for a deletion."""
        match work.verb:
            case Verb.BIND:
                return (PlannedStep(self._login),)
            case Verb.UNBIND:
                return (PlannedStep(self._login, Make.ABSENT),)
            case Verb.DEPROVISION:
                return tuple(PlannedStep(piece, Make.ABSENT) for piece in reversed(self._pieces))
            case _:
                return tuple(PlannedStep(piece) for piece in self._pieces)

    def credentials(self, work: Work, done: Mapping[str, Outputs], secrets: Mapping[str, Secret]) -> Credentials:
        """Who to log in as."""
        return Credentials({"username": done[LOGIN]["name"], "password": secrets["password"].reveal()})

    async def observe(self, instance: Known) -> Observed:
        """Compare what is there with what was applied."""
        await self._backend.look()
        wanted = settings_of(instance.settings.plan, instance.settings.parameters)
        found = [self._backend.things.get(_name(kind, instance.uid)) for kind in INSTANCE_KINDS]
        now = self._backend.clock.now()
        if any(thing is None for thing in found):
            return Observed(Drift.MISSING, healthy=False, at=now, differences=("something is gone",))
        differs = any(thing is not None and thing.settings != wanted for thing in found)
        gone = sum(_name(LOGIN, uid) not in self._backend.things for uid in instance.bindings)
        differences = (*(["settings differ"] if differs else ()), *(["a login is gone"] if gone else ()))
        return Observed(Drift.DRIFTED if differences else Drift.IN_SYNC, healthy=True, at=now, differences=differences)

    async def list_owned(self, store_id: str) -> AsyncIterator[Owned]:
        """Everything that carries the marker of `store_id`."""
        await self._backend.look()
        for thing in sorted(self._backend.things.values(), key=lambda thing: thing.name):
            parts = thing.marker.split(":")
            if len(parts) == 4 and (parts[1] == store_id or not self._backend.reads_markers):
                yield Owned(thing.kind, thing.name, parts[2], int(parts[3]))

    async def quarantine(self, owned: Owned) -> None:
        """Nobody can use it."""
        await self._custody("quarantine", owned, lambda: self._backend.disable(owned.name))

    async def release(self, owned: Owned) -> None:
        """It can be used again."""
        await self._custody("release", owned, lambda: self._backend.disable(owned.name, disabled=False))

    async def reclaim(self, owned: Owned) -> Done | NotYet:
        """Drop it, unless something is on its way to it."""
        if not await self._backend.settled(owned.name):
            return NotYet(30.0, "an operation is at work on it")
        answer = await self._custody("reclaim", owned, lambda: self._backend.remove(owned.name))
        return answer if isinstance(answer, NotYet) else Done()

    async def _custody(self, what: str, owned: Owned, deed: Callable[[], None]) -> NotYet | None:
        def effect() -> None:
            thing = self._backend.things.get(owned.name)
            if thing is None:
                return
            if thing.marker.split(":")[2:] != [owned.uid, str(owned.revision)]:
                raise MarkerChanged(f"{owned.name} does not carry that marker")
            deed()

        answer: NotYet | None = await self._backend.call(what, owned.name, effect)
        return answer

    async def close(self) -> None:
        """Nothing is held."""


def settings_of(plan: Mapping[str, Any], parameters: Mapping[str, Any]) -> dict[str, Any]:
    """What a thing of the instance looks like in the backend."""
    return {"plan": dict(plan), **parameters}


def uid_of(marker: str) -> str:
    """The uid that a marker names."""
    return marker.split(":")[2]


def _name(kind: str, uid: str) -> str:
    return f"pv_{kind}_{uid.replace('-', '')}"
