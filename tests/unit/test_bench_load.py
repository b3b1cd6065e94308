"""What the benchmarks believe of h2load, and what they do not."""

from __future__ import annotations

import pytest
from google.protobuf.message import Message

from tests.benchmarks import house, load
from tests.benchmarks.load import LoadError, Sent
from tests.benchmarks.sides.bare import sized

OUTPUT = """\
finished in 3.25s, 2460.16 req/s, 9.54MB/s
requests: {total} total, {total} started, {total} done, {good} succeeded, {bad} failed, {bad} errored, 0 timeout
status codes: {good} 2xx, 0 3xx, 0 4xx, 0 5xx
traffic: 496.40KB (508314) total, 450B (450) headers (space savings 95.56%), 488.89KB ({data}) data
"""


def said(total: int, data: int, bad: int = 0) -> str:
    return OUTPUT.format(total=total, good=total - bad, bad=bad, data=data)


def test_answers_of_the_expected_length_are_believed() -> None:
    assert load.exactly(125, 4000)(load.read_output(said(125, 125 * 4005), 125))
    assert load.about(125, 4000)(load.read_output(said(125, 125 * 4005 + 60), 125))


@pytest.mark.parametrize("errors", [2, 10, 125])
def test_planted_failed_answers_are_found(errors: int) -> None:
    """A gRPC error is an HTTP 200 without a message: h2load counts it as a success, its bytes are missing."""
    data = load.read_output(said(125, (125 - errors) * 4005), 125)

    assert not load.exactly(125, 4000)(data)
    assert not load.about(125, 4000)(data)


def test_failures_over_http_are_found() -> None:
    with pytest.raises(LoadError, match="124 of 125"):
        load.read_output(said(125, 125 * 4005, bad=1), 125)


def test_requests_that_were_not_sent_are_found() -> None:
    with pytest.raises(LoadError, match="100 of 125"):
        load.read_output(said(100, 100 * 4005), 125)


def test_unknown_words_are_no_success() -> None:
    with pytest.raises(LoadError, match="something else"):
        load.read_output("h2load: connection refused", 125)


def test_a_status_in_the_log_is_judged() -> None:
    assert load.read_log("1000\t200\t50\n2000\t200\t60\n") == [Sent(1000, 1050), Sent(2000, 2060)]
    with pytest.raises(LoadError, match="status -1"):
        load.read_log("1000\t-1\t50\n")


def steady(since: int, count: int, every: int) -> list[Sent]:
    """One request after the other."""
    return [Sent(since + number * every, since + (number + 1) * every) for number in range(count)]


def test_the_rate_is_taken_while_enough_callers_are_at_work() -> None:
    # Four callers at 1000/s each. One starts a second late and one ends a second early: three are always at work.
    logs = [steady(0, 4000, 1000), steady(0, 4000, 1000), steady(1_000_000, 3000, 1000), steady(0, 3000, 1000)]

    ran = load.summarize(logs)

    assert ran.rate == pytest.approx(14_000 / 4)  # 3, 4, 4 and 3 thousand in four seconds
    assert ran.median == pytest.approx(1.0)


def test_a_tail_of_one_caller_does_not_count() -> None:
    logs = [steady(0, 4000, 1000), steady(0, 1000, 1000), steady(0, 1000, 1000), steady(0, 1000, 1000)]

    assert load.summarize(logs).rate == pytest.approx(4000)


def test_a_run_that_was_mostly_uneven_is_refused() -> None:
    logs = [steady(0, 19_000, 1000), steady(0, 1000, 1000), steady(0, 1000, 1000), steady(0, 1000, 1000)]

    with pytest.raises(LoadError, match="enough callers"):
        load.summarize(logs)


def test_without_h2load_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(LoadError, match="nghttp2-client"):
        load.program()


def test_a_message_is_framed_as_grpc_frames_it() -> None:
    assert load.frame(b"abc") == b"\0\0\0\0\3abc"


def test_accepted_means_there() -> None:
    there = [("a", "1"), ("a", "2"), ("b", "1")]

    house.check_accepted(there, 3)


@pytest.mark.parametrize(
    ("there", "accepted"),
    [([("a", "1"), ("a", "2")], 3), ([("a", "1")] * 2, 2), ([("a", "1"), ("a", "2")], 1), ([], 1)],
    ids=["lost", "twice", "more", "nothing"],
)
def test_what_was_answered_and_is_not_there_is_found(there: list[tuple[str, str]], accepted: int) -> None:
    with pytest.raises(house.NotAcceptedError):
        house.check_accepted(there, accepted)


def test_parameters_have_the_size_that_is_told() -> None:
    request: Message = house.provision_request("tenant-000")

    assert request.parameters.ByteSize() == house.PARAMETER_BYTES  # type: ignore[attr-defined] # of this message


@pytest.mark.parametrize("size", [3, 60, 127, 128, 129, 130, 131, 1054, 3659, 20_000])
def test_the_yardstick_has_messages_of_the_same_size(size: int) -> None:
    assert abs(sized(size).ByteSize() - size) <= 1
