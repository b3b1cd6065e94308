"""Filters of list calls: the subset of AIP-160 that is served.

Guarantee: a filter is a conjunction of comparisons `field op value`, each with an allowed field; anything else is
INVALID_FILTER that names the place. Values are compared as parameters, never pasted into SQL.
Grammar: `comparison (AND comparison)*`, `comparison = [NOT] field (= | != | < | >) value`, value = bare word or "quoted".
`<` and `>` are for time fields (RFC 3339) only, `=` and `!=` for the others only. NOT of a time turns into the opposite
comparison, one microsecond apart; a time that is not there (an operation that has not ended) fits neither.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from enum import StrEnum

import msgspec

from purveyor_server.domain.audit import AuditOutcome
from purveyor_server.domain.errors import PurveyorError, Reason, Violation
from purveyor_server.domain.states import BindingState, InstanceState, OperationState, Verb


class Comparator(StrEnum):
    """How a field is compared."""

    EQUAL = "="
    NOT_EQUAL = "!="
    LESS = "<"
    GREATER = ">"


class Condition(msgspec.Struct, frozen=True):
    """One comparison. `value` is text; for a time field it is normalised RFC 3339 in UTC."""

    field: str
    comparator: Comparator
    value: str


Filter = tuple[Condition, ...]

INSTANCE_FIELDS = frozenset({"instance_id", "state", "service_id", "plan_id", "create_time", "update_time"})
BINDING_FIELDS = frozenset({"instance_id", "binding_id", "state", "create_time", "update_time"})
OPERATION_FIELDS = frozenset(
    {"instance_id", "binding_id", "parent_operation_id", "verb", "state", "create_time", "end_time"}
)
AUDIT_FIELDS = frozenset(
    {"tenant", "principal", "action", "resource", "outcome", "on_behalf", "origin", "request_id", "call_id", "act_time"}
)
TIME_FIELDS = frozenset({"create_time", "update_time", "end_time", "act_time"})


class Vocabulary(msgspec.Struct, frozen=True):
    """The fields of one list call, and the words that its enumerations know."""

    fields: frozenset[str]
    words: Mapping[str, frozenset[str]]


INSTANCES = Vocabulary(INSTANCE_FIELDS, {"state": frozenset(InstanceState)})
BINDINGS = Vocabulary(BINDING_FIELDS, {"state": frozenset(BindingState)})
AUDIT = Vocabulary(AUDIT_FIELDS, {"outcome": frozenset(AuditOutcome)})
OPERATIONS = Vocabulary(OPERATION_FIELDS, {"state": frozenset(OperationState), "verb": frozenset(Verb)})

MAX_CHARACTERS = 2048
MAX_CONDITIONS = 20
_TOKEN = re.compile(
    r"""\s*(?:(?P<quoted>"(?:[^"\\]|\\["\\])*")|(?P<word>[A-Za-z0-9_.:-]+)|(?P<operator>!=|=|<|>))""", re.ASCII
)
_ESCAPE = re.compile(r"\\(.)")
_KEYWORDS = frozenset({"AND", "NOT", "OR"})
_TICK = timedelta(microseconds=1)
_INVERSE = {
    Comparator.EQUAL: Comparator.NOT_EQUAL,
    Comparator.NOT_EQUAL: Comparator.EQUAL,
    Comparator.LESS: Comparator.GREATER,
    Comparator.GREATER: Comparator.LESS,
}


class _Token(msgspec.Struct, frozen=True):
    kind: str  # quoted, word, operator or end
    text: str
    at: int  # 1-based


def parse(text: str, vocabulary: Vocabulary) -> Filter:
    """The filter that `text` says; an empty text is no condition. Raises INVALID_FILTER with the 1-based position."""
    if len(text) > MAX_CHARACTERS:
        raise _refused(MAX_CHARACTERS, f"longer than {MAX_CHARACTERS} characters")
    reader = _Reader(_tokens(text), vocabulary)
    return reader.conjunction()


def _tokens(text: str) -> list[_Token]:
    tokens, position = [], 0
    while text[position:].strip():
        match = _TOKEN.match(text, position)
        if match is None or match.lastgroup is None:
            start = position + len(text[position:]) - len(text[position:].lstrip())
            raise _refused(start + 1, f"{text[start : start + 1]!r} is not expected here")
        tokens.append(_Token(match.lastgroup, match[match.lastgroup], match.start(match.lastgroup) + 1))
        position = match.end()
    return [*tokens, _Token("end", "", len(text) + 1)]


class _Reader:
    """Takes tokens from the left."""

    def __init__(self, tokens: list[_Token], vocabulary: Vocabulary) -> None:
        self._tokens = tokens
        self._next = 0
        self._vocabulary = vocabulary

    def conjunction(self) -> Filter:
        if self._tokens[0].kind == "end":
            return ()
        conditions = [self._comparison()]
        while (token := self._take()).kind != "end":
            if token != _Token("word", "AND", token.at):
                raise _refused(token.at, f"expected AND, found {token.text[:40]!r}")
            if len(conditions) == MAX_CONDITIONS:
                raise _refused(token.at, f"more than {MAX_CONDITIONS} comparisons")
            conditions.append(self._comparison())
        return tuple(conditions)

    def _take(self) -> _Token:
        token = self._tokens[self._next]
        self._next = min(self._next + 1, len(self._tokens) - 1)
        return token

    def _comparison(self) -> Condition:
        field = self._take()
        negated = field.kind == "word" and field.text == "NOT"
        if negated:
            field = self._take()
        if field.kind != "word" or field.text not in self._vocabulary.fields:
            known = ", ".join(sorted(self._vocabulary.fields))
            raise _refused(field.at, f"{field.text[:40]!r} is no field here; the fields are {known}")
        comparator = self._comparator(field)
        return self._condition(field.text, comparator, self._take(), negated=negated)

    def _comparator(self, field: _Token) -> Comparator:
        token = self._take()
        wanted = ("<", ">") if field.text in TIME_FIELDS else ("=", "!=")
        if token.kind != "operator" or token.text not in wanted:
            raise _refused(token.at, f"{field.text} is compared with {' or '.join(wanted)}, not {token.text[:40]!r}")
        return Comparator(token.text)

    def _condition(self, field: str, comparator: Comparator, token: _Token, *, negated: bool) -> Condition:
        value = _value(token)
        words = self._vocabulary.words.get(field)
        if words is not None and value not in words:
            raise _refused(token.at, f"{value[:40]!r} is no {field}; there are {', '.join(sorted(words))}")
        if field in TIME_FIELDS:
            return _time_condition(field, comparator, token, value, negated=negated)
        return Condition(field, _INVERSE[comparator] if negated else comparator, value)


def _value(token: _Token) -> str:
    if token.kind == "quoted":
        return _ESCAPE.sub(r"\1", token.text[1:-1])
    if token.kind != "word" or token.text in _KEYWORDS:
        raise _refused(token.at, f"expected a value, found {token.text[:40]!r}")
    return token.text


def _time_condition(field: str, comparator: Comparator, token: _Token, value: str, *, negated: bool) -> Condition:
    try:
        moment = datetime.fromisoformat(value)
        if moment.tzinfo is None:
            raise _refused(token.at, f"{value[:40]!r} has no time zone; write Z or an offset (quoted)")
        moment = moment.astimezone(UTC)
        if negated:  # not before t = after the instant before t
            moment += _TICK if comparator is Comparator.GREATER else -_TICK
    except (ValueError, OverflowError):
        raise _refused(token.at, f"{value[:40]!r} is not an RFC 3339 time") from None
    stamp = moment.isoformat(timespec="microseconds")
    return Condition(field, _INVERSE[comparator] if negated else comparator, stamp)


def _refused(position: int, description: str) -> PurveyorError:
    return PurveyorError(
        Reason.INVALID_FILTER,
        f"filter: at {position}: {description}",
        metadata={"field": "filter", "position": str(position)},
        violations=(Violation("filter", f"at {position}: {description}"),),
    )
