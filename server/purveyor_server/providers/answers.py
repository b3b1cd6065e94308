"""What a provider gave, checked and copied: plans, results, credentials, observations, failures.

Guarantee: what comes out is of the contract's types, holds plain JSON (finite numbers of 64 bits, text that is UTF-8, keys
that are text) and is bounded in bytes, depth and count; it shares nothing with the provider, which may change its own later.
Garbage raises `GarbageError` in words of ours; no value of a provider is in them.
Limit: a lie of the right shape passes; the provider contract suite looks for those.
"""

from __future__ import annotations

import inspect
import math
from collections.abc import Callable, Iterable
from datetime import datetime
from itertools import islice
from typing import Any, TypeGuard, TypeVar

import jsonschema_rs
import msgspec

from purveyor_server.domain.model import Endpoint, Json
from purveyor_server.domain.states import Drift, Make
from purveyor_server.kit.secret import Secret
from purveyor_server.kit.tasks import is_cancelled
from purveyor_server.providers.abilities import RootRotated
from purveyor_server.providers.contract import (
    Ambiguous,
    Credentials,
    Done,
    LeaseEnding,
    MarkerChanged,
    NotYet,
    Observed,
    Owned,
    Permanent,
    PlannedStep,
    PoolExhausted,
    ProviderError,
    Retryable,
    RightsMissing,
    Schemas,
    Unreachable,
)

_Value = TypeVar("_Value")

MAX_OUTPUT_BYTES = 64 * 1024
MAX_CREDENTIALS_BYTES = 64 * 1024
MAX_SAVED_BYTES = 64 * 1024
MAX_DEPTH = 32  # of JSON
MAX_SECRETS = 32  # of one piece, minted and given
MAX_SECRET_BYTES = 64 * 1024  # of one
MAX_PLAN_STEPS = 1000
MAX_NAME_CHARACTERS = 100
MAX_NOTE_CHARACTERS = 500
MAX_DETAIL_CHARACTERS = 2000
MAX_ENDPOINTS = 100
MAX_DIFFERENCES = 100
MAX_ACCOUNTS = 10_000  # of one rotation
MAX_AVOIDED = 100_000  # numbers that an `allocate` avoids
HEAVIEST = 1e6  # weight of a step
SHORTEST_WAIT = 0.05  # seconds: a provider that says "ask again at once" does not spin
LONGEST_WAIT = 3600.0  # seconds: and none is forgotten

# Special ones first.
_KINDS = (LeaseEnding, PoolExhausted, MarkerChanged, RightsMissing, Unreachable, Retryable, Permanent, Ambiguous)


class GarbageError(Exception):
    """What a provider gave is not what the contract says. `what` goes after the provider's name, in words of ours."""

    def __init__(self, what: str, detail: str = "") -> None:
        super().__init__(what)
        self.what = what
        self.detail = detail


def words(value: object, limit: int = MAX_NOTE_CHARACTERS) -> str:
    """A sentence that may be stored and shown: text, cut, fit for UTF-8; "" for what is no text. Never raises."""
    return value[:limit].encode("utf-8", "replace").decode() if type(value) is str else ""


def bounded(error: ProviderError) -> ProviderError:
    """The failure as one of the contract's own kinds, its words cut; what says no kind may have happened."""
    kind = next((kind for kind in _KINDS if isinstance(error, kind)), Ambiguous)
    given = vars(error)  # not by attribute: a property of a stranger may raise
    message = words(given.get("message")) or "the provider failed without saying why"
    return kind(message, words(given.get("detail"), MAX_DETAIL_CHARACTERS))


def _checked(check: Callable[[], _Value], what: str) -> _Value:
    """What `check` gives; anything that it meets is garbage too (attributes that raise, iterators that break)."""
    try:
        return check()
    except GarbageError:
        raise
    except BaseException as error:
        if is_cancelled(error):
            raise
        raise GarbageError(what, type(error).__name__) from error


