"""The judge of the recovery suite sees every kind of thing that may be left behind, lost or made twice."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from purveyor_server.domain.names import outside_name
from tests.recovery.lane import Lane
from tests.recovery.run import Kind, Run
from tests.recovery.scenarios import SMALL
from tests.recovery.suite import base_folder
from tests.recovery.upkeep import Renew, Repair, Rotate

pytestmark = [
    pytest.mark.crash,
    pytest.mark.postgres,
    pytest.mark.slow,
    pytest.mark.asyncio(loop_scope="module"),
]

PLANTED = {
    "database": ("CREATE DATABASE pv_db_planted", "database pv_db_planted owner=postgres"),
    "role": ("CREATE ROLE pv_usr_planted", "role pv_usr_planted super=f"),
    "attribute": ("ALTER ROLE pv_usr_planted LOGIN VALID UNTIL '2030-01-01'", "login=t"),
    "membership": ("GRANT pg_monitor TO pv_usr_planted", "member pv_usr_planted in pg_monitor"),
    "comment": ("COMMENT ON ROLE pv_usr_planted IS 'planted'", "comment=[planted]"),
    "setting": ("ALTER ROLE pv_usr_planted SET work_mem = '1MB'", "role=pv_usr_planted [work_mem=1MB]"),
    "rights": ("GRANT CONNECT ON DATABASE postgres TO pv_usr_planted", "pv_usr_planted=c/postgres"),
    "inside": ("CREATE SCHEMA planted", "in postgres: schema planted"),
}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def lane() -> AsyncIterator[Lane]:
    """A lane with a broker at work."""
    with base_folder() as base:
        lane = Lane(base, 1)
        try:
            await lane.open()
            await lane.begin()
            yield lane
        finally:
            await lane.close()


async def test_a_quiet_lane_does_not_change(lane: Lane) -> None:
    assert await lane.changes(lane.empty) == []


@pytest.mark.parametrize("kind", PLANTED)
async def test_what_is_planted_in_the_server_is_seen(lane: Lane, kind: str) -> None:
    statement, line = PLANTED[kind]
    before = await lane.listing()

    await (await lane.backend.connection()).execute(statement)

    assert any(change.startswith("+") and line in change for change in await lane.changes(before))


async def test_a_file_and_a_process_are_seen(lane: Lane) -> None:
    before = await lane.listing()
    (lane.data / "planted").touch()
    program = "import sys; sys.stdin.read()"
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", program, str(lane.data), stdin=asyncio.subprocess.PIPE
    )
    try:
        changes = await lane.changes(before)
    finally:
        process.kill()
        await process.wait()
        (lane.data / "planted").unlink()

    assert "+ file planted" in changes
    assert any(change.startswith("+ process ") for change in changes)


async def test_a_session_of_a_dead_broker_is_seen(lane: Lane) -> None:
    connection = await lane.backend.connection()
    left = await lane.backend.become_quiet(await connection.fetchval("SELECT extract(epoch FROM now())") + 60, 0.1)

    assert any("purveyor_admin" in line for line in left)


async def test_a_second_thing_and_a_lost_one_are_told_apart(lane: Lane) -> None:
    run = Run(lane, "judged")
    await run.end(await run.provision(SMALL), "provision")
    await run.check_records()
    await run.check_backend()
    before = run.problems.copy()
    connection = await lane.backend.connection()
    uid = (await (await run.client()).instance(run.instance_id)).uid
    await connection.execute(f"ALTER ROLE {outside_name('grp', uid)} RENAME TO pv_grp_else")

    await run.check_backend()

    names = {line.removeprefix("+ ").split(" ")[1] for line in await lane.changes(frozenset())}
    assert "pv_grp_else" in names
    assert {problem.kind for problem in before} <= {Kind.LEFT_BEHIND}  # what the tests before have planted
    assert any(p.kind is Kind.LOST and outside_name("grp", uid) in p.text for p in run.problems)
    assert any(p.kind is Kind.LEFT_BEHIND and "pv_grp_else" in p.text for p in run.problems)


TAMPERED = {
    "renew": (Renew, "ALTER ROLE {} VALID UNTIL 'infinity'", "the end of the binding in the server"),
    "rotate": (Rotate, "ALTER ROLE {} VALID UNTIL 'infinity'", "the end of the predecessor in the server"),
    "repair": (Repair, "ALTER ROLE {} NOLOGIN", "the binding does not work"),
}


@pytest.mark.parametrize("name", TAMPERED)
async def test_what_a_broker_forgot_to_do_in_the_server_is_seen(lane: Lane, name: str) -> None:
    kind, statement, said = TAMPERED[name]
    run, scenario = Run(lane, f"forgot-{name}"), kind()
    if scenario.fixture:
        await run.end(await run.provision(SMALL), "provision")
    await scenario.prepare(run)
    await scenario.act(run)
    uid = (await (await run.client()).binding(run.instance_id, run.binding_id)).uid
    assert run.problems == []

    await (await lane.backend.connection()).execute(statement.format(outside_name("usr", uid)))
    await scenario.judge(run)
    await run.close()

    assert any(said in problem.text for problem in run.problems)


async def test_an_end_that_must_not_be_is_lost(lane: Lane) -> None:
    run = Run(lane, "ended")
    await run.end(await run.provision({"extensions": ["no_such_extension"]}), "provision")

    assert [problem.kind for problem in run.problems] == [Kind.LOST]
    assert "ended FAILED" in run.problems[0].text


async def test_an_answer_that_changes_is_a_second_effect(lane: Lane) -> None:
    run = Run(lane, "twice")
    run.answered["provision"] = "another operation"
    await run.end(await run.provision(SMALL), "provision")

    assert Kind.DUPLICATED in {problem.kind for problem in run.problems}
