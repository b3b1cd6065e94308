"""What is done to the disk, blocking, by names below one folder that is held open.

Guarantee: no symbolic link is followed; an instance's folder appears whole and disappears whole (built and emptied under
another name); what was answered is on the disk (fsync). What a stranger puts into it: see `removal` and `measuring`.
Limit: folders that another OS user made and closed to the broker cannot be emptied; they are out of the way, and reported.
"""

from __future__ import annotations

import os
import secrets
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import TypeVar

from purveyor_server.providers.directory.entries import (
    FOLDER_FLAGS,
    exists,
    folder,
    hidden,
    mount_of,
    open_up,
    read_file,
    replace_file,
    some,
)
from purveyor_server.providers.directory.measuring import Used, measure
from purveyor_server.providers.directory.removal import emptied

_Answer = TypeVar("_Answer")
DATA, TOKENS, MARKER, QUOTA = "data", "tokens", "marker", "quota.json"
HELD_DATA, HELD_TOKENS = "data.held", "tokens.held"  # in quarantine
GONE = (FileNotFoundError, NotADirectoryError)
CHUNK_SECONDS = 2.0  # of emptying; the rest in the next run
MOST_NAMES = 1_000_000  # of instances in the root


class RootError(OSError):
    """The root itself cannot be opened: it is not one instance that is not well, it is all."""


