"""A door that answers by script, so that the face alone is under test.

Each use-case answers what was put under its name: a value, an exception to raise, or a coroutine function to call with the
same arguments. What it was called with is kept in `seen`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from typing import Any

from purveyor_server.domain.model import Binding, Instance, MaintenanceInfo, Operation, RequestKey, Settings
from purveyor_server.domain.states import BindingState, InstanceState, OperationState, Verb
from purveyor_server.kit.signals import Signals
from purveyor_server.lifecycle.contract import Caller, OperationDetails

AT = datetime(2026, 3, 4, 5, 6, 7, 891_000, tzinfo=UTC)
UID = "01990000-0000-7000-8000-00000000000a"


def settings(**changes: Any) -> Settings:
    values: dict[str, Any] = {"plan": "d", "service_id": "s-1", "plan_id": "p-1", "parameters": {"size": 3}}
    return Settings(**values | changes)


def instance(**changes: Any) -> Instance:
    values: dict[str, Any] = {
        "uid": UID,
        "tenant": "t",
        "instance_id": "orders",
        "state": InstanceState.READY,
        "desired": settings(),
        "applied": settings(maintenance_info=MaintenanceInfo("1.2.3", "newer")),
        "version": 7,
        "last_operation": "op-1",
        "created_at": AT,
        "updated_at": AT,
    }
    return Instance(**values | changes)


def binding(**changes: Any) -> Binding:
    values: dict[str, Any] = {
        "uid": UID,
        "tenant": "t",
        "instance_id": "orders",
        "instance_uid": UID,
        "binding_id": "app",
        "state": BindingState.ACTIVE,
        "plan": "d",
        "service_id": "s-1",
        "plan_id": "p-1",
        "version": 2,
        "created_at": AT,
        "updated_at": AT,
    }
    return Binding(**values | changes)


def operation(**changes: Any) -> Operation:
    values: dict[str, Any] = {
        "operation_id": UID,
        "tenant": "t",
        "verb": Verb.PROVISION,
        "instance_id": "orders",
        "instance_uid": UID,
        "state": OperationState.RUNNING,
        "percent": 40.0,
        "request": RequestKey("local", "Provision", "r-1", "f"),
        "version": 3,
        "created_at": AT,
    }
    return Operation(**values | changes)


class ScriptedDoor:
    """The use-cases, by script."""

    def __init__(self) -> None:
        self.script: dict[str, Any] = {"newest_operations": {}}
        self.seen: dict[str, list[tuple[Any, ...]]] = {}
        self.signals = Signals()
        self.watched: asyncio.Queue[tuple[OperationDetails, bool] | Exception | None] = asyncio.Queue()
        self.closed_watches = 0

    def __getattr__(self, name: str) -> Callable[..., Awaitable[Any]]:
        if name.startswith("_"):
            raise AttributeError(name)

        async def call(*arguments: Any, **named: Any) -> Any:
            self.seen.setdefault(name, []).append((*arguments, *named.values()))
            self.signals.emit(name)
            answer = self.script[name]
            if isinstance(answer, BaseException):
                raise answer
            return await answer(*arguments) if callable(answer) else answer

        return call

    async def hang(self, *_: Any) -> None:
        """Never answer."""
        try:
            await asyncio.Event().wait()
        finally:
            self.signals.emit("ended")

    async def view_instance(
        self, caller: Caller, tenant: str, instance_id: str, encode: Callable[..., bytes], *, show_deleted: bool = False
    ) -> bytes:
        """By the scripts of `get_instance` and `newest_operations`."""
        found = await self.get_instance(caller, tenant, instance_id, show_deleted)
        newest = await self.newest_operations(caller, (found,))
        return encode(found, newest.get(found.last_operation))

    async def watch_operation(
        self, caller: Caller, *arguments: Any, **named: Any
    ) -> AsyncIterator[tuple[OperationDetails, bool]]:
        """What the test puts into `watched`; None ends the stream."""
        self.seen.setdefault("watch_operation", []).append((caller, *arguments, *named.values()))
        self.signals.emit("watch_operation")
        try:
            while (item := await self.watched.get()) is not None:
                if isinstance(item, Exception):
                    raise item
                yield item
        finally:
            self.closed_watches += 1
            self.signals.emit("watch closed")


async def within(seconds: timedelta, awaitable: Awaitable[Any]) -> Any:
    """Await with a bound."""
    async with asyncio.timeout(seconds.total_seconds()):
        return await awaitable
