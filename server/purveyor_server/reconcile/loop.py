"""What a loop is, and what keeps it going.

Guarantee: a round that fails is logged and the next one comes, later each time up to a minute; no loop can stop another one
or the broker. A loop changes records through `lifecycle` alone, so that what it does passes the same rules, freezes and audit as
a caller's request. All that a loop knows between rounds is in the store.
Limit: one process runs them all; replicas will need a lease per loop. Rounds take time from an injected clock: only the pause
between two rounds is the machine's.
Source: DESIGN.md section 10.
"""

from __future__ import annotations

import asyncio
from typing import Protocol

import structlog

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.kit.backoff import Backoff

_log = structlog.get_logger(__name__)
AFTER_FAILURE = Backoff(first=1.0, ceiling=60.0)


class Loop(Protocol):
    """Something that is looked after again and again."""

    @property
    def name(self) -> str:
        """For logs and metrics."""
        ...

    @property
    def interval(self) -> float:
        """Seconds between two rounds."""
        ...

    async def once(self) -> float | None:
        """Do one bounded round; seconds after which the next is wanted, None for the interval. May be called at any moment."""
        ...


async def keep_going(loop: Loop, wake: asyncio.Event | None = None) -> None:
    """Do rounds until the broker drains; `wake` brings the next one forward."""
    failures = 0
    while True:
        try:
            wanted = await loop.once()
            failures, pause = 0, loop.interval if wanted is None else min(wanted, loop.interval)
        except PurveyorError as failure:
            if failure.reason is Reason.DRAINING:
                return
            _log.warning("round failed", loop=loop.name, reason=str(failure.reason), problem=failure.message)
            failures, pause = failures + 1, AFTER_FAILURE.delay(failures)
        except Exception:  # noqa: BLE001 - a defect in one loop must not end it for good
            _log.exception("round broke off", loop=loop.name)
            failures, pause = failures + 1, AFTER_FAILURE.delay(failures)
        await _pause(pause, wake)


async def _pause(seconds: float, wake: asyncio.Event | None) -> None:
    if wake is None:
        await asyncio.sleep(seconds)
        return
    try:
        async with asyncio.timeout(seconds):
            await wake.wait()
    except TimeoutError:
        return
    finally:
        wake.clear()
