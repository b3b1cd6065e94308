"""Refused calls, counted: what an attacker does is recorded, and cannot fill the disk.

Guarantee: calls that were refused for want of a right or of a name are counted by who (or from where), method, reason and
tenant, and each count is an audit record once a minute and at the stop. At most `KEYS` different ones are told apart in a
minute and `HOURLY` in an hour; the rest is counted together by reason. So an hour leaves at most
HOURLY + 60 * (number of reasons) records, however many calls are refused. No call waits for any of this.
Limit: what was counted since the last record is lost when the process is killed, and when the store takes no record for
longer than `KEYS` counts are kept.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from dataclasses import dataclass
from datetime import datetime
from typing import NamedTuple, Protocol

import structlog

from purveyor_server.domain.audit import DENIALS, AuditOutcome, AuditRecord
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.kit.clock import Clock

_log = structlog.get_logger(__name__)
OUTCOMES = {
    Reason.PERMISSION_DENIED: AuditOutcome.DENIED,
    Reason.UNAUTHENTICATED: AuditOutcome.UNAUTHENTICATED,
    Reason.CREDENTIAL_REVOKED: AuditOutcome.UNAUTHENTICATED,
}
KEYS = 32
HOURLY = 240
INTERVAL = 60.0  # seconds
HOUR = 3600.0  # seconds
LONGEST = 128  # characters of what a caller says


class Notes(Protocol):
    """What takes the records (see `store.operating`)."""

    async def note(self, *records: AuditRecord) -> None:
        """Leave records."""
        ...


class Denial(NamedTuple):
    """What calls are counted by. Empty where it is not known, or where different ones are counted together."""

    reason: Reason
    principal: str = ""
    origin: str = ""
    method: str = ""
    tenant: str = ""


@dataclass(slots=True)
class _Count:
    """How often, and from when to when."""

    first: datetime
    last: datetime
    calls: int = 0


class Denials:
    """Counts refused calls."""

    def __init__(self, store: Notes, clock: Clock) -> None:
        self._store = store
        self._clock = clock
        self._counts: dict[Denial, _Count] = {}
        self._told_apart = 0  # of the present minute
        self._hour = clock.monotonic()
        self._left = HOURLY
        self.refused: Counter[str] = Counter()  # by reason, since the start

    def denied(
        self, reason: Reason, *, principal: str = "", origin: str = "", method: str = "", tenant: str = ""
    ) -> None:
        """Count a refused call; other reasons than those of OUTCOMES are not counted."""
        if reason not in OUTCOMES:
            return
        self.refused[str(reason)] += 1
        now = self._clock.now()
        count = self._count_of(Denial(reason, _cut(principal), _cut(host_of(origin)), _cut(method), _cut(tenant)), now)
        count.calls += 1
        count.last = now

    def _count_of(self, denial: Denial, now: datetime) -> _Count:
        count = self._counts.get(denial)
        if count is not None:
            return count
        if self._told_apart >= min(KEYS, self._left):
            denial = Denial(denial.reason)
        else:
            self._told_apart += 1
        return self._counts.setdefault(denial, _Count(now, now))

    async def flush(self) -> int:
        """Turn what was counted into records; returns how many. Raises PurveyorError, and nothing is lost then."""
        self._begin_hour()
        taken, self._counts = self._counts, {}
        self._left -= self._told_apart
        self._told_apart = 0
        if not taken:
            return 0
        try:
            await self._store.note(*[_record(denial, count, self._clock.now()) for denial, count in taken.items()])
        except BaseException:
            self._take_back(taken)
            raise
        return len(taken)

    def _begin_hour(self) -> None:
        now = self._clock.monotonic()
        if now - self._hour >= HOUR:
            self._hour, self._left = now, HOURLY

    def _take_back(self, taken: dict[Denial, _Count]) -> None:
        for denial, count in taken.items():
            kept = self._count_of(denial, count.first)
            kept.first, kept.calls = min(kept.first, count.first), kept.calls + count.calls

    async def run(self) -> None:
        """Flush once a minute, for ever."""
        while True:
            await asyncio.sleep(INTERVAL)
            await self.try_flush()

    async def try_flush(self) -> None:
        """Flush; a store that takes nothing is logged, and the counts are kept."""
        try:
            await self.flush()
        except PurveyorError as failure:
            _log.warning("refused calls could not be recorded", reason=str(failure.reason))


def host_of(origin: str) -> str:
    """The other end without its port, which differs from connection to connection."""
    kind, _, rest = origin.partition(":")
    return f"{kind}:{rest.rpartition(':')[0]}" if kind in {"ipv4", "ipv6"} else origin


def _cut(text: str) -> str:
    return text[:LONGEST]


def _record(denial: Denial, count: _Count, now: datetime) -> AuditRecord:
    return AuditRecord(
        at=now,
        principal=denial.principal,
        action=DENIALS,
        resource=f"method/{denial.method}" if denial.method else "",
        tenant=denial.tenant,
        outcome=OUTCOMES[denial.reason],
        origin=denial.origin,
        details={
            "reason": str(denial.reason),
            "count": count.calls,
            "first": count.first.isoformat(),
            "last": count.last.isoformat(),
        },
    )
