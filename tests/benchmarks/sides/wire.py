"""What followers and writers of the event rows say, to us and to etcd, in one form: the same client for both sides.

Guarantee: both sides' messages are read by the same runtime (protobuf) with only the fields that are looked at, so that
neither pays for its richer records; a change is one number, which travels in its id (ours) or key (etcd).
Limit: as much of etcd's API as a Put and a Watch need; https://etcd.io/docs/v3.4/dev-guide/api_reference_v3/ has the rest.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterable, Sequence
from typing import Any, NamedTuple, Protocol

import grpc
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1.event_pb2 import Event
from tests.benchmarks.house import CALL_SECONDS, SERVICE, TENANTS, provision_request

Field = descriptor_pb2.FieldDescriptorProto
TENANT = TENANTS[0]
PREFIX, BEHIND = b"change-", b"change."
CHANNELS = 20  # of a process: as many connections as a fleet of consumers would have, at 25 to 250 streams each
OPTIONS = [("grpc.use_local_subchannel_pool", 1)]


class Given(NamedTuple):
    """One change as a watch gave it."""

    number: int
    revision: int


class Speech(Protocol):
    """One side."""

    async def write(self, channel: grpc.aio.Channel, number: int, size: int) -> None:
        """One durable change; etcd's value has `size` bytes."""
        ...

    def follow(self, channel: grpc.aio.Channel) -> AsyncIterator[Sequence[Given] | None]:
        """Every change from now on, in messages; the first item, None, says that the watch stands."""
        ...


def _fields(message: Any, fields: Iterable[tuple[str, int, int | str]]) -> None:
    """Fill a message's descriptor: name, number and kind of each field; a name is that of a repeated message."""
    for name, number, kind in fields:
        field = message.field.add(name=name, number=number, label=Field.LABEL_OPTIONAL)
        if isinstance(kind, int):
            field.type = kind
            continue
        field.type, field.type_name = Field.TYPE_MESSAGE, f".bench.{kind.removesuffix('*')}"
        if kind.endswith("*"):
            field.label = Field.LABEL_REPEATED


def _made() -> dict[str, Any]:
    text, raw, whole, flag = Field.TYPE_STRING, Field.TYPE_BYTES, Field.TYPE_INT64, Field.TYPE_BOOL
    file = descriptor_pb2.FileDescriptorProto(name="bench.proto", package="bench", syntax="proto3")
    shapes: dict[str, tuple[tuple[str, int, int | str], ...]] = {
        "OurEvent": (("revision", 1, whole), ("instance_id", 6, text)),
        "OurMessage": (("events", 1, "OurEvent*"), ("synced", 3, flag)),
        "Put": (("key", 1, raw), ("value", 2, raw)),
        "Create": (("key", 1, raw), ("range_end", 2, raw)),
        "Watch": (("create_request", 1, "Create"),),
        "KeyValue": (("key", 1, raw), ("mod_revision", 3, whole)),
        "TheirEvent": (("kv", 2, "KeyValue"),),
        "TheirMessage": (("created", 3, flag), ("canceled", 4, flag), ("events", 11, "TheirEvent*")),
    }
    for name, fields in shapes.items():
        _fields(file.message_type.add(name=name), fields)
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"bench.{name}")) for name in shapes}


MESSAGES = _made()


class NotFollowedError(Exception):
    """A watch did not begin as it should, or ended."""


class Ours:
    """Provision, and WatchEvents of the tenant's instances: one event per Provision, as one per Put."""

    def __init__(self) -> None:
        self._body = provision_request(TENANT).SerializeToString()

    async def write(self, channel: grpc.aio.Channel, number: int, size: int) -> None:
        # A field of its own behind the rest of the message: the last one counts. A request is serialized later than it is
        # handed over, so callers must not share one.
        body = self._body + pb.ProvisionRequest(instance_id=f"change-{number}").SerializeToString()
        call: Any = channel.unary_unary(f"{SERVICE}/Provision")
        await call(body, timeout=CALL_SECONDS)

    async def follow(self, channel: grpc.aio.Channel) -> AsyncIterator[Sequence[Given] | None]:
        call: Any = channel.unary_stream(
            f"{SERVICE}/WatchEvents",
            request_serializer=pb.WatchEventsRequest.SerializeToString,
            response_deserializer=MESSAGES["OurMessage"].FromString,
        )
        stream = call(pb.WatchEventsRequest(tenant=TENANT, kinds=[Event.KIND_INSTANCE]))
        first = await stream.read()
        if first is grpc.aio.EOF or first.events:
            raise NotFollowedError(f"the first message of a watch is {first!r}: {await stream.details()}")
        yield None
        while (message := await stream.read()) is not grpc.aio.EOF:
            yield [Given(int(event.instance_id[7:]), event.revision) for event in message.events]


class Etcd:
    """Put, and Watch of a prefix with a stream for each watch."""

    async def write(self, channel: grpc.aio.Channel, number: int, size: int) -> None:
        put = MESSAGES["Put"]
        call: Any = channel.unary_unary("/etcdserverpb.KV/Put", request_serializer=put.SerializeToString)
        await call(put(key=PREFIX + str(number).encode(), value=b"x" * size), timeout=CALL_SECONDS)

    async def follow(self, channel: grpc.aio.Channel) -> AsyncIterator[Sequence[Given] | None]:
        watch = MESSAGES["Watch"]
        call: Any = channel.stream_stream(
            "/etcdserverpb.Watch/Watch",
            request_serializer=watch.SerializeToString,
            response_deserializer=MESSAGES["TheirMessage"].FromString,
        )
        stream = call()
        await stream.write(watch(create_request=MESSAGES["Create"](key=PREFIX, range_end=BEHIND)))
        first = await stream.read()
        if first is grpc.aio.EOF or not first.created or first.canceled:
            raise NotFollowedError(f"the first message of a watch is {first!r}")
        yield None
        while (message := await stream.read()) is not grpc.aio.EOF:
            yield [Given(int(event.kv.key[7:]), event.kv.mod_revision) for event in message.events]


PROTOCOLS: dict[str, type[Ours | Etcd]] = {"ours": Ours, "etcd": Etcd}
