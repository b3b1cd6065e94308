"""Digests: the same content is the same digest whatever its order, another content or key is another one."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from purveyor_server.domain.digests import canonical, keyed_digest, plan_digest
from tests.fakes.situations import LARGE, SMALL

KEY = b"k" * 32
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(codec="utf-8"), max_size=8),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=4), inner, max_size=4),
    max_leaves=12,
)  # fmt: skip


def shuffled(value: Any) -> Any:
    """The same JSON with every object's keys in another order."""
    if isinstance(value, dict):
        return {key: shuffled(value[key]) for key in reversed(value)}
    return [shuffled(item) for item in value] if isinstance(value, list) else value


@given(JSON)
def test_order_of_keys_does_not_count(value: Any) -> None:
    assert keyed_digest(KEY, value) == keyed_digest(KEY, shuffled(value))


@given(JSON)
def test_doubles_of_the_wire_do_not_count(value: Any) -> None:
    """A number that came over the wire as a double has the digest of the integer that was meant."""
    again = json.loads(json.dumps(value), parse_int=float)
    assert canonical(value) == canonical(again)


@given(JSON, JSON)
def test_another_content_is_another_digest(one: Any, other: Any) -> None:
    assert (keyed_digest(KEY, one) == keyed_digest(KEY, other)) == (canonical(one) == canonical(other))


def test_parts_are_kept_apart_and_the_key_counts() -> None:
    assert keyed_digest(KEY, "a", "bc") != keyed_digest(KEY, "ab", "c")
    assert keyed_digest(KEY, "a") != keyed_digest(b"x" * 32, "a")


def test_plan_digest_names_all_but_itself() -> None:
    assert plan_digest(SMALL) == SMALL.digest == plan_digest(replace(SMALL, digest="other"))
    assert plan_digest(replace(SMALL, settings={"disk": 1})) != SMALL.digest
    assert SMALL.digest != LARGE.digest
