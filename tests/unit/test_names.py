"""Names: what callers may write, and that outside names are made from a uid alone."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.names import check_id, check_request_id, check_tenant, outside_name
from purveyor_server.kit.ids import new_id


@pytest.mark.parametrize("good", ["a", "a-1", "0" * 63, "acme"])
def test_good_tenants(good: str) -> None:
    assert check_tenant(good) == good


@pytest.mark.parametrize("bad", ["", "-a", "a-", "A", "a" * 64, "a_b", "a\n", "ä"])
def test_bad_tenants(bad: str) -> None:
    with pytest.raises(PurveyorError) as refused:
        check_tenant(bad)
    assert refused.value.reason is Reason.INVALID_REQUEST
    assert refused.value.violations[0].field == "tenant"


@pytest.mark.parametrize("bad", ["", ".", "..", "a/b", "a b", "x" * 129, "a\n", "é"])
def test_bad_ids(bad: str) -> None:
    with pytest.raises(PurveyorError) as refused:
        check_id(bad, "binding_id")
    assert refused.value.violations[0].field == "binding_id"


@given(st.from_regex(r"[A-Za-z0-9._~-]{1,128}", fullmatch=True).filter(lambda value: value not in {".", ".."}))
def test_ids_of_unreserved_characters_are_good(value: str) -> None:
    assert check_id(value, "instance_id") == value


@pytest.mark.parametrize("bad", ["", "a b", "x" * 65, "é", "a\t"])
def test_bad_request_ids(bad: str) -> None:
    with pytest.raises(PurveyorError):
        check_request_id(bad)


def test_a_refusal_cuts_what_it_repeats() -> None:
    with pytest.raises(PurveyorError) as refused:
        check_id("!" * 10_000, "instance_id")
    assert len(refused.value.message) < 300


def test_outside_names_are_stable_opaque_and_short() -> None:
    uid = new_id()
    name = outside_name("db", uid)
    assert name == outside_name("db", uid)
    assert re.fullmatch(r"pv_db_[0-9a-f]{32}", name)
    assert outside_name("db", new_id()) != name


@pytest.mark.parametrize(("kind", "limit"), [("DB", 63), ("", 63), ("d-b", 63), ("db", 20)])
def test_a_kind_that_makes_no_name_is_a_bug(kind: str, limit: int) -> None:
    with pytest.raises(ValueError, match="kind"):
        outside_name(kind, new_id(), limit)
