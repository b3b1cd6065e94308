"""How often one principal may call: token buckets for reads, for writes, and one more that removals alone may use.

Guarantee: a principal that asks for more is told when its next token is there, and takes nothing from others; giving back
(Deprovision, Unbind, CancelOperation) goes on when the tokens of writes are gone. Memory is bounded: at most `principals`
buckets of each kind are kept, and one that is full again is forgotten, for a full bucket and none are the same.
Limit: when more principals than that call within the time that fills a bucket, the one that was quiet for longest is
forgotten, and may burst again; whoever floods is never the quiet one. Whoever is recognised by its place alone (LOCAL) is everybody, and is not limited.
"""

from __future__ import annotations

import hashlib
from collections import OrderedDict

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.principal import Means, Principal
from purveyor_server.kit.clock import Clock
from purveyor_server.rpc.methods import Kind, Method
from purveyor_server.rpc.settings import RpcSettings

REMOVALS = frozenset(f"/purveyor.v1.BrokerService/{name}" for name in ("Deprovision", "Unbind", "CancelOperation"))
LONGEST_KEY = 64  # characters of a subject that are kept as they are
ROUNDING = 1e-6  # of a token: a caller that waits as long as it was told to must not come too early
FORGET = 2  # buckets looked at per call: more than one, so that a crowd that has gone leaves the memory too


class Buckets:
    """One bucket of tokens for each name: `rate` tokens a second, at most `burst` at once, of at most `most` names."""

    def __init__(self, rate: float, burst: float, most: int, clock: Clock) -> None:
        self.rate = rate
        self.burst = max(burst, 1.0)
        self._most = most
        self._clock = clock
        # When each bucket will be full, in the order of last use; a bucket that is full now is not kept.
        self._full_at: OrderedDict[str, float] = OrderedDict()

    def __len__(self) -> int:
        return len(self._full_at)

    def take(self, name: str) -> float:
        """Take a token; 0.0, or the seconds until there is one."""
        now = self._clock.monotonic()
        full_at = max(self._full_at.get(name, now), now)
        lacking = (full_at - now) * self.rate + 1.0 - self.burst  # tokens
        if lacking <= ROUNDING:
            full_at += 1.0 / self.rate
        self._full_at[name] = full_at
        self._full_at.move_to_end(name)
        self._forget(now)
        return lacking / self.rate if lacking > ROUNDING else 0.0

    def _forget(self, now: float) -> None:
        for _ in range(FORGET):
            oldest = next(iter(self._full_at))
            if self._full_at[oldest] > now and len(self._full_at) <= self._most:
                return
            del self._full_at[oldest]


class Rates:
    """The buckets of a server."""

    def __init__(self, settings: RpcSettings, clock: Clock) -> None:
        most = settings.principals

        def buckets(rate: float, burst: float) -> Buckets | None:
            return Buckets(rate, burst, most, clock) if rate > 0 else None

        self._reads = buckets(settings.reads_per_second, settings.reads_burst)
        self._writes = buckets(settings.writes_per_second, settings.writes_burst)
        self._removals = buckets(settings.writes_per_second, settings.writes_burst)

    def take(self, method: Method, principal: Principal) -> None:
        """Count a call, or raise RATE_LIMITED. What opens a stream is a read."""
        if principal.means is Means.LOCAL or method.infra:
            return
        name = key_of(principal.subject)
        if method.kind is not Kind.WRITE:
            _take(self._reads, name, "reads")
        elif method.name in REMOVALS and self._writes is not None and self._writes.take(name) > 0:
            _take(self._removals, name, "removals")
        elif method.name not in REMOVALS:
            _take(self._writes, name, "writes")


def _take(buckets: Buckets | None, name: str, what: str) -> None:
    wait = 0.0 if buckets is None else buckets.take(name)
    if buckets is not None and wait > 0:
        raise PurveyorError(
            Reason.RATE_LIMITED,
            f"more than {buckets.rate:g} {what} a second, or {buckets.burst:g} at once: come back later",
            metadata={"what": what, "limit_per_second": f"{buckets.rate:g}", "burst": f"{buckets.burst:g}"},
            quota_subject=f"principal/{what}",
            retry_after=wait,
        )


def key_of(subject: str) -> str:
    """A subject, or something short that stands for a long one: what is kept of a name is bounded too."""
    if len(subject) <= LONGEST_KEY:
        return subject
    return hashlib.blake2b(subject.encode("utf-8", "replace"), digest_size=32).hexdigest()
