"""From threads to coroutines: one event loop in a background thread, shared by all blocking clients of the process.

Guarantee: a thread that stops waiting, by KeyboardInterrupt or another exception, cancels the coroutine it waited for. Closing
a bridge ends what others still wait for with CLIENT_CLOSED, and the last one ends loop and thread.
Limit: nothing of this survives a fork: in the child every call raises RuntimeError. gRPC may not be used on both sides of a
fork at all; start processes by `spawn`, or fork before the first client is opened. A program that runs gRPC's asyncio side in
a loop of its own too may see gRPC log a BlockingIOError there, which is harmless: its loops share one wake-up socket.
"""

from __future__ import annotations

import asyncio
import os
import threading
from concurrent import futures
from typing import TYPE_CHECKING, Any, TypeVar

from purveyor.failures import client_closed

if TYPE_CHECKING:
    from collections.abc import Coroutine

T = TypeVar("T")
STOP_SECONDS = 5.0
THREAD_NAME = "purveyor-client"


class _Loop:
    """A running event loop in a thread of its own."""

    def __init__(self) -> None:
        self._started = threading.Event()
        self._ended = asyncio.Event()
        self.thread = threading.Thread(target=self._run, name=THREAD_NAME, daemon=True)
        self.thread.start()
        self._started.wait()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        self.loop = asyncio.get_running_loop()
        self.loop.set_exception_handler(_hear)
        self._started.set()
        await self._ended.wait()

    def stop(self) -> None:
        """End the loop, after cancelling what is left in it."""
        self.loop.call_soon_threadsafe(self._ended.set)
        self.thread.join(STOP_SECONDS)


def _hear(loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
    """Drop the one complaint that means nothing: another loop was quicker to take gRPC's wake-up."""
    if not isinstance(context.get("exception"), BlockingIOError):
        loop.default_exception_handler(context)


class _Shared:
    """The loop of this process, while somebody uses it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._loop: _Loop | None = None
        self._users = 0

    def acquire(self) -> _Loop:
        with self._lock:
            self._loop = self._loop or _Loop()
            self._users += 1
            return self._loop

    def release(self) -> None:
        with self._lock:
            self._users -= 1
            ended, self._loop = (self._loop, None) if not self._users else (None, self._loop)
        if ended:
            ended.stop()


_shared = _Shared()


def _forget() -> None:
    """In a forked child: its copy of the loop has no thread, and its lock may be held by nobody."""
    global _shared  # noqa: PLW0603 - one per process is the point
    _shared = _Shared()


os.register_at_fork(after_in_child=_forget)


class Bridge:
    """The way of one client into the loop."""

    def __init__(self, address: str) -> None:
        self._address = address
        self._lock = threading.Lock()
        self._loop: _Loop | None = None
        self._closing = False
        self._pending: set[futures.Future[Any]] = set()
        self._pid = os.getpid()

    def open(self) -> None:
        """Take the loop. Raises RuntimeError when this is open already."""
        with self._lock:
            if self._loop is not None and self._pid == os.getpid():
                raise RuntimeError("the client is open already")
            self._loop, self._closing, self._pid, self._pending = _shared.acquire(), False, os.getpid(), set()

    @property
    def is_open(self) -> bool:
        """Whether calls are taken."""
        return self._loop is not None and not self._closing and self._pid == os.getpid()

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> futures.Future[T]:
        """Start a coroutine in the loop. Raises RuntimeError where that cannot be."""
        try:
            with self._lock:
                return self._start(coroutine)
        except RuntimeError:
            coroutine.close()
            raise

    def _start(self, coroutine: Coroutine[Any, Any, T]) -> futures.Future[T]:
        if self._loop is None or self._closing:
            raise RuntimeError("the client is not open: use it in a `with` statement")
        if self._pid != os.getpid():
            raise RuntimeError("the client was opened by another process: a fork takes no open client along")
        if threading.current_thread() is self._loop.thread:
            raise RuntimeError("a blocking call in the client's own event loop would wait for itself")
        future = asyncio.run_coroutine_threadsafe(coroutine, self._loop.loop)
        self._pending.add(future)
        future.add_done_callback(self._pending.discard)
        return future

    def wait(self, future: futures.Future[T]) -> T:
        """The result of what was started; whoever stops waiting cancels it. Raises what it raised, or UnavailableError
        (CLIENT_CLOSED)."""
        try:
            futures.wait((future,))
        finally:
            future.cancel()  # does nothing to one that is done
        if future.cancelled():
            raise client_closed(self._address)
        return future.result()

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        """Start a coroutine and wait for it."""
        return self.wait(self.submit(coroutine))

    def close(self, last: Coroutine[Any, Any, Any]) -> None:
        """Run `last`, end what is still waited for, let go of the loop. Does nothing when this is not open."""
        with self._lock:
            loop = self._loop if self.is_open else None
            if loop is None:
                last.close()
                return
            self._closing = True
            others = tuple(self._pending)
            final = asyncio.run_coroutine_threadsafe(last, loop.loop)
        try:
            futures.wait((final,), STOP_SECONDS)
            futures.wait(others, 0 if not others else 1.0)
        finally:
            for future in (final, *others):
                future.cancel()
            with self._lock:
                self._loop = None
            _shared.release()
        if not final.cancelled():
            final.result()
