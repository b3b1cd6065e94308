"""What a schema marks as secret is found wherever it may apply, taken out and put back without a trace."""

from __future__ import annotations

import io
import json
from typing import Any

import pytest
import structlog
from hypothesis import find, given
from hypothesis import strategies as st

from purveyor_server.domain.veils import has_marks, put_back, secret_places, take_out
from purveyor_server.kit import hiding
from purveyor_server.kit.hiding import MASK
from purveyor_server.telemetry import logs

SECRET = {"type": "string", "writeOnly": True}
DEEP: dict[str, Any] = {
    "type": "object",
    "$defs": {
        "login": {"$anchor": "login", "properties": {"password": {"x-secret": True}, "next": {"$ref": "#/$defs/login"}}}
    },
    "properties": {
        "token": SECRET,
        "login": {"$ref": "#/$defs/login"},
        "anchored": {"$ref": "#login"},
        "users": {"type": "array", "items": {"properties": {"pin": {"x-secret": True}}}},
        "pair": {"prefixItems": [{}, SECRET]},
        "either": {"oneOf": [{"type": "integer"}, {"properties": {"key": SECRET}}]},
        "when": {"if": {}, "then": {"properties": {"key": SECRET}}},
        "whole": {"writeOnly": True},
        "not": {"writeOnly": False, "x-secret": "yes"},
        "a/b~c": SECRET,
    },
    "patternProperties": {"^s_": SECRET, "(?<no-python": SECRET},
    "additionalProperties": {"properties": {"inner": SECRET}},
}


@pytest.mark.parametrize(
    ("parameters", "places"),
    [
        ({"token": "x", "size": 1}, ["/token"]),
        ({"token": None}, ["/token"]),
        ({"login": {"password": "x", "user": "y", "next": {"next": {"password": 1}}}},
         ["/login/password", "/login/next/next/password"]),
        ({"anchored": {"password": "x"}}, ["/anchored/password"]),
        ({"users": [{"pin": 1}, {"name": "n"}, {"pin": 2}]}, ["/users/0/pin", "/users/2/pin"]),
        ({"pair": ["shown", "hidden", "more"]}, ["/pair/1"]),
        ({"either": {"key": "x"}}, ["/either/key"]),
        ({"when": {"key": "x"}}, ["/when/key"]),
        ({"whole": {"any": ["thing"]}}, ["/whole"]),
        ({"a/b~c": "x"}, ["/a~1b~0c"]),
        ({"s_1": "x"}, ["/s_1"]),
        ({"else": {"inner": "x", "outer": "y"}}, None),
    ],
)  # fmt: skip
def test_marks_are_found(parameters: dict[str, Any], places: list[str] | None) -> None:
    schema = DEEP | {"patternProperties": {"^s_": SECRET}}
    assert secret_places((schema,), parameters) == tuple(places or ["/else/inner"])


def test_a_pattern_of_another_dialect_may_match() -> None:
    assert secret_places((DEEP,), {"anything": 1}) == ("/anything",)


def test_what_is_not_marked_is_not_looked_at() -> None:
    plain = {"properties": {"size": {"type": "integer"}, "writeOnly": {"type": "boolean"}}}

    assert not has_marks(plain)
    assert not has_marks(None)
    assert secret_places((None, plain), {"size": 1, "writeOnly": True}) == ()
    assert secret_places((plain, {"properties": {"size": SECRET}}), {"size": 1}) == ("/size",)


def test_a_schema_that_is_secret_as_a_whole_hides_every_key() -> None:
    assert secret_places(({"writeOnly": True},), {"a": 1, "b": {"c": 2}}) == ("/a", "/b")


def test_references_in_circles_end() -> None:
    circle = {
        "$ref": "#/$defs/a",
        "$defs": {"a": {"$ref": "#/$defs/b"}, "b": {"allOf": [{"$ref": "#/$defs/a"}, SECRET]}},
    }

    assert secret_places((circle,), {"x": 1}) == ("/x",)


values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["password", "next", "x~/y", "z"]), inner, max_size=3),
    max_leaves=12,
)  # fmt: skip
ANYWHERE: dict[str, Any] = {
    "properties": {"password": SECRET, "x~/y": {"x-secret": True}},
    "additionalProperties": {"$ref": "#"},
    "items": {"$ref": "#"},
}


@given(st.dictionaries(st.sampled_from(["password", "next", "x~/y", "z"]), values, max_size=4))
def test_taken_out_and_put_back_is_the_same(parameters: dict[str, Any]) -> None:
    before = json.dumps(parameters)
    shown, taken = take_out(parameters, secret_places((ANYWHERE,), parameters))

    assert put_back(shown, taken) == parameters
    assert json.dumps(parameters) == before, "what was sent is not changed"
    assert all(_hidden(shown))


def _hidden(value: Any) -> list[bool]:
    """Whether each value under a secret name is the mask."""
    if isinstance(value, list):
        return [found for item in value for found in _hidden(item)]
    if not isinstance(value, dict):
        return []
    secret = [item == MASK for key, item in value.items() if key in {"password", "x~/y"}]
    return secret + [found for key, item in value.items() if key not in {"password", "x~/y"} for found in _hidden(item)]


def test_the_property_meets_nested_secrets() -> None:
    keys = st.sampled_from(["password", "next", "z"])
    found = find(
        st.dictionaries(keys, values, max_size=3), lambda p: any(place.count("/") > 1 for place in secret_places((ANYWHERE,), p))
    )  # fmt: skip
    assert found


def test_hidden_texts_are_in_no_log_line_while_they_are_hidden() -> None:
    written = io.StringIO()
    logs.configure("json", "debug", written, cache=False)
    log = structlog.get_logger("test")
    secret = 'pass"word ü'
    try:
        with hiding.hiding([{"deep": [secret]}, "tiny"]), hiding.hiding([secret]):
            log.info("working", note=f"trying {secret}", body=json.dumps({"p": secret}), more={"in": [secret]})
            _fail_with(log, secret)
        log.info("later", note=secret)
    finally:
        structlog.reset_defaults()

    during, failed, later = (json.loads(line) for line in written.getvalue().splitlines())
    assert during["note"] == f"trying {MASK}"
    assert "word" not in json.dumps(during)
    assert "ValueError: no " + MASK in failed["exception"]
    assert "pass" not in failed["exception"].rpartition("ValueError")[2]
    assert later["note"] == secret


def _fail_with(log: Any, secret: str) -> None:
    try:
        _raise("no " + secret)
    except ValueError:
        log.exception("failed")


def _raise(text: str) -> None:
    raise ValueError(text)


def test_what_holds_a_hidden_text_is_told() -> None:
    with hiding.hiding(["swordfish", "tiny"]):
        assert hiding.holds_hidden({"a": [{"uri": "x://u:swordfish@h"}]})
        assert hiding.holds_hidden({"swordfish": 1})
        assert not hiding.holds_hidden({"a": "tiny"})
    assert not hiding.holds_hidden("swordfish")
