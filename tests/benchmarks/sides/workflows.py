"""The yardstick of the engine row: DBOS on SQLite, workflows of three steps.

Run by the interpreter of an environment of its own; prints operations per second for each concurrency that is asked for.
Its database is as durable as ours (`synchronous=FULL`) either way: `own` leaves everything as DBOS makes it (a rollback journal),
`wal` gives it the write-ahead log that we have, which makes it faster.
"""

from __future__ import annotations

import asyncio
import sys
import time
from pathlib import Path
from typing import Any

from dbos import DBOS, DBOSConfig
from sqlalchemy import create_engine, event

WARM_UP = 20
PARAMETERS = {"size": 1}


@DBOS.step()  # type: ignore[untyped-decorator] # not installed where types are checked
async def step(name: str, parameters: dict[str, Any]) -> dict[str, Any]:
    """What a piece of the scripted provider does: nothing outside, an output of its own."""
    return {"name": name, "parameters": parameters}


@DBOS.workflow()  # type: ignore[untyped-decorator] # as above
async def operation(parameters: dict[str, Any]) -> list[dict[str, Any]]:
    """Three steps, one after the other."""
    return [await step(name, parameters) for name in ("role", "space", "grant")]


async def rate(count: int, at_once: int) -> float:
    """Workflows per second, `at_once` of them at any time."""
    left = iter(range(count))

    async def caller() -> None:
        for _ in left:
            made = await operation(PARAMETERS)  # faster than a handle that is awaited: measured
            assert len(made) == 3

    started = time.perf_counter()
    await asyncio.gather(*(caller() for _ in range(at_once)))
    return count / (time.perf_counter() - started)


def durable(connection: Any, _record: Any) -> None:
    """For every connection: also what DBOS sets for an engine that it makes itself."""
    connection.isolation_level = "IMMEDIATE"
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=FULL")
    connection.execute("PRAGMA busy_timeout=30000")
    connection.execute("PRAGMA foreign_keys=ON")


async def main(folder: Path, count: int, journal: str, concurrencies: list[int]) -> None:
    """Measure and print."""
    url = f"sqlite:///{folder / 'workflows.db'}"
    config: DBOSConfig = {"name": "bench", "system_database_url": url, "log_level": "WARNING"}
    if journal == "wal":
        engine = create_engine(url)
        event.listen(engine, "connect", durable)
        config["system_database_engine"] = engine
    DBOS(config=config)
    DBOS.launch()
    await rate(WARM_UP, 4)
    for at_once in concurrencies:
        print(at_once, await rate(count, at_once), flush=True)
    DBOS.destroy()


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3], [int(text) for text in sys.argv[4:]]))