def refuse_coroutine(answer: object, method: str) -> None:
    """Raise GarbageError for what an author has made `async def` although it is none."""
    if inspect.iscoroutine(answer):
        answer.close()
        raise GarbageError(f"has a method {method} that is a coroutine")


# JSON


class _Copy:
    """One copy within a budget of bytes: shared and endless structures cost what they would take, then stop."""

    def __init__(self, what: str, limit: int) -> None:
        self._what = what
        self._limit = limit
        self._left = limit

    def take(self, value: object, depth: int = 0) -> Json:
        if depth > MAX_DEPTH:
            raise GarbageError(f"gave {self._what} nested deeper than {MAX_DEPTH}")
        self._spend(1)
        if value is None or isinstance(value, bool):
            return value
        if isinstance(value, str):
            return self._text(value)
        if isinstance(value, int) and -(2**63) <= value < 2**64:
            return int(value)
        if isinstance(value, float) and math.isfinite(value):
            return float(value)
        if isinstance(value, dict):
            return {self._key(key): self.take(item, depth + 1) for key, item in value.items()}
        if isinstance(value, list | tuple):
            return [self.take(item, depth + 1) for item in value]
        raise GarbageError(f"gave {self._what} that are no JSON", type(value).__name__)

    def _key(self, key: object) -> str:
        if isinstance(key, str):
            return self._text(key)
        raise GarbageError(f"gave {self._what} that are no JSON", f"a key of the type {type(key).__name__}")

    def _text(self, value: str) -> str:
        self._spend(len(value))
        return value.encode().decode()  # UnicodeEncodeError: half of a pair

    def _spend(self, size: int) -> None:
        self._left -= size
        if self._left < 0:
            raise GarbageError(f"gave too large {self._what}", f"over {self._limit} bytes")


def plain(value: object, what: str, limit: int) -> Json:
    """A copy of `value` as JSON of at most `limit` bytes. Raises GarbageError."""
    copy = _checked(lambda: _Copy(what, limit).take(value), f"gave {what} that are no JSON")
    if len(msgspec.json.encode(copy)) > limit:
        raise GarbageError(f"gave too large {what}", f"over {limit} bytes")
    return copy


def plain_object(value: object, what: str, limit: int) -> dict[str, Json]:
    """As `plain`, of an object."""
    if not isinstance(value, dict):
        raise GarbageError(f"gave {what} that are no object", type(value).__name__)
    copy: dict[str, Json] = plain(value, what, limit)
    return copy


# Plans


def checked_plan(planned: Any) -> tuple[PlannedStep, ...]:
    """The steps of a plan. Raises GarbageError, and whatever the provider's own iterator raises."""
    refuse_coroutine(planned, "plan")
    fields = len(PlannedStep._fields)
    steps = tuple([PlannedStep(*islice(step, fields)) for step in islice(planned, MAX_PLAN_STEPS + 1)])
    if len(steps) > MAX_PLAN_STEPS:
        raise GarbageError("planned too many steps", f"over {MAX_PLAN_STEPS}")
    names = _checked(lambda: [_step_name(step) for step in steps], "planned a step that is none")
    if len(set(names)) != len(names):
        raise GarbageError("planned two steps of one name", str(names[:20]))
    return steps


def _step_name(step: Any) -> str:
    name, weight = step.piece.name, step.piece.weight
    if not _is_name(name) or not _is_number(weight) or not 0 < weight <= HEAVIEST:
        raise GarbageError("planned a step without name or weight", words(name, MAX_NAME_CHARACTERS))
    if not isinstance(step.make, Make) or not isinstance(step.pivot, bool):
        raise GarbageError("planned a step that is neither ENSURE nor ABSENT", name)
    mints = step.piece.mints
    labels = _few(mints, MAX_SECRETS, "planned a step that mints too many secrets")
    if isinstance(mints, str) or not all(map(_is_name, labels)):
        raise GarbageError("planned a step that mints secrets without names", name)
    return str(name)


