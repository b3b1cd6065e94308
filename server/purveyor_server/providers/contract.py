"""What a provider is: pieces with `ensure`, `absent` and `settle`, and a pure plan over them.

Guarantee for authors: the engine journals every step, retries, undoes, takes over and cleans up; an author writes only how
to make one outside thing so, how to make it gone, and how to tell that no earlier run can still take effect. Undo is
derived: of a create -> `absent` in reverse; of an update -> `ensure` with the previous settings; a deletion has none.
Limit: a piece method may run at any moment, any number of times, also after it has succeeded, also in a process that
remembers nothing: it may rely on names, `want`, `was`, `saved` and the backend, on nothing else.

Failures of a piece method: raise `Retryable`, `Permanent`, `Ambiguous` or `Unreachable`; any other exception counts as
`Ambiguous` (it may have happened) and is logged. User messages are for the caller, `detail` for the operator's log.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Collection, Mapping, Sequence
from datetime import datetime
from enum import StrEnum
from typing import Any, NamedTuple, Protocol

import msgspec

from purveyor_server.domain.model import Endpoint, Json
from purveyor_server.domain.states import Drift, Make, Verb
from purveyor_server.kit.secret import Secret

Outputs = Mapping[str, Json]
"""What a finished piece says of itself (host, names, versions): JSON, no secret, at most 64 KiB."""


class Done(msgspec.Struct, frozen=True):
    """The piece is as wanted. `secrets` are sealed by the core and given to `credentials`."""

    outputs: dict[str, Json] = {}
    secrets: dict[str, Secret] = {}


class NotYet(msgspec.Struct, frozen=True):
    """Not finished: ask again after `after` seconds. Nothing is held meanwhile."""

    after: float
    note: str = ""


class ProviderError(Exception):
    """Base of what a piece may raise. `message` may be shown to the caller; `detail` only to operators. Neither holds a secret."""

    def __init__(self, message: str, detail: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.detail = detail


class Retryable(ProviderError):  # noqa: N818 - the contract's own word
    """It certainly did not happen; trying again may help."""


class Unreachable(Retryable):
    """The backend does not answer at all: postpone without spending an attempt, and open the circuit."""


class RightsMissing(Retryable):
    """The broker's own account lacks a right in the backend: an operator must act; kept waiting like a closed circuit."""


class Permanent(ProviderError):  # noqa: N818
    """It certainly did not happen and trying again will not help."""


class MarkerChanged(Permanent):
    """The thing does not carry the marker that was asked about (another one, or none): it was left as it is."""


class PoolExhausted(Permanent):
    """Raised by `Context.allocate`: every number of the pool is taken; let it through."""


class Ambiguous(ProviderError):  # noqa: N818
    """It may have happened, or may still happen: settle first, then ensure again."""


class WorkSettings(msgspec.Struct, frozen=True):
    """One side of a change: the plan's provider settings and the instance's (or binding's) parameters, defaults merged."""

    service_id: str
    plan_id: str
    plan: dict[str, Json]
    parameters: dict[str, Json]


class BindingWork(msgspec.Struct, frozen=True):
    """The binding that a BIND or UNBIND is about."""

    uid: str
    parameters: dict[str, Json]
    bind_resource: dict[str, Json] = {}
    expires_at: datetime | None = None


class Work(msgspec.Struct, frozen=True):
    """What an operation is to do. `verb` is one of PROVISION, UPDATE, DEPROVISION, BIND, UNBIND.

    `want` is None for a deprovision; `was` is None for a first provision. `outputs` are those of the instance's pieces.
    `adopt` is only there in a PROVISION by a provider with the ability ADOPT: which existing thing it shall take over, in the
    provider's own words. What such a provision undoes is never the thing itself: it is given back as it was.
    """

    verb: Verb
    instance_uid: str
    want: WorkSettings | None
    was: WorkSettings | None
    outputs: Mapping[str, Outputs]
    binding: BindingWork | None = None
    adopt: dict[str, Json] | None = None


