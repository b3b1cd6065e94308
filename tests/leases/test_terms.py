"""When a binding ends, should be renewed, is rotated: pure."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.leases import JITTER, earlier, first_terms, over, renewal_target, terms
from purveyor_server.domain.policies import LeasePolicy

NOW = datetime(2026, 1, 1, tzinfo=UTC)
HOUR, YEAR = timedelta(hours=1), timedelta(days=365)
SPANS = st.timedeltas(min_value=timedelta(seconds=1), max_value=YEAR)


@pytest.mark.parametrize(
    ("policy", "ttl", "end"),
    [
        (LeasePolicy(), None, None),
        (LeasePolicy(), HOUR, HOUR),
        (LeasePolicy(ttl=HOUR), None, HOUR),
        (LeasePolicy(ttl=HOUR), 2 * HOUR, 2 * HOUR),
        (LeasePolicy(max_ttl=3 * HOUR), None, 3 * HOUR),
        (LeasePolicy(ttl=HOUR, max_ttl=3 * HOUR), 3 * HOUR, 3 * HOUR),
    ],
)
def test_a_new_binding_ends_as_asked_else_as_the_plan_says(
    policy: LeasePolicy, ttl: timedelta | None, end: timedelta | None
) -> None:
    found = first_terms(policy, "u", NOW, ttl, rotatable=True)
    assert found.expires_at == (None if end is None else NOW + end)
    assert found.renew_before is found.rotate_at is None


def test_a_ttl_beyond_the_plan_s_is_refused_with_the_most() -> None:
    with pytest.raises(PurveyorError) as refused:
        first_terms(LeasePolicy(max_ttl=HOUR), "u", NOW, 2 * HOUR, rotatable=True)
    assert refused.value.reason is Reason.INVALID_REQUEST
    assert [violation.field for violation in refused.value.violations] == ["ttl"]
    assert refused.value.metadata["max_ttl_seconds"] == "3600"


def test_renew_before_is_never_in_the_first_half() -> None:
    policy = LeasePolicy(renew_before=HOUR)
    assert terms(policy, "u", NOW, NOW + 4 * HOUR, rotatable=True).renew_before == NOW + 3 * HOUR
    assert terms(policy, "u", NOW, NOW + HOUR, rotatable=True).renew_before == NOW + HOUR / 2
    assert terms(policy, "u", NOW, None, rotatable=True).renew_before is None


def test_rotations_spread_over_a_tenth_and_stay_where_they_are() -> None:
    policy = LeasePolicy(ttl=10 * HOUR, renew_before=2 * HOUR, rotate_every=100 * HOUR, auto_rotate=True)
    found = [first_terms(policy, f"uid-{n}", NOW, None, rotatable=True).rotate_at for n in range(200)]
    times = [at for at in found if at is not None]
    assert len(set(times)) > 190
    assert min(times) >= NOW + 8 * HOUR * (1 - JITTER)
    assert max(times) <= NOW + 8 * HOUR
    assert first_terms(policy, "uid-7", NOW, None, rotatable=True).rotate_at == times[7]
    assert first_terms(policy, "u", NOW, None, rotatable=False).rotate_at is None
    quiet = LeasePolicy(ttl=10 * HOUR, renew_before=2 * HOUR)
    assert first_terms(quiet, "u", NOW, None, rotatable=True).rotate_at is None


@given(SPANS, SPANS, SPANS)
def test_a_renewal_never_goes_beyond_max_ttl_from_creation(ttl: timedelta, most: timedelta, age: timedelta) -> None:
    policy = LeasePolicy(ttl=ttl, max_ttl=most)
    now = NOW + age
    for at, span in ((None, ttl), (now + ttl, None), (None, None)):
        if (at is None and span is None) or now + ttl <= NOW + most:
            assert renewal_target(policy, NOW, now, at=at, ttl=span, most=10 * YEAR) <= NOW + most
            continue
        with pytest.raises(PurveyorError) as refused:
            renewal_target(policy, NOW, now, at=at, ttl=span, most=10 * YEAR)
        assert refused.value.reason is Reason.INVALID_REQUEST


@pytest.mark.parametrize(
    ("sent", "field"),
    [
        ({"at": NOW, "ttl": None}, "expire_time"),
        ({"at": NOW - HOUR, "ttl": None}, "expire_time"),
        ({"at": None, "ttl": timedelta(0)}, "ttl"),
        ({"at": NOW + HOUR, "ttl": HOUR}, "ttl"),
        ({"at": None, "ttl": None}, "expire_time"),
        ({"at": None, "ttl": 2 * YEAR}, "ttl"),
    ],
)
def test_a_target_that_is_none_is_refused(sent: dict[str, datetime | timedelta | None], field: str) -> None:
    with pytest.raises(PurveyorError) as refused:
        renewal_target(LeasePolicy(), NOW, NOW, most=YEAR, **sent)  # type: ignore[arg-type] # as parametrized
    assert [violation.field for violation in refused.value.violations] == [field]


def test_the_end_of_an_overlap_is_never_later_than_the_own() -> None:
    assert earlier(None, NOW) == NOW
    assert earlier(NOW - HOUR, NOW) == NOW - HOUR
    assert earlier(NOW + HOUR, NOW) == NOW
    assert over(NOW, NOW)
    assert not over(NOW + HOUR, NOW)
    assert not over(None, NOW)
