"""What is particular to SQLite about the times of bindings: which indexes are used, and what an older store is given."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

import pytest

from purveyor_server.domain.states import BindingState
from purveyor_server.store.sqlite import migrate, rows
from purveyor_server.store.sqlite.queries import load
from tests.fakes.situations import NOW, binding, instance

MIGRATIONS = sorted((Path(migrate.__file__).parent / "migrations").glob("*.sql"))
QUERIES = load("leases")


def numbers(before: bool) -> list[Path]:  # noqa: FBT001 - one of two halves
    """The migrations up to the one of leases, or that one and those after it."""
    place = next(index for index, path in enumerate(MIGRATIONS) if path.stem.endswith("_leases"))
    return MIGRATIONS[:place] if before else MIGRATIONS[place:]


@pytest.fixture
def old() -> Iterator[sqlite3.Connection]:
    """A store of the time before bindings had times."""
    connection = sqlite3.connect(":memory:")
    for path in numbers(before=True):
        connection.executescript(path.read_text(encoding="utf-8"))
    yield connection
    connection.close()


def upgrade(connection: sqlite3.Connection) -> None:
    for path in numbers(before=False):
        connection.executescript(path.read_text(encoding="utf-8"))


@pytest.mark.parametrize(("name", "index"), [
    ("expiry", "bindings_ending"), ("rotation", "bindings_rotating"), ("revocation", "bindings_blocked"),
    ("rotated", "bindings_rotated"),
])  # fmt: skip
def test_a_list_walks_its_index_and_nothing_else(old: sqlite3.Connection, name: str, index: str) -> None:
    upgrade(old)
    keys = (1,) if name == "rotated" else (1, "uid", 5, None, 10)
    plan = [row[3] for row in old.execute(f"EXPLAIN QUERY PLAN {QUERIES[name]}", keys)]
    assert len(plan) == 1
    assert plan[0].startswith("SEARCH")
    assert f"INDEX {index} " in plan[0]


def test_what_an_older_store_holds_ends_and_is_tried_again(old: sqlite3.Connection) -> None:
    of = instance()
    end = datetime(2026, 3, 1, 12, 30, 15, 250_000, tzinfo=UTC)
    for state, ends in {
        BindingState.ACTIVE: end, BindingState.REVOCATION_BLOCKED: end, BindingState.DELETED: end,
        BindingState.FAILED: None,
    }.items():  # fmt: skip
        record = binding(of, state, binding_id=state.lower(), expires_at=ends)
        old.execute(
            "INSERT INTO bindings (uid, tenant, instance_id, instance_uid, binding_id, state, last_operation, created_at,"
            " updated_at, deleted_at, body, counted_service, counted_plan) VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?, ?)",
            rows.binding_row(record, rows.encode(record))[:13],
        )
    upgrade(old)
    found = old.execute(
        "SELECT state, expires_at, rotate_at, retry_at, rotated_at FROM bindings ORDER BY state"
    ).fetchall()
    assert found == [
        ("ACTIVE", rows.micros(end.replace(microsecond=0)), None, None, None),
        ("DELETED", None, None, None, None),
        ("FAILED", None, None, None, None),
        ("REVOCATION_BLOCKED", None, None, 0, None),
    ]
    ended = old.execute(QUERIES["expiry"], (-1, "", rows.micros(NOW), None, 10)).fetchall()
    assert ended == []
