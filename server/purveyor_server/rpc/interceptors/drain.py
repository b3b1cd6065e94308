"""Draining: the gate that refuses new calls, and the count of those that are still served.

Guarantee: once draining begins, new calls are refused with DRAINING, streams and waiting calls end with it at once, and
`idle()` returns only when no call is served any more (the core's own stop returns earlier).
Limit: health and reflection are answered until the second stage.
"""

from __future__ import annotations

import asyncio
from typing import Any

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.rpc.calls import Call
from purveyor_server.rpc.interceptors.around import Proceed
from purveyor_server.rpc.methods import Kind

FAREWELL_SECONDS = 1.0  # for the last message of a stream that has one
_AT_ONCE = frozenset({Kind.STREAM, Kind.WAIT})


class Drain:
    """The live calls of one server."""

    def __init__(self, retry_seconds: float) -> None:
        self._retry_seconds = retry_seconds
        self._live: set[Call] = set()
        self._changed = asyncio.Event()
        self.draining = False

    def __len__(self) -> int:
        return len(self._live)

    def enter(self, call: Call) -> None:
        """Count a call in."""
        self._live.add(call)

    def leave(self, call: Call) -> None:
        """Count it out, after its status was sent."""
        self._live.discard(call)
        if self.draining:
            self._changed.set()

    async def around(self, call: Call, proceed: Proceed) -> Any:
        """Refuse the call when the server drains."""
        if self.draining and not call.method.infra:
            raise self._refusal()
        return await proceed(call)

    def begin(self) -> None:
        """First stage: refuse new calls, end streams and calls that only wait; those that end by themselves soon."""
        self.draining = True
        ending = [call for call in self._live if call.method.kind in _AT_ONCE and not call.method.infra]
        self._interrupt(call for call in ending if not call.farewell)
        late = [call for call in ending if call.farewell]
        asyncio.get_running_loop().call_later(FAREWELL_SECONDS, self._interrupt, late)

    def finish(self) -> None:
        """Second stage: end every call, health and reflection too."""
        self._interrupt(iter(list(self._live)))

    def _interrupt(self, calls: Any) -> None:
        for call in calls:
            call.interrupt(self._refusal())

    def _refusal(self) -> PurveyorError:
        return PurveyorError(Reason.DRAINING, "the server is stopping", retry_after=self._retry_seconds)

    async def idle(self, seconds: float, *, infra: bool) -> bool:
        """Wait until no call is left (with `infra` not even one of health and reflection); False after `seconds`."""
        try:
            async with asyncio.timeout(seconds):
                while any(infra or not call.method.infra for call in self._live):
                    self._changed.clear()
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True
