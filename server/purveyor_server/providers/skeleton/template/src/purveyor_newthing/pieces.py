"""The outside things, one class each: here a box per instance and a key per binding. REPLACE both by what you make.

A method may run at any moment, any number of times, also after it has succeeded, also in a process that remembers
nothing: it looks at the backend first and changes only what is not as wanted.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import NamedTuple

from purveyor_server.providers.contract import Context, Done, NotYet, Permanent
from purveyor_server.providers.strict import read_values

from purveyor_newthing.backend import Backend, Claim, Record
from purveyor_newthing.settings import BindingParameters, size_of

BOX, KEY = "box", "key"  # REPLACE: kinds of outside names, lower-case words
BUSY = NotYet(0.2, "an earlier run is still at work")


class Mark(NamedTuple):
    """A marker, taken apart: it is on everything that a broker made."""

    store_id: str
    uid: str
    revision: int


def read_mark(marker: str) -> Mark | None:
    """A marker taken apart; None when it is none."""
    match marker.split(":"):
        case ["purveyor", store_id, uid, revision] if revision.isdecimal():
            return Mark(store_id, uid, int(revision))
    return None


class LockedPiece(ABC):
    """Base of the pieces: one run of a thing at a time, and `settle` says whether none is at work."""

    name = ""  # of the step; stored in the journal, so it never changes
    weight = 1.0  # its share of the progress bar
    mints: tuple[str, ...] = ()  # labels of the secrets that the broker makes before the first run

    def __init__(self, backend: Backend) -> None:
        self._backend = backend

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Make it as `ctx.want` says."""
        with self._backend.claim(ctx.name(self.name)) as held:
            return await self._make(ctx, held) if held else BUSY

    async def absent(self, ctx: Context) -> Done | NotYet:
        """Make it gone; success if it never was. By names alone: there are no outputs and no secrets."""
        with self._backend.claim(ctx.name(self.name)) as held:
            if held is None:
                return BUSY
            await held.remove(ctx, f"remove_{self.name}")
            return Done()

    async def settle(self, ctx: Context) -> bool:
        """True once no earlier, interrupted call can still take effect."""
        return self._backend.is_free(ctx.name(self.name))

    @abstractmethod
    async def _make(self, ctx: Context, held: Claim) -> Done:
        """`ensure` with the right to change it."""


class BoxPiece(LockedPiece):
    """What an instance is. REPLACE."""

    name = BOX

    async def _make(self, ctx: Context, held: Claim) -> Done:
        name, size = ctx.name(BOX), size_of(ctx.want)
        found = await self._backend.read(name)
        if found is None:
            ctx.report(50, "making the box")
            await held.write(ctx, "make_box", Record(ctx.marker, size=size))
        elif found.size != size:
            ctx.report(50, "changing the box")  # an update, its undo, or the mending of drift
            await held.write(ctx, "change_box", Record(found.marker, size=size))
        return Done({"box": name, "size": size})  # outputs: no secret is among them


class KeyPiece(LockedPiece):
    """What a binding is. REPLACE."""

    name = KEY
    mints = ("token",)

    async def _make(self, ctx: Context, held: Claim) -> Done:
        about = ctx.work.binding
        if about is None:
            raise Permanent("a key belongs to a binding")
        read_values(BindingParameters, about.parameters, "the parameters")
        box, name = ctx.instance_name(BOX), ctx.name(KEY)
        if await self._backend.read(box) is None:
            raise Permanent("the box is gone")
        expires_at = about.expires_at.isoformat() if about.expires_at else ""
        token = ctx.secret("token").reveal()  # the same on every run
        wanted = Record(ctx.marker, box=box, token=token, expires_at=expires_at)
        if await self._backend.read(name) != wanted:
            ctx.report(50, "making the key")
            await held.write(ctx, "make_key", wanted)
        return Done({"box": box, "key": name})
