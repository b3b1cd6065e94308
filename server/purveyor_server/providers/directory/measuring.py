"""Measuring a tree whose content is a stranger's.

Guarantee: changes nothing, follows no link, enters no other mount; a file with many names counts its bytes once. Depth costs
no stack and at most KEPT open files: a folder further up is opened again as `..`, and must be the one that it was.
Limit: what was not measured is said in `gap`; sizes are those of the files (a sparse one counts whole).
"""

from __future__ import annotations

import os
import stat
import time
from itertools import islice
from typing import NamedTuple

from purveyor_server.providers.directory.entries import FOLDER_FLAGS, mount_of, open_folder

KEPT = 32  # folders that are held open
BETWEEN_LOOKS = 256  # entries between two looks at the clock
MOST_LINKED = 100_000  # files with several names that are remembered; further ones count once per name


class Used(NamedTuple):
    """What an instance uses; `gap` says why it may be more, and is empty when all was measured."""

    bytes: int
    files: int
    gap: str = ""


class _Level:
    """A folder on the way down: its descriptor while it is held open, what it is, and which folders in it are to come."""

    def __init__(self, fd: int) -> None:
        self.fd: int | None = fd
        self.status = os.fstat(fd)
        self.inner: list[str] = []


class _Walk:
    """One measurement."""

    def __init__(self, top: int, seconds: float) -> None:
        self._mount = mount_of(top)
        self._seconds = seconds
        self._end = time.monotonic() + seconds
        self._linked: set[tuple[int, int]] = set()
        self._levels: list[_Level] = []
        self.bytes = self.files = 0
        self.gap = ""

    def run(self, top: int) -> None:
        """Measure all below the folder `top`, which stays open."""
        try:
            self._enter(os.dup(top))
            while self._levels and self._in_time():
                if not self._levels[-1].inner:
                    self._leave()
                else:
                    self._descend(self._levels[-1].inner.pop())
        finally:
            for level in self._levels:
                if level.fd is not None:
                    os.close(level.fd)

    def _descend(self, name: str) -> None:
        above = self._levels[-1].fd
        assert above is not None  # the last one is always open
        try:
            fd = open_folder(above, name)
        except (FileNotFoundError, NotADirectoryError):  # gone or exchanged since it was listed
            return
        except PermissionError:
            self.gap = "a folder is closed to the broker"
            return
        if mount_of(fd) != self._mount:
            os.close(fd)
            self.gap = "a folder is a mount point"
            return
        self._enter(fd)

    def _enter(self, fd: int) -> None:
        level = _Level(fd)
        self._levels.append(level)
        if len(self._levels) > KEPT:
            far = self._levels[-KEPT - 1]
            if far.fd is not None:
                os.close(far.fd)
                far.fd = None
        with os.scandir(fd) as entries:
            while batch := list(islice(entries, BETWEEN_LOOKS)):
                for entry in batch:
                    self._count(entry, level)
                if not self._in_time():
                    return

    def _count(self, entry: os.DirEntry[str], level: _Level) -> None:
        self.files += 1
        try:
            status = entry.stat(follow_symlinks=False)
        except FileNotFoundError:
            return
        except PermissionError:  # a folder that may be listed and not entered
            self.gap = "a folder is closed to the broker"
            return
        if stat.S_ISDIR(status.st_mode):
            level.inner.append(entry.name)
            return
        if status.st_nlink > 1:
            inode = (status.st_dev, status.st_ino)
            if inode in self._linked:
                return
            if len(self._linked) < MOST_LINKED:
                self._linked.add(inode)
        self.bytes += status.st_size

    def _leave(self) -> None:
        level = self._levels.pop()
        assert level.fd is not None
        try:
            if self._levels and self._levels[-1].fd is None:
                self._levels[-1].fd = self._up(level.fd, self._levels[-1].status)
        finally:
            os.close(level.fd)
        if self._levels and self._levels[-1].fd is None:
            self.gap = "folders were moved meanwhile"
            self._levels.clear()

    @staticmethod
    def _up(fd: int, wanted: os.stat_result) -> int | None:
        try:
            above = os.open("..", FOLDER_FLAGS, dir_fd=fd)
        except OSError:
            return None
        if os.path.samestat(os.fstat(above), wanted):
            return above
        os.close(above)
        return None

    def _in_time(self) -> bool:
        if time.monotonic() <= self._end:
            return True
        self.gap = f"it took more than {self._seconds:g} s"
        return False


def measure(top: int, seconds: float) -> Used:
    """What is below the folder that is open as `top`, measured for at most `seconds`. Raises OSError."""
    walk = _Walk(top, seconds)
    walk.run(top)
    return Used(walk.bytes, walk.files, walk.gap)
