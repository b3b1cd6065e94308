"""What the rows about streams, pages and backlogs believe, and planted failures that they must find."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from tests.benchmarks import etcd
from tests.benchmarks.populate import Sample, numbered
from tests.benchmarks.processes import SideError
from tests.benchmarks.rows.events import check, latencies
from tests.benchmarks.rows.page import Pages, chosen
from tests.benchmarks.sides.followers import judge
from tests.benchmarks.sides.wire import MESSAGES, Given
from tests.benchmarks.talk import talking

CLEAN = {"missing": 0, "repeated": 0, "strange": 0, "disordered": 0}


def told(*numbers: int) -> list[Given]:
    """Changes with revisions that rise."""
    return [Given(number, revision) for revision, number in enumerate(numbers, start=10)]


def test_every_change_once_and_in_order_is_right() -> None:
    # Callers write at the same time: the numbers need not rise, the revisions must.
    assert judge([told(3, 4, 5), told(4, 3, 5)], 3, 3) == CLEAN


@pytest.mark.parametrize(
    ("given", "wrong"),
    [
        (told(3, 5), {"missing": 1}),
        ([], {"missing": 3}),
        (told(3, 4, 4, 5), {"repeated": 1}),
        (told(3, 4, 5, 9), {"strange": 1}),
        ([Given(3, 10), Given(4, 12), Given(5, 11)], {"disordered": 1}),
        ([Given(3, 10), Given(4, 10), Given(5, 11)], {"disordered": 1}),
    ],
    ids=["missing", "nothing", "twice", "other", "order", "same revision"],
)
def test_planted_wrong_deliveries_are_found(given: list[Given], wrong: dict[str, int]) -> None:
    assert judge([told(3, 4, 5), given], 3, 3) == CLEAN | wrong


def answer(deliveries: int, **wrong: int) -> dict[str, object]:
    return {"deliveries": deliveries, "wrong": CLEAN | wrong, "failures": []}


def test_a_row_believes_only_all_deliveries() -> None:
    check([answer(30), answer(30)], 60)


@pytest.mark.parametrize(
    "planted", [answer(30, missing=1), answer(30, disordered=2), answer(29), answer(31, repeated=1)]
)
def test_a_row_fails_on_a_planted_wrong_delivery(planted: dict[str, object]) -> None:
    with pytest.raises(SideError, match="of 60 deliveries"):
        check([answer(30), planted], 60)


def test_a_latency_is_from_the_sending_of_its_own_change() -> None:
    # Numbers arrive as JSON keys, which sort as text otherwise: 10 before 9.
    answers = [{"times": {"9": [1.001, 1.003], "10": [2.004]}}, {"times": {"9": [1.002], "10": [2.005]}}]

    assert sorted(latencies([1.0, 2.0], answers)) == pytest.approx([1, 2, 3, 4, 5])


def test_both_sides_are_read_with_the_fields_of_their_own_messages() -> None:
    from purveyor.v1 import broker_service_pb2 as pb  # noqa: PLC0415 - beside the hand-made form of the same message

    ours = pb.WatchEventsResponse(resume_token="t", synced=True)
    ours.events.add(revision=7, instance_id="change-5").instance.tenant = "left out"

    read = MESSAGES["OurMessage"].FromString(ours.SerializeToString())

    assert (read.synced, read.events[0].revision, read.events[0].instance_id) == (True, 7, "change-5")


def test_without_etcd_its_package_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    with pytest.raises(SideError, match="apt-get install etcd-server"):
        etcd.program()


def test_a_client_that_ends_is_told_with_its_log(tmp_path: Path) -> None:
    with pytest.raises(SideError, match="has ended"), talking("opener", tmp_path / "log", "no address") as client:
        client.answer()


def test_copies_differ_in_their_own_texts_and_in_nothing_else() -> None:
    body = b'{"uid":"u-000000000001","tenant":"t","last":"u-000000000001","note":"x"}'
    with closing(sqlite3.connect(":memory:")) as connection:
        connection.execute("CREATE TABLE things (seq INTEGER PRIMARY KEY, uid TEXT, state TEXT, body BLOB)")
        connection.execute("INSERT INTO things VALUES (4, 'u-000000000001', 'READY', ?)", (body,))
        sample = Sample(connection, "things", "uid = 'u-000000000001'", ("u-000000000001",))
        texts = [(numbered("u-000000000001", number),) for number in (30, 31)]
        connection.executemany(sample.statement(), sample.copies(iter(texts)))
        found = connection.execute("SELECT uid, state, body FROM things WHERE seq > 4").fetchall()

    assert [row[0] for row in found] == ["u-00000000001e", "u-00000000001f"]
    assert {row[1] for row in found} == {"READY"}
    assert [row[2] for row in found] == [body.replace(b"u-000000000001", row[0].encode()) for row in found]


def test_pages_are_asked_for_at_both_ends_in_the_middle_and_at_random() -> None:
    pages = [Pages(tenant, [f"{tenant}{page}".encode() for page in range(10)], [""] * 10) for tenant in "ab"]

    first, second = chosen(pages, 0), chosen(pages, 1)

    assert [(one.tenant, index) for one, index in first[:3]] == [("a", 0), ("a", 5), ("a", 9)]
    assert [(one.tenant, index) for one, index in second[:3]] == [("b", 0), ("b", 5), ("b", 9)]
    assert first[3:] != second[3:]
    assert {one.tenant for one, _ in first} == {"a", "b"}
