"""The SQLite store: opening, the commands, the notices, closing.

Guarantee: see `store/contract.py`; one process holds the file, each opening is an epoch of its own that voids older
leases, and `close` finishes what was accepted before it lets go of the file.
"""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Callable, Collection, Mapping, Sequence
from datetime import timedelta
from pathlib import Path
from typing import TypeVar

import structlog

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.auditchain import ChainKeys
from purveyor_server.domain.campaigns import Campaign
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.model import Operation, PlanSnapshot
from purveyor_server.domain.platforms import InventoryReport, Verdict
from purveyor_server.domain.quotas import PlanKey, Quota
from purveyor_server.domain.recovery import Recovery
from purveyor_server.domain.tokens import Token, Use
from purveyor_server.kit.clock import Clock
from purveyor_server.store.campaigns import CampaignChange
from purveyor_server.store.catalogs import CatalogChange, CatalogVersion
from purveyor_server.store.contract import (
    Accept,
    Advance,
    Amend,
    Backlog,
    Claim,
    Claimed,
    Commit,
    Decision,
    Fence,
    Progress,
    Retention,
)
from purveyor_server.store.observing import Seen, Sight
from purveyor_server.store.operating import Copied, Facts, MetaSwap, Resealed
from purveyor_server.store.sqlite import (
    allocations,
    backup,
    campaigns,
    catalogs,
    claims,
    commands,
    observing,
    operators,
    platforms,
    quotas,
    resealing,
    tokens,
)
from purveyor_server.store.sqlite.connection import Connect, connect_writer, open_refusal, prepare_folder
from purveyor_server.store.sqlite.disk import Disk, FreeBytes, free_bytes
from purveyor_server.store.sqlite.errors import full, refusal, unavailable
from purveyor_server.store.sqlite.lock import FileLock
from purveyor_server.store.sqlite.opening import Opened, open_file, source
from purveyor_server.store.sqlite.readers import Readers
from purveyor_server.store.sqlite.reads import SqliteReads
from purveyor_server.store.sqlite.retention import Keeper
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.store.sqlite.sightingcommands import SightingWriter
from purveyor_server.store.sqlite.transaction import Transaction
from purveyor_server.store.sqlite.writer import Result, Writer

_log = structlog.get_logger(__name__)

T = TypeVar("T")


async def open_store(
    path: Path,
    *,
    clock: Clock,
    settings: SqliteSettings,
    connect: Connect = connect_writer,
    free: FreeBytes = free_bytes,
) -> SqliteStore:
    """Open the store at `path`, made when it is not there. Raises StoreOpenError.

    `connect` and `free` (bytes left in a folder) are seams for tests.
    """
    path, lock, opened = await asyncio.to_thread(_open_locked, path, clock, settings, connect)
    readers = Readers(path, settings)
    try:
        await readers.open()
    except BaseException as error:
        await readers.close()
        opened.connection.close()
        lock.release()
        if isinstance(error, sqlite3.Error):
            raise open_refusal(error, path) from error
        raise
    return SqliteStore(path, opened, readers, lock, clock, settings, connect, free)


def _open_locked(
    given: Path, clock: Clock, settings: SqliteSettings, connect: Connect
) -> tuple[Path, FileLock, Opened]:
    """Blocking: take the lock, check the file, migrate, begin a new epoch."""
    path = given.resolve()  # two names of one file share its lock
    prepare_folder(path)
    lock = FileLock(path)
    lock.acquire()
    try:
        return path, lock, open_file(path, clock, settings, connect)
    except BaseException:
        lock.release()
        raise


