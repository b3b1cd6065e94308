"""The end of a call: the client's deadline or the method's cap, whichever comes first, and the place where drain cuts in.

Guarantee: no call without an end of its own outlives its cap, and the answer is DEADLINE_EXCEEDED with a reason.
Limit: when the client's own deadline passes, the client may see it before our answer.
"""

from __future__ import annotations

import asyncio
from typing import Any

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.rpc.calls import Call
from purveyor_server.rpc.interceptors.around import Proceed
from purveyor_server.rpc.methods import Kind


async def around(call: Call, proceed: Proceed) -> Any:
    """Serve the call within its time."""
    method = call.method
    cap = method.wait_cap if call.kind is Kind.WAIT and method.wait_cap is not None else method.cap
    left = call.context.time_remaining()
    budget = min((seconds for seconds in (cap, left) if seconds is not None), default=None)
    if budget is not None:
        call.ends = asyncio.get_running_loop().time() + budget
    try:
        async with asyncio.timeout_at(call.ends) as call.scope:
            return await proceed(call)
    except TimeoutError:
        if call.scope is None or not call.scope.expired():
            raise
        raise (call.interrupted or _too_long(budget or 0.0)) from None
    finally:
        call.scope = None


def _too_long(seconds: float) -> PurveyorError:
    text = f"the call took longer than {seconds:.3g} s"
    return PurveyorError(Reason.DEADLINE_EXCEEDED, text, metadata={"limit_seconds": f"{seconds:.3g}"})
