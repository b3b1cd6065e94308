"""A refusal becomes one status that is small enough to arrive."""

from __future__ import annotations

import grpc
import pytest

from purveyor.v1 import error_reason_pb2
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource, Violation
from purveyor_server.rpc.errors import MAX_DETAILS, TABLE, cut, internal, to_status
from tests.rpc.failures import unpacked


def test_every_reason_has_a_row() -> None:
    assert set(Reason) == set(TABLE)


def test_reasons_of_the_domain_are_those_of_the_contract() -> None:
    declared = {name.removeprefix("ERROR_REASON_") for name in error_reason_pb2.ErrorReason.keys()}  # noqa: SIM118 - no dict

    assert declared - {"UNSPECIFIED"} == {reason.value for reason in Reason}


@pytest.mark.parametrize("reason", list(Reason))
def test_every_reason_becomes_one_error_info(reason: Reason) -> None:
    status = to_status(PurveyorError(reason, "text", metadata={"key": "value"}))

    details = unpacked(status)
    assert (details["ErrorInfo"].reason, details["ErrorInfo"].domain) == (reason.value, "purveyor.dev")
    assert dict(details["ErrorInfo"].metadata) == {"key": "value"}
    assert status.code == TABLE[reason].code.value[0]
    assert ("RetryInfo" in details) is (TABLE[reason].retry_after is not None)


def test_details_follow_what_the_refusal_says() -> None:
    error = PurveyorError(
        Reason.BINDINGS_EXIST,
        "there are bindings",
        violations=(Violation("instance_id", "is bound"),),
        resource=Resource("instance", "orders"),
        preconditions=(Precondition("BINDINGS_EXIST", "app", "unbind it"),),
        quota_subject="tenant",
        retry_after=2.5,
    )

    details = unpacked(to_status(error))

    assert details["BadRequest"].field_violations[0].field == "instance_id"
    assert details["BadRequest"].field_violations[0].reason == "BINDINGS_EXIST"
    assert (details["ResourceInfo"].resource_type, details["ResourceInfo"].resource_name) == ("instance", "orders")
    assert details["PreconditionFailure"].violations[0].subject == "app"
    assert details["QuotaFailure"].violations[0].subject == "tenant"
    assert details["RetryInfo"].retry_delay.ToMilliseconds() == 2500


def test_a_defect_tells_its_request_id_and_nothing_else() -> None:
    status = to_status(internal("r-1"), "r-1")

    details = unpacked(status)
    assert (status.code, status.message) == (grpc.StatusCode.INTERNAL.value[0], "internal error")
    assert details["RequestInfo"].request_id == "r-1"
    assert dict(details["ErrorInfo"].metadata) == {"request_id": "r-1"}


@pytest.mark.parametrize("text", ["x" * 5000, "\u20ac" * 5000, "\U0001f600" * 5000])
def test_details_stay_small_whatever_they_hold(text: str) -> None:
    error = PurveyorError(
        Reason.INVALID_PARAMETERS,
        text,
        metadata={f"{number}{text}": text for number in range(40)},
        violations=tuple(Violation(f"{number}{text}", text) for number in range(200)),
        resource=Resource("plan", text),
        preconditions=tuple(Precondition(text, text, text) for _ in range(50)),
        quota_subject=text,
        retry_after=1,
    )

    status = to_status(error, "r-1")

    assert status.ByteSize() <= MAX_DETAILS
    details = unpacked(status)
    assert details["ErrorInfo"].reason == "INVALID_PARAMETERS"
    assert 0 < len(details["BadRequest"].field_violations) <= 20


def test_at_most_twenty_violations_are_listed() -> None:
    error = PurveyorError(Reason.INVALID_PARAMETERS, "no", violations=(Violation("a", "b"),) * 30)

    assert len(unpacked(to_status(error))["BadRequest"].field_violations) == 20


@pytest.mark.parametrize(("text", "width"), [("short", 10), ("exactly ten", 11), ("\u20ac" * 10, 9), ("a" * 20, 7)])
def test_cut_keeps_whole_characters(text: str, width: int) -> None:
    result = cut(text, width)

    assert len(result.encode()) <= width
    assert text.startswith(result.removesuffix("..."))
