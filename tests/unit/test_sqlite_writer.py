"""The writer when SQLite fails it: lost batches, COMMITs without an answer, damage, stuck disks."""

from __future__ import annotations

import asyncio
import re
import sqlite3
import threading
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any, ClassVar

import pytest

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.kit.clock import ManualClock
from purveyor_server.store.contract import SYSTEM, Accept, Decision, Page, Scope, Writes
from purveyor_server.store.sqlite.queries import Queries, load
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.store.sqlite.store import SqliteStore, open_store
from tests.store_contract import records
from tests.store_contract.checks import faults
from tests.store_contract.records import provision, write


class Faulty(sqlite3.Connection):
    """A connection that fails at statements that a test names; `error` is raised after `really` ran, if it is set."""

    plan: ClassVar[dict[str, tuple[str, bool]]] = {}

    def execute(self, sql: str, *parameters: Any) -> sqlite3.Cursor:
        name, really = self.plan.get(sql, ("", False))
        if not name:
            return super().execute(sql, *parameters)
        if really:
            super().execute(sql, *parameters)
        error = sqlite3.OperationalError("planted")
        error.sqlite_errorname = name
        raise error


def connect(path: Path, settings: SqliteSettings) -> sqlite3.Connection:
    connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, factory=Faulty)
    connection.execute("PRAGMA journal_mode = WAL")
    return connection


QUICK = SqliteSettings(readers=1, reopen_every=timedelta(milliseconds=10), command_timeout=timedelta(seconds=5))


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[SqliteStore]:
    opened = await open_store(tmp_path / "store.db", clock=ManualClock(), settings=QUICK, connect=connect)
    yield opened
    Faulty.plan = {}
    await opened.close()


async def reason_of(work: Any) -> Reason:
    with pytest.raises(PurveyorError) as caught:
        await work
    return caught.value.reason


async def healthy_again(store: SqliteStore) -> None:
    """The writer reopens by itself; asked again and again, at most ten seconds."""
    async with asyncio.timeout(10):
        while not store._writer.healthy:
            await asyncio.to_thread(threading.Event().wait, 0.01)


@pytest.mark.parametrize("written", [True, False])
async def test_a_commit_without_an_answer_is_unknown_and_the_store_recovers(
    store: SqliteStore, *, written: bool
) -> None:
    await provision(store)
    Faulty.plan = {"COMMIT": ("SQLITE_IOERR_FSYNC", written)}
    assert await reason_of(provision(store, instance_id="lost")) is Reason.OUTCOME_UNKNOWN
    assert await reason_of(store.ping()) is Reason.STORE_UNAVAILABLE
    assert await reason_of(provision(store, instance_id="refused")) is Reason.STORE_UNAVAILABLE
    Faulty.plan = {}
    await healthy_again(store)
    await store.ping()
    assert (await store.instance(SYSTEM, "acme", "lost") is not None) is written
    await provision(store, instance_id="next")
    assert await faults(store, ["acme"]) == []


@pytest.mark.parametrize(
    ("kind", "reason"), [("SQLITE_FULL", Reason.STORE_FULL), ("SQLITE_IOERR_WRITE", Reason.STORE_UNAVAILABLE)]
)
async def test_a_commit_that_certainly_failed_wrote_nothing(store: SqliteStore, kind: str, reason: Reason) -> None:
    Faulty.plan = {"COMMIT": (kind, False)}
    assert await reason_of(provision(store)) is reason
    Faulty.plan = {}
    await store.ping()
    assert await store.instance(SYSTEM, "acme", "db") is None
    await provision(store)
    assert await faults(store, ["acme"]) == []


async def test_a_rollback_that_fails_throws_the_connection_away(store: SqliteStore) -> None:
    Faulty.plan = {"COMMIT": ("SQLITE_FULL", False), "ROLLBACK": ("SQLITE_IOERR", False)}
    assert await reason_of(provision(store)) is Reason.OUTCOME_UNKNOWN
    Faulty.plan = {}
    await healthy_again(store)
    assert await store.instance(SYSTEM, "acme", "db") is None
    await provision(store)


async def test_a_lock_that_a_stranger_holds_refuses_and_passes(store: SqliteStore) -> None:
    Faulty.plan = {"BEGIN IMMEDIATE": ("SQLITE_BUSY", False)}
    work = (provision(store, instance_id=f"i{n}") for n in range(5))
    answers = await asyncio.gather(*work, return_exceptions=True)
    assert {getattr(answer, "reason", None) for answer in answers} == {Reason.STORE_UNAVAILABLE}
    Faulty.plan = {}
    await provision(store)


