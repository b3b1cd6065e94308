"""Removing a tree whose content is a stranger's.

Guarantee: no link is followed, no other mount is entered, and whatever is exchanged for something else between look and use
is looked at again. Folders in folders are moved up, so that nothing is ever deep: depth costs no memory and no files.
Limit: folders that another OS user made and closed to the broker cannot be emptied, mount points cannot be removed: both
raise OSError. Who exchanges entries as fast as they are looked at keeps the removal busy, at most until its deadline.
"""

from __future__ import annotations

import errno
import os
import secrets
import time
from contextlib import suppress

from purveyor_server.providers.directory.entries import folder, is_folder, mount_of, open_up, some

CHANGED = (FileNotFoundError, NotADirectoryError, IsADirectoryError)  # since it was looked at


class _TimeUpError(Exception):
    """The rest is removed in the next run."""


def emptied(bin_: int, last: str, end: float) -> bool:
    """Remove all that is in a folder, the entry `last` at last. False when the monotonic time `end` came first."""
    mount = mount_of(bin_)
    try:
        while inner := some(bin_, last) or some(bin_):
            for name in inner:
                with suppress(*CHANGED):
                    _remove(bin_, name, mount, end)
                _look_at_time(end)
    except _TimeUpError:
        return not some(bin_, at_once=1)
    return True


def _remove(bin_: int, name: str, mount: str, end: float) -> None:
    if not is_folder(bin_, name):
        os.unlink(name, dir_fd=bin_)
        return
    open_up(bin_, name, mount)
    with folder(bin_, name) as fd:
        if mount_of(fd) != mount:
            raise OSError(errno.EBUSY, "is a mount point")
        while inner := some(fd):
            for entry in inner:
                with suppress(*CHANGED):
                    _take_out(fd, entry, bin_, mount)
            _look_at_time(end)
    os.rmdir(name, dir_fd=bin_)


def _take_out(fd: int, entry: str, bin_: int, mount: str) -> None:
    if not is_folder(fd, entry):
        os.unlink(entry, dir_fd=fd)
        return
    with suppress(OSError):  # an empty one needs no right in it
        os.rmdir(entry, dir_fd=fd)
        return
    open_up(fd, entry, mount)
    os.rename(entry, f"up-{secrets.token_hex(8)}", src_dir_fd=fd, dst_dir_fd=bin_)  # refuses a mount point


def _look_at_time(end: float) -> None:
    if time.monotonic() > end:
        raise _TimeUpError
