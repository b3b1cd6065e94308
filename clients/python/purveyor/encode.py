"""Values of the caller to parts of a request.

Guarantee: what cannot be carried exactly is refused here, by its path, before anything is sent: an integer beyond 2^53, a
NaN, a value that JSON does not have, a time that is negative or longer than a Duration, text that is not Unicode.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, ParamSpec, TypeVar

from google.protobuf.duration_pb2 import Duration
from google.protobuf.struct_pb2 import Struct

from purveyor.errors import InvalidRequestError, Violation

if TYPE_CHECKING:
    from purveyor.values import JsonInput, Seconds

EXACT_INTEGER = 2**53
MAX_DEPTH = 64
MAX_SECONDS = 315_576_000_000  # of google.protobuf.Duration: 10,000 years

P = ParamSpec("P")
Message = TypeVar("Message")


def request(kind: Callable[P, Message], *args: P.args, **fields: P.kwargs) -> Message:
    """A request of the contract. Raises InvalidRequestError naming the field that cannot be carried: a number out of range,
    text with a lone surrogate (bytes of a command line that are not UTF-8), another type."""
    try:
        return kind(*args, **fields)
    except (TypeError, ValueError) as error:
        for name, value in fields.items():
            _refuse_alone(kind, name, value)
        raise refused("request", "cannot be carried") from error


def _refuse_alone(kind: Callable[..., object], name: str, value: object) -> None:
    try:
        kind(**{name: value})
    except (TypeError, ValueError) as error:
        what = "not Unicode text" if isinstance(error, UnicodeError) else f"{_short(value)} does not fit"
        raise refused(name, what) from error


def _short(value: object) -> str:
    """A number as it is, anything else by its type: it may be a secret."""
    if isinstance(value, float) or (isinstance(value, int) and abs(value) < 2**64):
        return str(value)
    return f"a {type(value).__name__}"


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
    if value is None or isinstance(value, bool):
        return value
    if isinstance(value, str):
        return _checked_text(path, value)
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
        _checked_text(path, name)
    return {name: _plain(f"{path}.{name}", item, depth + 1) for name, item in value.items()}


def _checked_text(path: str, value: str) -> str:
    try:
        value.encode()
    except UnicodeEncodeError as error:
        raise refused(path, "not Unicode text: it has half of a surrogate pair") from error
    return value


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


def seconds(field: str, value: Seconds | None) -> float | None:
    """Seconds as a float; None stays absent. Raises InvalidRequestError naming the argument when it is not a time to wait."""
    if value is None:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float | timedelta):
        raise refused(field, f"a {type(value).__name__} is neither seconds nor a timedelta")
    number = value.total_seconds() if isinstance(value, timedelta) else value
    if number < 0:
        raise refused(field, f"{_short(number)} is negative")
    if number > MAX_SECONDS:
        raise refused(field, f"{_short(number)} is more than the {MAX_SECONDS} seconds that can be sent")
    if math.isnan(number):
        raise refused(field, "not a number")
    return float(number)


def duration(field: str, value: Seconds | None) -> Duration | None:
    """A Duration, to the microsecond; None stays absent. Raises InvalidRequestError as `seconds` does."""
    number = seconds(field, value)
    if number is None:
        return None
    whole, rest = divmod(round(number * 1_000_000), 1_000_000)
    return Duration(seconds=whole, nanos=rest * 1000)