async def test_a_transaction_that_vanished_is_run_again_one_by_one(store: SqliteStore) -> None:
    """SQLite dropped the transaction, every savepoint with it: the innocent commands are run again."""
    strikes = iter([True])

    def strike(_: object) -> Any:
        if next(strikes, False):
            connection = store._writer._connection
            assert connection is not None
            connection.execute("ROLLBACK")
        made = records.instance(instance_id="victim")
        return records_decision(made)

    work = [provision(store, instance_id=f"i{n}") for n in range(5)]
    victim = store.accept(Accept(SYSTEM, "acme", "victim", strike))
    await asyncio.gather(*work[:3], victim, *work[3:])
    assert len(await store.instances(SYSTEM, "acme", (), Page(100))) == 6
    assert await faults(store, ["acme"]) == []


def records_decision(made: Any) -> Any:
    return Decision(Writes(instances=(made,), operations=(records.operation(made),)))


async def test_a_row_that_cannot_be_decoded_is_unavailable(store: SqliteStore, tmp_path: Path) -> None:
    await provision(store)
    with sqlite3.connect(tmp_path / "store.db") as stranger:
        stranger.execute("UPDATE instances SET body = x'7b22'")
    stranger.close()
    assert await reason_of(store.instance(SYSTEM, "acme", "db")) is Reason.STORE_UNAVAILABLE


async def test_a_command_that_gets_no_answer_in_time_is_unknown(tmp_path: Path) -> None:
    settings = SqliteSettings(readers=1, command_timeout=timedelta(milliseconds=50))
    opened = await open_store(tmp_path / "slow.db", clock=ManualClock(), settings=settings)
    go = threading.Event()

    def slow(_: object) -> Any:
        go.wait(10)
        return records_decision(records.instance())

    assert await reason_of(opened.accept(Accept(SYSTEM, "acme", "db", slow))) is Reason.OUTCOME_UNKNOWN
    go.set()
    await opened.close()
    again = await open_store(tmp_path / "slow.db", clock=ManualClock(), settings=SqliteSettings(readers=1))
    assert await again.instance(SYSTEM, "acme", "db") is not None
    await again.close()


async def test_each_command_waits_for_its_own_time(tmp_path: Path) -> None:
    settings = SqliteSettings(readers=1, command_timeout=timedelta(milliseconds=200))
    opened = await open_store(tmp_path / "slow.db", clock=ManualClock(), settings=settings)
    go, loop = threading.Event(), asyncio.get_running_loop()

    async def slow(name: str) -> float:
        began = loop.time()
        assert (
            await reason_of(opened.accept(Accept(SYSTEM, "acme", name, lambda _: go.wait(10))))  # type: ignore[arg-type, return-value]
            is Reason.OUTCOME_UNKNOWN
        )
        return loop.time() - began

    first = asyncio.create_task(slow("one"))
    await asyncio.wait({first}, timeout=0.1)
    second = asyncio.create_task(slow("two"))
    assert await first >= 0.2
    assert not second.done()
    assert await second >= 0.2
    go.set()
    await opened.close()


async def test_the_log_stays_below_its_limit(tmp_path: Path) -> None:
    settings = SqliteSettings(
        readers=1, wal_autocheckpoint_pages=0, wal_limit_bytes=200_000, wal_check_every=timedelta(0)
    )
    opened = await open_store(tmp_path / "store.db", clock=ManualClock(), settings=settings)
    log = tmp_path / "store.db-wal"
    largest = 0
    for number in range(60):
        await provision(opened, instance_id=f"i{number}", sentence="x" * 20_000)
        if number:  # until the first command the migrations of a new file are in it
            largest = max(largest, log.stat().st_size)
    await opened.close()
    assert largest < 500_000


@pytest.mark.parametrize("topic", ["commands", "claims", "reads", "upkeep"])
async def test_every_statement_fits_the_schema(store: SqliteStore, tmp_path: Path, topic: str) -> None:
    connection = sqlite3.connect(tmp_path / "store.db")
    queries = load(topic)
    for name in queries.names():
        statement = queries[name]
        if name == "of_instance_id":  # a condition, added to a list
            statement = f"SELECT 1 FROM operations WHERE {statement}"
        values = ["0"] * parameters(statement)
        assert connection.execute(f"EXPLAIN {statement}", values).fetchall()
    connection.close()


def parameters(statement: str) -> int:
    """How many values a statement takes: numbered ones may stand twice."""
    numbered = max((int(number) for number in re.findall(r"\?(\d)", statement)), default=0)
    return numbered or statement.count("?")


