"""The filter parser: what it reads, and that nothing but a filter or INVALID_FILTER comes out of it."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purveyor_server.domain import filters
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.filters import Comparator, Condition, Filter, Vocabulary, parse

VOCABULARIES = [filters.INSTANCES, filters.BINDINGS, filters.OPERATIONS]
PIECES = st.sampled_from(
    ["state", "instance_id", "verb", "create_time", "end_time", "=", "!=", "<", ">", "AND", "NOT", "OR", "READY", "BIND",
     '"', '"a b"', "\\", "2026-01-31T00:00:00Z", "9999-12-31T23:59:59.999999Z", "0001-01-01T00:00:00Z", " ", "\n", "x"]
)  # fmt: skip


def test_empty_text_is_no_condition() -> None:
    assert parse("", filters.INSTANCES) == parse("  \n", filters.INSTANCES) == ()


def test_example_of_the_api_guide() -> None:
    text = "state = READY AND NOT plan_id = small AND create_time > 2026-01-31T00:00:00Z"
    assert parse(text, filters.INSTANCES) == (
        Condition("state", Comparator.EQUAL, "READY"),
        Condition("plan_id", Comparator.NOT_EQUAL, "small"),
        Condition("create_time", Comparator.GREATER, "2026-01-31T00:00:00.000000+00:00"),
    )


def test_spaces_are_free_and_quotes_hold_anything() -> None:
    found = parse(r'instance_id!="a \"b\" \\ AND ~"', filters.INSTANCES)
    assert found == (Condition("instance_id", Comparator.NOT_EQUAL, 'a "b" \\ AND ~'),)


def test_not_unequal_is_equal() -> None:
    assert parse("NOT state != READY", filters.INSTANCES) == (Condition("state", Comparator.EQUAL, "READY"),)


@pytest.mark.parametrize(
    ("text", "comparator", "value"),
    [
        ("NOT create_time < 2026-01-31T00:00:00Z", Comparator.GREATER, "2026-01-30T23:59:59.999999+00:00"),
        ("NOT create_time > 2026-01-31T00:00:00Z", Comparator.LESS, "2026-01-31T00:00:00.000001+00:00"),
        ('create_time < "2026-01-31T02:00:00+02:00"', Comparator.LESS, "2026-01-31T00:00:00.000000+00:00"),
    ],
)
def test_times_are_normalised(text: str, comparator: Comparator, value: str) -> None:
    assert parse(text, filters.INSTANCES) == (Condition("create_time", comparator, value),)


@pytest.mark.parametrize(
    ("text", "position"),
    [
        ("colour = red", 1),
        ("state READY", 7),
        ("state = ", 9),
        ("state = BLUE", 9),
        ("state < READY", 7),
        ("state = READY OR state = FAILED", 15),
        ("state = READY AND", 18),
        ("state = AND", 9),
        ("create_time = 2026-01-31T00:00:00Z", 13),
        ("create_time < 2026-01-31T00:00:00", 15),
        ("create_time < soon", 15),
        ("NOT create_time < 0001-01-01T00:00:00Z", 19),
        ('instance_id = "open', 15),
        ("instance_id = a*", 16),
        ("(state = READY)", 1),
        ("NOT NOT state = READY", 5),
        (" AND ".join(["state = READY"] * 21), 357),
        ("x" * 3000, 2048),
    ],
)
def test_refusals_name_the_place(text: str, position: int) -> None:
    with pytest.raises(PurveyorError) as refused:
        parse(text, filters.INSTANCES)
    assert refused.value.reason is Reason.INVALID_FILTER
    assert refused.value.metadata == {"field": "filter", "position": str(position)}
    assert refused.value.violations[0].field == "filter"


def sound(parsed: Filter, vocabulary: Vocabulary) -> bool:
    """What a store may rely on."""
    for condition in parsed:
        if condition.field not in vocabulary.fields:
            return False
        timed = condition.comparator in {Comparator.LESS, Comparator.GREATER}
        if timed != (condition.field in filters.TIME_FIELDS):
            return False
        if timed and datetime.fromisoformat(condition.value).tzinfo != UTC:
            return False
    return True


def judged(text: str, vocabulary: Vocabulary) -> bool:
    try:
        parsed = parse(text, vocabulary)
    except PurveyorError as refused:
        return refused.reason is Reason.INVALID_FILTER and int(refused.metadata["position"]) >= 1
    return sound(parsed, vocabulary)


@given(st.text(max_size=60), st.sampled_from(VOCABULARIES))
def test_any_text_is_a_filter_or_refused(text: str, vocabulary: Vocabulary) -> None:
    assert judged(text, vocabulary)


@given(st.lists(PIECES, max_size=14), st.sampled_from(VOCABULARIES))
def test_any_mix_of_its_words_is_a_filter_or_refused(pieces: list[str], vocabulary: Vocabulary) -> None:
    assert judged(" ".join(pieces), vocabulary)
    assert judged("".join(pieces), vocabulary)


_VALUES = st.text(st.characters(codec="utf-8"), max_size=20)


@given(st.lists(st.tuples(st.sampled_from(["instance_id", "plan_id"]), st.booleans(), _VALUES), max_size=5))
def test_quoted_values_come_back(conditions: list[tuple[str, bool, str]]) -> None:
    text = " AND ".join(
        f"{field} {'=' if equal else '!='} " + '"' + value.replace("\\", "\\\\").replace('"', '\\"') + '"'
        for field, equal, value in conditions
    )
    expected = tuple(
        Condition(field, Comparator.EQUAL if equal else Comparator.NOT_EQUAL, value)
        for field, equal, value in conditions
    )
    assert parse(text, filters.INSTANCES) == expected


def test_the_judge_finds_a_planted_fault() -> None:
    """Negative control: a parser that let a foreign field or a naive time through would be found."""
    assert not sound((Condition("colour", Comparator.EQUAL, "red"),), filters.INSTANCES)
    assert not sound((Condition("state", Comparator.LESS, "READY"),), filters.INSTANCES)
    assert not sound((Condition("create_time", Comparator.LESS, "2026-01-31T00:00:00"),), filters.INSTANCES)