def _is_name(value: object) -> bool:
    return isinstance(value, str) and 0 < len(value) <= MAX_NAME_CHARACTERS and value.isprintable()


def _is_number(value: object) -> bool:
    """True for a number that is one: finite or not is asked by comparing."""
    return isinstance(value, int | float)


def _few(items: Iterable[_Value], limit: int, what: str) -> tuple[_Value, ...]:
    found = tuple(islice(items, limit + 1))
    if len(found) > limit:
        raise GarbageError(what, f"over {limit}")
    return found


# Results


def checked_answer(answer: object) -> Done | NotYet:
    """What `ensure` or `absent` answered. Raises GarbageError."""
    if isinstance(answer, NotYet):
        return _checked(lambda: _checked_wait(answer), "gave a NotYet that is none")
    if isinstance(answer, Done):
        return _checked(lambda: _checked_done(answer), "gave a Done that is none")
    raise GarbageError("gave an answer that is neither Done nor NotYet", type(answer).__name__)


def _checked_wait(answer: NotYet) -> NotYet:
    after = answer.after
    if not _is_number(after):
        raise GarbageError("gave a NotYet whose time is no number", type(after).__name__)
    seconds = min(max(after, SHORTEST_WAIT), LONGEST_WAIT) if after == after else LONGEST_WAIT  # noqa: PLR0124 - NaN
    return NotYet(seconds, words(answer.note))


def _checked_done(answer: Done) -> Done:
    outputs = plain_object(answer.outputs, "outputs", MAX_OUTPUT_BYTES)
    if not isinstance(answer.secrets, dict):
        raise GarbageError("gave secrets that are no object", type(answer.secrets).__name__)
    given = _few(answer.secrets.items(), MAX_SECRETS, "gave too many secrets")
    return Done(outputs, {_checked_label(label): _checked_secret(secret) for label, secret in given})


def _checked_label(label: object) -> str:
    if isinstance(label, str) and _is_name(label):
        return label
    raise GarbageError("gave a secret without a name", type(label).__name__)


def _checked_secret(secret: object) -> Secret:
    if not isinstance(secret, Secret):
        raise GarbageError("gave a secret that is not of the type Secret", type(secret).__name__)
    value = secret.reveal()
    if not isinstance(value, str):
        raise GarbageError("gave a secret that is no text", type(value).__name__)
    if len(value) > MAX_SECRET_BYTES or len(value.encode()) > MAX_SECRET_BYTES:
        raise GarbageError("gave a too large secret", f"over {MAX_SECRET_BYTES} bytes")
    return Secret(value)


def checked_credentials(answer: object, unique: frozenset[str]) -> Credentials:
    """Credentials that have at least one of the fields that make them a binding's own. Raises GarbageError."""
    refuse_coroutine(answer, "credentials")
    if not isinstance(answer, Credentials):
        raise GarbageError("gave credentials that are no object", type(answer).__name__)
    values = plain_object(answer.values, "credentials", MAX_CREDENTIALS_BYTES)
    if unique and not any(values.get(field) not in (None, "") for field in unique):
        raise GarbageError("gave credentials without any of its unique fields", ", ".join(sorted(unique))[:200])
    endpoints = _checked(lambda: _checked_endpoints(answer.endpoints), "gave endpoints that are none")
    return Credentials(values, endpoints)


def _checked_endpoints(given: Iterable[Endpoint]) -> tuple[Endpoint, ...]:
    endpoints = _few(given, MAX_ENDPOINTS, "gave too many endpoints")
    copy = plain([msgspec.to_builtins(point) for point in endpoints], "endpoints", MAX_OUTPUT_BYTES)
    return msgspec.convert(copy, tuple[Endpoint, ...])


# What a piece asks of its context


