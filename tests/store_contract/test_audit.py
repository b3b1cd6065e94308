"""Audit records in a store: one chain over group commits, cuts behind checkpoints, and what is done to the file is found."""

from __future__ import annotations

import asyncio
import sqlite3
from collections.abc import Awaitable, Callable
from datetime import timedelta

import pytest
from msgspec.structs import replace

from purveyor_server.domain import filters
from purveyor_server.domain.audit import AuditOutcome, AuditRecord
from purveyor_server.domain.auditchain import ChainKeys, Fault, Verifier
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.kit.clock import ManualClock
from purveyor_server.store.contract import SYSTEM, Accept, Decision, Retention, Situation, Store, Writes
from purveyor_server.store.operating import AuditLook
from tests.store_contract.backends import Backend, SqliteBackend
from tests.store_contract.records import START

DAY = timedelta(days=1)
KEYS = ChainKeys("1", {"1": b"k" * 32})
MINTED = {"key.audit.1": b"sealed"}
OpenStore = Callable[..., Awaitable[Store]]


def record(name: str, tenant: str = "acme", clock: ManualClock | None = None) -> AuditRecord:
    at = clock.now() if clock else START
    return AuditRecord(at=at, principal=name, action="Bind", resource="instance/db", tenant=tenant)


async def verified(store: Store) -> Verifier:
    marks = await store.audit_marks()
    judge = Verifier(KEYS, marks)
    last = marks.head.number if marks.head is not None else marks.newest
    while page := await store.audit_links(judge.number, last, 7):
        for link in page:
            judge.feed(link)
    judge.end(marks)
    return judge


def accept(name: str, *, fails: bool = False) -> Accept:
    def decide(_situation: Situation) -> Decision:
        if fails:
            raise PurveyorError(Reason.INVALID_REQUEST, "no")
        return Decision(Writes(audit=(record(name), record(f"{name} too"))))

    return Accept(SYSTEM, "acme", name, decide)


@pytest.fixture
async def chained(open_store: OpenStore) -> Store:
    store = await open_store()
    assert await store.open_chain(KEYS, MINTED) == ""
    return store


async def test_one_chain_over_commands_of_one_commit_of_which_some_fail(chained: Store) -> None:
    commands = [chained.accept(accept(f"c{number}", fails=number % 3 == 0)) for number in range(30)]
    found = await asyncio.gather(*commands, return_exceptions=True)
    assert sum(isinstance(one, PurveyorError) for one in found) == 10
    judge = await verified(chained)
    assert (judge.findings, judge.checked, judge.number) == ([], 40, 40)
    names = [one.record.principal for one in (await chained.audit((), AuditLook(100, newest_first=False))).records]
    assert names == [name for n in range(30) if n % 3 for name in (f"c{n}", f"c{n} too")]


async def test_the_chain_goes_on_over_openings_and_keys(chained: Store, open_store: OpenStore) -> None:
    await chained.note(record("a"))
    await chained.close()
    store = await open_store()
    assert await store.open_chain(KEYS, {}) == ""
    newer = ChainKeys("2", {**KEYS.by_label, "2": b"n" * 32})
    assert await store.open_chain(newer, {"key.audit.2": b"sealed"}) == ""
    await store.note(record("b"), record("c"))
    links = await store.audit_links(0, 10, 10)
    assert [link.key for link in links] == ["1", "2", "2"]
    marks = await store.audit_marks()
    judge = Verifier(newer, marks)
    for link in links:
        judge.feed(link)
    judge.end(marks)
    assert judge.findings == []


async def test_nothing_is_recorded_without_the_keys_of_a_chain_that_has_begun(
    chained: Store, open_store: OpenStore
) -> None:
    await chained.close()
    store = await open_store()
    with pytest.raises(RuntimeError, match="open_chain"):
        await store.note(record("a"))
    assert await store.open_chain(KEYS, {}) == ""
    await store.note(record("b"))
    assert (await verified(store)).checked == 1


async def test_records_of_the_time_before_the_chain_stay_and_are_marked(open_store: OpenStore) -> None:
    store = await open_store()
    await store.note(record("old"), record("older"))
    assert await store.open_chain(KEYS, MINTED) == ""
    await store.note(record("new"))
    judge = await verified(store)
    assert (judge.findings, judge.before_chain, judge.checked) == ([], 2, 3)


