"""A lock for work on files and processes that outlives the one who began it.

Guarantee: while a program that was started under the lock runs, the lock is held, also when the broker that started it is
dead; the program's own children (a server) do not hold it. The lock's file goes when what it guards is gone.
Limit: that of `kit.flock`.
"""

from __future__ import annotations

import errno
import os
import signal
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from purveyor_server.kit import flock
from purveyor_server.providers.contract import Retryable, Unreachable
from purveyor_server.providers.postgresql.binaries import OsUser
from purveyor_server.providers.postgresql.cluster import INIT_SECONDS

SAID_CHARACTERS = 1500
# The shell holds the lock as its standard output; what it runs says everything to standard error.
LAUNCHER = '"$@" >&2; exit $?'
NO_SPACE = ("No space left on device", "Disk quota exceeded")
FULL = "the disk of the PostgreSQL servers is full"


@contextmanager
def holding(path: Path, guarded: Path) -> Iterator[int | None]:
    """The lock's descriptor, None while somebody else holds it. At the end the file goes unless `guarded` is there."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    descriptor = flock.take(path)
    if descriptor is None:
        yield None
        return
    try:
        yield descriptor
    finally:
        if not guarded.exists():
            path.unlink(missing_ok=True)
        os.close(descriptor)


class LockedRunner:
    """Runs programs that hold a lock by its descriptor."""

    def __init__(self, lock: int) -> None:
        self._lock = lock

    def __call__(
        self, command: list[str], user: OsUser, folder: Path, *, text: str = "", seconds: float = INIT_SECONDS
    ) -> None:
        """As `cluster.run`; raises Retryable for a full disk, else Unreachable with the end of what was said."""
        options: dict[str, Any] = dict(user.popen)
        name = Path(command[0]).name
        try:
            process = subprocess.Popen(  # noqa: S603 - fixed programs of the installation
                ["/bin/sh", "-c", LAUNCHER, "purveyor", *command], stdin=subprocess.PIPE, stdout=self._lock,
                stderr=subprocess.PIPE, cwd=folder, text=True, start_new_session=True,
                env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", "TZ": "UTC"}, **options,
            )  # fmt: skip
        except OSError as error:
            raise explain(error, name) from error
        with process:
            try:
                _, said = process.communicate(text, timeout=seconds)
            except subprocess.TimeoutExpired as error:
                os.killpg(process.pid, signal.SIGKILL)
                raise Unreachable("a PostgreSQL server cannot be worked with", f"{name}: time-out") from error
        if process.returncode != 0:
            if any(words in said for words in NO_SPACE):
                raise Retryable(FULL, f"{name}: {said[-SAID_CHARACTERS:]}")
            raise Unreachable("a PostgreSQL server cannot be worked with", f"{name}: {said[-SAID_CHARACTERS:]}")


def explain(error: OSError, doing: str) -> Retryable:
    """What a failure of the file system means: nothing here is certain to fail again."""
    if error.errno in {errno.ENOSPC, errno.EDQUOT}:
        return Retryable(FULL, f"{doing}: {error}")
    return Retryable("the files of a PostgreSQL server cannot be worked with", f"{doing}: {error}")
