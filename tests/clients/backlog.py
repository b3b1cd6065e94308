"""Operations of a scripted broker that tests change while something follows them."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc

from purveyor.cli.completing import UNFINISHED
from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1.event_pb2 import Event
from tests.clients.scripted import HANG, Refusal, ScriptedBroker, operation
from tests.clients.test_events import COMPACTED, DRAINING

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from purveyor.v1.operation_pb2 import Operation

UNKNOWN = Refusal(grpc.StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND")


class Backlog:
    """Operations of a scripted broker, which tests change; its log, lists and streams answer by them."""

    def __init__(self, broker: ScriptedBroker) -> None:
        self.operations: dict[str, Operation] = {}
        self.log: list[Event] = []
        self.kept_from = 0  # events before it are compacted
        self.broker = broker
        self._news = asyncio.Event()
        broker.script["ListOperations"] = [self._list]
        broker.script["GetOperation"] = [self._get]
        broker.script["WatchOperation"] = [self._watch]
        broker.script["WatchEvents"] = [self._events]

    def put(self, name: str, state: str = "RUNNING", percent: float = 10, **more: Any) -> None:
        """It is so from now on; a change of its state is an event, of its percent none."""
        before, found = self.operations.get(name), operation(state, percent, operation_id=name, **more)
        found.instance_id = f"i-{name}"
        self.operations[name] = found
        if before is None or before.state != found.state:
            kind = Event.TYPE_ENDED if found.done else Event.TYPE_CHANGED if before else Event.TYPE_CREATED
            self.log.append(event(found, kind, revision=len(self.log) + 1))
            self._wake()

    def forget(self) -> None:
        """Compact the whole log, and end the streams that read it."""
        self.kept_from = len(self.log)
        self._wake()

    def _wake(self) -> None:
        self._news.set()
        self._news = asyncio.Event()

    def _events(self, request: Any) -> Any:
        return self._told(request.resume_token)

    async def _told(self, token: str) -> AsyncIterator[Any]:
        """A snapshot, or what is behind the token; then what comes, until the log is compacted."""
        place = int(token or len(self.log))
        if place < self.kept_from:
            yield COMPACTED
        if not token:
            present = [event(one, Event.TYPE_PRESENT) for one in self.operations.values() if not one.done]
            yield messages.WatchEventsResponse(events=present, resume_token=str(place))
        synced, kept_from = True, self.kept_from
        while True:
            more = self._news
            news, place = self.log[place:], len(self.log)
            yield messages.WatchEventsResponse(events=news, resume_token=str(place), synced=synced)
            synced = False
            await more.wait()
            if self.kept_from > kept_from:
                yield DRAINING

    def _list(self, request: Any) -> messages.ListOperationsResponse:
        assert request.filter == UNFINISHED
        return messages.ListOperationsResponse(operations=[one for one in self.operations.values() if not one.done])

    def _watch(self, request: Any) -> Any:
        found = self.operations.get(request.operation_id)
        return [found, HANG] if found else UNKNOWN

    def _get(self, request: Any) -> Any:
        found = self.operations.get(request.operation_id)
        return messages.GetOperationResponse(operation=found) if found else UNKNOWN


def event(found: Operation, kind: Event.Type.ValueType, revision: int = 0) -> Event:
    state = type(found).State.Name(found.state).removeprefix("STATE_")
    return Event(
        kind=Event.KIND_OPERATION, type=kind, operation=found, operation_id=found.operation_id, state=state, revision=revision,
        uid=found.operation_id, instance_id=found.instance_id,
    )  # fmt: skip
