"""Keeping a binding alive whose time ends: it is renewed, and where that no longer helps, rotated.

Guarantee: from `renew_before` on (without one, from two thirds of what is left of its life) the broker is asked for a later end, as
the plan says or for as long as the binding was made for; when the end does not move any more (max_ttl), for a successor. An
attempt that fails is told and made again, at most once in `AGAIN_SECONDS`. Many that keep one binding alive cost one effect: a
renewal that is not needed changes nothing, and a binding has one successor.
Limit: needs the role CONSUMER; where the plan offers neither a later end nor a successor, the binding ends. Time is this machine's.
"""

from __future__ import annotations

import asyncio
import random
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Protocol

from purveyor.errors import FailedPreconditionError, InvalidRequestError, PurveyorError

if TYPE_CHECKING:
    from collections.abc import Callable

    from purveyor.operations import OperationHandle
    from purveyor.values import ActiveBinding, Binding

AGAIN_SECONDS = 30.0  # between two attempts
RESULT_SECONDS = 60.0  # for the end of a renewal
FRACTION = 2 / 3  # of the rest of a life, where no time to renew is named
JITTER = 0.1  # of the time to wait, earlier: many that began at once do not ask at once


class Prolongs(Protocol):
    """What is asked of a client."""

    async def renew(
        self, instance_id: str, binding_id: str, *, ttl: timedelta | None = None
    ) -> OperationHandle[Binding]:
        """Ask for a later end."""
        ...

    async def rotate(self, instance_id: str, binding_id: str) -> OperationHandle[ActiveBinding]:
        """Ask for a successor."""
        ...


class Lifeline:
    """Keeps alive what it holds; `failed` is told each attempt that did not help, None once one did."""

    def __init__(self, client: Prolongs, failed: Callable[[PurveyorError | None], None]) -> None:
        self._client = client
        self._failed = failed
        self._live: ActiveBinding | None = None
        self._held = asyncio.Event()

    def hold(self, live: ActiveBinding) -> None:
        """From now on this one, as it is now."""
        self._live = live
        self._held.set()

    async def run(self) -> None:
        """Until it is cancelled."""
        while True:
            live = self._live
            if await self._other_within(None if live is None else seconds_left(live, datetime.now(UTC))):
                continue
            assert live is not None, "nothing is waited for without an end when nothing is held"
            try:
                await prolong(self._client, live)
            except PurveyorError as failure:
                self._failed(failure)
            else:
                self._failed(None)
            await self._other_within(AGAIN_SECONDS)

    async def _other_within(self, seconds: float | None) -> bool:
        """Whether another one is held within so many seconds; None: however long that takes."""
        try:
            async with asyncio.timeout(seconds):
                await self._held.wait()
        except TimeoutError:
            return False
        self._held.clear()
        return True


def seconds_left(live: Binding, now: datetime) -> float | None:
    """Seconds until it has to be prolonged, with jitter; None when it has no end."""
    if live.expire_time is None:
        return None
    at = live.renew_before or now + (live.expire_time - now) * FRACTION
    return max((at - now).total_seconds(), 0.0) * (1 - JITTER * random.random())  # noqa: S311 - jitter, not a secret


async def prolong(client: Prolongs, live: Binding) -> None:
    """One attempt: a later end, else a successor. Raises what the broker refused last."""
    if not await _renewed(client, live):
        await client.rotate(live.instance_id, live.binding_id)  # who follows the binding hears of its successor


async def _renewed(client: Prolongs, live: Binding) -> bool:
    """Whether the end has moved: to where the plan says, else by the life that the binding was made for."""
    for ttl in (None, _life(live)):
        try:
            handle = await client.renew(live.instance_id, live.binding_id, ttl=ttl)
            found = await handle.result(timeout=RESULT_SECONDS)
        except InvalidRequestError:
            continue  # the plan names no time, or that is beyond its max_ttl
        except FailedPreconditionError:
            return False
        return found.expire_time is None or live.expire_time is None or found.expire_time > live.expire_time
    return False


def _life(live: Binding) -> timedelta | None:
    if live.expire_time is None or live.create_time is None:
        return None
    return live.expire_time - live.create_time
