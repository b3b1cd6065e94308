"""The real SQLite store without its threads: commands and reads are run on the event loop, in the order of their arrival.

Guarantee: every command, query, migration and refusal is the product's own code; what is left out is the hand-over to a
thread, and the disk's flush. The power can be cut, at once or behind the next commits: what was committed is there, what
was not is gone, and nobody is answered any more.
Limit: a command and a read take no simulated time, and share one connection and its rollback journal: what WAL does beside a
reader is for `tests/store_contract`.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections import deque
from collections.abc import Callable, Sequence
from pathlib import Path
from queue import Empty
from typing import Any, TypeVar

from purveyor_server.domain.errors import PurveyorError
from purveyor_server.kit.clock import Clock
from purveyor_server.store.sqlite import store as store_module
from purveyor_server.store.sqlite.connection import STATEMENT_CACHE
from purveyor_server.store.sqlite.errors import unavailable
from purveyor_server.store.sqlite.readers import Readers
from purveyor_server.store.sqlite.rows import Row
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.store.sqlite.store import SqliteStore, open_store
from purveyor_server.store.sqlite.transaction import Transaction
from purveyor_server.store.sqlite.writer import Item, Result, Writer
from tests.year.virtual import swapped

SETTINGS = SqliteSettings(readers=1, low_water_bytes=0, cache_bytes=4 * 1024 * 1024)
T = TypeVar("T")
ROOM = 1 << 40  # bytes
TUNING = (
    "locking_mode = EXCLUSIVE",
    "journal_mode = MEMORY",
    "synchronous = OFF",
    "foreign_keys = ON",
    "temp_store = MEMORY",
    f"cache_size = {-SETTINGS.cache_bytes // 1024}",
)
_CONNECTIONS: dict[Path, sqlite3.Connection] = {}


class _Queue:
    """The writer's queue; what is put in is served at the next turn of the loop."""

    def __init__(self, serve: Callable[[], None]) -> None:
        self.items: deque[Item | None] = deque()
        self._serve = serve

    def put(self, item: Item | None) -> None:
        if not self.items:
            asyncio.get_running_loop().call_soon(self._serve)
        self.items.append(item)

    def get(self, timeout: float | None = None) -> Item | None:
        return self.get_nowait()

    def get_nowait(self) -> Item | None:
        if not self.items:
            raise Empty
        return self.items.popleft()


class InlineWriter(Writer):
    """The writer on the loop. Counts commits; behind the one numbered `cut_at` the power is cut and `on_cut` called."""

    def __init__(self, *arguments: Any) -> None:
        super().__init__(*arguments)
        self.commits = 0
        self.cut_at = 0
        self._dead = False
        self.on_cut: Callable[[], None] = lambda: None
        self._queue = _Queue(self._pump)  # type: ignore[assignment]

    @property
    def healthy(self) -> bool:
        return self._connection is not None and not self._closing

    def start(self) -> None:
        """Nothing is to be started."""

    def submit(self, name: str, work: Callable[[Transaction], T], label: str = "") -> asyncio.Future[T]:
        """Queue a command; once the power is cut, for nobody."""
        return asyncio.get_running_loop().create_future() if self._dead else super().submit(name, work, label)

    def cut_power(self) -> None:
        """What is not committed is lost, and nobody hears of what is, nor of anything else."""
        self._closing = self._dead = True
        self._queue.items.clear()  # type: ignore[attr-defined]
        if self._patience is not None:
            self._patience.cancel()

    def let_go(self) -> None:
        """Close the file. Reads that were on their way when the power was cut may have used it until now."""
        self._drop_connection()

    def _pump(self) -> None:
        while self._queue.items:  # type: ignore[attr-defined]
            if not self._serve():
                self._checkpoint()
                self._drop_connection()
                self._ended.set()

    def _finish(self, result: Result) -> None:
        self.commits += result.commit is not None
        if self.cut_at and self.commits >= self.cut_at:
            self.cut_power()
            self.on_cut()
        else:
            super()._finish(result)


class InlineReaders(Readers):
    """The writer's connection, between its transactions: each of them begins and ends in one turn of the loop."""

    async def open(self) -> None:
        """The file is open."""

    async def rows(self, sql: str, parameters: Sequence[object] = ()) -> list[Row]:
        await asyncio.sleep(0)  # others come in between, as they do in the product
        if self._closed:
            raise unavailable(self._settings.retry_after)
        try:
            return _CONNECTIONS[self._path].execute(sql, parameters).fetchall()
        except sqlite3.Error as error:
            raise self._broken(error) from error

    def _broken(self, error: sqlite3.Error) -> PurveyorError:
        self._faults.note(error, "read")
        return unavailable(self._settings.retry_after)

    async def close(self) -> None:
        self.close_now()

    def close_now(self) -> None:
        """Read no more; the connection is the writer's to close."""
        self._closed = True
        _CONNECTIONS.pop(self._path, None)


def writer_of(store: SqliteStore) -> InlineWriter:
    """Its writer, for cuts."""
    assert isinstance(store._writer, InlineWriter)
    return store._writer


def drop(store: SqliteStore) -> None:
    """Let go of the file as a killed process does."""
    writer_of(store).cut_power()
    assert isinstance(store._readers, InlineReaders)
    store._readers.close_now()
    writer_of(store).let_go()
    store._lock.release()


async def open_inline(path: Path, clock: Clock) -> SqliteStore:
    """Open the store at `path`, made when it is not there."""
    with swapped(store_module, Writer=InlineWriter, Readers=InlineReaders):
        return await open_store(path, clock=clock, settings=SETTINGS, connect=_quick, free=lambda _folder: ROOM)


def _quick(path: Path, settings: SqliteSettings) -> sqlite3.Connection:
    """The one connection of a file. It does not wait for the disk, as no power is really cut here, nor for others."""
    connection = sqlite3.connect(path, isolation_level=None, cached_statements=STATEMENT_CACHE)
    for pragma in TUNING:
        connection.execute(f"PRAGMA {pragma}")
    _CONNECTIONS[path] = connection
    return connection
