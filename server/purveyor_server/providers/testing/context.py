"""The context that pieces get from the suite, and the fuse that makes the broker die in it.

Guarantee: names, marker, saved values, secrets and allocated numbers are as the engine gives them, the same on every run of
a step. A fuse burns at one numbered point of a verb: before or after a context call, before, during or after an outside
call, or when a step has returned and its result is not stored yet.
Limit: a death is one of this task, not of the process: it raises `Died`, or cancels the call while it waits for its answer.
Threads that were started work on (that is what `settle` is for); what only the end of a process lets go is not tested here.
"""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

from purveyor_server.domain.model import Json
from purveyor_server.domain.names import outside_name
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import PoolExhausted, Work, WorkSettings
from purveyor_server.providers.testing.case import ContractBroken

REVISION = 7  # in every marker of the suite


class Died(BaseException):
    """The broker dies here. No provider may stop it: hence no Exception."""


class Fuse:
    """Counts the points of one verb and burns at the point number `at` (None: never)."""

    def __init__(self, at: int | None = None) -> None:
        self.at = at
        self.points: list[str] = []
        self.burnt = False

    def passes(self, point: str) -> bool:
        """Count `point`; True when the broker dies here."""
        self.points.append(point)
        hit = self.at == len(self.points) - 1
        self.burnt = self.burnt or hit
        return hit

    def point(self, point: str) -> None:
        """Count `point`; raises Died when the broker dies here."""
        if self.passes(point):
            raise Died(point)


class Pools:
    """Numbers as the store gives them: one per pool and owner, until the owner is gone."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], int] = {}

    def allocate(self, owner: str, pool: str, low: int, high: int, avoid: Collection[int]) -> int:
        """The same number for the same owner, unless it is to be avoided. Raises PoolExhausted."""
        held = self._given.get((owner, pool))
        if held is not None and held not in avoid:
            return held
        taken = {number for (_, name), number in self._given.items() if name == pool}.union(avoid)
        free = next((number for number in range(low, high + 1) if number not in taken), None)
        if free is None:
            raise PoolExhausted(f"every number of {pool} is taken")
        self._given[owner, pool] = free
        return free

    def free(self, owner: str) -> None:
        """The owner is DELETED."""
        self._given = {key: number for key, number in self._given.items() if key[0] != owner}


class Journal:
    """What the store keeps of one operation: saved values and secrets by step, and what pieces said."""

    def __init__(self) -> None:
        self.saved: dict[str, Json] = {}
        self.secrets: dict[str, dict[str, Secret]] = {}
        self.said: list[str] = []

    def mint(self, piece: str, labels: tuple[str, ...]) -> Mapping[str, Secret]:
        """The secrets of a step, minted before its first run."""
        kept = self.secrets.setdefault(piece, {})
        for label in labels:
            kept.setdefault(label, Secret.mint())
        return kept


class KitContext:
    """`contract.Context` for one run of one step."""

    def __init__(
        self,
        work: Work,
        piece: str,
        store_id: str,
        journal: Journal,
        pools: Pools,
        fuse: Fuse,
        secrets: Mapping[str, Secret],
        *,
        want: WorkSettings | None,
        was: WorkSettings | None,
    ) -> None:
        self.work = work
        self.want = want
        self.was = was
        self.epoch = 1
        self.deadline = datetime.now(UTC) + timedelta(minutes=5)
        self.uid = work.binding.uid if work.binding is not None else work.instance_uid
        self.marker = f"purveyor:{store_id}:{self.uid}:{REVISION}"
        self.task: asyncio.Task[Any] | None = None  # what dies while a call is on its way
        self._piece = piece
        self._journal = journal
        self._pools = pools
        self.fuse = fuse
        self._secrets = secrets
        self._sent = ""

    @property
    def saved(self) -> Json:
        """What an earlier run saved."""
        return self._journal.saved.get(self._piece)

    def name(self, kind: str, limit: int = 63) -> str:
        """The name of this operation's own resource."""
        return outside_name(kind, self.uid, limit)

    def instance_name(self, kind: str, limit: int = 63) -> str:
        """The name of the instance's thing."""
        return outside_name(kind, self.work.instance_uid, limit)

    def secret(self, label: str) -> Secret:
        """A secret of this step; KeyError for one that is not in `mints`, and in `absent`."""
        self._pass(f"secret({label})")
        return self._secrets[label]

    async def save(self, value: Json) -> None:
        """Keep `value` over deaths."""
        self._pass("save.before")
        self._journal.saved[self._piece] = value
        self.fuse.point(f"{self._piece}.save.after")

    async def allocate(self, pool: str, low: int, high: int, avoid: Collection[int] = ()) -> int:
        """A number that is this owner's alone."""
        self._pass("allocate.before")
        number = self._pools.allocate(self.uid, pool, low, high, avoid)
        self.fuse.point(f"{self._piece}.allocate.after")
        return number

    def report(self, percent: float, sentence: str) -> None:
        """Progress; kept, so that secrets in it are found."""
        if not 0 <= percent <= 100:  # noqa: PLR2004 - per cent
            raise ContractBroken(f"the piece {self._piece!r} reports {percent} percent")
        self._journal.said.append(sentence)
        self._pass("report")

    def outside(self, call: str) -> None:
        """Announce an outside call."""
        self._pass(f"outside({call}).before")
        self._sent = call
        if self.fuse.passes(f"{self._piece}.outside({call}).during"):
            # The call is sent before the next turn of the loop, its answer comes after it.
            asyncio.get_running_loop().call_soon(self._cut_off)

    def returned(self) -> None:
        """The step has returned; nothing of it is stored yet."""
        self._came_back()
        self.fuse.point(f"{self._piece}.returned")

    def _cut_off(self) -> None:
        if self.task is not None:
            self.task.cancel()

    def _came_back(self) -> None:
        if self._sent:
            sent, self._sent = self._sent, ""
            self.fuse.point(f"{self._piece}.outside({sent}).after")

    def _pass(self, point: str) -> None:
        self._came_back()
        self.fuse.point(f"{self._piece}.{point}")