class Context(Protocol):
    """What a piece method gets."""

    @property
    def work(self) -> Work:
        """What the whole operation is to do."""
        ...

    @property
    def want(self) -> WorkSettings | None:
        """The settings this run works towards; the previous ones when an update is undone; None for a deletion."""
        ...

    @property
    def was(self) -> WorkSettings | None:
        """The settings before."""
        ...

    @property
    def epoch(self) -> int:
        """The store's epoch: grows with every start of the broker."""
        ...

    @property
    def deadline(self) -> datetime:
        """When the operation's time is over."""
        ...

    @property
    def saved(self) -> Json:
        """What `save()` stored in an earlier run of this step, else None."""
        ...

    @property
    def marker(self) -> str:
        """`purveyor:<store id>:<uid>:<revision>`: goes on what is made, so that `list_owned` finds it. No tenant text."""
        ...

    def name(self, kind: str, limit: int = 63) -> str:
        """The opaque outside name of this operation's own resource (the binding in BIND/UNBIND, else the instance)."""
        ...

    def instance_name(self, kind: str, limit: int = 63) -> str:
        """The opaque outside name of the instance's thing `kind`, also within BIND and UNBIND."""
        ...

    def secret(self, label: str) -> Secret:
        """A secret minted, sealed and committed by the core before this step first ran; the same on every run.

        Raises KeyError for a label that the piece does not list in `mints`. Not available in `absent` (names only).
        """
        ...

    async def save(self, value: Json) -> None:
        """Commit `value` under the fence before it returns: call it before the outside call it describes."""
        ...

    async def allocate(self, pool: str, low: int, high: int, avoid: Collection[int] = ()) -> int:
        """A number of low..high that no other owner has, committed before it returns; for `ensure`.

        The owner is the binding in BIND, else the instance. It gets the same number on every run, also after the range
        has changed, unless that one is in `avoid` (a port that a stranger holds): then another takes its place. It is
        free again from the command on that makes the owner DELETED. One pool serves all providers that name it.
        Raises PoolExhausted.
        """
        ...

    def report(self, percent: float, sentence: str) -> None:
        """Progress of this step (0..100) and a sentence for the caller."""
        ...

    def outside(self, call: str) -> None:
        """Announce an outside call that changes the backend, just before it is sent.

        Raises `LeaseEnding` when too little of the lease is left to start one; tests count and kill here.
        """
        ...


class LeaseEnding(Retryable):
    """Raised by `Context.outside`: the lease is about to end; let it through."""


class Piece(Protocol):
    """ONE outside thing. Names are unique in a plan and stable over versions of the provider's contract."""

    @property
    def name(self) -> str:
        """Unique within its plan; stored in the journal."""
        ...

    @property
    def weight(self) -> float:
        """Share of the progress bar, > 0."""
        ...

    @property
    def mints(self) -> tuple[str, ...]:
        """Labels of the secrets that the core mints before the first `ensure`."""
        ...

    async def ensure(self, ctx: Context) -> Done | NotYet:
        """Make it as `ctx.want` says."""
        ...

    async def absent(self, ctx: Context) -> Done | NotYet:
        """Make it gone; success if it never was. By names only: no outputs, no secrets, no unsealing."""
        ...

    async def settle(self, ctx: Context) -> bool:
        """True once no earlier interrupted call of this piece can still take effect."""
        ...


class PlannedStep(NamedTuple):
    """One step of a plan: a piece, what to do with it, and whether the operation only goes forward from here on."""

    piece: Piece
    make: Make = Make.ENSURE
    pivot: bool = False


class Schemas(msgspec.Struct, frozen=True):
    """JSON Schemas (2020-12) of what a provider gives, and what is special in it.

    `outputs` by piece name; `credentials` of the credentials object; `secret_fields` and `unique_fields` are top-level
    keys of the credentials: kept secret, and different for every binding of a plan.
    """

    settings: dict[str, Any] = {}
    outputs: dict[str, dict[str, Any]] = {}
    credentials: dict[str, Any] = {}
    secret_fields: frozenset[str] = frozenset()
    unique_fields: frozenset[str] = frozenset()


