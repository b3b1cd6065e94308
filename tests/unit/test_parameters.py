"""Parameters: schemas, defaults, merging, sizes; no value of a caller in a message."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purveyor_server.domain import parameters
from purveyor_server.domain.catalog import Offer, PlanDefaults, PlanSchemas
from purveyor_server.domain.errors import PurveyorError, Reason
from tests.fakes.situations import SIZE_SCHEMA, catalog, plan


def offer(schemas: PlanSchemas | None = None) -> Offer:
    made = catalog(
        plan(
            "small",
            schemas=schemas or PlanSchemas(SIZE_SCHEMA, SIZE_SCHEMA, SIZE_SCHEMA),
            defaults=PlanDefaults(instance={"size": 2}, binding={"size": 3}),
        ),
        defaults=PlanDefaults(instance={"size": 1, "colour": "red"}, binding={"colour": "blue"}),
    )
    return made.offer("db", "small")


def refused(call: Any, *arguments: Any) -> PurveyorError:
    with pytest.raises(PurveyorError) as caught:
        call(*arguments)
    return caught.value


def test_defaults_merge_class_plan_request() -> None:
    assert parameters.for_create(offer(), {}) == {"size": 2, "colour": "red"}
    assert parameters.for_create(offer(), {"size": 9}) == {"size": 9, "colour": "red"}
    assert parameters.for_bind(offer(), {"colour": "green"}) == {"size": 3, "colour": "green"}


def test_default_satisfies_a_required_parameter() -> None:
    schema = {**SIZE_SCHEMA, "required": ["size"]}
    assert parameters.for_create(offer(PlanSchemas(instance_create=schema)), {})["size"] == 2


def test_each_fault_is_a_violation_with_its_path() -> None:
    schema = {"properties": {"a": {"properties": {"b": {"type": "integer"}}}, "c": {"minimum": 5}}}
    error = refused(parameters.check_schema, schema, {"a": {"b": "secret!"}, "c": 1})
    assert error.reason is Reason.INVALID_PARAMETERS
    assert {v.field for v in error.violations} == {"parameters.a.b", "parameters.c"}
    assert "secret!" not in str(error) + "".join(v.description for v in error.violations)


def test_at_most_twenty_violations() -> None:
    schema = {"additionalProperties": {"type": "integer"}}
    error = refused(parameters.check_schema, schema, {f"k{n}": "x" for n in range(50)})
    assert len(error.violations) == 20


def test_no_schema_accepts_any_object() -> None:
    parameters.check_schema(None, {"anything": [1, {"x": None}]})


def test_a_schema_is_compiled_once() -> None:
    schema = {"type": "object"}
    assert parameters._compile(schema) is parameters._compile(schema)


def test_a_slow_regular_expression_is_cut_off() -> None:
    schema = {"properties": {"a": {"pattern": r"^(a+)+(?!b)$"}}}
    refused(parameters.check_schema, schema, {"a": "a" * 40 + "!"})


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_numbers_that_json_cannot_hold(value: float) -> None:
    assert refused(parameters.check_json, {"a": [value]}, "parameters").reason is Reason.INVALID_REQUEST


def test_depth_and_size_are_bounded() -> None:
    deep: Any = {}
    for _ in range(10_000):
        deep = {"a": deep}
    assert refused(parameters.check_json, deep, "parameters").reason is Reason.INVALID_REQUEST
    big = {"a": "x" * parameters.MAX_BYTES}
    assert refused(parameters.check_json, big, "context").reason is Reason.MESSAGE_TOO_LARGE
    parameters.check_json({"a": "x" * (parameters.MAX_BYTES - 8)}, "context")


def test_update_merges_over_what_is_there_and_null_brings_the_default_back() -> None:
    merged = parameters.for_update(offer(), {"size": 9, "colour": "green"}, {"size": None})
    assert merged == {"size": 2, "colour": "green"}


def test_update_judges_what_is_sent() -> None:
    parameters.check_change(offer(), {"size": None})
    assert refused(parameters.check_change, offer(), {"size": 0}).violations[0].field == "parameters.size"
    assert refused(parameters.check_change, offer(), {"other": None}).violations[0].field == "parameters.other"
    parameters.check_change(offer(PlanSchemas()), {"other": None})


_VALUES = st.none() | st.integers(0, 3)
_OBJECTS = st.dictionaries(st.sampled_from(["size", "colour", "a", "b"]), _VALUES, max_size=4)


@given(_OBJECTS, _OBJECTS)
def test_update_is_the_same_twice(present: dict[str, Any], sent: dict[str, Any]) -> None:
    once = parameters.for_update(offer(), present, sent)
    assert parameters.for_update(offer(), once, sent) == once
    assert all(once[key] == value for key, value in sent.items() if value is not None)
