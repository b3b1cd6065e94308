"""Taking one's time, but not when there is something to be done."""

from __future__ import annotations

import asyncio
from contextlib import suppress


async def rest(signal: asyncio.Event, seconds: float) -> None:
    """Wait for the signal, at most so long; always give way to the loop."""
    with suppress(TimeoutError):
        async with asyncio.timeout(seconds):
            await signal.wait()
    await asyncio.sleep(0)
