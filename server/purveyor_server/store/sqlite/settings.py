"""The numbers of the SQLite backend, each with its unit in its name or type.

Guarantee: every queue, wait and file that this backend grows has its bound here.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec

MIB = 1024 * 1024


class SqliteSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Bounds of one open store. Sizes in bytes, page counts in SQLite pages (4096 bytes)."""

    queue_limit: int = 10_000  # commands accepted and not answered
    batch_limit: int = 512  # commands of one transaction
    command_timeout: timedelta = timedelta(seconds=30)  # a caller's wait for its answer; then OUTCOME_UNKNOWN
    close_timeout: timedelta = timedelta(seconds=30)  # the wait for accepted commands at close
    busy_timeout: timedelta = timedelta(seconds=5)  # a wait for a lock that a stranger (a shell) holds
    retry_after: timedelta = timedelta(seconds=1)  # told to callers with STORE_UNAVAILABLE
    reopen_every: timedelta = timedelta(seconds=1)  # attempts to reopen a broken connection
    readers: int = 4  # read-only connections, one thread each
    read_timeout: timedelta = timedelta(seconds=5)  # a read, the wait for a free connection included
    wal_autocheckpoint_pages: int = 4000
    wal_limit_bytes: int = 64 * MIB  # above it the writer waits for readers and restarts the log
    wal_check_every: timedelta = timedelta(seconds=1)
    cache_bytes: int = 64 * MIB  # page cache of the writer
    low_water_bytes: int = 64 * MIB  # free disk below which new creates are refused
    disk_check_every: timedelta = timedelta(seconds=1)
    promote_limit: int = 5000  # operations noticed as due by one claim
    wake_limit: int = 500  # operations woken by one transaction
