"""A whole broker in a process of its own, over a scripted provider: `python -m tests.clients.aside FOLDER`.

It listens on FOLDER/s, says "ready" on stdout, and stops when its stdin ends. Its service and plan have the names that the
documentation uses.
"""

from __future__ import annotations

import asyncio
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import structlog
from msgspec.structs import replace

from purveyor_server.domain.catalog import PlanSchemas
from tests.rpc import whole

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[2]
STOP_SECONDS = 30


@contextmanager
def running(folder: Path) -> Iterator[str]:
    """Start it, yield its address, stop it."""
    process = subprocess.Popen(
        [sys.executable, "-m", "tests.clients.aside", str(folder)],
        cwd=ROOT,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdin
    assert process.stdout
    try:
        assert process.stdout.readline() == "ready\n"
        yield f"unix:{folder / 's'}"
    finally:
        process.stdin.close()
        code = process.wait(STOP_SECONDS)
        process.stdout.close()
    assert code == 0


async def main(folder: Path) -> None:
    """Serve until stdin ends."""
    structlog.configure(logger_factory=structlog.PrintLoggerFactory(sys.stderr))
    plan = replace(whole.SMALL, name="shared-small", schemas=PlanSchemas(None, None, None), plan_updateable=True)
    whole.SERVICE = replace(whole.SERVICE, name="postgresql", plans=(plan, whole.BIG))
    async with whole.whole_broker(folder):
        print("ready", flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1])))
