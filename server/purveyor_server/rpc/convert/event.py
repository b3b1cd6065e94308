"""Events as parts of a message, and messages out of such parts.

Guarantee: a part is what `events` of WatchEventsResponse holds on the wire, tag and length included, so that a message is
its parts one after the other and nothing is encoded once per watcher. A part is never larger than a message may be: the
record of an event that would be is left out.
Source: https://protobuf.dev/programming-guides/encoding/
"""

from __future__ import annotations

from typing import Any

import msgspec

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import event_pb2
from purveyor_server.domain.model import Binding, Event, EventKind, Instance, Operation
from purveyor_server.domain.states import BindingState, InstanceState
from purveyor_server.lifecycle.contract import Told
from purveyor_server.rpc.convert.binding import encode_binding
from purveyor_server.rpc.convert.enums import EVENT_KINDS
from purveyor_server.rpc.convert.instance import encode_instance
from purveyor_server.rpc.convert.operation import encode_operation
from purveyor_server.rpc.convert.values import to_timestamp
from purveyor_server.watch.ring import Record

MAX_PART = 3 * 1024 * 1024  # bytes; a message may have 4 MiB
_DECODERS: dict[EventKind, msgspec.json.Decoder[Any]] = {
    EventKind.INSTANCE: msgspec.json.Decoder(Instance),
    EventKind.BINDING: msgspec.json.Decoder(Binding),
    EventKind.OPERATION: msgspec.json.Decoder(Operation),
}
_GONE = frozenset({InstanceState.DELETED, BindingState.DELETED})


def encode_event(event: Event, record: Record | None = None) -> bytes:
    """The part of a message that an event is; with a `record`, of a snapshot."""
    found: Record = record if record is not None else _DECODERS[event.kind].decode(event.body)
    happened = event_pb2.Event.TYPE_PRESENT if record is not None else _type(found)
    part = pb.WatchEventsResponse()
    message = part.events.add(
        revision=event.revision,
        time=to_timestamp(event.at),
        kind=EVENT_KINDS[event.kind],
        type=happened,
        tenant=event.tenant,
        instance_id=event.instance_id,
        binding_id=event.binding_id,
        operation_id=event.operation_id,
        uid=event.operation_id if event.kind is EventKind.OPERATION else event.uid,
        version=found.version,
        state=event.state,
    )
    _fill(message, found)
    if message.ByteSize() > MAX_PART:
        message.ClearField("record")
    return part.SerializeToString()


def _fill(message: event_pb2.Event, record: Record) -> None:
    if isinstance(record, Instance):
        message.instance.CopyFrom(encode_instance(record))
    elif isinstance(record, Binding):
        message.binding.CopyFrom(encode_binding(record))
    else:
        message.operation.CopyFrom(encode_operation(record))


def _type(record: Record) -> int:
    ended = record.done if isinstance(record, Operation) else record.state in _GONE
    if ended:
        return event_pb2.Event.TYPE_ENDED
    return event_pb2.Event.TYPE_CREATED if record.version == 1 else event_pb2.Event.TYPE_CHANGED


def assemble(told: Told) -> bytes:
    """A message, encoded."""
    rest = pb.WatchEventsResponse(resume_token=told.token, synced=told.synced)
    return b"".join((*told.parts, rest.SerializeToString()))
