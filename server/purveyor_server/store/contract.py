"""What a store promises: atomic commands, committed reads, one notice per commit.

Commands. Each is atomic. The rule inside a command is a pure function `decide` of lower layers: the store reads the rows that
the command names (locked against other commands until commit), calls `decide`, and applies the `Writes` it returns. `decide`
may run more than once (a lost batch is run again one command per transaction), so it has no side effects; what it raises is
the answer of this command alone and undoes only this command. For every instance, binding or (not quiet) operation written,
one event is appended in the same transaction; revisions are dense, in commit order, and stamped last, as audit records are.

Classes of error that a caller may see, all `PurveyorError`:
- what `decide` raised;
- STORE_UNAVAILABLE (try again), STORE_FULL (the disk is, or is below its low-water mark): nothing was written;
- OUTCOME_UNKNOWN: COMMIT was sent and its answer never came; settled by the same request_id;
- `LeaseLostError` (engine only): the fence no longer holds, nothing was written.
A caller that is cancelled while it waits withdraws nothing: the command may commit.

Reads. A read that starts after an answered write sees it. A row outside the caller's `Scope` is as if it did not exist.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Protocol

import msgspec

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.filters import Filter
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.model import (
    Binding,
    Event,
    Instance,
    Operation,
    PlanSnapshot,
    RequestKey,
    SealedSecret,
    Step,
    UniqueMark,
)
from purveyor_server.domain.quotas import Usage
from purveyor_server.store.operating import OperatorCommands, OperatorReads


class LeaseLostError(Exception):
    """The operation was claimed by somebody else, ended, or the store's epoch moved on: stop, write nothing."""


class Scope(msgspec.Struct, frozen=True):
    """Whose rows a call may touch; None means every tenant (engine, operators)."""

    tenants: frozenset[str] | None

    def allows(self, tenant: str) -> bool:
        """True when rows of `tenant` are within this scope."""
        return self.tenants is None or tenant in self.tenants


SYSTEM = Scope(None)


class Writes(msgspec.Struct, frozen=True):
    """What a command puts down: whole records, inserted or replaced by their key.

    `quiet` operations get no event (progress, leases). `erase` names owners (uids) whose secrets and marks go, whose operations'
    journals lose outputs and saved values, and whose allocated numbers are free again. A `unique` mark that another owner
    holds refuses the command with CREDENTIALS_NOT_UNIQUE.
    """

    instances: tuple[Instance, ...] = ()
    bindings: tuple[Binding, ...] = ()
    operations: tuple[Operation, ...] = ()
    quiet: tuple[Operation, ...] = ()
    steps: tuple[Step, ...] = ()
    secrets: tuple[SealedSecret, ...] = ()
    unique: tuple[UniqueMark, ...] = ()
    erase: tuple[str, ...] = ()
    audit: tuple[AuditRecord, ...] = ()


class Backlog(msgspec.Struct, frozen=True):
    """Unfinished operations: waiting for a slot or running (`pending`), and waiting for anything else (`parked`)."""

    pending: int
    parked: int


class Situation(msgspec.Struct, frozen=True):
    """What an accept sees, read in its own transaction.

    `instance` and `binding` are the newest incarnation of their ids, tombstones included. `operations` are all unfinished ones
    on that incarnation of the instance, its bindings' included. `bindings` are the live ones, only when the command asked
    for them. `replay` is the operation that the same request key made.
    """

    now: datetime
    head: int
    instance: Instance | None
    binding: Binding | None
    bindings: tuple[Binding, ...]
    operations: tuple[Operation, ...]
    replay: Operation | None
    last_operation: Operation | None  # of the binding when the command names one, else of the instance
    backlog: Backlog
    usage: Usage = Usage()  # only when the command counts


class Decision(msgspec.Struct, frozen=True):
    """What an accept decided: its writes, and what the caller is told."""

    writes: Writes = Writes()
    operation: Operation | None = None
    instance: Instance | None = None
    binding: Binding | None = None
    replayed: bool = False


class Accept(msgspec.Struct, frozen=True):
    """Accept a verb on (tenant, instance_id[, binding_id]). With `dry_run` the decision is made and nothing is written.

    `creates` marks a command that makes something new: STORE_FULL below the low-water mark of the disk. `counts` asks for
    the tenant's usage, as this transaction has it.
    """

    scope: Scope
    tenant: str
    instance_id: str
    decide: Callable[[Situation], Decision]
    binding_id: str = ""
    request: RequestKey | None = None
    with_bindings: bool = False
    creates: bool = False
    counts: bool = False
    dry_run: bool = False
    label: str = ""  # names its test points: store.accept.<label>.before|during|after


