"""Values of the caller to parts of a request.

Guarantee: what cannot be carried exactly is refused here, by its path, before anything is sent: an integer beyond 2^53, a
NaN, a value that JSON does not have.
"""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from purveyor.errors import InvalidRequestError, Violation

if TYPE_CHECKING:
    from collections.abc import Mapping

    from purveyor.values import Json, Seconds

EXACT_INTEGER = 2**53
MAX_DEPTH = 64


def struct(field: str, value: Mapping[str, Json] | None) -> Struct | None:
    """A JSON object as a Struct; None stays absent. Raises InvalidRequestError naming the path of a bad value."""
    if value is None:
        return None
    plain = dict(value)
    _check(field, plain, 0)
    message = Struct()
    message.update(plain)
    return message


def _check(path: str, value: object, depth: int) -> None:
    if depth > MAX_DEPTH:
        raise refused(path, f"nested deeper than {MAX_DEPTH}")
    if value is None or isinstance(value, bool | str):
        return
    if isinstance(value, int | float):
        _check_number(path, value)
    elif isinstance(value, list | tuple):
        for index, item in enumerate(value):
            _check(f"{path}[{index}]", item, depth + 1)
    elif isinstance(value, dict):
        _check_names(path, value, depth)
    else:
        raise refused(path, f"a {type(value).__name__} is not a JSON value")


def _check_names(path: str, value: dict[object, object], depth: int) -> None:
    for name, item in value.items():
        if not isinstance(name, str):
            raise refused(path, f"the name {name!r} is not text")
        _check(f"{path}.{name}", item, depth + 1)


def _check_number(path: str, value: float) -> None:
    if isinstance(value, int) and abs(value) > EXACT_INTEGER:
        raise refused(path, "an integer beyond 2^53 would change on the way; send it as text")
    if not math.isfinite(value):
        raise refused(path, "not a number that JSON has")


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
