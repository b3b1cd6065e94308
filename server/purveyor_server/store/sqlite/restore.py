"""Putting a backup in the place of a store, while nobody has it open.

Guarantee: the file is checked whole before anything is touched; at every moment the place holds either the old store or the
restored one, whole; the old one is kept beside it. The restored store is a new incarnation: its revisions and epochs begin
far behind those of the backup, its event log is empty, and it starts with every automatic deletion and every operation of
the time before stopped.
Source: DESIGN.md section 10.
"""

from __future__ import annotations

import os
import shutil
import sqlite3
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path

import msgspec

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.freezes import DELETES, RECOVERY, Freeze
from purveyor_server.domain.recovery import JUMP, Recovery
from purveyor_server.kit.clock import Clock
from purveyor_server.store.operating import Copied
from purveyor_server.store.sqlite import rows
from purveyor_server.store.sqlite.backup import BACKUP
from purveyor_server.store.sqlite.connection import APPLICATION_ID, MAGIC, prepare_folder
from purveyor_server.store.sqlite.errors import StoreOpenError, StoreOpenKind
from purveyor_server.store.sqlite.lock import FileLock
from purveyor_server.store.sqlite.migrate import known, migrate
from purveyor_server.store.sqlite.operators import PENDING_AUDIT, RESTORE
from purveyor_server.store.sqlite.operators import RECOVERY as RECOVERY_SETTING
from purveyor_server.store.sqlite.queries import load

_UPKEEP, _COMMANDS = load("upkeep"), load("commands")
_METAS = load("reads")["metas"]
EPOCHS = 2**20  # more than a store is opened between a backup and its loss
Prove = Callable[[str, Mapping[str, bytes]], None]
"""(store id, the store's meta values by name): raises when the keys do not open the store."""


class Restored(msgspec.Struct, frozen=True):
    """What was put in place, and where the store that was there is now (None: there was none)."""

    store_id: str
    recovery: Recovery
    aside: Path | None


def restore(file: Path, database: Path, clock: Clock, prove: Prove) -> Restored:
    """Blocking. Raises StoreOpenError; whatever `prove` raises. The old store is untouched then."""
    database = database.resolve()
    prepare_folder(database)
    lock = FileLock(database)
    lock.acquire()
    draft = database.with_name(f".{database.name}.restoring")
    try:
        _check(file, database)
        made = _prepare(file, draft, clock.now(), prove)
        aside = _keep_old(database, clock.now())
        draft.replace(database)
        _sync(database.parent)
        return Restored(made[0], made[1], aside)
    except OSError as error:
        raise StoreOpenError(StoreOpenKind.UNWRITABLE, f"{error.filename or database}: {error.strerror}") from error
    finally:
        draft.unlink(missing_ok=True)
        lock.release()


def _check(file: Path, database: Path) -> None:
    """Is it a backup of ours, of a schema that this program knows, undamaged?"""
    if database.exists() and file.samefile(database):
        raise StoreOpenError(StoreOpenKind.NOT_A_DATABASE, f"{file} is the store itself, not a backup")
    with file.open("rb") as stream:
        if not stream.read(len(MAGIC)) == MAGIC:
            raise StoreOpenError(StoreOpenKind.NOT_A_DATABASE, f"{file} is not a backup")
    try:
        connection = sqlite3.connect(f"file:{file.resolve()}?mode=ro&immutable=1", uri=True)
        try:
            _check_content(connection, file)
        finally:
            connection.close()
    except sqlite3.Error as error:
        raise StoreOpenError(StoreOpenKind.CORRUPT, f"{file} is damaged: use another backup") from error


