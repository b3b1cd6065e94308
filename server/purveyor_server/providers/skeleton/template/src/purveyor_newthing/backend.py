"""The backend: a folder with one JSON file per thing, each written whole or not at all.

REPLACE this module by a client of your real server. What the pieces rely on must stay true:

- `read` and `names` change nothing; `Claim.write` and `Claim.remove` may be repeated at any moment;
- a call that was sent may outlive whoever sent it. A claim is held until its last call has come back, so
  `is_free` tells `settle` that nothing can still take effect. Here the claim is a file lock, which is right because
  a thread of this process does the work. With a server, only the server knows: take a lock that the session
  which does the work holds, or end earlier sessions by name before `is_free` says True;
- failures of the backend become failures of the contract, see `explained`.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
from purveyor_server.kit import flock
from purveyor_server.providers.contract import Ambiguous, Context, RightsMissing, Unreachable

THREADS = 4  # calls at once


class Record(msgspec.Struct, frozen=True):
    """What a file holds. The marker says whose it is; REPLACE the rest."""

    marker: str
    size: int = 0  # of a box
    box: str = ""  # that a key opens
    token: str = ""  # of a key
    expires_at: str = ""  # of a key, ISO 8601

    def __repr__(self) -> str:
        """Without the token."""
        return f"Record({self.marker!r})"


class Backend:
    """The things in the folder `root`, by name."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self._threads = ThreadPoolExecutor(THREADS, thread_name_prefix="newthing")

    async def check(self) -> None:
        """Raise what `explained` raises unless the backend can be worked with."""
        with explained("check"):
            if not os.access(self.root.resolve(strict=True), os.R_OK | os.W_OK | os.X_OK):
                raise RightsMissing(f"the broker's OS user needs rwx on the folder {self.root}")

    async def read(self, name: str) -> Record | None:
        """The thing `name`; None when there is none."""
        with explained("read"):
            return await asyncio.to_thread(read_record, self.root / name)

    async def names(self) -> list[str]:
        """All things."""
        with explained("names"):
            found = await asyncio.to_thread(os.listdir, self.root)
        return sorted(name for name in found if not name.startswith("."))

    @contextmanager
    def claim(self, name: str) -> Iterator[Claim | None]:
        """The right to change the thing `name`; None while another run has it."""
        with explained("claim"):
            lock = flock.take(self._lock(name))
        if lock is None:
            yield None
            return
        held = Claim(self, name, lock)
        try:
            yield held
        finally:
            held.release()

    def is_free(self, name: str) -> bool:
        """Whether no call is on its way that changes the thing `name`."""
        with explained("is_free"):
            return flock.is_free(self._lock(name))

    def start(self, work: Callable[[], None]) -> Future[None]:
        """Carry a change out in a thread."""
        return self._threads.submit(self.carry_out, work)

    def carry_out(self, work: Callable[[], None]) -> None:
        """Run in a thread; tests hold calls up here."""
        work()

    def unlock(self, name: str, lock: int) -> None:
        """Let a claim go; its file does not stay."""
        with suppress(FileNotFoundError):
            self._lock(name).unlink()
        os.close(lock)

    def close(self) -> None:
        """Let go of the threads; one that is at work ends by itself."""
        self._threads.shutdown(wait=False)

    def _lock(self, name: str) -> Path:
        return self.root / f".{name}.lock"


class Claim:
    """The right to change one thing. Cancelled, a call runs on, and so does the claim."""

    def __init__(self, backend: Backend, name: str, lock: int) -> None:
        self._backend = backend
        self._name = name
        self._lock = lock
        self._last: Future[None] | None = None

    async def write(self, ctx: Context, call: str, record: Record) -> None:
        """Make the thing as `record` says."""
        await self._send(ctx, call, lambda: write_record(self._backend.root / self._name, record))

    async def remove(self, ctx: Context, call: str) -> None:
        """Make it gone."""
        await self._send(ctx, call, lambda: remove_record(self._backend.root / self._name))

    async def _send(self, ctx: Context, call: str, work: Callable[[], None]) -> None:
        ctx.outside(call)  # right before each call that changes the backend: the suite kills here
        with explained(call):
            self._last = self._backend.start(work)
            await asyncio.wrap_future(self._last)

    def release(self) -> None:
        """Let go, now or when the last call has come back."""
        if self._last is None:
            self._backend.unlock(self._name, self._lock)
        else:
            self._last.add_done_callback(lambda _: self._backend.unlock(self._name, self._lock))


@contextmanager
def explained(doing: str) -> Iterator[None]:
    """Turn errors of the backend into failures of the contract. REPLACE: those of your client library.

    Say `Unreachable` only when the whole backend is away (it opens the circuit of all instances), `Retryable` when it
    certainly did not happen, `Ambiguous` when it may have. The first text is for callers, the second for operators.
    """
    try:
        yield
    except FileNotFoundError as error:
        raise Unreachable("the folder of the boxes is not there", doing) from error
    except PermissionError as error:
        raise RightsMissing("the broker's OS user lacks a right in the folder of the boxes", doing) from error
    except OSError as error:
        raise Ambiguous("the disk of the boxes failed", f"{doing}: {error.strerror}") from error


def read_record(path: Path) -> Record | None:
    """The content of a file; None when there is none, or it is none of ours."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=Record)
    except (FileNotFoundError, msgspec.MsgspecError):
        path.parent.stat()  # no file in a folder that is not there tells nothing
        return None


def write_record(path: Path, record: Record) -> None:
    """Write a file, whole or not at all, and onto the disk."""
    fresh = path.with_name(f".{path.name}.new")
    with open(fresh, "wb", opener=_private) as file:
        file.write(msgspec.json.encode(record))
        file.flush()
        os.fsync(file.fileno())
    fresh.replace(path)
    _flush(path.parent)


def remove_record(path: Path) -> None:
    """Remove a file, and what a write that was interrupted left of it."""
    for left in (path, path.with_name(f".{path.name}.new")):
        left.unlink(missing_ok=True)
    _flush(path.parent)


def _private(path: str, flags: int) -> int:
    return os.open(path, flags, 0o600)


def _flush(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