class Fence(msgspec.Struct, frozen=True):
    """Proof of a lease: the write is refused (LeaseLostError) unless the row still carries exactly this."""

    operation_id: str
    owner: str
    lease_no: int


class Job(msgspec.Struct, frozen=True):
    """What an engine command sees: the operation as it is now and, when asked for, its resources and dependents (the unfinished
    operations whose `blocked_by` names it) and siblings (the others on the same instance incarnation, bindings' included).
    """

    now: datetime
    head: int
    operation: Operation
    instance: Instance | None = None
    binding: Binding | None = None
    dependents: tuple[Operation, ...] = ()
    siblings: tuple[Operation, ...] = ()
    bindings: tuple[Binding, ...] = ()
    freezes: tuple[Freeze, ...] = ()


class Advance(msgspec.Struct, frozen=True):
    """Journal, park, finish: one write of the engine under its fence. `with_resources` fills the rest of `Job`."""

    fence: Fence
    decide: Callable[[Job], Writes]
    with_resources: bool = False
    label: str = ""  # names the test points of this command


class Amend(msgspec.Struct, frozen=True):
    """Change an operation from outside the engine (cancel), within the caller's scope; raises OPERATION_NOT_FOUND."""

    scope: Scope
    operation_id: str
    decide: Callable[[Job], Writes]
    with_resources: bool = False


class Claim(msgspec.Struct, frozen=True):
    """Lease up to `limit` due operations: round robin between tenants (starting after `after_tenant`), FIFO within one.

    `tenant_room` says how many more steps a tenant named there may run (0 excludes it), `tenant_limit` holds for the
    others; `provider_room` and `provider_limit` likewise. With `removals_only` just DEPROVISION, UNBIND and CLEANUP are
    looked at (the reserved slots).
    """

    owner: str
    lease: timedelta
    limit: int
    after_tenant: str = ""
    tenant_room: dict[str, int] = {}
    tenant_limit: int = 1_000_000
    provider_room: dict[str, int] = {}
    provider_limit: int = 1_000_000
    removals_only: bool = False


class Claimed(msgspec.Struct, frozen=True):
    """An operation under lease with all that is needed to work on it."""

    operation: Operation
    instance: Instance
    binding: Binding | None
    steps: tuple[Step, ...]
    plans: dict[str, PlanSnapshot]
    secrets: tuple[SealedSecret, ...]
    origin: Operation | None = None  # for CLEANUP
    origin_steps: tuple[Step, ...] = ()

    @property
    def fence(self) -> Fence:
        """The fence of this lease."""
        return Fence(self.operation.operation_id, self.operation.lease_owner, self.operation.lease_no)


class Progress(msgspec.Struct, frozen=True):
    """Percent (0..100) and sentence of a running operation; no event."""

    fence: Fence
    percent: float
    sentence: str


class Retention(msgspec.Struct, frozen=True):
    """What may be forgotten, by age: ended operations, tombstones, events, audit records; at most `limit` of each a call."""

    operations: timedelta
    tombstones: timedelta
    events: timedelta
    max_events: int
    limit: int = 1000
    audit: timedelta = timedelta(days=400)


class Commit(msgspec.Struct, frozen=True):
    """Told to listeners after COMMIT, on the event loop, in commit order."""

    head: int
    events: tuple[Event, ...]
    operations: tuple[Operation, ...]  # every operation written, quiet ones too
    due: bool  # something became due
    commands: int = 1  # how many shared the transaction
    seconds: float = 0.0  # from BEGIN to the end of COMMIT
    audit: Mapping[str, int] = {}  # audit records written, by outcome
    campaigns: frozenset[str] = frozenset()  # those that changed, by id


class Page(msgspec.Struct, frozen=True):
    """Keyset page: rows after `after` (the key of the last row seen, "" = from the start), at most `limit`."""

    limit: int
    after: str = ""