class Disk:
    """The folder `root` and what may be done in it. All methods block; names are opaque and hold no separator."""

    def __init__(self, root: str, mode: int, group: int | None) -> None:
        self.path = root
        self.mode = mode
        self._group = group

    @contextmanager
    def opened(self) -> Iterator[int]:
        """The root as a descriptor. Raises RootError."""
        try:
            fd = os.open(self.path, FOLDER_FLAGS)
        except OSError as error:
            raise RootError(error.errno, error.strerror) from error
        try:
            yield fd
        finally:
            os.close(fd)

    def carry_out(self, call: str, work: Callable[[], _Answer]) -> _Answer:  # noqa: ARG002 - a seam: tests hold calls up here
        """Run a change that was announced as `call`."""
        return work()

    def build(self, name: str, files: dict[str, bytes]) -> None:
        """Make the instance's folder `name`, whole, unless it is there."""
        with self.opened() as root:
            if exists(root, name):
                return
            fresh = hidden(name, "new")
            with suppress(FileExistsError):  # of an earlier run that did not come to its end
                os.mkdir(fresh, 0o700, dir_fd=root)
            with folder(root, fresh) as home:
                for file, content in files.items():
                    replace_file(home, file, content)
                for part, mode in ((DATA, self.mode), (TOKENS, 0o700)):
                    with suppress(FileExistsError):
                        os.mkdir(part, 0o700, dir_fd=home)
                    self._give(home, part, mode)
                os.fsync(home)
            self._give(root, fresh, self.mode & 0o750)
            os.rename(fresh, name, src_dir_fd=root, dst_dir_fd=root)
            os.fsync(root)

    def _give(self, parent: int, name: str, mode: int) -> None:
        with folder(parent, name) as fd:
            if self._group is not None and name != TOKENS:
                os.fchown(fd, -1, self._group)
            os.fchmod(fd, mode)

    def put(self, name: str, parts: tuple[str, ...], content: bytes) -> None:
        """Write a file of the broker's in the instance's folder `name`, atomically, 0600."""
        with self.opened() as root, folder(root, name) as home:
            if len(parts) == 1:
                return replace_file(home, parts[0], content)
            with folder(home, parts[0]) as inner:
                replace_file(inner, parts[1], content)

    def read(self, name: str, *parts: str) -> bytes | None:
        """A file of the broker's in the instance's folder; None when there is none."""
        try:
            with self.opened() as root, folder(root, name) as home:
                if len(parts) == 1:
                    return read_file(home, parts[0])
                with folder(home, parts[0]) as inner:
                    return read_file(inner, parts[1])
        except (FileNotFoundError, NotADirectoryError):
            return None

    def take(self, name: str, part: str, file: str) -> None:
        """Remove a file of the broker's, if it is there."""
        gone = suppress(*GONE)
        with gone, self.opened() as root, folder(root, name) as home, folder(home, part) as inner:
            for left in (file, hidden(file, "new")):
                with suppress(FileNotFoundError):
                    os.unlink(left, dir_fd=inner)
            os.fsync(inner)
            self._tidy(home)

    def move(self, name: str, file: str, part: str, to: str) -> None:
        """Move an entry of `part` to `to`, both folders of the broker's in the instance's folder, if it is there."""
        with suppress(*GONE), self.opened() as root, folder(root, name) as home, folder(home, part) as inner:
            with suppress(FileExistsError):
                os.mkdir(to, 0o700, dir_fd=home)
            with folder(home, to) as target:
                os.rename(file, file, src_dir_fd=inner, dst_dir_fd=target)
                os.fsync(target)
            os.fsync(inner)
            self._tidy(home)

    def _tidy(self, home: int) -> None:
        """The folder of held tokens is there while there are any."""
        with suppress(OSError):
            os.rmdir(HELD_TOKENS, dir_fd=home)

    def rename(self, name: str, part: str, to: str) -> None:
        """Another name for a part of the instance's folder, if it is there and the other name is free."""
        with suppress(*GONE), self.opened() as root, folder(root, name) as home:
            if exists(home, part) and not exists(home, to):
                os.rename(part, to, src_dir_fd=home, dst_dir_fd=home)
                os.fsync(home)

    def discard(self, name: str, *which: str) -> None:
        """Put the instance's folder (or `which` of its remains) out of everybody's way: there is none of that name any more."""
        with self.opened() as root:
            for there in which or (name, hidden(name, "new")):
                if not exists(root, there):
                    continue
                trash = hidden(name, "trash")
                if exists(root, trash):  # of an earlier run: this one goes into it
                    with folder(root, trash) as bin_:
                        os.rename(there, f"again-{secrets.token_hex(8)}", src_dir_fd=root, dst_dir_fd=bin_)
                else:
                    os.rename(there, trash, src_dir_fd=root, dst_dir_fd=root)
            os.fsync(root)

    def empty(self, name: str) -> bool:
        """Remove what was discarded; False when time was up before the end. Its marker goes last."""
        trash, end = hidden(name, "trash"), time.monotonic() + CHUNK_SECONDS
        with self.opened() as root:
            if not exists(root, trash):
                return True
            try:
                open_up(root, trash, mount_of(root))
                with folder(root, trash) as bin_:
                    if not emptied(bin_, MARKER, end):
                        return False
            except NotADirectoryError:
                os.unlink(trash, dir_fd=root)  # a link or a file in the instance's place
            else:
                os.rmdir(trash, dir_fd=root)
            os.fsync(root)
            return True

    def has(self, name: str) -> bool:
        """Whether anything of that name is there."""
        with self.opened() as root:
            return exists(root, name)

    def has_part(self, name: str, part: str) -> bool:
        """Whether there is such an entry in the instance's folder."""
        try:
            with self.opened() as root, folder(root, name) as home:
                return exists(home, part)
        except GONE:
            return False

    def has_left(self, name: str) -> bool:
        """Whether the instance's folder is there, or what a run that was interrupted left of it."""
        with self.opened() as root:
            return any(exists(root, there) for there in (name, hidden(name, "new"), hidden(name, "trash")))

    def names(self) -> list[str]:
        """Everything in the root."""
        with self.opened() as root:
            return some(root, at_once=MOST_NAMES)

    def parts(self, name: str, part: str) -> list[str]:
        """Everything in a folder of the broker's in the instance's folder."""
        try:
            with self.opened() as root, folder(root, name) as home, folder(home, part) as inner:
                return some(inner, at_once=MOST_NAMES)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def mode_of(self, name: str, part: str) -> int:
        """The mode of a folder in the instance's folder. Raises OSError."""
        with self.opened() as root, folder(root, name) as home:
            return os.stat(part, dir_fd=home, follow_symlinks=False).st_mode

    def used(self, name: str, seconds: float) -> Used | None:
        """What the instance uses, measured for at most `seconds`; None when its data folder is not there."""
        try:
            with self.opened() as root, folder(root, name) as home, folder(home, DATA) as data:
                return measure(data, seconds)
        except (FileNotFoundError, NotADirectoryError):
            return None
