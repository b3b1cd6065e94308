"""Single entries of a folder that is held open, by name.

Guarantee: no symbolic link is followed, at the name or before it; nothing but regular files is opened for reading.
"""

from __future__ import annotations

import errno
import os
import stat
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from itertools import islice
from pathlib import Path

MAX_FILE = 64 * 1024  # of those that the broker reads
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
READ_FLAGS = os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC
WRITE_FLAGS = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
AT_ONCE = 1000  # names of a consumer's folder


def hidden(name: str, what: str) -> str:
    """The name beside `name` under which it is built (`new`), emptied (`trash`) or locked (`lock`)."""
    return f".{name}.{what}"


@contextmanager
def folder(parent: int, name: str) -> Iterator[int]:
    """A folder that is no link. Raises OSError (NotADirectoryError for a link)."""
    fd = open_folder(parent, name)
    try:
        yield fd
    finally:
        os.close(fd)


def open_folder(parent: int, name: str) -> int:
    """The same as a descriptor that the caller closes."""
    try:
        return os.open(name, FOLDER_FLAGS, dir_fd=parent)
    except OSError as error:
        if error.errno == errno.ELOOP:
            raise NotADirectoryError(errno.ENOTDIR, "is a symbolic link") from error
        raise


def exists(parent: int, name: str) -> bool:
    """Whether there is anything of that name, a dangling link included."""
    try:
        os.stat(name, dir_fd=parent, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def is_folder(parent: int, name: str) -> bool:
    """Whether it is a folder and no link to one. Raises OSError."""
    return stat.S_ISDIR(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode)


def open_up(parent: int, name: str, mount: str) -> None:
    """Give the broker its rights back in a folder of its own; through a descriptor, so that no link is followed.

    Raises OSError (EBUSY) for what is not on the mount `mount`: it is somebody else's.
    """
    fd = os.open(name, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=parent)
    try:
        if mount_of(fd) != mount:
            raise OSError(errno.EBUSY, "is a mount point")
        with suppress(PermissionError):  # another OS user's: removing it will say so
            Path(f"/proc/self/fd/{fd}").chmod(0o700)
    finally:
        os.close(fd)


def some(fd: int, but: str = "", at_once: int = AT_ONCE) -> list[str]:
    """At most `at_once` names in a folder, sorted: it may hold millions."""
    with os.scandir(fd) as entries:
        return sorted(islice((entry.name for entry in entries if entry.name != but), at_once))


def mount_of(fd: int) -> str:
    """Which mount a descriptor is on. The device does not tell: a folder can be mounted within its own file system."""
    with suppress(OSError):  # without /proc
        for line in Path(f"/proc/self/fdinfo/{fd}").read_bytes().splitlines():
            if line.startswith(b"mnt_id:"):
                return line.decode()
    return f"device {os.fstat(fd).st_dev}"


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
        # Looked at first: a socket cannot be opened, and opening a device may do something.
        if not stat.S_ISREG(os.stat(name, dir_fd=parent, follow_symlinks=False).st_mode):
            return None
        fd = os.open(name, READ_FLAGS, dir_fd=parent)
    except FileNotFoundError:
        return None
    except OSError as error:
        if error.errno in {errno.ELOOP, errno.ENXIO}:  # it became a link or a socket meanwhile
            return None
        raise
    with os.fdopen(fd, "rb") as file:
        return file.read(MAX_FILE) if stat.S_ISREG(os.fstat(fd).st_mode) else None
