"""One real broker process over the provider `directory`, with small rings and a short memory, and its store read apart.

Guarantee: what `Ledger` knows was read from the store's own table by a connection of its own, never through the broker; it
fails when it could not keep up with the compaction.
"""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from tests.recovery.broker import Broker
from tests.watching.pacing import rest

SERVICE, PLAN = "folder", "small"
SERVICE_ID, PLAN_ID, LARGE_PLAN_ID = (f"7b0c3a52-4f1e-4c55-9d3b-0c6f5a1d2e0{number}" for number in (1, 2, 3))
POLL_SECONDS = 0.05
BUSY_SECONDS = 5.0
PAGE = 2000
CATALOG = """\
providers:
  disk: {{kind: directory, config: {{root: {root}, mode: "0700"}}}}
services:
  - id: 7b0c3a52-4f1e-4c55-9d3b-0c6f5a1d2e01
    name: folder
    description: A folder.
    bindable: true
    plan_updateable: true
    plans:
      - id: 7b0c3a52-4f1e-4c55-9d3b-0c6f5a1d2e02
        name: small
        description: A small one.
        provider: disk
        binding_rotatable: true
        bindings: {{overlap: 1h}}
        settings: {{quota_bytes: 1048576, quota_files: 100, max_quota_bytes: 2097152}}
      - id: 7b0c3a52-4f1e-4c55-9d3b-0c6f5a1d2e03
        name: large
        description: A large one.
        provider: disk
        binding_rotatable: true
        bindings: {{overlap: 1h}}
        settings: {{quota_bytes: 2097152, quota_files: 100, max_quota_bytes: 2097152}}
"""
CONFIGURATION = """\
data_dir = "{data}"
catalog = "{catalog}"
[listen]
addresses = ["unix:{socket}"]
drain = "2s"
[limits]
write_timeout = "1s"
[watch]
ring_events = 48
message_events = 16
page_events = 2
max_age = "4s"
[reconcile]
expiry = "200ms"
campaigns = "200ms"
[retention]
max_events = {kept}
interval = "300ms"
"""
EVENTS = """\
SELECT revision, kind, tenant, instance_id, CASE kind WHEN 'OPERATION' THEN operation_id ELSE uid END, state, body
FROM events WHERE revision > ? ORDER BY revision LIMIT ?"""
EARLIEST = "SELECT CAST(value AS INTEGER) FROM settings WHERE name = 'earliest'"
UNFINISHED = "SELECT count(*) FROM operations WHERE backlog > 0"
VERBS = "SELECT DISTINCT json_extract(body, '$.verb') FROM operations"
LIVING = """\
SELECT 'INSTANCE', tenant, instance_id, uid, state, body FROM instances WHERE state <> 'DELETED'
UNION ALL SELECT 'BINDING', tenant, instance_id, uid, state, body FROM bindings WHERE state <> 'DELETED'"""


class Fact(NamedTuple):
    """One event, or one record (revision 0)."""

    revision: int
    kind: str
    tenant: str
    instance_id: str
    uid: str
    state: str
    version: int


class _Versioned(msgspec.Struct):
    version: int


def make_broker(folder: Path, kept: int) -> Broker:
    """A broker that is not started; its log keeps `kept` events."""
    (folder / "run").mkdir(mode=0o700)
    (folder / "root").mkdir(mode=0o700)
    broker, catalog = Broker(folder), folder / "catalog.yaml"
    catalog.write_text(CATALOG.format(root=folder / "root"), encoding="utf-8")
    values = {"data": folder / "data", "catalog": catalog, "socket": broker.socket, "kept": kept}
    broker.config.write_text(CONFIGURATION.format(**values), encoding="utf-8")
    return broker


class Ledger:
    """Every committed event, and what the store holds now."""

    def __init__(self, folder: Path) -> None:
        self._database = folder / "data" / "purveyor.db"
        self.facts: list[Fact] = []
        self.heard = 0  # the newest revision that any watcher was told: the broker hears of a commit a moment after it
        self.closed = asyncio.Event()
        self.news = asyncio.Event()

    @property
    def head(self) -> int:
        """The newest revision that was read."""
        return len(self.facts)

    def _ask(self, sql: str, *keys: Any) -> list[tuple[Any, ...]]:
        connection = sqlite3.connect(f"file:{self._database}?mode=ro", uri=True, timeout=BUSY_SECONDS)
        try:
            return connection.execute(sql, keys).fetchall()
        finally:
            connection.close()

    async def read(self) -> int:
        """Read on to the end; returns the head."""
        while rows := await asyncio.to_thread(self._ask, EVENTS, self.head, PAGE):
            for row in rows:
                if row[0] <= self.head:
                    continue  # another reader was quicker
                if row[0] != self.head + 1:
                    raise AssertionError(f"the ledger has {self.head}, the store goes on with {row[0]}")
                self.facts.append(_fact(row))
                self.news.set()
        return self.head

    async def follow(self) -> None:
        """Read on until it is closed."""
        while not self.closed.is_set():
            await self.read()
            await rest(self.closed, POLL_SECONDS)

    async def earliest(self) -> int:
        """The earliest revision that the store keeps."""
        return int((await asyncio.to_thread(self._ask, EARLIEST))[0][0])

    async def unfinished(self) -> int:
        """Operations that have not ended."""
        return int((await asyncio.to_thread(self._ask, UNFINISHED))[0][0])

    async def verbs(self) -> frozenset[str]:
        """What kinds of operations there were."""
        return frozenset(row[0] for row in await asyncio.to_thread(self._ask, VERBS))

    async def living(self) -> list[Fact]:
        """Instances and bindings that are there."""
        rows = await asyncio.to_thread(self._ask, LIVING)
        return [_fact((0, *row)) for row in rows]


def _fact(row: tuple[Any, ...]) -> Fact:
    revision, kind, tenant, instance_id, uid, state, body = row
    version = msgspec.json.decode(body, type=_Versioned).version
    return Fact(revision, kind, tenant, instance_id, uid, state, version)
