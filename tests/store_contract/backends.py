"""Backends that the suite runs on: how to open one again and again on the same data, and what it can show.

A second backend adds a class here and its name to `BACKENDS`; the tests stay as they are.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from purveyor_server.kit.clock import Clock
from purveyor_server.store.contract import Store
from purveyor_server.store.sqlite.connection import connect_writer
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.store.sqlite.store import open_store


class Backend(Protocol):
    """One place for data; every `open` finds what was there."""

    name: str
    can_fill: bool
    """Whether `full()` can make its disk full."""

    async def open(self, clock: Clock, **settings: Any) -> Store:
        """Open the store; the one opened before must be closed."""
        ...

    @contextmanager
    def full(self) -> Iterator[None]:
        """No room for anything new within the block."""
        ...

    def opener(self) -> str:
        """A Python expression that opens the same data in another process, given `clock`."""
        ...


class SqliteBackend:
    """A database file in a temporary folder."""

    name = "sqlite"
    can_fill = True

    def __init__(self, folder: Path) -> None:
        self.path = folder / "store" / "purveyor.db"
        self._connection: sqlite3.Connection | None = None
        self.free = 2**40

    async def open(self, clock: Clock, **settings: Any) -> Store:
        return await open_store(
            self.path,
            clock=clock,
            settings=SqliteSettings(**settings),
            connect=self._connect,
            free=lambda _: self.free,
        )

    def _connect(self, path: Path, settings: SqliteSettings) -> sqlite3.Connection:
        self._connection = connect_writer(path, settings)
        return self._connection

    @contextmanager
    def full(self) -> Iterator[None]:
        """The file may not grow. The limit is set between commands: nothing else uses the connection then."""
        assert self._connection is not None
        (pages,) = self._connection.execute("PRAGMA page_count").fetchone()
        self._connection.execute(f"PRAGMA max_page_count = {pages}")
        try:
            yield
        finally:
            self._connection.execute("PRAGMA max_page_count = 1073741823")

    def opener(self) -> str:
        return (
            "__import__('purveyor_server.store.sqlite.store', fromlist=['x']).open_store("
            f"__import__('pathlib').Path({str(self.path)!r}), clock=clock, "
            "settings=__import__('purveyor_server.store.sqlite.settings', fromlist=['x']).SqliteSettings())"
        )


BACKENDS: dict[str, type[SqliteBackend]] = {"sqlite": SqliteBackend}