def clamped(percent: object) -> float:
    """A percentage of 0..100; what is none counts as 0."""
    share = min(max(percent, 0.0), 100.0) if isinstance(percent, int | float) else 0.0
    return share if share == share else 0.0  # noqa: PLR0124 - NaN


def checked_range(
    pool: object, low: object, high: object, avoid: Iterable[object]
) -> tuple[str, int, int, frozenset[int]]:
    """What `allocate` was asked for. Raises GarbageError."""
    what = "asked for a number of no pool or range"
    numbers = _checked(lambda: _few(avoid, MAX_AVOIDED, "avoids too many numbers"), what)
    if not isinstance(pool, str) or not _is_name(pool) or not _is_key(low) or not _is_key(high):
        raise GarbageError(what)
    if not all(_is_key(number) for number in numbers):
        raise GarbageError(what, "avoid")
    return pool, low, high, frozenset(number for number in numbers if _is_key(number))


def _is_key(value: object) -> TypeGuard[int]:
    return isinstance(value, int) and 0 <= value < 2**63


# Questions


def checked_observed(answer: Any) -> Observed:
    """What `observe` says. Raises GarbageError."""
    return _checked(lambda: _observed(answer), "gave an observation that is none")


def _observed(answer: object) -> Observed:
    if not isinstance(answer, Observed):
        raise GarbageError("gave an observation that is none", type(answer).__name__)
    shape: tuple[tuple[object, type], ...] = ((answer.drift, Drift), (answer.healthy, bool), (answer.at, datetime))
    if not all(isinstance(value, kind) for value, kind in shape) or answer.at.tzinfo is None:
        raise GarbageError("gave an observation that is none", "drift, healthy or at")
    told = tuple(words(sentence) for sentence in islice(answer.differences, MAX_DIFFERENCES))
    return Observed(answer.drift, answer.healthy, answer.at, told)


def checked_rotation(answer: Any) -> RootRotated:
    """What `rotate_root` says. Raises GarbageError."""
    if isinstance(answer, RootRotated):
        return _checked(lambda: _rotation(answer), "rotated what is no account")
    raise GarbageError("gave a rotation that is none", type(answer).__name__)


def _rotation(answer: RootRotated) -> RootRotated:
    told = [tuple(words(name) for name in islice(names, MAX_ACCOUNTS)) for names in (answer.accounts, answer.left)]
    return RootRotated(told[0], told[1])


def checked_owned(item: Any) -> Owned:
    """One thing of a list. Raises GarbageError."""
    if isinstance(item, Owned):
        texts: tuple[object, ...] = (item.kind, item.name, item.uid)
        named = all(isinstance(text, str) and len(text) <= MAX_NOTE_CHARACTERS for text in texts)
        if named and _is_key(item.revision):
            return item
    raise GarbageError("listed what is no owned thing", type(item).__name__)


class SchemaChecks:
    """A provider's own schemas, held against what it gives."""

    def __init__(self, schemas: Schemas) -> None:
        self._schemas = schemas
        self._validators: dict[tuple[str, str], Any] = {}

    def outputs(self, piece: str, value: dict[str, Json]) -> None:
        """Raise GarbageError unless the outputs of `piece` fit."""
        self._check("outputs", piece, self._schemas.outputs.get(piece, {}), value)

    def credentials(self, value: dict[str, Json]) -> None:
        """Raise GarbageError unless the credentials fit."""
        self._check("credentials", "", self._schemas.credentials, value)

    def _check(self, kind: str, piece: str, schema: dict[str, Any], value: Json) -> None:
        if not schema:
            return
        if (kind, piece) not in self._validators:
            made = _checked(lambda: jsonschema_rs.validator_for(schema), f"has a schema of {kind} that is none")
            self._validators[kind, piece] = made
        for error in self._validators[kind, piece].iter_errors(value):
            where = "/".join(str(part) for part in error.instance_path)[:200] or "(whole)"
            raise GarbageError(f"gave {piece or kind} that do not fit their schema at {where}", "schema violation")