def _check_content(connection: sqlite3.Connection, file: Path) -> None:
    if connection.execute("PRAGMA application_id").fetchone()[0] != APPLICATION_ID:
        raise StoreOpenError(StoreOpenKind.NOT_A_DATABASE, f"{file} is the database of another program")
    version, newest = connection.execute("PRAGMA user_version").fetchone()[0], known()[-1].number
    if version > newest:
        raise StoreOpenError(
            StoreOpenKind.NEWER, f"{file} has schema {version}, this program knows up to {newest}: use a newer program"
        )
    if connection.execute("PRAGMA quick_check(1)").fetchone()[0] != "ok":
        raise StoreOpenError(StoreOpenKind.CORRUPT, f"{file} is damaged: use another backup")
    if connection.execute(_UPKEEP["setting"], (BACKUP,)).fetchone() is None:
        raise StoreOpenError(
            StoreOpenKind.NOT_A_DATABASE,
            f"{file} was not made by `purveyor backup`: its time and revision are not known",
        )


def _prepare(file: Path, draft: Path, now: datetime, prove: Prove) -> tuple[str, Recovery]:
    """A copy of the file that is a new incarnation."""
    draft.unlink(missing_ok=True)
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
    with file.open("rb") as source, os.fdopen(descriptor, "wb") as target:
        shutil.copyfileobj(source, target)
        target.flush()
        os.fsync(descriptor)
    connection = sqlite3.connect(draft, isolation_level=None)
    try:
        connection.execute("PRAGMA synchronous = FULL")
        migrate(connection, known())
        store_id = str(connection.execute(_UPKEEP["setting"], ("store_id",)).fetchone()[0])
        prove(store_id, dict(connection.execute(_METAS, ("",)).fetchall()))
        return store_id, _begin_anew(connection, now)
    finally:
        connection.close()


def _begin_anew(connection: sqlite3.Connection, now: datetime) -> Recovery:
    """One transaction: everything that makes it a new incarnation."""
    copied = msgspec.json.decode(connection.execute(_UPKEEP["setting"], (BACKUP,)).fetchone()[0], type=Copied)
    epoch = int(connection.execute(_UPKEEP["setting"], ("epoch",)).fetchone()[0])
    recovery = Recovery(copied.taken_at, now, copied.revision)
    reason = f"restored from a backup of {copied.taken_at:%Y-%m-%d %H:%M:%SZ}: see `purveyor recover`"
    # Written at the next start, which has the keys of the chain.
    record = AuditRecord(at=now, principal=RESTORE, action="Restore", resource="store", reason=reason)
    connection.execute("BEGIN IMMEDIATE")
    connection.execute(_UPKEEP["delete_events"], (2**62,))
    for name, value in (
        ("earliest", str(copied.revision + JUMP + 1)),
        ("epoch", str(epoch + EPOCHS)),
        (RECOVERY_SETTING, msgspec.json.encode(recovery).decode()),
        (PENDING_AUDIT, rows.encode(record).decode()),
    ):
        connection.execute(_UPKEEP["put_setting"], (name, value))
    connection.execute(_UPKEEP["delete_setting"], (BACKUP,))
    for name in (DELETES, RECOVERY):
        connection.execute(_COMMANDS["put_freeze"], (name, rows.encode(Freeze(name, reason, RESTORE, now))))
    connection.execute("COMMIT")
    return recovery


def _keep_old(database: Path, now: datetime) -> Path | None:
    """A second name for the store that is there, with all that its log held; None when there is none."""
    if not database.exists():
        return None
    aside = database.with_name(f"{database.name}.before-restore-{now:%Y%m%dT%H%M%S}")
    log, index = (database.with_name(f"{database.name}{end}") for end in ("-wal", "-shm"))
    _empty_log(database)
    # A log that could not be emptied belongs to the old file: beside the new one it would be applied to it.
    for left, end in ((log, "-wal"), (index, "-shm")):
        if left.exists():
            left.replace(aside.with_name(aside.name + end))
    os.link(database, aside)
    return aside


def _empty_log(database: Path) -> None:
    connection = sqlite3.connect(database, isolation_level=None)
    try:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()
        connection.execute("PRAGMA journal_mode = DELETE").fetchone()
    except sqlite3.Error:
        pass  # it is damaged: that may be why it is replaced
    finally:
        connection.close()


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
