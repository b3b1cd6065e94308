"""Token buckets: what each principal gets, what removals keep, and how much is remembered of a crowd."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.principal import LOCAL, Means, Principal
from purveyor_server.kit.clock import ManualClock
from purveyor_server.rpc.interceptors.rates import LONGEST_KEY, REMOVALS, Buckets, Rates, key_of
from purveyor_server.rpc.methods import Method, method_table
from purveyor_server.rpc.settings import RpcSettings

SETTINGS = RpcSettings(reads_per_second=10, reads_burst=20, writes_per_second=2, writes_burst=3, principals=100)
METHODS = method_table(SETTINGS)
ALICE = Principal(subject="alice", means=Means.TOKEN)
BOB = Principal(subject="bob", means=Means.TOKEN)


def method(name: str) -> Method:
    return METHODS[f"/purveyor.v1.BrokerService/{name}"]


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def rates(clock: ManualClock) -> Rates:
    return Rates(SETTINGS, clock)


def taken(rates: Rates, name: str, who: Principal = ALICE, most: int = 1000) -> int:
    """How many calls get through at once."""
    for number in range(most):
        try:
            rates.take(method(name), who)
        except PurveyorError:
            return number
    return most


def test_a_burst_then_the_rate(rates: Rates, clock: ManualClock) -> None:
    assert taken(rates, "GetInstance") == 20
    clock.advance(0.5)
    assert taken(rates, "GetInstance") == 5
    clock.advance(1000)
    assert taken(rates, "GetInstance") == 20


def test_the_refusal_says_when_the_next_token_is_there(rates: Rates, clock: ManualClock) -> None:
    taken(rates, "Provision")

    with pytest.raises(PurveyorError) as refused:
        rates.take(method("Provision"), ALICE)

    assert refused.value.reason is Reason.RATE_LIMITED
    assert refused.value.retry_after == pytest.approx(0.5)
    assert refused.value.metadata == {"what": "writes", "limit_per_second": "2", "burst": "3"}
    assert refused.value.quota_subject == "principal/writes"
    clock.advance(0.5)
    assert taken(rates, "Provision") == 1


def test_refusals_cost_no_tokens(rates: Rates, clock: ManualClock) -> None:
    taken(rates, "Provision")
    for _ in range(50):
        taken(rates, "Provision")
    clock.advance(0.5)
    assert taken(rates, "Provision") == 1


def test_reads_writes_and_principals_do_not_share(rates: Rates) -> None:
    assert (taken(rates, "Provision"), taken(rates, "Bind")) == (3, 0)
    assert taken(rates, "GetInstance") == 20
    assert taken(rates, "WatchEvents") == 0  # to open a stream is a read
    assert taken(rates, "Provision", BOB) == 3


def test_removals_go_on_when_the_tokens_of_writes_are_gone(rates: Rates) -> None:
    taken(rates, "Provision")

    assert taken(rates, "Deprovision") == 3
    assert taken(rates, "Unbind") == 0
    with pytest.raises(PurveyorError) as refused:
        rates.take(method("CancelOperation"), ALICE)
    assert refused.value.metadata["what"] == "removals"


def test_whoever_only_removes_has_both_shares(rates: Rates) -> None:
    assert taken(rates, "Unbind") == 6


def test_what_removes_is_known_to_the_contract() -> None:
    assert METHODS.keys() >= REMOVALS


def test_nobody_in_particular_and_no_rate_are_no_limit(clock: ManualClock) -> None:
    assert taken(Rates(SETTINGS, clock), "Provision", LOCAL) == 1000
    free = Rates(RpcSettings(reads_per_second=0, writes_per_second=0), clock)
    assert taken(free, "Provision") == taken(free, "GetInstance") == taken(free, "Unbind") == 1000


def test_a_crowd_of_a_million_stays_within_the_bound(clock: ManualClock) -> None:
    buckets = Buckets(1.0, 5.0, 1000, clock)
    assert sum(buckets.take(f"principal-{number}") for number in range(1_000_000)) == 0.0
    assert len(buckets) == 1000


def test_whoever_floods_is_not_forgotten_for_a_crowd(clock: ManualClock) -> None:
    buckets = Buckets(1.0, 5.0, 100, clock)
    got = 0
    for number in range(10_000):
        got += buckets.take("flood") == 0.0
        buckets.take(f"principal-{number}")
    assert got == 5


def test_a_crowd_that_has_gone_leaves_the_memory(clock: ManualClock) -> None:
    buckets = Buckets(1.0, 5.0, 1000, clock)
    for number in range(1000):
        buckets.take(f"principal-{number}")
    clock.advance(10)
    for number in range(1000):
        buckets.take(f"other-{number % 3}")
    assert len(buckets) == 3


def test_long_subjects_are_kept_short_and_apart() -> None:
    long, other = "x" * 10_000, "x" * 9_999 + "y"
    assert key_of("alice") == "alice"
    assert len(key_of(long)) == LONGEST_KEY
    assert key_of(long) != key_of(other)


@settings(max_examples=100, deadline=None)
@given(st.lists(st.floats(0, 3), min_size=1, max_size=200), st.integers(1, 20), st.integers(1, 10))
def test_nobody_gets_more_than_the_burst_and_the_rate(pauses: list[float], rate: int, burst: int) -> None:
    clock = ManualClock()
    buckets = Buckets(rate, burst, 10, clock)
    got = 0
    for pause in pauses:
        clock.advance(pause)
        got += buckets.take("alice") == 0.0
        wait = buckets.take("alice")
        got += wait == 0.0
        assert 0 <= wait <= 1 / rate + 1e-6
    assert got <= burst + rate * sum(pauses) + 1e-6
