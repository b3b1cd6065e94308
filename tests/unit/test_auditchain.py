"""Whatever is done to audit records without their key is found, and found where it was done.

The controls print what they have found; `pytest -s` shows the table.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta

import msgspec
import pytest
from msgspec.structs import replace

from purveyor_server.domain import auditchain
from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.auditchain import START, ChainKeys, Fault, Finding, Link, Marks, Verifier

NOW = datetime(2026, 1, 1, tzinfo=UTC)
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
OLD, NEW = ChainKeys("1", {"1": b"a" * 32}), ChainKeys("2", {"1": b"a" * 32, "2": b"b" * 32})
COUNT = 20


def chained(first: int, last: int, keys: ChainKeys, chain: bytes = START) -> list[Link]:
    made = []
    for number in range(first, last + 1):
        at = NOW + timedelta(seconds=number)
        body = msgspec.json.encode(AuditRecord(at=at, principal=f"p{number}", action="Bind", resource="instance/a"))
        chain = auditchain.link(keys.newest, keys.primary, chain, number, body)
        made.append(Link(number, (at - EPOCH) // timedelta(microseconds=1), body, keys.primary, chain))
    return made


def whole() -> list[Link]:
    """Records whose key changed in the middle."""
    older = chained(1, COUNT // 2, OLD)
    assert older[-1].chain is not None
    return older + chained(COUNT // 2 + 1, COUNT, NEW, older[-1].chain)


def chain_of(record: Link) -> bytes:
    assert record.chain is not None
    return record.chain


def marks(records: list[Link], began: int = 0) -> Marks:
    head = auditchain.head(NEW, COUNT, began, chain_of(whole()[-1]))
    return Marks(head, None, max(record.number for record in records))


def judged(records: list[Link], found: Marks, anchors: dict[int, bytes] | None = None) -> Verifier:
    judge = Verifier(NEW, found, anchors)
    end = COUNT if found.head is None else found.head.number
    for record in sorted(records, key=lambda record: record.number):
        if judge.number < record.number <= end:
            judge.feed(record)
    judge.end(found)
    return judge


def places(judge: Verifier) -> list[tuple[Fault, int, int]]:
    return [(finding.fault, finding.number, finding.last) for finding in judge.findings]


def test_what_was_written_is_whole_over_a_change_of_keys() -> None:
    judge = judged(whole(), marks(whole()))
    assert (judge.findings, judge.checked, judge.number) == ([], COUNT, COUNT)


def change_a_byte(records: list[Link]) -> list[Link]:
    records[6] = replace(records[6], body=records[6].body.replace(b"p7", b"p8"))
    return records


def change_the_time(records: list[Link]) -> list[Link]:
    records[6] = replace(records[6], at=records[6].at + 1)
    return records


def change_the_chain(records: list[Link]) -> list[Link]:
    records[6] = replace(records[6], chain=bytes(32))
    return records


def delete_one(records: list[Link]) -> list[Link]:
    return records[:6] + records[7:]


def swap_two(records: list[Link]) -> list[Link]:
    third, eighth = records[2], records[7]
    records[2], records[7] = replace(eighth, number=3), replace(third, number=8)
    return records


def cut_the_tail(records: list[Link]) -> list[Link]:
    return records[:-3]


def cut_the_start(records: list[Link]) -> list[Link]:
    return records[3:]


def insert_between(records: list[Link]) -> list[Link]:
    """One more, everything behind it moved on by one: the last one stands behind the end."""
    forged = replace(records[6], body=records[6].body.replace(b"p7", b"px"))
    return records[:6] + [forged] + [replace(record, number=record.number + 1) for record in records[6:]]


def append_one(records: list[Link]) -> list[Link]:
    return [*records, replace(records[-1], number=COUNT + 1)]


def strip_the_chain(records: list[Link]) -> list[Link]:
    records[6] = replace(records[6], key=None, chain=None)
    return records


def name_another_key(records: list[Link]) -> list[Link]:
    records[6] = replace(records[6], key="9")
    return records


TAMPERED: list[tuple[Callable[[list[Link]], list[Link]], set[tuple[Fault, int, int]]]] = [
    (change_a_byte, {(Fault.CHANGED, 7, 7)}),
    (change_the_time, {(Fault.CHANGED, 7, 7)}),
    (change_the_chain, {(Fault.CHANGED, 7, 7), (Fault.CHANGED, 8, 8)}),
    (delete_one, {(Fault.MISSING, 7, 7)}),
    (swap_two, {(Fault.CHANGED, 3, 3), (Fault.CHANGED, 4, 4), (Fault.CHANGED, 8, 8), (Fault.CHANGED, 9, 9)}),
    (cut_the_tail, {(Fault.MISSING, COUNT - 2, COUNT)}),
    (cut_the_start, {(Fault.MISSING, 1, 3)}),
    (insert_between, {(Fault.CHANGED, number, number) for number in range(7, COUNT + 1)}
     | {(Fault.HEAD, COUNT, COUNT), (Fault.INSERTED, COUNT + 1, COUNT + 1)}),
    (append_one, {(Fault.INSERTED, COUNT + 1, COUNT + 1)}),
    (strip_the_chain, {(Fault.UNCHAINED, 7, 7), (Fault.CHANGED, 8, 8)}),
    (name_another_key, {(Fault.UNKNOWN_KEY, 7, 7)}),
]  # fmt: skip


@pytest.mark.parametrize(("tamper", "wanted"), TAMPERED, ids=[tamper.__name__ for tamper, _ in TAMPERED])
def test_control_tampering_is_found_where_it_was_done(
    tamper: Callable[[list[Link]], list[Link]], wanted: set[tuple[Fault, int, int]]
) -> None:
    records = tamper(whole())
    judge = judged(records, marks(records))
    print(f"control {tamper.__name__}: {', '.join(f'{f.fault} {f.number}-{f.last}' for f in judge.findings[:4])}")
    assert set(places(judge)) == wanted


def test_control_a_cut_tail_with_a_forged_head_is_found() -> None:
    records = whole()[:-3]
    last = records[-1]
    forger = ChainKeys("2", {"2": b"c" * 32})
    forged = auditchain.head(forger, last.number, 0, chain_of(last))
    judge = judged(records, Marks(forged, None, last.number))
    assert places(judge) == [(Fault.HEAD, last.number, last.number)]


def test_control_an_older_state_put_back_whole_is_found_by_an_anchor_alone() -> None:
    older = whole()[:12]
    found = Marks(auditchain.head(NEW, 12, 0, chain_of(older[-1])), None, 12)
    assert judged(older, found).findings == []
    anchors = {15: chain_of(whole()[14])}
    assert places(judged(older, found, anchors)) == [(Fault.ANCHOR, 15, 15)]
    assert judged(older, found, {12: chain_of(older[-1])}).findings == []
    assert places(judged(older, found, {12: bytes(32)})) == [(Fault.ANCHOR, 12, 12)]


def test_without_a_head_nothing_is_believed() -> None:
    assert places(judged(whole(), Marks(None, None, COUNT))) == [(Fault.HEAD, COUNT, COUNT)]


def test_a_checkpoint_stands_for_what_was_cut_off_and_a_forged_one_does_not() -> None:
    records = whole()
    cut = auditchain.cut(OLD, 5, 0, 5, chain_of(records[4]))
    found = replace(marks(records), cut=cut)
    judge = judged(records[5:], found)
    assert (judge.findings, judge.checked) == ([], COUNT - 5)
    forged = replace(found, cut=replace(cut, number=7, chain=chain_of(records[6])))
    assert places(judged(records[7:], forged)) == [(Fault.CHECKPOINT, 7, 7), (Fault.MISSING, 1, 7)]


def test_records_older_than_the_chain_are_counted_and_only_at_its_begin() -> None:
    older = [replace(record, key=None, chain=None) for record in chained(1, 3, OLD)]
    later = chained(4, COUNT, NEW)
    head = auditchain.head(NEW, COUNT, 3, chain_of(later[-1]))
    judge = judged(older + later, Marks(head, None, COUNT))
    assert (judge.findings, judge.before_chain) == ([], 3)
    assert places(judged([*older[:2], *later], Marks(head, None, COUNT))) == [(Fault.MISSING, 3, 3)]


def test_faults_are_counted_beyond_those_that_are_told() -> None:
    judge = Verifier(OLD, Marks(None, None, 0))
    for number in range(1, 500):
        judge.feed(Link(number, 0, b"{}", "1", bytes(32)))
    assert (judge.faults, len(judge.findings)) == (499, auditchain.MAX_FINDINGS)
    assert judge.findings[0] == Finding(Fault.CHANGED, 1, 1, judge.findings[0].sentence)


def test_keys_are_not_shown() -> None:
    assert repr(NEW) == "ChainKeys(1, 2)"
