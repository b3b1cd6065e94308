"""What is done to the disk, blocking, by names below one folder that is held open.

Guarantee: no symbolic link is followed; an instance's folder appears whole and disappears whole (built and emptied under
another name); what was answered is on the disk (fsync). Emptying is iterative: depth of folders costs no memory and no files.
Limit: folders that another OS user made and closed to the broker cannot be emptied; they are out of the way, and reported.
"""

from __future__ import annotations

import errno
import os
import secrets
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path
from typing import NamedTuple, TypeVar

_Answer = TypeVar("_Answer")
DATA, TOKENS, MARKER, QUOTA = "data", "tokens", "marker", "quota.json"
MAX_FILE = 64 * 1024  # of those that the broker reads
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
CHUNK_SECONDS = 2.0  # of emptying; the rest in the next run
AT_ONCE = 1000  # names of a consumer's folder
MOST_NAMES = 1_000_000  # of instances in the root


class Used(NamedTuple):
    """What an instance uses; `whole` is false when measuring took too long."""

    bytes: int
    files: int
    whole: bool


class Disk:
    """The folder `root` and what may be done in it. All methods block; names are opaque and hold no separator."""

    def __init__(self, root: str, mode: int, group: int | None) -> None:
        self.path = root
        self.mode = mode
        self._group = group

    @contextmanager
    def opened(self) -> Iterator[int]:
        """The root as a descriptor. Raises OSError."""
        fd = os.open(self.path, FOLDER_FLAGS)
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
        gone = suppress(FileNotFoundError, NotADirectoryError)
        with gone, self.opened() as root, folder(root, name) as home, folder(home, part) as inner:
            for left in (file, hidden(file, "new")):
                with suppress(FileNotFoundError):
                    os.unlink(left, dir_fd=inner)
            os.fsync(inner)

    def discard(self, name: str) -> None:
        """Put the instance's folder out of everybody's way: from now on there is none of that name."""
        with self.opened() as root:
            for there in (name, hidden(name, "new")):
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
            try:
                with folder(root, trash) as bin_:
                    if not _emptied(bin_, end):
                        return False
                os.rmdir(trash, dir_fd=root)
            except FileNotFoundError:
                return True
            except NotADirectoryError:
                os.unlink(trash, dir_fd=root)
            os.fsync(root)
            return True

    def has(self, name: str) -> bool:
        """Whether anything of that name is there."""
        with self.opened() as root:
            return exists(root, name)

    def has_left(self, name: str) -> bool:
        """Whether the instance's folder is there, or what a run that was interrupted left of it."""
        with self.opened() as root:
            return any(exists(root, there) for there in (name, hidden(name, "new"), hidden(name, "trash")))

    def names(self) -> list[str]:
        """Everything in the root."""
        with self.opened() as root:
            return _some(root, at_once=MOST_NAMES)

    def parts(self, name: str, part: str) -> list[str]:
        """Everything in a folder of the broker's in the instance's folder."""
        try:
            with self.opened() as root, folder(root, name) as home, folder(home, part) as inner:
                return _some(inner, at_once=MOST_NAMES)
        except (FileNotFoundError, NotADirectoryError):
            return []

    def mode_of(self, name: str, part: str) -> int:
        """The mode of a folder in the instance's folder. Raises OSError."""
        with self.opened() as root, folder(root, name) as home:
            return os.stat(part, dir_fd=home, follow_symlinks=False).st_mode

    def used(self, name: str, seconds: float) -> Used | None:
        """What the instance uses, measured for at most `seconds`; None when its data folder is not there."""
        path = str(Path(self.path, name, DATA))
        try:
            with self.opened() as root, folder(root, name) as home, folder(home, DATA):
                pass  # neither is a link
        except (FileNotFoundError, NotADirectoryError):
            return None
        return _measure(path, time.monotonic() + seconds)


def hidden(name: str, what: str) -> str:
    """The name beside `name` under which it is built (`new`), emptied (`trash`) or locked (`lock`)."""
    return f".{name}.{what}"


@contextmanager
def folder(parent: int, name: str) -> Iterator[int]:
    """A folder that is no link. Raises OSError (NotADirectoryError for a link)."""
    try:
        fd = os.open(name, FOLDER_FLAGS, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, "is a symbolic link") from error
        raise
    try:
        yield fd
    finally:
        os.close(fd)


def exists(parent: int, name: str) -> bool:
    """Whether there is anything of that name, a dangling link included."""
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def replace_file(parent: int, name: str, content: bytes) -> None:
    """Write `name`, 0600, whole or not at all, and onto the disk."""
    fresh = hidden(name, "new")
    with suppress(FileNotFoundError):
        os.unlink(fresh, dir_fd=parent)
    fd = os.open(fresh, WRITE_FLAGS, 0o600, dir_fd=parent)
    with os.fdopen(fd, "wb") as file:
        file.write(content)
        file.flush()
        os.fsync(fd)
    os.rename(fresh, name, src_dir_fd=parent, dst_dir_fd=parent)
    os.fsync(parent)


def read_file(parent: int, name: str) -> bytes | None:
    """A small regular file; None when there is none, or something else."""
    try:
        fd = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno == errno.ELOOP:
            return None
        raise
    with os.fdopen(fd, "rb") as file:
        return file.read(MAX_FILE) if stat.S_ISREG(os.fstat(fd).st_mode) else None


class _TimeUpError(Exception):
    """The rest is removed in the next run."""


def _emptied(bin_: int, end: float) -> bool:
    """Remove all but the marker, then the marker. Folders in folders are moved up, so that nothing is ever deep."""
    try:
        while inner := _some(bin_, MARKER):
            for name in inner:
                _remove_entry(bin_, name, end)
    except _TimeUpError:
        return False
    with suppress(FileNotFoundError):
        os.unlink(MARKER, dir_fd=bin_)
    return True


def _remove_entry(bin_: int, name: str, end: float) -> None:
    if not _is_folder(bin_, name):
        os.unlink(name, dir_fd=bin_)
        return
    _open_up(bin_, name)
    with folder(bin_, name) as fd:
        while inner := _some(fd):
            for entry in inner:
                if _is_folder(fd, entry):
                    _open_up(fd, entry)
                    os.rename(entry, f"up-{secrets.token_hex(8)}", src_dir_fd=fd, dst_dir_fd=bin_)
                else:
                    os.unlink(entry, dir_fd=fd)
            if time.monotonic() > end:
                raise _TimeUpError
    os.rmdir(name, dir_fd=bin_)


def _some(fd: int, but: str = "", at_once: int = AT_ONCE) -> list[str]:
    """At most `at_once` names in a folder, sorted: it may hold millions."""
    with os.scandir(fd) as entries:
        return sorted(islice((entry.name for entry in entries if entry.name != but), at_once))


def _is_folder(parent: int, name: str) -> bool:
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def _open_up(parent: int, name: str) -> None:
    """Give the broker its rights back in a folder of its own; through a descriptor, so that no link is followed."""
    with suppress(PermissionError):  # another OS user's: removing it will say so
        fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
        try:
            Path(f"/proc/self/fd/{fd}").chmod(0o700)
        finally:
            os.close(fd)


def _measure(path: str, end: float) -> Used:
    total = files = 0
    for _, folders, names, fd in os.fwalk(path, follow_symlinks=False):
        files += len(folders) + len(names)
        for name in names:
            with suppress(FileNotFoundError):
                total += os.stat(name, dir_fd=fd, follow_symlinks=False).st_size
        if time.monotonic() > end:
            return Used(total, files, whole=False)
    return Used(total, files, whole=True)
