"""Structs, times and bodies: the values that every message shares.

Guarantee: a Struct becomes JSON values with integral doubles below 2^53 as ints, and a dict becomes a Struct; `body_of` holds
what the caller sent and nothing that was defaulted.
Limit: integers beyond 2^53 change, since Struct has only doubles.
"""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.field_mask_pb2 import FieldMask
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import NULL_VALUE, ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from purveyor_server.domain.errors import invalid
from purveyor_server.domain.model import Json

NOT_IN_BODY = frozenset({"wait", "validate_only", "request_id", "etag"})
_EXACT = 2**53
_NANOS = 1_000_000_000  # in a second
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def from_struct(struct: Struct, path: str) -> dict[str, Json]:
    """A Struct as a dict. Raises INVALID_REQUEST that names the place of a number that JSON cannot hold."""
    return {key: _from_value(value, f"{path}.{key}") for key, value in struct.fields.items()}


def _from_value(value: Value, path: str) -> Json:
    kind = value.WhichOneof("kind")
    if kind == "string_value":
        return value.string_value
    if kind == "number_value":
        return _number(value.number_value, path)
    if kind == "bool_value":
        return value.bool_value
    if kind == "struct_value":
        return from_struct(value.struct_value, path)
    if kind == "list_value":
        return [_from_value(item, f"{path}[{index}]") for index, item in enumerate(value.list_value.values)]
    return None


def _number(number: float, path: str) -> int | float:
    if not math.isfinite(number):
        raise invalid(path, "is not a number that JSON can hold")
    return int(number) if number.is_integer() and abs(number) < _EXACT else number


def to_struct(values: dict[str, Json]) -> Struct:
    """A dict of JSON values as a Struct."""
    struct = Struct()
    fill_struct(struct, values)
    return struct


def fill_struct(struct: Struct, values: dict[str, Json]) -> None:
    """Write `values` into `struct`, which becomes present even when there are none."""
    struct.SetInParent()
    fields = struct.fields
    for key, value in values.items():
        _fill_value(fields[key], value)


def _fill_value(target: Value, value: Json) -> None:
    if value is None:
        target.null_value = NULL_VALUE
    elif isinstance(value, bool):
        target.bool_value = value
    elif isinstance(value, str):
        target.string_value = value
    elif isinstance(value, int | float):
        target.number_value = value
    elif isinstance(value, dict):
        fill_struct(target.struct_value, value)
    else:
        target.list_value.SetInParent()
        _fill_list(target.list_value, value)


def _fill_list(target: ListValue, items: list[Json] | tuple[Json, ...]) -> None:
    for item in items:
        _fill_value(target.values.add(), item)


def to_timestamp(at: datetime | None) -> Timestamp | None:
    """An aware datetime as a Timestamp; None stays None, which leaves a field absent."""
    if at is None:
        return None
    since = at - _EPOCH
    return Timestamp(seconds=since.days * 86_400 + since.seconds, nanos=since.microseconds * 1000)


def to_duration(span: timedelta | None) -> Duration | None:
    """A timedelta as a Duration; None stays None."""
    if span is None:
        return None
    return Duration(seconds=span.days * 86_400 + span.seconds, nanos=span.microseconds * 1000)


def from_duration(message: Message, field: str) -> timedelta | None:
    """The Duration `field` of `message`, None when absent. Raises INVALID_REQUEST when it is negative or malformed."""
    if not message.HasField(field):
        return None
    duration = getattr(message, field)
    try:
        span = timedelta(seconds=duration.seconds, microseconds=duration.nanos / 1000)
    except OverflowError:
        raise invalid(field, "is longer than any time that can be waited") from None
    if duration.nanos < 0 or duration.seconds < 0 or duration.nanos >= _NANOS:
        raise invalid(field, "must not be negative, and its nanos must be below a second")
    return span


def from_timestamp(message: Message, field: str) -> datetime | None:
    """The Timestamp `field` of `message`, None when absent. Raises INVALID_REQUEST when no calendar has it."""
    if not message.HasField(field):
        return None
    sent = getattr(message, field)
    if not 0 <= sent.nanos < _NANOS:
        raise invalid(field, "must have nanos of 0 to 999999999")
    try:
        return _EPOCH + timedelta(seconds=sent.seconds, microseconds=sent.nanos // 1000)
    except OverflowError:
        raise invalid(field, "is beyond what a calendar holds") from None


def body_of(request: Message) -> dict[str, Json]:
    """What was sent, as JSON values by the names of the contract, without NOT_IN_BODY: the input of digests."""
    return _fields(request, "", NOT_IN_BODY)


def _fields(message: Message, path: str, leave_out: frozenset[str] = frozenset()) -> dict[str, Json]:
    return {
        field.name: _field(field, value, f"{path}{field.name}")
        for field, value in message.ListFields()
        if field.name not in leave_out
    }


def _field(field: FieldDescriptor, value: Any, path: str) -> Json:
    if not field.is_repeated:
        return _single(value, path)
    if field.message_type is not None and field.message_type.GetOptions().map_entry:
        return {key: _single(item, f"{path}.{key}") for key, item in value.items()}
    return [_single(item, path) for item in value]


def _single(value: Any, path: str) -> Json:
    if isinstance(value, Struct):
        return from_struct(value, path)
    if isinstance(value, Duration):
        return f"{value.seconds}.{value.nanos:09d}s"
    if isinstance(value, FieldMask):
        return sorted(value.paths)
    if isinstance(value, Message):
        return _fields(value, f"{path}.")
    return value
