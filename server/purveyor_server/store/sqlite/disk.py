"""The low-water mark of the disk.

Guarantee: below it nothing new is created, so that finishes and clean-ups still fit; asked at most once per period.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

from purveyor_server.kit.clock import Clock
from purveyor_server.store.sqlite.errors import full
from purveyor_server.store.sqlite.settings import SqliteSettings

FreeBytes = Callable[[Path], int]


def free_bytes(folder: Path) -> int:
    """Bytes that an unprivileged process may still write below `folder`."""
    return shutil.disk_usage(folder).free


class Disk:
    """Watches the free space of the folder of a database."""

    def __init__(self, folder: Path, clock: Clock, settings: SqliteSettings, free: FreeBytes = free_bytes) -> None:
        self._folder = folder
        self._clock = clock
        self._low_water = settings.low_water_bytes
        self._period = settings.disk_check_every.total_seconds()
        self._free = free
        self._asked_at = float("-inf")
        self._low = False

    def free(self) -> int:
        """Bytes free now."""
        return self._free(self._folder)

    def check_room(self) -> None:
        """Raise STORE_FULL when the disk is below its low-water mark."""
        now = self._clock.monotonic()
        if now - self._asked_at >= self._period:
            self._asked_at = now
            self._low = self._free(self._folder) < self._low_water
        if self._low:
            raise full()
