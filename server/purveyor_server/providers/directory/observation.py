"""What the disk says of an instance, and which things on it are a store's.

Guarantee: changes nothing; each difference is a sentence for operators.
Limit: what is used is measured by walking the folder, for a bounded time; a folder too large for that is said to be.
"""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime
from typing import NamedTuple

import msgspec

from purveyor_server.domain.names import outside_name
from purveyor_server.domain.states import Drift
from purveyor_server.providers.contract import Known, Observed, Owned
from purveyor_server.providers.directory.disk import DATA, HELD_TOKENS, MARKER, QUOTA, TOKENS, Disk
from purveyor_server.providers.directory.failures import explained
from purveyor_server.providers.directory.pieces import FOLDER, MEASURE_SECONDS, TOKEN
from purveyor_server.providers.directory.settings import Quota, quota_of
from purveyor_server.providers.directory.tokens import decode_token

MAX_DIFFERENCES = 50


class Mark(NamedTuple):
    """A marker, taken apart."""

    store_id: str
    uid: str
    revision: int


async def observe(disk: Disk, threads: ThreadPoolExecutor, instance: Known) -> Observed:
    """Drift of `instance`. Raises ProviderError."""
    quota = quota_of(instance.settings)
    with explained("observe"):
        return await asyncio.wrap_future(threads.submit(_look, disk, instance, quota))


def _look(disk: Disk, instance: Known, quota: Quota) -> Observed:
    name = outside_name(FOLDER, instance.uid)
    disk.names()  # the root itself must be there: an unmounted disk makes no instance MISSING
    mark = read_mark(disk.read(name, MARKER))
    used = disk.used(name, MEASURE_SECONDS)
    if mark is None or used is None or mark.uid != instance.uid:
        return _observed(
            Drift.MISSING, [f"folder {name} with the broker's marker and {DATA} does not exist"], healthy=False
        )
    differences = []
    if disk.read(name, QUOTA) != msgspec.json.encode(quota._asdict()):
        differences.append("the recorded quota is another")
    differences += _compare_mode(disk, name)
    differences += _compare_tokens(disk, name, instance)
    if used.bytes > quota.bytes:
        differences.append(f"{used.bytes} bytes are used, the quota is {quota.bytes}")
    if used.files > quota.files:
        differences.append(f"{used.files} files and folders are used, the quota is {quota.files}")
    notes = [f"not all was measured, {used.gap}: at least {used.bytes} bytes are used"] if used.gap else []
    notes += _expired(disk, name, instance)
    drift = Drift.DRIFTED if differences else Drift.IN_SYNC
    return _observed(drift, differences + notes, healthy=True)


def _observed(drift: Drift, differences: list[str], *, healthy: bool) -> Observed:
    return Observed(drift, healthy, datetime.now(UTC), tuple(differences[:MAX_DIFFERENCES]))


def _compare_mode(disk: Disk, name: str) -> list[str]:
    mode = stat.S_IMODE(disk.mode_of(name, DATA))
    return [] if mode == disk.mode else [f"the folder's mode is {mode:04o}, not {disk.mode:04o}"]


def _compare_tokens(disk: Disk, name: str, instance: Known) -> list[str]:
    wanted = {outside_name(TOKEN, uid) for uid in instance.bindings}
    found = set(disk.parts(name, TOKENS))
    return [f"token file {token} does not exist" for token in sorted(wanted - found)] + [
        f"token file {token} belongs to no binding" for token in sorted(found - wanted)
    ]


def _expired(disk: Disk, name: str, instance: Known) -> list[str]:
    now, notes = datetime.now(UTC), []
    for token in sorted(outside_name(TOKEN, uid) for uid in instance.bindings):
        file = decode_token(disk.read(name, TOKENS, token))
        if file is not None and file.expires_at is not None and file.expires_at <= now:
            notes.append(f"the time of token file {token} is over")
    return notes


async def list_owned(disk: Disk, threads: ThreadPoolExecutor, store_id: str) -> AsyncIterator[Owned]:
    """Folders and token files that carry the marker of `store_id`, and what interrupted runs left of them."""
    with explained("list_owned"):
        for name in await asyncio.wrap_future(threads.submit(disk.names)):
            for owned in await asyncio.wrap_future(threads.submit(_owned_in, disk, name, store_id)):
                yield owned


def _owned_in(disk: Disk, name: str, store_id: str) -> list[Owned]:
    found = []
    mark = read_mark(disk.read(name, MARKER))
    if mark is not None and mark.store_id == store_id:
        found.append(Owned("folder", name, mark.uid, mark.revision))
    for part, token in [(held, file) for held in (TOKENS, HELD_TOKENS) for file in disk.parts(name, held)]:
        file = decode_token(disk.read(name, part, token))
        mark = read_mark(file.marker.encode()) if file is not None else None
        if mark is not None and mark.store_id == store_id:
            found.append(Owned("token", f"{name}/{token}", mark.uid, mark.revision))
    return found


def read_mark(content: bytes | None) -> Mark | None:
    """A marker taken apart; None when it is none."""
    parts = (content or b"").decode(errors="replace").split(":")
    if len(parts) != 4 or parts[0] != "purveyor" or not parts[3].isdecimal():  # noqa: PLR2004 - purveyor:store:uid:revision
        return None
    return Mark(parts[1], parts[2], int(parts[3]))
