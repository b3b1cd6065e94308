"""A lock file that comes and goes with what it guards.

Guarantee: a descriptor that `take` returns holds the lock of the file that has the name now: a file that was removed between
opening and locking is not taken for it. The kernel frees the lock when the last process that has the descriptor is gone.
Limit: flock(2) on a local file system; over NFS it is only as good as the server's.
Source: flock(2); the look at the inode after locking is the usual remedy for lock files that are removed.
"""

from __future__ import annotations

import fcntl
import os
from contextlib import suppress
from pathlib import Path

TRIES = 100  # at a file that is removed again and again under our hands
_OPEN = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


def take(name: str | Path, *, create: bool = True, folder: int | None = None) -> int | None:
    """The descriptor that holds the lock `name` (in the folder that is open as `folder`); None while somebody else does.

    Raises OSError, FileNotFoundError without `create` where there is no such file. The caller closes the descriptor.
    """
    for _ in range(TRIES):
        descriptor = os.open(name, _OPEN | (os.O_CREAT if create else 0), 0o600, dir_fd=folder)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            if _is_still(descriptor, name, folder):
                return descriptor
        except BlockingIOError:
            os.close(descriptor)
            return None
        except OSError:
            os.close(descriptor)
            raise
        os.close(descriptor)
    return None


def is_free(name: str | Path, *, folder: int | None = None) -> bool:
    """Whether nobody holds the lock `name`. Makes no file. Raises OSError."""
    try:
        descriptor = take(name, create=False, folder=folder)
    except FileNotFoundError:
        return True
    if descriptor is None:
        return False
    os.close(descriptor)
    return True


def _is_still(descriptor: int, name: str | Path, folder: int | None) -> bool:
    with suppress(FileNotFoundError):
        return os.path.samestat(os.fstat(descriptor), os.stat(name, dir_fd=folder, follow_symlinks=False))
    return False
