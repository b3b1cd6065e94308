"""Folders and token files out of use, and their removal, by their marker.

Guarantee: the marker is read under the lock of the piece that makes the thing, and the change follows in the same thread; what is
in quarantine has another name in the same folder, so it is listed as before and costs no copy.
Limit: who has a file open keeps it open: the operating system takes nothing back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

from purveyor_server.domain.names import outside_name
from purveyor_server.providers.contract import Done, MarkerChanged, NotYet, Owned, Permanent, Retryable
from purveyor_server.providers.directory.disk import DATA, HELD_DATA, HELD_TOKENS, MARKER, TOKENS, Disk
from purveyor_server.providers.directory.entries import hidden
from purveyor_server.providers.directory.failures import explained
from purveyor_server.providers.directory.locks import claim
from purveyor_server.providers.directory.observation import Mark, read_mark
from purveyor_server.providers.directory.pieces import BUSY_SECONDS, FOLDER, MORE_SECONDS, TOKEN
from purveyor_server.providers.directory.tokens import decode_token

KINDS = {"folder": FOLDER, "token": TOKEN}
WORKED_ON = "an operation is at work on it"


class Silent(NamedTuple):
    """For whom the work is done: no step of an operation, so nobody counts its calls."""

    uid: str

    def outside(self, call: str) -> None:
        """Announced to nobody."""


class Custodian:
    """The abilities QUARANTINE and RECLAIM."""

    def __init__(self, disk: Disk, threads: ThreadPoolExecutor, store_id: str) -> None:
        self._disk = disk
        self._threads = threads
        self._store_id = store_id

    async def quarantine(self, owned: Owned) -> None:
        """See `abilities.Quarantining`."""
        await self._changed(owned, "quarantine", lambda: self._hold(owned, held=True))

    async def release(self, owned: Owned) -> None:
        """See `abilities.Quarantining`."""
        await self._changed(owned, "release", lambda: self._hold(owned, held=False))

    async def reclaim(self, owned: Owned) -> Done | NotYet:
        """See `abilities.Reclaiming`."""
        try:
            more = await self._changed(owned, "reclaim", lambda: self._remove(owned))
        except Retryable as error:
            if error.message == WORKED_ON:
                return NotYet(BUSY_SECONDS, WORKED_ON)
            raise
        return NotYet(MORE_SECONDS, "removing its content") if more else Done()

    async def _changed(self, owned: Owned, call: str, work: Callable[[], bool]) -> bool:
        """Do `work` under the lock of the thing, if that is there and carries the marker. Raises MarkerChanged, Retryable."""
        if owned.kind not in KINDS:
            raise Permanent(f"this provider has no things of the kind {owned.kind}")
        lock = hidden(outside_name(KINDS[owned.kind], owned.uid), "lock")

        def checked() -> bool:
            return self._is_there(owned) and work()

        with explained(call):
            # Before the lock too: its file would stay beside what is not ours.
            there = await asyncio.wrap_future(self._threads.submit(self._is_there, owned))
            if not there and call != "reclaim":
                return False
            with self._disk.opened() as root, claim(root, lock, self._threads) as held:
                if not held:
                    raise Retryable(WORKED_ON)
                more = await held.change(Silent(owned.uid), call, lambda: self._disk.carry_out(call, checked))
                if call == "reclaim" and not more:
                    held.forget()
                return more

    def _is_there(self, owned: Owned) -> bool:
        home, _, token = owned.name.partition("/")
        content = self._disk.read(home, MARKER)
        there = self._disk.has(home)
        if token:
            files = [self._disk.read(home, part, token) for part in (TOKENS, HELD_TOKENS)]
            there = any(file is not None for file in files)
            file = decode_token(next((file for file in files if file is not None), None))
            content = file.marker.encode() if file is not None else None
        if there and read_mark(content) != Mark(self._store_id, owned.uid, owned.revision):
            raise MarkerChanged(f"the {owned.kind} {owned.name} does not carry that marker: it was left as it is")
        return there

    def _hold(self, owned: Owned, *, held: bool) -> bool:
        home, _, token = owned.name.partition("/")
        if token:
            parts = (TOKENS, HELD_TOKENS) if held else (HELD_TOKENS, TOKENS)
            self._disk.move(home, token, *parts)
        else:
            parts = (DATA, HELD_DATA) if held else (HELD_DATA, DATA)
            self._disk.rename(home, *parts)
        return False

    def _remove(self, owned: Owned) -> bool:
        """True when there is more to remove."""
        home, _, token = owned.name.partition("/")
        if token:
            for part in (TOKENS, HELD_TOKENS):
                self._disk.take(home, part, token)
            return False
        name = home.removeprefix(".").removesuffix(".new").removesuffix(".trash")  # of what a run left behind
        if home != hidden(name, "trash"):
            self._disk.discard(name, home)
        return not self._disk.empty(name)
