"""Calls take turns, principal by principal.

Guarantee: a principal that sends more than is worked on waits for itself: another one's call is the next to be worked on, and
finds few calls before it in the event loop and in the store. Reads and writes do not wait for one another. A call that only
waits for an operation holds no turn; neither does a stream, nor what tells how the broker is (health).
Limit: how many calls one principal may have waiting is the business of `limits`; a turn is taken after a call was decoded
and its caller recognised.
"""

from __future__ import annotations

from typing import Any

from purveyor_server.kit.clock import Clock
from purveyor_server.kit.turns import Turns
from purveyor_server.rpc.calls import Call
from purveyor_server.rpc.interceptors.around import Proceed
from purveyor_server.rpc.methods import Kind
from purveyor_server.rpc.settings import RpcSettings


class Fairness:
    """The turns of a server."""

    def __init__(self, settings: RpcSettings, clock: Clock) -> None:
        self.reads = Turns(settings.working, clock.monotonic)
        self.writes = Turns(settings.working, clock.monotonic)

    async def around(self, call: Call, proceed: Proceed) -> Any:
        """Serve the call when it is its principal's turn."""
        if call.method.infra or call.method.kind is Kind.STREAM:
            return await proceed(call)
        turns = self.writes if call.method.kind is Kind.WRITE else self.reads
        async with turns.turn(call.principal.subject):
            return await proceed(call)
