"""The broker as `serve` runs it (same parts, settings, interceptors, logs), with the providers of `held`.

Limit: the providers are the one difference to a user's process; they are given instead of found by entry point.
"""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from purveyor_server.app.commands import StopSignals
from purveyor_server.app.parts import Broker
from purveyor_server.config.settings import Settings
from purveyor_server.config.sources import load
from purveyor_server.kit.collector import calm
from purveyor_server.telemetry import logs
from tests.benchmarks.sides.held import HeldProvider, QuickProvider


async def serve(settings: Settings) -> None:
    """Serve until SIGTERM."""
    stopping = StopSignals()
    stopping.listen(asyncio.get_running_loop())
    broker = Broker(settings, factories={"held": HeldProvider, "quick": QuickProvider})
    await broker.start()
    calm()
    await stopping.wait()
    await broker.stop()


if __name__ == "__main__":
    chosen = load(Path(sys.argv[1]))
    logs.configure(chosen.log.format, chosen.log.level)
    asyncio.run(serve(chosen))
