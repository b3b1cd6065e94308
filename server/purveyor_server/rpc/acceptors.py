"""More hands at the entrance: calls are taken in from the core several at a time.

grpc.aio has one task that takes in calls, one after the other, each with several rounds of the event loop (measured with 1.85.1: five;
github.com/grpc/grpc/pull/43461 tells of it). While the loop is busy, a crowd waits in the core, where nobody can tell whose call
is whose, and the calls of others wait behind it. Taken in fast, they wait in `fairness`, where each principal has a queue.

Guarantee: calls are served by the same code as those that grpc.aio takes in itself; where the parts that this needs are not
there or are other than known, nothing is changed, and the start says so.
Limit: these parts are private ones of grpcio. Only methods that are registered with the core, by their names, have more hands.
"""

from __future__ import annotations

import asyncio
import inspect
from collections import Counter
from collections.abc import Mapping
from typing import Any

import grpc
import structlog
from grpc._cython import cygrpc  # type: ignore[attr-defined] # published nowhere else

from purveyor_server.kit.tasks import TaskGroup

_log = structlog.get_logger(__name__)
_HANDLE = ("method_name", "method_resolver", "interceptors", "rpc_state", "loop", "concurrency_exceeded")
_SCHEDULE = ("rpc_coro", "rpc_state", "loop", "method_name")


FIRST = 2  # hands of a method until its calls come fast
FAST = 0.25  # seconds: a call that comes so soon may have waited; long, for under load the asking itself takes long


class Acceptors:
    """Up to `most` more tasks for each method, that take in calls of a started server until it shuts down; 0 for none."""

    def __init__(self, most: int) -> None:
        self._most = most
        self.hands: Counter[str] = Counter()
        self._methods: dict[str, grpc.RpcMethodHandler[Any, Any]] = {}
        self._tasks = TaskGroup("acceptors")
        self._calls: set[asyncio.Task[None]] = set()

    def add(
        self, server: grpc.aio.Server, service: str, handlers: Mapping[str, grpc.RpcMethodHandler[Any, Any]]
    ) -> None:
        """Register the methods of a service with the core, before the server starts, if more hands can be had."""
        if self._most and known():
            server.add_registered_method_handlers(service, dict(handlers))
            self._methods |= {f"/{service}/{name}": handler for name, handler in handlers.items()}
        elif self._most:
            _log.warning("grpcio is not as expected: calls are taken in one at a time", grpcio=grpc.__version__)

    def start(self, server: grpc.aio.Server) -> None:
        """Begin, once the server has started."""
        core: Any = server._server  # type: ignore[attr-defined] # noqa: SLF001 - see the module
        resolver = cygrpc._MethodResolver([], self._methods) if self._methods else None  # noqa: SLF001 - as above
        for name, handler in self._methods.items():
            if not handler.response_streaming:  # a stream is opened seldom
                for _ in range(min(FIRST, self._most)):
                    self._add_hand(core, resolver, name)

    async def close(self) -> None:
        """End; the server has shut down, so they have ended."""
        await self._tasks.close()

    def _add_hand(self, core: Any, resolver: Any, name: str) -> None:
        self.hands[name] += 1
        self._tasks.start(f"{name} {self.hands[name]}", self._accept(core, resolver, name))

    async def _accept(self, core: Any, resolver: Any, name: str) -> None:
        loop, encoded = asyncio.get_running_loop(), name.encode()
        while True:
            asked = loop.time()
            try:
                state = await core._request_registered_call(encoded)  # noqa: SLF001 - see the module
            except cygrpc._RequestCallError:  # noqa: SLF001 - as above; the server shuts down
                return
            if loop.time() - asked < FAST and self.hands[name] < self._most:
                self._add_hand(core, resolver, name)
            coro = cygrpc._handle_rpc(name, resolver, (), state, loop, False)  # noqa: SLF001 - as above
            task = loop.create_task(cygrpc._schedule_rpc_coro(coro, state, loop, name))  # noqa: SLF001 - as above
            self._calls.add(task)
            task.add_done_callback(self._calls.discard)


def known() -> bool:
    """Whether the parts are there, and take what they are given here."""
    try:
        return (
            inspect.iscoroutinefunction(cygrpc.AioServer._request_registered_call)  # noqa: SLF001 - see the module
            and _parameters(cygrpc._handle_rpc) == _HANDLE  # noqa: SLF001 - as above
            and _parameters(cygrpc._schedule_rpc_coro) == _SCHEDULE  # noqa: SLF001 - as above
            and issubclass(cygrpc._RequestCallError, Exception)  # noqa: SLF001 - as above
            and callable(cygrpc._MethodResolver)  # noqa: SLF001 - as above
        )
    except (AttributeError, TypeError):
        return False


def _parameters(function: Any) -> tuple[str, ...]:
    code = function.__code__
    names: tuple[str, ...] = code.co_varnames[: code.co_argcount]
    return names
