"""The pool of read-only connections (aiosqlite, one thread each).

Guarantee: each query is a snapshot of its own that sees every answered write; a query ends within its time-out, the wait
for a free connection included; SQLite's errors become STORE_UNAVAILABLE and are logged once per kind.
Limit: a cancelled or late query is interrupted; its connection serves again once SQLite has noticed.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Sequence
from pathlib import Path

import aiosqlite

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.store.sqlite.errors import FaultLog, unavailable
from purveyor_server.store.sqlite.rows import Row
from purveyor_server.store.sqlite.settings import SqliteSettings

STATEMENT_CACHE = 128


class Readers:
    """Connections for reads; the last one used is the next one taken, so its cache is warm."""

    def __init__(self, path: Path, settings: SqliteSettings) -> None:
        self._path = path
        self._settings = settings
        self._all: list[aiosqlite.Connection] = []
        self._free: asyncio.LifoQueue[aiosqlite.Connection] = asyncio.LifoQueue()
        self._faults = FaultLog()
        self._closed = False

    async def open(self) -> None:
        """Open every connection."""
        for _ in range(self._settings.readers):
            connecting = aiosqlite.connect(
                self._path,
                timeout=self._settings.busy_timeout.total_seconds(),
                isolation_level=None,
                cached_statements=STATEMENT_CACHE,
            )
            connecting._thread.daemon = True  # noqa: SLF001 - else a process that fails before close() never ends
            connection = await connecting
            self._all.append(connection)
            await connection.execute_fetchall("PRAGMA query_only = ON")
            self._free.put_nowait(connection)

    async def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        """The rows of one query. Raises STORE_UNAVAILABLE."""
        if self._closed:
            raise unavailable(self._settings.retry_after)
        try:
            async with asyncio.timeout(self._settings.read_timeout.total_seconds()):
                return await self._rows(sql, parameters)
        except (sqlite3.Error, TimeoutError) as error:
            self._faults.note(error, "read")
            raise unavailable(self._settings.retry_after) from error

    def damaged(self, error: Exception) -> PurveyorError:
        """What to raise when a row cannot be decoded."""
        self._faults.note(error, "decode")
        return unavailable(self._settings.retry_after)

    async def _rows(self, sql: str, parameters: Sequence[object]) -> list[Row]:
        connection = await self._free.get()
        try:
            return [tuple(row) for row in await connection.execute_fetchall(sql, parameters)]
        except asyncio.CancelledError:
            await connection.interrupt()
            raise
        finally:
            self._free.put_nowait(connection)

    async def close(self) -> None:
        """Close every connection. Idempotent."""
        self._closed = True
        connections, self._all = self._all, []
        for connection in connections:
            async with asyncio.timeout(self._settings.close_timeout.total_seconds()):
                await connection.close()
