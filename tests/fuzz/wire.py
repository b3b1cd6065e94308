"""Messages of every method with any content, to a real server: each is answered, or refused with exactly one reason.

Guarantee: a fault is a status without one ErrorInfo of ours, INTERNAL or UNKNOWN, an answer that does not come in time, or a text
that was sent in a header and came back in one. The calls that an operator would stop the trial with are left out (`SPARED`).
Every method is sent to in turn, so none is left out by chance. Limit: answers that are streams are read up to their first message.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import grpc
from google.protobuf.descriptor import FieldDescriptor, MethodDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.message_factory import GetMessageClass
from google.protobuf.struct_pb2 import Struct
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import strategies as st

from purveyor_server.rpc.methods import SERVICES
from tests.acceptance.house import catalog
from tests.fuzz.parsers import altered
from tests.fuzz.strings import NASTY, texts, values
from tests.rpc.failures import read_failure

SECONDS = 20.0
SPARED = frozenset(
    {"SetLogLevel", "Backup", "FinishRecovery", "RotateKeys", "RetireKey", "Freeze", "Drain", "RevokeToken"}
    | {"RotateRootCredentials"}  # of the server that other tests use as well
    | {
        "PurgeInstance",
        "PurgeBinding",
        "EditStep",
        "AbandonOperation",
    }  # these let go of things in the backend, as they are there to
)
FAULTY = frozenset({grpc.StatusCode.INTERNAL, grpc.StatusCode.UNKNOWN, grpc.StatusCode.DEADLINE_EXCEEDED})
TENANTS = st.sampled_from(("acme", "acme", "acme", "beta"))
# What every call of its kind needs before anything else of it is read.
REQUEST_IDS = st.one_of(st.just(""), st.from_regex(r"[a-z0-9-]{1,20}", fullmatch=True))
REASONS = st.sampled_from(("a trial", *NASTY))
CATALOG = catalog(5432, Path("password"))
KNOWN = {
    "tenant": TENANTS,
    "instance_id": st.sampled_from(("orders", "other")),
    "binding_id": st.sampled_from(("app", "job")),
    "service_id": st.just("s1"),
    "plan_id": st.sampled_from(("unchecked", "small")),
    "from_plan_id": st.sampled_from(("unchecked", "small", "big")),
    "to_plan_id": st.sampled_from(("unchecked", "small", "big")),
    "successor_binding_id": st.sampled_from(("", "next", "job")),
    "instance_ids": st.sampled_from(("orders", "other")),
    "snapshot_id": REQUEST_IDS,
    "request_id": REQUEST_IDS,
    "reason": REASONS,
    "provider": st.sampled_from(("", "main")),
    "kind": st.sampled_from(("database", "role", "schema")),
    "policies": st.sampled_from(("s1/small=keep", "s1/small=migrate:big", "s1/small=")),
    "text": altered(st.just(CATALOG), binary=False),
}


SOURCES = st.fixed_dictionaries({"database": texts(200)})  # of adoptions: what they name is not the broker's


class Sent(NamedTuple):
    """A method and what is sent to it; `more` are the further messages of a stream."""

    method: MethodDescriptor
    message: Message
    more: tuple[Message, ...] = ()

    @property
    def path(self) -> str:
        """As the transport names it."""
        return f"/{self.method.containing_service.full_name}/{self.method.name}"


def methods(service: str) -> list[MethodDescriptor]:
    """The methods of a service that are tried."""
    found = next(descriptor for descriptor in SERVICES if descriptor.name == service)
    return [method for method in found.methods if method.name not in SPARED]


@st.composite
def sent(draw: st.DrawFn, method: MethodDescriptor) -> Sent:
    """Any message to a method."""
    first, *more = [_message(draw, method) for _ in range(draw(st.integers(1, 3)) if method.client_streaming else 1)]
    return Sent(method, first, tuple(more))


def _message(draw: st.DrawFn, method: MethodDescriptor) -> Message:
    message: Any = GetMessageClass(method.input_type)()
    _fill(draw, message, 0)
    if "heartbeat_interval" in method.input_type.fields_by_name and draw(st.booleans()):
        message.heartbeat_interval.seconds = 1
    if method.name == "ApplyCatalog":
        message.validate_only = True  # or the rest of the trial has another catalog
    return message  # type: ignore[no-any-return] # made from a descriptor


def _fill(draw: st.DrawFn, message: Message, depth: int) -> None:
    for field in message.DESCRIPTOR.fields:
        if field.name == "wait" or not draw(st.integers(0, 3)):
            continue  # a wait is not what is tried; a quarter of the fields is absent
        if isinstance(message, (Duration, Timestamp)):
            setattr(message, field.name, draw(_part_of_time(field)))
        elif field.message_type is not None and field.message_type.GetOptions().map_entry:
            _fill_map(draw, getattr(message, field.name), field)
        elif field.is_repeated:
            _fill_list(draw, getattr(message, field.name), field, depth)
        elif field.message_type is not None:
            _fill_message(draw, getattr(message, field.name), depth)
        else:
            setattr(message, field.name, draw(_scalar(field)))


def _fill_message(draw: st.DrawFn, message: Message, depth: int) -> None:
    if isinstance(message, Struct):
        message.update(draw(st.one_of(st.dictionaries(texts(60), values(), max_size=3), SOURCES)))
    elif depth < 3:
        message.SetInParent()
        _fill(draw, message, depth + 1)


def _fill_list(draw: st.DrawFn, target: Any, field: Any, depth: int) -> None:
    for _ in range(draw(st.integers(0, 3))):
        if field.message_type is None:
            target.append(draw(_scalar(field)))
        else:
            _fill_message(draw, target.add(), depth)


def _fill_map(draw: st.DrawFn, target: Any, field: Any) -> None:
    value = field.message_type.fields_by_name["value"]
    for _ in range(draw(st.integers(0, 3))):
        key = draw(texts(80))
        if value.message_type is None:
            target[key] = draw(_scalar(value))
        else:
            _fill_message(draw, target[key], 1)


def _part_of_time(field: Any) -> st.SearchStrategy[int]:
    """Seconds that there are, that a calendar has, that no calendar has; nanoseconds beyond a second."""
    near = st.integers(-100, 100_000) if field.name == "seconds" else st.integers(0, 999_999_999)
    width = 63 if field.name == "seconds" else 31
    return st.one_of(near, st.integers(1_700_000_000, 2_000_000_000), st.integers(-(2**width), 2**width - 1))


def _scalar(field: Any) -> st.SearchStrategy[Any]:
    kinds = FieldDescriptor
    if field.type == kinds.TYPE_STRING:
        strange = texts(2000)
        return st.one_of(KNOWN[field.name], KNOWN[field.name], strange) if field.name in KNOWN else strange
    if field.type == kinds.TYPE_BYTES:
        return st.binary(max_size=200)
    if field.type == kinds.TYPE_BOOL:
        return st.booleans()
    if field.type in {kinds.TYPE_DOUBLE, kinds.TYPE_FLOAT}:
        return st.floats(width=32)
    if field.type == kinds.TYPE_ENUM:
        return st.integers(0, 9)
    low, high = (0, 2**31 - 1) if field.type in {kinds.TYPE_UINT32, kinds.TYPE_UINT64} else (-(2**31), 2**31 - 1)
    return st.one_of(st.integers(0, 50), st.integers(low, high))


def fault(channel: grpc.Channel, one: Sent) -> str:
    """Send it; what is wrong with the answer, "" when nothing is."""
    try:
        _answer(channel, one)
    except grpc.RpcError as error:
        return _judged(one, error)
    return ""


def _answer(channel: grpc.Channel, one: Sent) -> Any:
    answer_type = GetMessageClass(one.method.output_type)
    write = type(one.message).SerializeToString
    if one.method.client_streaming:
        upload: Any = channel.stream_unary(one.path, write, answer_type.FromString)
        return upload(iter((one.message, *one.more)), timeout=SECONDS)
    kind: Any = channel.unary_stream if one.method.server_streaming else channel.unary_unary
    call = kind(one.path, write, answer_type.FromString)
    if not one.method.server_streaming:
        return call(one.message, timeout=SECONDS)
    stream = call(one.message, timeout=SECONDS)
    try:
        return next(stream, None)
    finally:
        stream.cancel()


def _judged(one: Sent, error: Any) -> str:
    if error.code() is grpc.StatusCode.CANCELLED:  # by us, after the first message
        return ""
    where = f"{one.method.name}: {error.code().name} {error.details()!r:.150}"
    if error.code() in FAULTY:
        return where
    try:
        read_failure(error)
    except (AssertionError, KeyError) as wrong:
        return f"{where}: not one reason of ours ({type(wrong).__name__})"
    return ""