class Ability(StrEnum):
    """What a provider can do beyond provision and deprovision."""

    BIND = "BIND"
    UPDATE = "UPDATE"
    EXPIRY = "EXPIRY"  # ends new logins on time without the broker
    OBSERVE = "OBSERVE"
    LIST_OWNED = "LIST_OWNED"
    QUARANTINE = "QUARANTINE"  # from here on: see `abilities`
    RECLAIM = "RECLAIM"
    ADOPT = "ADOPT"  # a PROVISION may take over what exists: `Work.adopt`
    ROTATE_ROOT = "ROTATE_ROOT"
    REISSUE = "REISSUE"  # tells which updates make bindings need new credentials


class Credentials(msgspec.Struct, frozen=True):
    """What a binding gets. `values` is the credentials object in clear: it lives only between here and the sealer."""

    values: dict[str, Json]
    endpoints: tuple[Endpoint, ...] = ()


class Known(msgspec.Struct, frozen=True):
    """A recorded instance, for `observe`: its uid, applied settings, outputs, and the uids of its live bindings."""

    uid: str
    settings: WorkSettings
    outputs: Mapping[str, Outputs]
    bindings: tuple[str, ...] = ()


class Observed(msgspec.Struct, frozen=True):
    """What the backend says of an instance at `at`. `differences` are sentences for operators."""

    drift: Drift
    healthy: bool
    at: datetime
    differences: tuple[str, ...] = ()


class Owned(msgspec.Struct, frozen=True):
    """A thing in the backend that carries our store's marker: its kind, its outside name, and what the marker says."""

    kind: str
    name: str
    uid: str
    revision: int


class Provider(Protocol):
    """Code that makes one kind of thing. One object per `ProviderRef`, made by `open`, closed by `close`."""

    @property
    def contract(self) -> str:
        """Version of step names and meaning; operations begun under another one are held (PROVIDER_CHANGED)."""
        ...

    @property
    def abilities(self) -> frozenset[Ability]:
        """What it can do."""
        ...

    @property
    def schemas(self) -> Schemas:
        """Its schemas."""
        ...

    async def check(self) -> None:
        """Raise Unreachable, RightsMissing or Permanent (with what to do) unless the backend can be worked with."""
        ...

    def plan(self, work: Work, done: Mapping[str, Outputs]) -> Sequence[PlannedStep]:
        """The steps of `work`. Pure; asked again after every step; the finished prefix must stay the same.

        A DEPROVISION names every piece that any plan of this instance can have made, whatever its settings were: it may
        take over from an operation that had begun something else.
        """
        ...

    def credentials(self, work: Work, done: Mapping[str, Outputs], secrets: Mapping[str, Secret]) -> Credentials:
        """Credentials of a finished BIND from outputs and the binding's secrets (by label). Pure."""
        ...

    async def observe(self, instance: Known) -> Observed:
        """Look at the backend; changes nothing."""
        ...

    def list_owned(self, store_id: str) -> AsyncIterator[Owned]:
        """Everything in the backend that carries the marker of `store_id`."""
        ...

    async def close(self) -> None:
        """Let go of connections. Backends live on."""
        ...


class ProviderFactory(Protocol):
    """What an entry point of the group `purveyor.providers` names: a class or function that makes providers of a kind."""

    def __call__(self, config: Mapping[str, Json], environment: ProviderEnvironment) -> Provider:
        """Make a provider from its configuration; raises PurveyorError(INVALID_REQUEST) that names the bad key."""
        ...


class ProviderEnvironment(Protocol):
    """What a provider may use of its host."""

    @property
    def name(self) -> str:
        """The provider's name in the catalog."""
        ...

    @property
    def data_dir(self) -> str:
        """A folder of its own below the broker's data directory (0700), made when first asked for."""
        ...

    @property
    def store_id(self) -> str:
        """The id of the store, part of every marker."""
        ...

    def reference(self, value: Json) -> Secret:
        """Resolve a secret reference `{"file": path}` or `{"env": NAME}`; raises INVALID_REQUEST, never shows the value."""
        ...
