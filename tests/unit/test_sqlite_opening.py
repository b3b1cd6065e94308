"""Opening a database file: what is refused, with which words, and what is made."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import stat
import sys
from pathlib import Path

import pytest

from purveyor_server.kit.clock import ManualClock
from purveyor_server.store.sqlite.connection import APPLICATION_ID
from purveyor_server.store.sqlite.errors import StoreOpenError, StoreOpenKind
from purveyor_server.store.sqlite.migrate import known, migrate, statements
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.store.sqlite.store import SqliteStore, open_store


async def opened(path: Path) -> SqliteStore:
    return await open_store(path, clock=ManualClock(), settings=SqliteSettings(readers=1))


async def refused(path: Path) -> StoreOpenError:
    with pytest.raises(StoreOpenError) as caught:
        await opened(path)
    return caught.value


async def made(path: Path) -> None:
    await (await opened(path)).close()


async def test_files_are_for_the_owner_alone(tmp_path: Path) -> None:
    path = tmp_path / "new" / "store.db"
    before = os.umask(0)
    try:
        store = await opened(path)
    finally:
        os.umask(before)
    modes = {file.name: stat.S_IMODE(file.stat().st_mode) for file in path.parent.iterdir()}
    await store.close()
    assert set(modes.values()) == {0o600}
    assert {"store.db", "store.db-wal", "store.db.lock"} <= set(modes)
    assert stat.S_IMODE(path.parent.stat().st_mode) == 0o700


async def test_a_file_that_others_may_read_is_narrowed(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await made(path)
    path.chmod(0o644)
    await made(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


async def test_a_second_opening_names_the_process_that_holds_the_file(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    store = await opened(path)
    alias = tmp_path / "alias.db"
    alias.symlink_to(path)
    for name in (path, alias):
        error = await refused(name)
        assert error.kind is StoreOpenKind.LOCKED
        assert str(os.getpid()) in error.message
    await store.close()
    await made(path)


async def test_the_lock_of_a_killed_process_is_free(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    program = (
        "import sys, time; from pathlib import Path; from purveyor_server.store.sqlite.lock import FileLock\n"
        "lock = FileLock(Path(sys.argv[1])); lock.acquire(); print('held', flush=True); sys.stdin.read()"
    )
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(path), stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(30):
        assert await process.stdout.readline() == b"held\n"
        error = await refused(path)
        process.kill()
        await process.communicate()
    assert error.kind is StoreOpenKind.LOCKED
    assert str(process.pid) in error.message
    await made(path)


async def test_a_refused_opening_leaves_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    path.write_bytes(b"not a database at all" * 100)
    assert (await refused(path)).kind is StoreOpenKind.NOT_A_DATABASE
    assert path.read_bytes() == b"not a database at all" * 100
    path.unlink()
    await made(path)


async def test_a_database_of_another_program_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    with sqlite3.connect(path) as other:
        other.execute("CREATE TABLE theirs (x)")
    other.close()
    assert (await refused(path)).kind is StoreOpenKind.NOT_A_DATABASE
    reading = sqlite3.connect(path)
    assert reading.execute("SELECT name FROM sqlite_schema").fetchall() == [("theirs",)]
    reading.close()


async def test_a_newer_schema_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await made(path)
    change(path, "PRAGMA user_version = 999")
    error = await refused(path)
    assert error.kind is StoreOpenKind.NEWER
    assert "999" in error.message


async def test_a_migration_with_another_text_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await made(path)
    change(path, "UPDATE migrations SET checksum = 'other'")
    assert (await refused(path)).kind is StoreOpenKind.NEWER


async def test_a_file_that_was_cut_off_is_damaged(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await made(path)
    content = path.read_bytes()
    for size in (50, 4096, len(content) - 4096):
        path.write_bytes(content[:size])
        assert (await refused(path)).kind is StoreOpenKind.CORRUPT
    path.write_bytes(content)
    await made(path)


async def test_damaged_pages_are_refused_or_found_at_run_time(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await made(path)
    content = path.read_bytes()
    path.write_bytes(content[:4096] + b"\xff" * (len(content) - 4096))
    assert (await refused(path)).kind is StoreOpenKind.CORRUPT


@pytest.mark.parametrize("name", ["store_id", "earliest"])
async def test_settings_that_make_no_sense_are_damage(tmp_path: Path, name: str) -> None:
    path = tmp_path / "store.db"
    await made(path)
    change(path, f"UPDATE settings SET value = 'x' WHERE name = '{name}'")
    assert (await refused(path)).kind is StoreOpenKind.CORRUPT


async def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "folder.db").mkdir()
    for path in (tmp_path / "file" / "store.db", tmp_path / "folder.db"):
        error = await refused(path)
        assert error.kind is StoreOpenKind.UNWRITABLE
        assert str(path.parent) in error.message


async def test_each_opening_is_an_epoch_and_the_id_stays(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    seen = []
    for _ in range(3):
        store = await opened(path)
        seen.append((store.store_id, store.epoch))
        await store.close()
    assert [epoch for _, epoch in seen] == [1, 2, 3]
    assert len({identity for identity, _ in seen}) == 1


async def test_a_clean_end_leaves_no_log_behind(tmp_path: Path) -> None:
    path = tmp_path / "store.db"
    await made(path)
    log = path.with_name("store.db-wal")
    assert not log.exists() or log.stat().st_size == 0


def test_a_migration_is_whole_or_not_at_all(tmp_path: Path) -> None:
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    first = known()[0]
    broken = type(first)(2, "0002_broken.sql", "CREATE TABLE half (x);\nCREATE TABLE half (x);\n")
    with pytest.raises(sqlite3.OperationalError):
        migrate(connection, (first, broken))
    assert connection.execute("PRAGMA user_version").fetchone() == (1,)
    assert connection.execute("SELECT count(*) FROM sqlite_schema WHERE name = 'half'").fetchone() == (0,)
    assert migrate(connection, (first,)) == 1
    connection.close()


def test_migrations_are_numbered_without_a_gap(tmp_path: Path) -> None:
    for name in ("0001_a.sql", "0003_b.sql"):
        (tmp_path / name).write_text("CREATE TABLE a (x);\n", encoding="utf-8")
    with pytest.raises(ValueError, match="0003_b"):
        known(tmp_path)


def test_a_script_is_cut_at_statements_only() -> None:
    text = "-- a; comment\nCREATE TABLE a (x TEXT DEFAULT ';');\n\nCREATE TABLE b (y);\n-- the end\n"
    assert len(list(statements(text))) == 2
    with pytest.raises(ValueError, match="middle"):
        list(statements("CREATE TABLE a (x"))


def change(path: Path, sql: str) -> None:
    connection = sqlite3.connect(path)
    assert connection.execute("PRAGMA application_id").fetchone() == (APPLICATION_ID,)
    with connection:
        connection.execute(sql)
    connection.close()
