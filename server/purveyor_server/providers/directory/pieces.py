"""The two outside things: the folder of an instance and the token file of a binding.

Guarantee: each run holds the piece's lock (see `locks`); a second run that finds it held does nothing and asks again. A
folder appears whole and vanishes whole; both are removed by their names alone.
"""

from __future__ import annotations

import asyncio
from abc import ABC, abstractmethod
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

import msgspec

from purveyor_server.domain.states import Verb
from purveyor_server.kit.flock import is_free
from purveyor_server.providers.contract import Context, Done, NotYet, Permanent
from purveyor_server.providers.directory.disk import DATA, HELD_DATA, HELD_TOKENS, MARKER, QUOTA, TOKENS, Disk
from purveyor_server.providers.directory.entries import hidden
from purveyor_server.providers.directory.failures import explained
from purveyor_server.providers.directory.locks import Claim, claim
from purveyor_server.providers.directory.settings import BindingParameters, Quota, quota_of
from purveyor_server.providers.directory.tokens import encode_token
from purveyor_server.providers.strict import read_values

_Answer = TypeVar("_Answer")
BUSY_SECONDS = 0.2
MORE_SECONDS = 0.05  # until the next part of a large folder is removed
MEASURE_SECONDS = 10.0
FOLDER, TOKEN = "dir", "tok"  # kinds of outside names


class DiskPiece(ABC):
    """Base of the pieces."""

    name = ""
    weight = 1.0
    mints: tuple[str, ...] = ()

    def __init__(self, disk: Disk, threads: ThreadPoolExecutor) -> None:
        self._disk = disk
        self._threads = threads

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Make it as `ctx.want` says."""
        with explained("ensure"), self._disk.opened() as root, claim(root, self._lock(ctx), self._threads) as held:
            return await self._ensure(ctx, held) if held else NotYet(BUSY_SECONDS, "an earlier run is still at work")

    async def absent(self, ctx: Context) -> Done | NotYet:
        """Make it gone."""
        with explained("absent"), self._disk.opened() as root, claim(root, self._lock(ctx), self._threads) as held:
            return await self._absent(ctx, held) if held else NotYet(BUSY_SECONDS, "an earlier run is still at work")

    async def settle(self, ctx: Context) -> bool:
        """True once no earlier run holds the lock."""
        with explained("settle"), self._disk.opened() as root:
            return is_free(self._lock(ctx), folder=root)

    async def _carry_out(self, ctx: Context, held: Claim, call: str, work: Callable[[], _Answer]) -> _Answer:
        return await held.change(ctx, call, lambda: self._disk.carry_out(call, work))

    async def _look(self, work: Callable[[], _Answer]) -> _Answer:
        """What changes nothing and takes long."""
        return await asyncio.wrap_future(self._threads.submit(work))

    def _lock(self, ctx: Context) -> str:
        return hidden(ctx.name(self.kind), "lock")

    @property
    @abstractmethod
    def kind(self) -> str:
        """Kind of its outside name."""

    @abstractmethod
    async def _ensure(self, ctx: Context, held: Claim) -> Done:
        """`ensure` under the lock."""

    @abstractmethod
    async def _absent(self, ctx: Context, held: Claim) -> Done | NotYet:
        """`absent` under the lock."""


class FolderPiece(DiskPiece):
    """A folder with the consumer's `data` in it, the broker's marker, and the quota that was promised."""

    name = "folder"
    kind = FOLDER

    async def _ensure(self, ctx: Context, held: Claim) -> Done:
        quota, name, disk = quota_of(ctx.want), ctx.instance_name(FOLDER), self._disk
        await self._check_room(ctx, name, quota)
        record = msgspec.json.encode(quota._asdict())
        if disk.read(name, MARKER) is None:
            if disk.has(name):
                raise Permanent("a folder of that name is there and is not the broker's", name)
            files = {MARKER: ctx.marker.encode(), QUOTA: record}
            ctx.report(20, "making the folder")
            await self._carry_out(ctx, held, "make_folder", lambda: disk.build(name, files))
        if disk.has_part(name, HELD_DATA):
            ctx.report(60, "ending the quarantine")
            await self._carry_out(ctx, held, "open_folder", lambda: disk.rename(name, HELD_DATA, DATA))
        if disk.read(name, QUOTA) != record:
            ctx.report(80, "setting the quota")
            await self._carry_out(ctx, held, "set_quota", lambda: disk.put(name, (QUOTA,), record))
        return Done({"folder": name, "quota_bytes": quota.bytes, "quota_files": quota.files})

    async def _check_room(self, ctx: Context, name: str, quota: Quota) -> None:
        """An update below what is used is refused; its undo is not."""
        if ctx.work.verb is not Verb.UPDATE or ctx.want is not ctx.work.want:
            return
        used = await self._look(lambda: self._disk.used(name, MEASURE_SECONDS))
        if used is None:
            return
        if used.bytes > quota.bytes:
            raise Permanent(f"quota_bytes: {quota.bytes} is less than what is used ({used.bytes})")
        if used.files > quota.files:
            raise Permanent(f"quota_files: {quota.files} is less than what is used ({used.files})")

    async def _absent(self, ctx: Context, held: Claim) -> Done | NotYet:
        name, disk = ctx.instance_name(FOLDER), self._disk
        if disk.has_left(name):
            ctx.report(10, "taking the folder away")
            await self._carry_out(ctx, held, "discard_folder", lambda: disk.discard(name))
            ctx.report(30, "removing its content")
            if not await self._carry_out(ctx, held, "empty_folder", lambda: disk.empty(name)):
                return NotYet(MORE_SECONDS, "removing its content")
        held.forget()
        return Done()


class TokenPiece(DiskPiece):
    """The token file of a binding, in the instance's folder and beside its data."""

    name = "token"
    kind = TOKEN
    mints = ("token",)

    async def _ensure(self, ctx: Context, held: Claim) -> Done:
        if ctx.work.binding is None:
            raise Permanent("a token belongs to a binding")
        read_values(BindingParameters, ctx.work.binding.parameters, "the parameters")
        home, name, disk = ctx.instance_name(FOLDER), ctx.name(TOKEN), self._disk
        if disk.read(home, MARKER) is None:
            held.forget()
            raise Permanent("the instance's folder is gone from the disk")
        content = encode_token(ctx.marker, ctx.secret("token"), ctx.work.binding.expires_at)
        if disk.read(home, TOKENS, name) != content:
            ctx.report(50, "writing the token file")
            await self._carry_out(ctx, held, "write_token", lambda: disk.put(home, (TOKENS, name), content))
        return Done({"folder": home, "token": name})

    async def _absent(self, ctx: Context, held: Claim) -> Done:
        home, name, disk = ctx.instance_name(FOLDER), ctx.name(TOKEN), self._disk
        await self._carry_out(ctx, held, "remove_token", lambda: disk.take(home, TOKENS, name))
        if name in disk.parts(home, HELD_TOKENS):
            await self._carry_out(ctx, held, "remove_held_token", lambda: disk.take(home, HELD_TOKENS, name))
        held.forget()
        return Done()
