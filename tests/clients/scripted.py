"""A broker that answers by script, over a real socket: what the client library is tested against.

Each method pops the next entry of its script: a message is answered, a Refusal ends the call with its status, a callable is
called with the request. The last entry stays. Every request is kept, in order, in `seen`.
"""

from __future__ import annotations

import asyncio
from collections import defaultdict
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass, field
from inspect import isawaitable
from typing import TYPE_CHECKING, Any, cast

import grpc.aio
from google.protobuf.any_pb2 import Any as AnyMessage
from google.protobuf.duration_pb2 import Duration
from google.rpc import error_details_pb2, status_pb2

from purveyor.failures import DETAILS_KEY
from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1 import broker_service_pb2_grpc as services
from purveyor.v1.binding_pb2 import Binding
from purveyor.v1.catalog_pb2 import Catalog, Plan, Service
from purveyor.v1.instance_pb2 import Instance
from purveyor.v1.operation_pb2 import Failure, Operation

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from google.protobuf.message import Message

STOP_SECONDS = 5


@dataclass(frozen=True)
class Refusal:
    """A status to end a call with; without a reason it looks as if the transport had made it."""

    code: grpc.StatusCode
    reason: str = ""
    message: str = "no"
    metadata: Mapping[str, str] = field(default_factory=dict)
    details: tuple[Message, ...] = ()

    async def abort(self, context: grpc.aio.ServicerContext[Any, Any]) -> None:
        if self.reason:
            info = error_details_pb2.ErrorInfo(reason=self.reason, domain="purveyor.dev", metadata=self.metadata)
            status = status_pb2.Status(code=self.code.value[0], message=self.message)
            for detail in (info, *self.details):
                packed = AnyMessage()
                packed.Pack(detail)
                status.details.append(packed)
            context.set_trailing_metadata(((DETAILS_KEY, status.SerializeToString()),))
        await context.abort(self.code, self.message)


def retry_after(seconds: float) -> error_details_pb2.RetryInfo:
    delay = Duration()
    delay.FromMilliseconds(int(seconds * 1000))
    return error_details_pb2.RetryInfo(retry_delay=delay)


CATALOG = Catalog(
    version=1,
    etag="c1",
    services=[
        Service(
            id="svc-pg",
            name="postgresql",
            bindable=True,
            plan_updateable=True,
            plans=[Plan(id="plan-shared", name="shared", free=True), Plan(id="plan-big", name="big")],
        )
    ],
)


def operation(state: str = "RUNNING", percent: float = 10.0, **fields: Any) -> Operation:
    """An operation on instance `orders` in the given state."""
    done = state in {"SUCCEEDED", "FAILED", "CANCELLED"}
    base: dict[str, Any] = {
        "operation_id": "op-1",
        "tenant": "t",
        "verb": Operation.VERB_PROVISION,
        "instance_id": "orders",
        "instance_uid": "uid-1",
        "state": Operation.State.Value(f"STATE_{state}"),
        "done": done,
        "percent": percent,
    }
    return Operation(**{**base, **fields})


def instance(state: str = "READY", **fields: Any) -> Instance:
    base: dict[str, Any] = {
        "tenant": "t",
        "instance_id": "orders",
        "uid": "uid-1",
        "service_id": "svc-pg",
        "plan_id": "plan-shared",
        "state": Instance.State.Value(f"STATE_{state}"),
        "usable": state == "READY",
    }
    return Instance(**{**base, **fields})


def binding(state: str = "ACTIVE", **fields: Any) -> Binding:
    base: dict[str, Any] = {
        "tenant": "t",
        "instance_id": "orders",
        "binding_id": "app",
        "uid": "uid-b",
        "instance_uid": "uid-1",
        "state": Binding.State.Value(f"STATE_{state}"),
    }
    return Binding(**{**base, **fields})


def failure(reason: int, message: str = "the database could not be made") -> Failure:
    return Failure(reason=reason, user_message=message, retryable=True, step="database")  # type: ignore[arg-type] # an enum by its number


class ScriptedBroker:
    """The service; `script["Provision"] = [entry, ...]`. A watch entry is a list of operations or catalogs (of
    WatchEvents: of messages; None is a heartbeat) or an async generator of them, a Refusal last if any."""

    def __init__(self) -> None:
        self.script: dict[str, list[Any]] = {"GetCatalog": [messages.GetCatalogResponse(catalog=CATALOG)]}
        self.seen: dict[str, list[Any]] = defaultdict(list)
        self.watching = asyncio.Event()  # a watch has sent its script and is left open
        self.left = asyncio.Event()  # the reader of such a watch has gone

    async def _answer(self, method: str, request: Any, context: grpc.aio.ServicerContext[Any, Any]) -> Any:
        self.seen[method].append(request)
        entries = self.script[method]
        entry = entries.pop(0) if len(entries) > 1 else entries[0]
        answer = entry(request) if callable(entry) else entry
        answer = await answer if isawaitable(answer) else answer
        if isinstance(answer, Refusal):
            await answer.abort(context)
        return answer

    async def WatchOperation(self, request: Any, context: Any) -> AsyncIterator[messages.WatchOperationResponse]:
        async for entry in self._streamed("WatchOperation", request, context):
            yield messages.WatchOperationResponse(operation=entry)

    async def WatchEvents(self, request: Any, context: Any) -> AsyncIterator[messages.WatchEventsResponse]:
        asked = messages.WatchEventsRequest()
        asked.CopyFrom(request)
        async for entry in self._streamed("WatchEvents", asked, context):
            yield entry

    async def WatchCatalog(self, request: Any, context: Any) -> AsyncIterator[messages.WatchCatalogResponse]:
        async for entry in self._streamed("WatchCatalog", request, context):
            yield messages.WatchCatalogResponse(catalog=entry)

    async def _streamed(self, method: str, request: Any, context: Any) -> AsyncIterator[Any]:
        async for entry in _each(await self._answer(method, request, context)):
            if isinstance(entry, Refusal):
                await entry.abort(context)
            if entry is HANG:
                self.watching.set()
                try:
                    await asyncio.Event().wait()
                finally:
                    self.left.set()
            yield entry


HANG = object()


async def _each(entries: Any) -> AsyncIterator[Any]:
    """Entries of a list, or as they come."""
    if hasattr(entries, "__aiter__"):
        async with aclosing(entries):
            async for entry in entries:
                yield entry
    else:
        for entry in entries:
            yield entry


def _add_unary(name: str) -> None:
    async def handler(self: ScriptedBroker, request: Any, context: Any) -> Any:
        return await self._answer(name, request, context)

    setattr(ScriptedBroker, name, handler)


UNARY = tuple(method.name for method in messages.DESCRIPTOR.services_by_name["BrokerService"].methods)
for _name in UNARY:
    if not hasattr(ScriptedBroker, _name):
        _add_unary(_name)


@asynccontextmanager
async def serving(broker: ScriptedBroker, path: Path) -> AsyncIterator[str]:
    """The broker on a unix socket; yields its address."""
    server = grpc.aio.server(options=(("grpc.so_reuseport", 0),))
    services.add_BrokerServiceServicer_to_server(cast("Any", broker), server)  # its unary methods are made above
    address = f"unix:{path}"
    server.add_insecure_port(address)
    await server.start()
    try:
        yield address
    finally:
        await asyncio.wait_for(server.stop(None), STOP_SECONDS)