@pytest.mark.parametrize(
    "name",
    [
        "newest_instance",
        "newest_binding",
        "operation_by_request",
        "unfinished_operations",
        "dependents",
        "steps_of_subject",
    ],
)
async def test_the_reads_of_commands_walk_an_index(store: SqliteStore, tmp_path: Path, name: str) -> None:
    connection = sqlite3.connect(tmp_path / "store.db")
    statement = load("commands")[name]
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", ["0"] * parameters(statement)).fetchall()
    connection.close()
    lines = [line for *_, line in plan if line != "SCAN CONSTANT ROW"]  # a select of expressions, without a table
    assert any(line.startswith("SEARCH") for line in lines)
    assert not [line for line in lines if line.startswith("SCAN") or "TEMP B-TREE" in line]


@pytest.mark.parametrize("name", ["newest", "version", "history", "of_file", "of_request", "instances_of_plan"])
async def test_the_reads_of_catalogs_walk_an_index(store: SqliteStore, tmp_path: Path, name: str) -> None:
    """Instances of a plan are found among a million without looking at the others."""
    connection = sqlite3.connect(tmp_path / "store.db")
    statement = load("catalogs")[name]
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", ["0"] * parameters(statement)).fetchall()
    connection.close()
    lines = [line for *_, line in plan]
    assert not [line for line in lines if "TEMP B-TREE" in line]
    if name == "instances_of_plan":
        assert [line.split(" (")[0] for line in lines] == ["SEARCH instances USING INDEX instances_of_plan"]


@pytest.mark.parametrize(
    "name", ["by_request", "live", "items_named", "items", "items_in_state", "items_due", "part", "total"]
)
async def test_the_reads_of_campaigns_walk_an_index(store: SqliteStore, tmp_path: Path, name: str) -> None:
    connection = sqlite3.connect(tmp_path / "store.db")
    statement = load("campaigns")[name]
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", ["0"] * parameters(statement)).fetchall()
    connection.close()
    lines = [line for *_, line in plan]
    assert not [line for line in lines if "TEMP B-TREE" in line]
    if name == "part":
        assert lines[0].startswith("SEARCH instances USING INDEX instances_of_plan")


@pytest.mark.parametrize(
    ("topic", "name", "index"),
    [
        ("reads", "every_unfinished", "operations_unfinished"),
        ("sightings", "lost", "sightings_by_sweep"),
        ("sightings", "forget", "sightings_ended"),
        ("sightings", "due", "sightings_due"),
        ("observing", "due_looks", "instances_to_look_at"),
        ("observing", "drifted", "observations_listed"),
        ("platforms", "placed", "instances_of_owner"),
        ("platforms", "platform_orphans", "instances_orphaned"),
    ],
)
async def test_what_loops_page_through_is_sought_and_not_sorted(
    store: SqliteStore, tmp_path: Path, topic: str, name: str, index: str
) -> None:
    """Each page of unfinished operations read and sorted all of them."""
    connection = sqlite3.connect(tmp_path / "store.db")
    statement = load(topic)[name]
    plan = connection.execute(f"EXPLAIN QUERY PLAN {statement}", ["0"] * parameters(statement)).fetchall()
    connection.close()
    lines = [line for *_, line in plan]
    assert any(line.startswith("SEARCH") and f"INDEX {index} " in line for line in lines)
    assert not [line for line in lines if line.startswith("SCAN") or "TEMP B-TREE" in line]


async def test_a_start_looks_at_leased_operations_alone(store: SqliteStore, tmp_path: Path) -> None:
    """It walked all operations by their id: 0.3 s of a start with 100,000 of them, 2.4 s from a cold disk."""
    connection = sqlite3.connect(tmp_path / "store.db")
    plan = connection.execute(f"EXPLAIN QUERY PLAN {load('claims')['leased']}").fetchall()
    connection.close()
    assert "USING INDEX operations_leased" in plan[0][-1]


def test_queries_are_found_by_name_and_named_once() -> None:
    queries = Queries("topic", "-- name: one\nSELECT 1;\n\n-- name: two\nSELECT 2;\n")
    assert (queries["one"], queries.names()) == ("SELECT 1", ("one", "two"))
    with pytest.raises(LookupError, match="three"):
        queries["three"]
    with pytest.raises(ValueError, match="twice"):
        Queries("topic", "-- name: one\nSELECT 1;\n-- name: one\nSELECT 2;\n")


async def test_an_empty_write_is_no_event(store: SqliteStore) -> None:
    await write(store, Writes())
    assert store.head == 0
    assert await store.operations(Scope(None), "acme", (), Page(1)) == ()
