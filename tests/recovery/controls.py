"""Negative controls: a safeguard is switched off, and the suite's own judge must find what that leaves behind.

Guarantee: each control is the same sequence with and without the fault; without it the judge must find nothing.
"""

from __future__ import annotations

import asyncio
from typing import NamedTuple

from purveyor.values import OperationStatus
from tests.recovery.lane import Lane
from tests.recovery.proxy import Proxy
from tests.recovery.run import CANCELLED, FAILED, Handle, Kind, Problem, Run
from tests.recovery.scenarios import ASLEEP, IMPOSSIBLE, SMALL
from tests.recovery.upkeep import Reap

STEP_SECONDS = 30.0
STATE_STEPS = 300
ACTIVE = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE 'CREATE DATABASE%' AND state = 'active'"
BLOCKED = ACTIVE + " AND wait_event_type = 'Lock'"


class Verdict(NamedTuple):
    """What the judge said with the fault planted, and without."""

    name: str
    planted: list[Problem]
    sound: list[Problem]

    @property
    def found(self) -> bool:
        """Whether the planted fault was found as something left behind."""
        return any(problem.kind is Kind.LEFT_BEHIND for problem in self.planted)


class Control:
    """One safeguard; `off` is the plan that switches it off."""

    name = ""
    off = ""

    async def judge(self, lane: Lane) -> Verdict:
        """Run the sequence without the fault, then with it (what that leaves behind stays in the lane)."""
        sound = await self._run(lane, "", f"{self.name}-sound")
        return Verdict(self.name, await self._run(lane, self.off, f"{self.name}-planted"), sound)

    async def _run(self, lane: Lane, off: str, tag: str) -> list[Problem]:
        before = await lane.backend.names()
        run = Run(lane, tag)
        try:
            await self.sequence(run, off)
        finally:
            await run.close()
        recorded = await lane.recorded(run.tenant)
        for name in sorted(await lane.backend.names() - before - recorded):
            run.report(Kind.LEFT_BEHIND, f"there, not recorded: {name}")
        return run.problems

    async def sequence(self, run: Run, off: str) -> None:
        """What is done, with the plan `off` armed besides."""
        raise LookupError(self.name)


class Undo(Control):
    """A provision fails at its last step; the rollback does nothing."""

    name = "undo"
    off = "undo=off"

    async def sequence(self, run: Run, off: str) -> None:
        run.lane.broker.arm(off)
        await run.end(await run.provision(IMPOSSIBLE, FAILED), "provision")


class Started(Control):
    """The broker dies after the database was made; the journal does not know that the step was begun."""

    name = "started"
    off = "started=off"

    async def sequence(self, run: Run, off: str) -> None:
        await _die(run, "outside.create_database.after=kill", off)
        await _cancel(run, off)
        await run.end_all()


class Settle(Control):
    """The broker dies while its CREATE DATABASE still runs; the rollback does not wait for it."""

    name = "settle"
    off = "settle=off"

    async def sequence(self, run: Run, off: str) -> None:
        lane = run.lane
        proxy = Proxy(lane.server_port)
        lane.write_configuration(await proxy.start())
        blocker = await lane.backend.connect("postgres")
        try:
            await lane.start_broker(off)
            await blocker.execute("BEGIN; LOCK TABLE pg_database IN SHARE ROW EXCLUSIVE MODE")
            await _die(run, "outside.create_database.during=kill", off)
            await _until(run, BLOCKED, 1)
            handle = await _cancel(run, off)
            await _until_settling(handle)
            await blocker.execute("ROLLBACK")
            await _until(run, ACTIVE, 0)
            proxy.release()
            await run.end_all()
        finally:
            await blocker.close(timeout=STEP_SECONDS)
            await lane.drop_clients()
            await lane.broker.close()
            await proxy.close()
            lane.write_configuration(lane.server_port)
            await lane.start_broker()


class Reaped(Control):
    """An instance is forgotten and its remains are reaped; the broker says so without asking the backend."""

    name = "reaped"
    off = "reap=off"

    async def sequence(self, run: Run, off: str) -> None:
        run.lane.broker.arm("")
        scenario = Reap()
        await scenario.prepare(run)
        run.lane.broker.arm(off)
        await scenario.act(run)


async def _die(run: Run, plan: str, off: str) -> None:
    """Provision until the broker is killed by `plan`."""
    run.lane.broker.arm(",".join(filter(None, (plan, off))))

    async def provision() -> None:
        await run.end(await run.provision(SMALL, CANCELLED), "provision")

    if not await run.lane.dies_during(provision()):
        raise AssertionError(f"{plan}: the broker was not killed")


async def _cancel(run: Run, off: str) -> Handle:
    """Restart with an engine that sleeps, cancel, then let it work."""
    await run.lane.start_broker(",".join(filter(None, (ASLEEP, off))))
    handle = await run.provision(SMALL, CANCELLED)
    await run.cancel("provision")
    run.lane.broker.arm(off)
    return handle


async def _until(run: Run, query: str, wanted: int) -> None:
    """Wait in the server until `query` counts `wanted`. Raises AssertionError when it never does."""
    connection = await run.lane.backend.connection()
    for _ in range(STATE_STEPS):
        if await connection.fetchval(query) == wanted:
            return
        await run.lane.backend.pause(0.05)
    raise AssertionError(f"never came to be {wanted}: {query}")


async def _until_settling(handle: Handle) -> None:
    """Until the operation waits for an earlier call to settle, or has ended without."""
    async with asyncio.timeout(STEP_SECONDS):
        async for status in handle:
            if _settles(status):
                return


def _settles(status: OperationStatus) -> bool:
    return status.waiting is not None and status.waiting.reason == "SETTLING"


ALL: tuple[type[Control], ...] = (Undo, Started, Settle, Reaped)
