"""What a piece method gets while it runs.

Guarantee: `secret` gives only what was committed before the step began; `save` has committed when it returns; `outside`
refuses to let a call begin when a third of the lease is left, so that fencing is not the last line of defence.
One run has at most one command in the store at a time and `MAX_COMMANDS` in all; a run that was given up (it ignored its
cancellation) can no longer save, allocate, report or begin an outside call.
Each method and each announced outside call is a failpoint (`context.<method>.before|after`,
`outside.<call>.before|during|after`) for the recovery suite.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime

from purveyor_server.domain.model import Json
from purveyor_server.domain.names import outside_name
from purveyor_server.kit import failpoints
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import Ambiguous, LeaseEnding, Work, WorkSettings

MAX_COMMANDS = 100  # saves and allocations of one run of one step


class Lease:
    """How long an operation is still ours, on the monotonic clock."""

    def __init__(self, seconds: float, monotonic: Callable[[], float], asked: float) -> None:
        self._seconds = seconds
        self._monotonic = monotonic
        self._until = asked + seconds

    def renewed_at(self, asked: float) -> None:
        """The store confirmed a renewal that was asked for at monotonic time `asked`."""
        self._until = asked + self._seconds

    @property
    def ending(self) -> bool:
        """True when a third or less is left: no new outside call may begin."""
        return self._until - self._monotonic() <= self._seconds / 3


class StepContext:
    """`providers.contract.Context` for one run of one step."""

    def __init__(
        self,
        *,
        work: Work,
        want: WorkSettings | None,
        was: WorkSettings | None,
        uid: str,
        marker: str,
        epoch: int,
        deadline: datetime,
        saved: Json,
        secrets: Mapping[str, Secret],
        lease: Lease,
        save: Callable[[Json], Awaitable[Json]],
        allocate: Callable[[str, int, int, Collection[int]], Awaitable[int]],
        report: Callable[[float, str], None],
    ) -> None:
        self.work = work
        self.want = want
        self.was = was
        self.epoch = epoch
        self.deadline = deadline
        self.saved = saved
        self.marker = marker
        self._uid = uid
        self._secrets = secrets
        self._lease = lease
        self._save = save
        self._allocate = allocate
        self._report = report
        self._sent = ""
        self._one_at_a_time = asyncio.Lock()
        self._commands = 0
        self._closed = False
        self.lease_ended = False

    def close(self) -> None:
        """The run is over for the engine, whatever the piece still does."""
        self._closed = True

    def name(self, kind: str, limit: int = 63) -> str:
        """The opaque outside name of this operation's own resource."""
        return outside_name(kind, self._uid, limit)

    def instance_name(self, kind: str, limit: int = 63) -> str:
        """The opaque outside name of the instance's thing."""
        return outside_name(kind, self.work.instance_uid, limit)

    def secret(self, label: str) -> Secret:
        """A secret committed before this step began; KeyError for a label that the piece does not mint."""
        self._pass("secret")
        return self._secrets[label]

    async def save(self, value: Json) -> None:
        """Commit `value` under the fence."""
        async with self._one_at_a_time:
            self._count("save")
            self.saved = await self._save(value)
        failpoints.hit("context.save.after")

    async def allocate(self, pool: str, low: int, high: int, avoid: Collection[int] = ()) -> int:
        """A number that is this owner's alone, committed under the fence; raises PoolExhausted."""
        async with self._one_at_a_time:
            self._count("allocate")
            value = await self._allocate(pool, low, high, avoid)
        failpoints.hit("context.allocate.after")
        return value

    def report(self, percent: float, sentence: str) -> None:
        """Progress of this step."""
        self._pass("report")
        self._report(percent, sentence)

    def outside(self, call: str) -> None:
        """Announce an outside call; raises LeaseEnding."""
        self._refuse_late()
        self.returned()
        if self._lease.ending:
            self.lease_ended = True
            message = "the lease is about to end"
            raise LeaseEnding(message)
        if failpoints.armed:
            failpoints.send(call)
            self._sent = call

    def returned(self) -> None:
        """The outside call announced last has come back (the piece went on)."""
        if self._sent:
            sent, self._sent = self._sent, ""
            failpoints.hit(f"outside.{sent}.after")

    def _count(self, method: str) -> None:
        """One more command of this run."""
        self._pass(method)
        self._commands += 1
        if self._commands > MAX_COMMANDS:
            message = f"a step of the provider saved or allocated more than {MAX_COMMANDS} times in one run"
            raise Ambiguous(message)

    def _refuse_late(self) -> None:
        if self._closed:
            message = "this run of the step was given up"
            raise Ambiguous(message)

    def _pass(self, method: str) -> None:
        self._refuse_late()
        self.returned()
        failpoints.hit(f"context.{method}.before")