class SqliteStore(SightingWriter, SqliteReads):
    """An open store; made by `open_store` on the loop that uses it."""

    def __init__(
        self,
        path: Path,
        opened: Opened,
        readers: Readers,
        lock: FileLock,
        clock: Clock,
        settings: SqliteSettings,
        connect: Connect,
        free: FreeBytes,
    ) -> None:
        super().__init__(readers)
        self.store_id = opened.store_id
        self.epoch = opened.epoch
        self._path = path
        self._lock = lock
        self._clock = clock
        self._settings = settings
        self._disk = Disk(path.parent, clock, settings, free)
        self._claims = claims.Claims(settings.promote_limit)
        self._keeper = Keeper()
        self._listeners: list[Callable[[Commit], None]] = []
        self._closed: asyncio.Future[None] | None = None
        origin = source(path, settings, connect)
        self._writer = Writer(opened.connection, origin, clock, settings, opened.epoch, self._committed)
        self._head = self._writer.ledger.head
        self._writer.start()

    @property
    def head(self) -> int:
        """Revision of the newest committed event known here."""
        return self._head

    @property
    def lag(self) -> float:
        """Seconds that the oldest unanswered command has waited."""
        return self._writer.lag

    # Commands.

    async def _run(self, name: str, work: Callable[[Transaction], T], label: str = "") -> T:
        return await self._writer.submit(name, work, label)

    async def accept(self, command: Accept) -> Decision:
        room = self._disk.check_room
        return await self._run("accept", lambda tx: commands.accept(tx, command, room), command.label)

    async def amend(self, command: Amend) -> Operation:
        return await self._run("amend", lambda tx: commands.amend(tx, command))

    async def advance(self, command: Advance) -> Operation:
        return await self._run("advance", lambda tx: commands.advance(tx, command), command.label)

    async def claim(self, command: Claim) -> tuple[Claimed, ...]:
        return await self._run("claim", lambda tx: self._claims.claim(tx, command))

    async def renew(self, fences: Sequence[Fence], lease: timedelta) -> frozenset[str]:
        held = tuple(fences)
        return await self._run("renew", lambda tx: claims.renew(tx, held, lease))

    async def release(self, owner: str) -> int:
        return await self._run("release", lambda tx: claims.release(tx, owner))

    async def progress(self, marks: Sequence[Progress]) -> None:
        noted = tuple(marks)
        await self._run("progress", lambda tx: claims.progress(tx, noted))

    async def allocate(self, fence: Fence, pool: str, low: int, high: int, avoid: Collection[int] = ()) -> int:
        return await self._run("allocate", lambda tx: allocations.allocate(tx, fence, pool, low, high, avoid))

    async def wake(self, provider: str) -> int:
        return await self._all("wake", lambda tx, limit: claims.wake(tx, provider, limit))

    async def freeze(self, freeze: Freeze, record: AuditRecord) -> Freeze:
        return await self._run("freeze", lambda tx: operators.freeze(tx, freeze, record))

    async def thaw(self, name: str, record: AuditRecord) -> Freeze | None:
        return await self._run("thaw", lambda tx: operators.thaw(tx, name, record))

    async def unfreeze(self) -> int:
        return await self._all("unfreeze", operators.unfreeze)

    async def note(self, *records: AuditRecord) -> None:
        await self._run("note", lambda tx: operators.note(tx, records))

    async def open_chain(self, keys: ChainKeys, minted: Mapping[str, bytes]) -> str:
        def work(transaction: Transaction) -> str:
            why = operators.open_chain(transaction, keys, minted)
            self._writer.keys = keys
            return why

        return await self._run("open_chain", work)

    async def set_quota(self, quota: Quota, record: AuditRecord) -> None:
        await self._run("set_quota", lambda tx: quotas.set_quota(tx, quota, record))

    async def delete_quota(self, tenant: str, plan: PlanKey, record: AuditRecord) -> Quota | None:
        return await self._run("delete_quota", lambda tx: quotas.delete_quota(tx, tenant, plan, record))

    async def recount(self, tenant: str) -> int:
        return await self._run("recount", lambda tx: quotas.recount(tx, tenant))

    async def reseal(self, changes: Sequence[Resealed]) -> int:
        batch = tuple(changes)
        return await self._run("reseal", lambda tx: resealing.reseal(tx, batch))

    async def swap_metas(self, swaps: Sequence[MetaSwap], record: AuditRecord | None = None) -> int:
        batch = tuple(swaps)
        return await self._run("swap_metas", lambda tx: resealing.swap_metas(tx, batch, record))

    async def create_token(self, token: Token, record: AuditRecord) -> None:
        await self._run("create_token", lambda tx: tokens.create(tx, token, record))

    async def revoke_token(self, token_id: str, record: AuditRecord) -> Token | None:
        return await self._run("revoke_token", lambda tx: tokens.revoke(tx, token_id, record))

    async def note_uses(self, uses: Sequence[Use]) -> None:
        noted = tuple(uses)
        await self._run("note_uses", lambda tx: tokens.note_uses(tx, noted))

    async def observe(
        self, uid: str, decide: Callable[[Sight], Seen | None], record: AuditRecord | None = None
    ) -> Seen | None:
        return await self._run("observe", lambda tx: observing.observe(tx, uid, decide, record))

    async def begin_campaign(
        self, campaign: Campaign, check: Callable[[tuple[Campaign, ...]], None], record: AuditRecord
    ) -> Campaign:
        return await self._run("begin_campaign", lambda tx: campaigns.begin(tx, campaign, check, record))

    async def change_campaign(self, change: CampaignChange) -> Campaign:
        return await self._run("change_campaign", lambda tx: campaigns.change(tx, change))

    async def take_inventory(self, verdict: Verdict, record: AuditRecord) -> InventoryReport:
        return await self._run("take_inventory", lambda tx: platforms.take_inventory(tx, verdict, record))

    async def finish_recovery(self, record: AuditRecord) -> Recovery | None:
        return await self._run("finish_recovery", lambda tx: operators.finish_recovery(tx, record))

    async def _all(self, name: str, work: Callable[[Transaction, int], int]) -> int:
        """Run `work` in commands of `wake_limit` rows until nothing is left; returns how many rows in all."""
        limit, total = self._settings.wake_limit, 0
        while True:
            count = await self._run(name, lambda tx: work(tx, limit))
            total += count
            if count < limit:
                return total

    async def apply_catalog(
        self, digest: str, body: str, plans: Sequence[PlanSnapshot], change: CatalogChange | None = None
    ) -> CatalogVersion:
        kept, how = tuple(plans), change or CatalogChange()
        return await self._run("apply_catalog", lambda tx: catalogs.apply(tx, digest, body, kept, how))

    async def put_meta(self, name: str, value: bytes) -> bytes:
        return await self._run("put_meta", lambda tx: commands.put_meta(tx, name, value))

    async def retain(self, policy: Retention) -> int:
        return await self._run("retain", lambda tx: self._keeper.retain(tx, policy))

    # Notices and health.

    def _committed(self, result: Result) -> None:
        if result.commit is None:
            return
        self._head = max(self._head, result.commit.head)
        for listener in tuple(self._listeners):
            try:
                listener(result.commit)
            except Exception:  # noqa: BLE001 - one listener's bug must not starve the others
                _log.exception("store listener failed")

    def subscribe(self, listener: Callable[[Commit], None]) -> Callable[[], None]:
        """Call `listener` after every commit; returns the function that ends it, which may be called twice."""
        self._listeners.append(listener)

        def end() -> None:
            if listener in self._listeners:
                self._listeners.remove(listener)

        return end

    async def backlog(self) -> Backlog:
        return self._writer.ledger.backlog

    async def facts(self) -> Facts:
        return Facts(
            head=self.head,
            earliest=await self.earliest(),
            queues=await self.queues(),
            store_bytes=await asyncio.to_thread(backup.size_of, self._path),
            free_bytes=await asyncio.to_thread(self._disk.free),
            low_water_bytes=self._settings.low_water_bytes,
            drift=await self.drift_counts(),
            campaigns=await self.campaign_counts(),
            held=await self.held(),
            platform_orphans=await self.platform_orphan_count(),
        )

    async def backup(self, target: Path) -> Copied:
        needed = await asyncio.to_thread(backup.size_of, self._path) + self._settings.low_water_bytes
        if await asyncio.to_thread(self._disk.free) < needed:
            raise full()
        try:
            return await asyncio.to_thread(backup.copy, self._path, target, self._settings, self._clock.now())
        except (sqlite3.Error, OSError) as error:
            _log.exception("backup failed")
            raise refusal(error, self._settings.retry_after) if isinstance(error, sqlite3.Error) else full() from error

    async def ping(self) -> None:
        if not self._writer.healthy:
            raise unavailable(self._settings.retry_after)
        await super().ping()

    async def close(self) -> None:
        """Finish accepted commands, then close. A second caller waits for the first."""
        if self._closed is not None:
            await asyncio.shield(self._closed)
            return
        self._closed = asyncio.get_running_loop().create_future()
        try:
            await self._close()
        finally:
            self._closed.set_result(None)

    async def _close(self) -> None:
        try:
            await self._writer.close()
        except TimeoutError:
            _log.error("store writer did not end in time")
        try:
            await self._readers.close()
        except (PurveyorError, sqlite3.Error, TimeoutError):
            _log.exception("store readers did not close")
        finally:
            self._lock.release()