class Commands(OperatorCommands, Protocol):
    """The writes."""

    async def accept(self, command: Accept) -> Decision:
        """Run an accept; see `Accept`."""
        ...

    async def amend(self, command: Amend) -> Operation:
        """Run an amend; returns the operation as it is after it."""
        ...

    async def advance(self, command: Advance) -> Operation:
        """Run an engine write; returns the operation after it. Raises LeaseLostError."""
        ...

    async def claim(self, command: Claim) -> tuple[Claimed, ...]:
        """Lease due operations; state PENDING becomes RUNNING, `started_at` is set at the first claim."""
        ...

    async def renew(self, fences: Sequence[Fence], lease: timedelta) -> frozenset[str]:
        """Extend leases; returns the operation_ids that are still held."""
        ...

    async def release(self, owner: str) -> int:
        """Make every operation leased by `owner` due now (graceful stop); returns how many."""
        ...

    async def progress(self, marks: Sequence[Progress]) -> None:
        """Store progress of running operations; a lost fence is ignored."""
        ...

    async def allocate(self, fence: Fence, pool: str, low: int, high: int, avoid: Collection[int] = ()) -> int:
        """The number of `pool` that the fenced operation's binding, else instance, has to itself until it is erased: the same
        one, unless it is to be avoided. Raises LeaseLostError, POOL_EXHAUSTED."""
        ...

    async def wake(self, provider: str) -> int:
        """Make operations of `provider` that wait for its circuit due now; returns how many."""
        ...

    async def put_meta(self, name: str, value: bytes) -> bytes:
        """Keep `value` under `name` unless there is one already; returns the one that is kept."""
        ...

    async def retain(self, policy: Retention) -> int:
        """Forget what may be forgotten; returns the number of rows removed. Call again while it is positive."""
        ...


class Reads(OperatorReads, Protocol):
    """The committed reads."""

    async def instance(self, scope: Scope, tenant: str, instance_id: str) -> Instance | None:
        """The newest incarnation, tombstones included."""
        ...

    async def instances(
        self, scope: Scope, tenant: str, where: Filter, page: Page, *, deleted: bool = False
    ) -> tuple[Instance, ...]:
        """Instances of a tenant by uid (creation order); without tombstones unless `deleted`."""
        ...

    async def binding(self, scope: Scope, tenant: str, instance_id: str, binding_id: str) -> Binding | None:
        """The newest incarnation in the newest incarnation of its instance, tombstones included."""
        ...

    async def bindings(
        self, scope: Scope, tenant: str, instance_id: str, where: Filter, page: Page, *, deleted: bool = False
    ) -> tuple[Binding, ...]:
        """Bindings by uid; of every instance of the tenant when `instance_id` is empty."""
        ...

    async def operation(self, scope: Scope, operation_id: str) -> Operation | None:
        """One operation."""
        ...

    async def operations_named(self, scope: Scope, operation_ids: Sequence[str]) -> tuple[Operation, ...]:
        """Those of the named operations that there are, in no order; at most a page of names."""
        ...

    async def operations(self, scope: Scope, tenant: str, where: Filter, page: Page) -> tuple[Operation, ...]:
        """Operations of a tenant by operation_id (creation order)."""
        ...

    async def steps(self, scope: Scope, operation_id: str) -> tuple[Step, ...]:
        """The journal of an operation, by index."""
        ...

    async def secret(self, owner: str, name: str) -> SealedSecret | None:
        """One sealed secret; the caller has checked the scope of `owner` with a read before."""
        ...

    async def plan(self, digest: str) -> PlanSnapshot | None:
        """One plan snapshot."""
        ...

    async def events(self, after: int, limit: int) -> tuple[Event, ...]:
        """Events with revision > `after`, in order; raises `log.CompactedError` when those right behind are not kept."""
        ...

    async def backlog(self) -> Backlog:
        """Counts of unfinished operations."""
        ...

    async def meta(self, name: str) -> bytes | None:
        """A value of the store itself (sealed keys, check values)."""
        ...


class Store(Commands, Reads, Protocol):
    """A store that is open. `store_id` names it for ever; `epoch` grows with every opening and voids older leases."""

    store_id: str
    epoch: int

    @property
    def head(self) -> int:
        """Revision of the newest committed event known here."""
        ...

    def subscribe(self, listener: Callable[[Commit], None]) -> Callable[[], None]:
        """Call `listener` after every commit; returns the function that ends it. A listener must not block nor raise."""
        ...

    async def ping(self) -> None:
        """Raise PurveyorError unless the store can be read and its writer is alive."""
        ...

    async def close(self) -> None:
        """Finish accepted commands, then close. Idempotent."""
        ...
