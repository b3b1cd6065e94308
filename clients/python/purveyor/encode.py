"""Values of the caller to parts of a request.

Guarantee: what cannot be carried exactly is refused here, by its path, before anything is sent: an integer beyond 2^53, a
NaN, a value that JSON does not have.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from purveyor.errors import InvalidRequestError, Violation

if TYPE_CHECKING:
    from purveyor.values import JsonInput, Seconds

EXACT_INTEGER = 2**53
MAX_DEPTH = 64


def struct(field: str, value: Mapping[str, JsonInput] | None) -> Struct | None:
    """A JSON object as a Struct; None stays absent. Raises InvalidRequestError naming the path of a bad value."""
    if value is None:
        return None
    message = Struct()
    message.update(_plain_object(field, value, 0))
    return message


def _plain(path: str, value: object, depth: int) -> Any:
    """The value in the kinds that a Struct takes."""
    if depth > MAX_DEPTH:
        raise refused(path, f"nested deeper than {MAX_DEPTH}")
    if value is None or isinstance(value, bool | str):
        return value
    if isinstance(value, int | float):
        return _checked_number(path, value)
    if isinstance(value, Mapping):
        return _plain_object(path, value, depth)
    if isinstance(value, Sequence) and not isinstance(value, bytes | bytearray):
        return [_plain(f"{path}[{index}]", item, depth + 1) for index, item in enumerate(value)]
    raise refused(path, f"a {type(value).__name__} is not a JSON value")


def _plain_object(path: str, value: Mapping[Any, object], depth: int) -> dict[str, Any]:
    for name in value:
        if not isinstance(name, str):
            raise refused(path, f"the name {name!r} is not text")
    return {name: _plain(f"{path}.{name}", item, depth + 1) for name, item in value.items()}


def _checked_number(path: str, value: float) -> float:
    if isinstance(value, int) and abs(value) > EXACT_INTEGER:
        raise refused(path, "an integer beyond 2^53 would change on the way; send it as text")
    if not math.isfinite(value):
        raise refused(path, "not a number that JSON has")
    return value


def refused(field: str, description: str) -> InvalidRequestError:
    """A refusal made on this side of the wire, in the same form as the server's."""
    return InvalidRequestError(
        f"{field}: {description}", reason="INVALID_REQUEST", violations=(Violation(field, description),)
    )


def seconds(value: Seconds | None) -> float | None:
    """Seconds as a float."""
    return value.total_seconds() if isinstance(value, timedelta) else value


def duration(value: Seconds | None) -> Duration | None:
    """A Duration; None stays absent."""
    number = seconds(value)
    if number is None:
        return None
    message = Duration()
    message.FromTimedelta(timedelta(seconds=number))
    return message
