"""One process per database file.

Guarantee: while a `FileLock` is held nobody else, in this process or another, gets one for the same file; the kernel
frees it when the process dies, so a left-over file locks nobody out.
Limit: flock(2) on a local file system; a hard link to the database is another name and another lock.
"""

from __future__ import annotations

import fcntl
import os
from pathlib import Path

from purveyor_server.store.sqlite.errors import StoreOpenError, StoreOpenKind

PID_BYTES = 32


class FileLock:
    """The lock file beside a database; holds the pid of its owner as text."""

    def __init__(self, database: Path) -> None:
        self.path = database.with_name(database.name + ".lock")
        self._descriptor = -1

    def acquire(self) -> None:
        """Take the lock. Raises StoreOpenError: LOCKED with the owner's pid, or UNWRITABLE."""
        try:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        except OSError as error:
            message = f"the lock file {self.path} cannot be written: {error.strerror}"
            raise StoreOpenError(StoreOpenKind.UNWRITABLE, message) from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            owner = os.pread(descriptor, PID_BYTES, 0).decode("ascii", "replace").strip() or "unknown"
            os.close(descriptor)
            raise StoreOpenError(
                StoreOpenKind.LOCKED, f"{self.path} is held by the process {owner}: one server per database file"
            ) from None
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"{os.getpid()}\n".encode("ascii"), 0)
        self._descriptor = descriptor

    def release(self) -> None:
        """Give the lock back. The file stays: removing it would let two processes lock two files of one name."""
        if self._descriptor >= 0:
            os.ftruncate(self._descriptor, 0)
            os.close(self._descriptor)
            self._descriptor = -1