async def test_retention_cuts_behind_a_checkpoint_and_the_newest_record_stays(
    chained: Store, clock: ManualClock
) -> None:
    for number in range(25):
        await chained.note(record(str(number), clock=clock))
    policy = Retention(DAY, DAY, DAY, max_events=1_000_000, limit=10, audit=DAY)
    assert await chained.retain(policy) == 0
    clock.advance(DAY.total_seconds() * 2)
    removed = []
    while count := await chained.retain(policy):
        removed.append(count)
        assert (await verified(chained)).findings == []
    assert removed == [10, 10, 4]
    marks = await chained.audit_marks()
    assert marks.cut is not None
    assert (marks.cut.number, marks.cut.removed, marks.newest) == (24, 4, 25)
    await chained.note(record("goes on", clock=clock))
    judge = await verified(chained)
    assert (judge.findings, judge.checked) == ([], 2)


async def test_filters_and_pages_look_at_a_bounded_number(chained: Store, clock: ManualClock) -> None:
    for number in range(30):
        clock.advance(60)
        await chained.note(record(f"p{number % 2}", tenant=f"t{number % 3}", clock=clock))
    where = filters.parse('principal = p1 AND tenant = t0 AND NOT act_time < "2026-01-01T00:10:00Z"', filters.AUDIT)
    found, look, pages = [], AuditLook(2, span=7), 0
    while True:
        page = await chained.audit(where, look)
        found += [one.record.number for one in page.records]
        pages += 1
        if not page.more:
            break
        look = replace(look, start=page.more)
    assert found == [28, 22, 16, 10]
    assert pages == 5
    first = await chained.audit((), AuditLook(3, newest_first=False))
    assert [one.record.number for one in first.records] == [1, 2, 3]
    assert first.records[1].previous == first.records[0].chain
    assert first.more == 4
    with pytest.raises(PurveyorError):
        filters.parse("outcome = NOTHING", filters.AUDIT)


TAMPERS = [
    ("DELETE FROM audit WHERE number > 3", Fault.MISSING, 4),
    ("DELETE FROM audit WHERE number > 3; DELETE FROM audit_head", Fault.MISSING, 4),
    ("DELETE FROM audit; DELETE FROM audit_head", Fault.MISSING, 1),
    ("INSERT INTO audit (number, at, body) SELECT 6, at, body FROM audit WHERE number = 5", Fault.UNCHAINED, 6),
    ("UPDATE audit_head SET number = 4, chain = (SELECT chain FROM audit WHERE number = 4)", Fault.MISSING, 6),
    (
        "UPDATE audit SET body = CAST(replace(CAST(body AS TEXT), 'p5', 'p6') AS BLOB) WHERE number = 5",
        Fault.CHANGED,
        5,
    ),
]


@pytest.mark.parametrize(("sql", "fault", "number"), TAMPERS)
async def test_control_what_was_done_to_a_closed_store_is_found_for_good(
    chained: Store, open_store: OpenStore, backend: Backend, sql: str, fault: Fault, number: int
) -> None:
    assert isinstance(backend, SqliteBackend)
    await chained.note(*[record(f"p{n}") for n in range(1, 6)])
    await chained.close()
    connection = sqlite3.connect(backend.path)
    connection.executescript(sql)
    connection.close()
    for opening in range(2):
        store = await open_store()
        why = await store.open_chain(KEYS, {})
        assert bool(why) == (opening == 0 and fault is not Fault.CHANGED)
        await store.note(record("goes on"))
        judge = await verified(store)
        print(f"control {sql[:60]!r}: {why or '-'}; {[f'{f.fault} {f.number}-{f.last}' for f in judge.findings]}")
        assert (fault, number) in {(finding.fault, finding.number) for finding in judge.findings}
        await store.close()
    broken = await (await open_store()).audit(filters.parse("outcome = BROKEN", filters.AUDIT), AuditLook(10))
    assert [one.record.outcome for one in broken.records] == ([] if fault is Fault.CHANGED else [AuditOutcome.BROKEN])
