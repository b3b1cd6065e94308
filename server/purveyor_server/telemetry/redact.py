"""What may be shown of a value in a log line.

Guarantee: an allow-list. Secrets, values under keys that name secrets, passwords within URIs, bytes, protobuf messages and
every type that is not plain data are replaced; nothing here ever calls `repr` of an unknown object. A protobuf message is
shown through `redact`, which honours `debug_redact`.
Limit: a secret that somebody formats into a text under a harmless key is not recognised: log fields, not sentences.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import date, timedelta
from functools import cache, lru_cache
from pathlib import PurePath
from typing import Any

from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.struct_pb2 import ListValue, Struct, Value
from google.protobuf.timestamp_pb2 import Timestamp

from purveyor_server.kit import hiding
from purveyor_server.kit.hiding import MASK
from purveyor_server.kit.secret import Secret

MAX_DEPTH = 6
MAX_ITEMS = 100
MAX_TEXT = 8192
_PLAIN = frozenset({bool, int, float})
_SECRET_KEY = re.compile(
    r"(password|passwd|secret|token|credential|authorization|cookie|private_?key|api_?key|verifier)s?$|(^|_)(uri|url|dsn)$",
    re.IGNORECASE,
)
_URI_PASSWORD = re.compile(r"(://[^/@\s:]*:)[^/@\s]+@")


@lru_cache(maxsize=4096)  # keys are few and constant; the bound is for keys inside of values
def is_secret_key(key: str) -> bool:
    """Whether the name of a field says that its value is a secret."""
    return _SECRET_KEY.search(key) is not None


def shown(key: str, value: Any, depth: int = 0) -> Any:
    """The value of the field `key` as it may be logged: plain JSON data."""
    if value is None or type(value) in _PLAIN:
        return value
    if is_secret_key(key) or isinstance(value, Secret):
        return MASK
    if isinstance(value, str):
        return masked(value)
    if isinstance(value, Mapping | list | tuple | set | frozenset):
        return _container(key, value, depth)
    return _rare(value)


def _rare(value: Any) -> Any:
    if isinstance(value, bool | int | float):  # an enumeration's member
        return value
    if isinstance(value, date | timedelta | PurePath):
        return str(value)
    if isinstance(value, BaseException):
        return masked(f"{type(value).__name__}: {value}")
    if isinstance(value, bytes | bytearray | memoryview):
        return f"<{len(value)} bytes>"
    return f"<{type(value).__name__} not logged>"


def masked(text: str) -> str:
    """`text` without passwords in URIs and what is hidden at present, cut to MAX_TEXT characters."""
    text = hiding.masked(text)
    if len(text) > MAX_TEXT:
        text = text[:MAX_TEXT] + "..."
    return _URI_PASSWORD.sub(rf"\1{MASK}@", text) if "://" in text else str(text)


def _container(key: str, value: Any, depth: int) -> Any:
    if depth >= MAX_DEPTH:
        return "..."
    if isinstance(value, Mapping):
        items = list(value.items())[:MAX_ITEMS]
        return {str(name): shown(str(name), item, depth + 1) for name, item in items}
    return [shown(key, item, depth + 1) for item in list(value)[:MAX_ITEMS]]


def redact(message: Message) -> dict[str, Any]:
    """The set fields of a protobuf message as plain data, those with `debug_redact` masked."""
    return {field.name: _field(field, value) for field, value in message.ListFields()}


def _field(field: FieldDescriptor, value: Any) -> Any:
    if _is_redacted(field):
        return MASK
    if _is_map(field):
        return {str(key): _one(str(key), item) for key, item in value.items()}
    if field.is_repeated:
        return [_one(field.name, item) for item in value]
    return _one(field.name, value)


def _one(name: str, value: Any) -> Any:
    if isinstance(value, Timestamp | Duration):
        return value.ToJsonString()
    if isinstance(value, Struct | ListValue | Value):
        return shown(name, _plain(value))
    return redact(value) if isinstance(value, Message) else shown(name, value)


def _plain(value: Any) -> Any:
    """A Struct, ListValue or Value as the JSON data it stands for."""
    if isinstance(value, Struct):
        return {key: _plain(item) for key, item in value.fields.items()}
    if isinstance(value, ListValue):
        return [_plain(item) for item in value.values]
    kind = value.WhichOneof("kind")
    return None if kind in {None, "null_value"} else _unwrapped(getattr(value, kind))


def _unwrapped(value: Any) -> Any:
    return _plain(value) if isinstance(value, Message) else value


@cache
def _is_redacted(field: FieldDescriptor) -> bool:
    return bool(field.GetOptions().debug_redact)


@cache
def _is_map(field: FieldDescriptor) -> bool:
    kind = field.message_type
    return kind is not None and bool(kind.GetOptions().map_entry)
