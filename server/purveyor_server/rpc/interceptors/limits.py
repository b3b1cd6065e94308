"""How often a caller may call, and how many calls may be served at once: short ones, waiting ones and streams, in all and for one.

Guarantee: a call above a limit is refused with RATE_LIMITED, TOO_MANY_CALLS or TOO_MANY_STREAMS and RetryInfo, after a moment
in which its caller is quiet; a waiting call or an idle stream never takes the place of a short call.
Limit: calls of health are not counted, so that a full server can still be asked whether it lives; watches of health are.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from typing import Any

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.kit.clock import Clock
from purveyor_server.rpc.calls import Call
from purveyor_server.rpc.interceptors.around import Proceed
from purveyor_server.rpc.interceptors.rates import REMOVALS, Rates
from purveyor_server.rpc.methods import Kind
from purveyor_server.rpc.settings import RpcSettings


class Lane:
    """The calls of one kind: `limit` in all, `per_caller` for one caller."""

    def __init__(self, reason: Reason, noun: str, limit: int, per_caller: int) -> None:
        self._reason = reason
        self._noun = noun
        self._limit = limit
        self._per_caller = per_caller
        self._callers: Counter[str] = Counter()
        self.count = 0

    def take(self, caller: str) -> None:
        """Count a call in, or raise the refusal."""
        if self.count >= self._limit:
            raise self._refusal("process", self._limit)
        if self._callers[caller] >= self._per_caller:
            raise self._refusal("caller", self._per_caller)
        self.count += 1
        self._callers[caller] += 1

    def give(self, caller: str) -> None:
        """Count it out."""
        self.count -= 1
        self._callers[caller] -= 1
        if not self._callers[caller]:
            del self._callers[caller]

    def _refusal(self, scope: str, limit: int) -> PurveyorError:
        return PurveyorError(
            self._reason,
            f"{limit} {self._noun} are being served ({scope})",
            metadata={"scope": scope, "limit": str(limit), "what": self._noun},
            quota_subject=scope,
        )


class Pace:
    """Refusals of too many calls, told to each caller one after the other.

    One that calls again at once would keep everybody busy with refusals; so they wait: the more of them, the longer.
    """

    def __init__(self, settings: RpcSettings) -> None:
        self._per_second = settings.refusals_per_second
        self._longest = settings.hold_seconds
        self._most = settings.held
        self._held: Counter[str] = Counter()

    async def hold(self, caller: str) -> None:
        """Wait for this refusal's time; not at all when too many wait already."""
        if self._held.total() >= self._most:
            return
        seconds = min(self._longest, self._held[caller] / self._per_second)
        self._held[caller] += 1
        try:
            await asyncio.sleep(seconds)
        finally:
            self._held[caller] -= 1
            if not self._held[caller]:
                del self._held[caller]


class Limits:
    """The rates, and one lane per kind of call."""

    def __init__(self, settings: RpcSettings, clock: Clock) -> None:
        self.rates = Rates(settings, clock)
        self.pace = Pace(settings)
        calls = Lane(Reason.TOO_MANY_CALLS, "calls", settings.calls, settings.calls_per_caller)
        waits = Lane(Reason.TOO_MANY_CALLS, "waiting calls", settings.waits, settings.waits_per_caller)
        streams = Lane(Reason.TOO_MANY_STREAMS, "streams", settings.streams, settings.streams_per_caller)
        self.lanes = {Kind.READ: calls, Kind.WRITE: calls, Kind.WAIT: waits, Kind.STREAM: streams}
        # As many again for what gives something back: what floods must not stand in the way of its own end.
        self.removals = Lane(Reason.TOO_MANY_CALLS, "removals", settings.calls, settings.calls_per_caller)

    async def around(self, call: Call, proceed: Proceed) -> Any:
        """Serve the call while its lane has room. A write that asks to wait counts as a waiting call."""
        if call.method.infra and call.kind is not Kind.STREAM:
            return await proceed(call)
        if call.method.wait_cap is not None and call.request.HasField("wait"):
            call.kind = Kind.WAIT
        lane = self._lane_of(call)
        try:
            self.rates.take(call.method, call.principal)
            lane.take(call.principal.subject)
        except PurveyorError:
            await self.pace.hold(call.principal.subject)
            raise
        try:
            return await proceed(call)
        finally:
            lane.give(call.principal.subject)

    def _lane_of(self, call: Call) -> Lane:
        if call.kind is Kind.WRITE and call.method.name in REMOVALS:
            return self.removals
        return self.lanes[call.kind]
