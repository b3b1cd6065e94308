"""A flood of refused calls leaves few records, and every call is counted in one of them."""

from __future__ import annotations

from datetime import UTC, datetime

import pytest

from purveyor_server.domain.audit import AuditOutcome, AuditRecord
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.kit.clock import ManualClock
from purveyor_server.lifecycle.denials import HOURLY, KEYS, Denials, host_of

FLOOD = 100_000


class Notes:
    """Takes records, or refuses them."""

    def __init__(self) -> None:
        self.records: list[AuditRecord] = []
        self.refuses = False

    async def note(self, *records: AuditRecord) -> None:
        if self.refuses:
            raise PurveyorError(Reason.STORE_UNAVAILABLE, "not now")
        self.records += records


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock(datetime(2026, 1, 1, tzinfo=UTC))


@pytest.fixture
def notes() -> Notes:
    return Notes()


def counted(notes: Notes) -> int:
    counts = [record.details["count"] for record in notes.records]
    return sum(count for count in counts if isinstance(count, int))


async def test_equal_refusals_are_one_record_with_count_and_times(notes: Notes, clock: ManualClock) -> None:
    denials = Denials(notes, clock)
    for port in range(3):
        denials.denied(
            Reason.PERMISSION_DENIED, principal="ann", origin=f"ipv4:10.0.0.1:{port}", method="Bind", tenant="a"
        )
        clock.advance(10)
    assert await denials.flush() == 1
    (record,) = notes.records
    assert (record.principal, record.origin, record.tenant) == ("ann", "ipv4:10.0.0.1", "a")
    assert (record.outcome, record.resource) == (AuditOutcome.DENIED, "method/Bind")
    assert record.details == {
        "reason": "PERMISSION_DENIED",
        "count": 3,
        "first": "2026-01-01T00:00:00+00:00",
        "last": "2026-01-01T00:00:20+00:00",
    }
    assert await denials.flush() == 0


async def test_control_a_flood_leaves_a_bounded_number_of_records(notes: Notes, clock: ManualClock) -> None:
    denials = Denials(notes, clock)
    for number in range(FLOOD):
        denials.denied(Reason.UNAUTHENTICATED, origin=f"ipv4:10.{number % 256}.{number // 256}.1:1", tenant=str(number))
    await denials.flush()
    print(f"control flood: {FLOOD} refused calls, {len(notes.records)} records")
    assert len(notes.records) == KEYS + 1
    assert counted(notes) == FLOOD
    assert denials.refused == {"UNAUTHENTICATED": FLOOD}


async def test_a_flood_of_an_hour_is_bounded_too(notes: Notes, clock: ManualClock) -> None:
    denials = Denials(notes, clock)
    for minute in range(60):
        for number in range(100):
            denials.denied(Reason.PERMISSION_DENIED, principal=f"{minute}-{number}")
        await denials.flush()
        clock.advance(59)
    assert len(notes.records) <= HOURLY + 60
    assert counted(notes) == 6000
    clock.advance(60)
    await denials.flush()
    denials.denied(Reason.PERMISSION_DENIED, principal="told apart again")
    await denials.flush()
    assert notes.records[-1].principal == "told apart again"


async def test_a_store_that_refuses_loses_nothing(notes: Notes, clock: ManualClock) -> None:
    denials = Denials(notes, clock)
    denials.denied(Reason.PERMISSION_DENIED, principal="ann")
    notes.refuses = True
    await denials.try_flush()
    clock.advance(1)
    denials.denied(Reason.PERMISSION_DENIED, principal="ann")
    notes.refuses = False
    await denials.try_flush()
    assert [(record.details["count"], record.details["first"]) for record in notes.records] == [
        (2, "2026-01-01T00:00:00+00:00")
    ]


async def test_other_refusals_are_not_counted_and_long_names_are_cut(notes: Notes, clock: ManualClock) -> None:
    denials = Denials(notes, clock)
    denials.denied(Reason.INVALID_REQUEST, principal="ann")
    assert await denials.flush() == 0
    denials.denied(Reason.PERMISSION_DENIED, principal="x" * 10_000)
    await denials.flush()
    assert len(notes.records[0].principal) == 128


@pytest.mark.parametrize(
    ("origin", "host"),
    [("ipv4:1.2.3.4:80", "ipv4:1.2.3.4"), ("ipv6:[::1]:80", "ipv6:[::1]"), ("unix:", "unix:"), ("", "")],
)
def test_a_host_has_no_port(origin: str, host: str) -> None:
    assert host_of(origin) == host
