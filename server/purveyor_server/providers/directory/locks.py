"""One run of a piece at a time, and how `settle` knows that none is at work.

Guarantee: a run takes the piece's lock before it changes anything, and the lock is let go only when the last change of the
run has come back from the disk, also when nobody waits for it any more; the kernel lets it go when the process is gone. So
a lock that is free means that no earlier run can still take effect. A lock file lives no longer than what it guards.
Limit: that of `kit.flock`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from typing import Any, Protocol, TypeVar

from purveyor_server.kit import flock

_Answer = TypeVar("_Answer")


class Announces(Protocol):
    """For whom the work is done: a piece's context is one."""

    def outside(self, call: str) -> None:
        """Announce a call that changes the backend."""
        ...


class Claim:
    """A lock that is held. `change` is the only way to the disk that changes something."""

    def __init__(self, fd: int, root: int, name: str, threads: ThreadPoolExecutor) -> None:
        self._fd = fd
        self._root = root
        self._name = name
        self._threads = threads
        self._last: Future[Any] | None = None

    async def change(self, ctx: Announces, call: str, work: Callable[[], _Answer]) -> _Answer:
        """Announce `call` and run `work` in a thread. Cancelled, it runs on, and so does the claim."""
        ctx.outside(call)
        self._last = running = self._threads.submit(work)
        return await asyncio.wrap_future(running)

    def forget(self) -> None:
        """Remove the lock file: what it guards is gone. Called while the claim is held."""
        with suppress(FileNotFoundError):
            os.unlink(self._name, dir_fd=self._root)

    def release(self) -> None:
        """Let go, now or when the last change has ended."""
        if self._last is None:
            os.close(self._fd)
        else:
            self._last.add_done_callback(lambda _: os.close(self._fd))


@contextmanager
def claim(root: int, name: str, threads: ThreadPoolExecutor) -> Iterator[Claim | None]:
    """The lock `name` in the folder `root`; None while another run holds it. Raises OSError."""
    fd = flock.take(name, folder=root)
    if fd is None:
        yield None
        return
    held = Claim(fd, root, name, threads)
    try:
        yield held
    finally:
        held.release()
