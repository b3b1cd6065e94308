"""One worker: a lane, and what is done in it one after the other.

Guarantee: a lane in which something went wrong is given up for a fresh one, so that one problem is counted once.
"""

from __future__ import annotations

import asyncio
import traceback
from collections.abc import Awaitable, Callable, Sequence

from tests.recovery import drive
from tests.recovery.controls import Control, Verdict
from tests.recovery.drive import Outcome
from tests.recovery.lane import Lane
from tests.recovery.listings import differences
from tests.recovery.points import Target
from tests.recovery.run import Kind, Problem, Run
from tests.recovery.scenarios import Scenario

CONTROL_SECONDS = 120.0
TRIES = 3  # to reach a point that a run did not pass
TRACE_LINES = 6  # of a traceback, when the suite itself met something


class Worker:
    """`fresh` makes an opened lane; `tag` makes a name that is used once; `settle` is the settle time in seconds."""

    def __init__(self, fresh: Callable[[], Awaitable[Lane]], tag: Callable[[], str], settle: float) -> None:
        self._fresh = fresh
        self._settle = settle
        self._tag = tag
        self._lane: Lane | None = None

    async def lane(self) -> Lane:
        """The lane, a fresh one if the last was given up."""
        if self._lane is None:
            self._lane = await self._fresh()
        return self._lane

    async def give_up(self) -> None:
        """Close the lane."""
        lane, self._lane = self._lane, None
        if lane is not None:
            await lane.close()

    async def trace(self, scenario: Scenario) -> tuple[list[Target], list[Problem]]:
        """The targets of a scenario, found by a run without a kill."""
        found: list[Target] = []
        problems: list[Problem] = []
        tenant = f"f-{self._tag()}"
        try:
            await self._furnish(scenario, tenant)
            found, problems = await drive.trace(
                await self.lane(), scenario, self._run(await self.lane(), scenario, tenant)
            )
            problems += await self._clear(scenario, tenant)
        except Exception:  # noqa: BLE001 - whatever it is, it is reported and the lane is given up
            problems.append(self._broke())
        if problems:
            await self.give_up()
        return found, problems

    async def batch(self, scenario: Scenario, chosen: Sequence[Target], done: Callable[[Outcome], None]) -> None:
        """Run at each of `chosen`, then look whether anything appeared late."""
        tenant = ""
        for target in chosen:
            outcome = Outcome(scenario.name, target, reached=False, problems=[])
            try:
                if not tenant:
                    tenant = f"f-{self._tag()}"
                    await self._furnish(scenario, tenant)
                outcome = await self._execute(scenario, tenant, target)
            except Exception:  # noqa: BLE001 - as above
                outcome = outcome._replace(reached=True, problems=[self._broke()])
            done(outcome)
            if outcome.problems:
                await self.give_up()
                tenant = ""
        if tenant:
            late = await self._late(scenario, tenant)
            done(Outcome(scenario.name, None, reached=True, problems=late))

    async def control(self, control: Control) -> Verdict:
        """What the judge says of a negative control; one that breaks off has found nothing."""
        try:
            lane = await self.lane()
            async with asyncio.timeout(CONTROL_SECONDS):
                return await control.judge(lane)
        except Exception:  # noqa: BLE001 - as above
            broke = self._broke()
            await self.give_up()
            return Verdict(control.name, planted=[], sound=[broke])

    async def _execute(self, scenario: Scenario, tenant: str, target: Target) -> Outcome:
        lane = await self.lane()
        outcome = Outcome(scenario.name, target, reached=False, problems=[])
        for _ in range(TRIES):
            outcome = await drive.execute(lane, scenario, self._run(lane, scenario, tenant), target)
            if outcome.reached or outcome.problems:
                break
        return outcome

    def _run(self, lane: Lane, scenario: Scenario, tenant: str) -> Run:
        tag = self._tag()
        run = Run(lane, tag, tenant, scenario.fixture) if scenario.fixture else Run(lane, tag)
        run.plan = scenario.plan
        return run

    async def _furnish(self, scenario: Scenario, tenant: str) -> None:
        lane = await self.lane()
        lane.broker.arm("")
        await scenario.furnish(lane, tenant)
        lane.baseline = await lane.listing()

    async def _late(self, scenario: Scenario, tenant: str) -> list[Problem]:
        try:
            problems = await self._clear(scenario, tenant)
        except Exception:  # noqa: BLE001 - as above
            problems = [self._broke()]
        if problems:
            await self.give_up()
        return problems

    async def _clear(self, scenario: Scenario, tenant: str) -> list[Problem]:
        """Take the fixture away, let the settle time pass, and compare with what there was before anything."""
        lane = await self.lane()
        await scenario.clear(lane, tenant)
        await lane.backend.pause(self._settle)
        changes = differences(lane.empty, await lane.listing())
        return [Problem(Kind.LEFT_BEHIND if line.startswith("+") else Kind.LOST, f"late: {line}") for line in changes]

    def _broke(self) -> Problem:
        """What the suite itself met: the run did not come to its end, so what it asked for counts as lost."""
        lines = traceback.format_exc().strip().splitlines()[-TRACE_LINES:]
        tail = self._lane.broker.tail() if self._lane is not None else ""
        return Problem(Kind.LOST, "the run broke off: " + " | ".join(line.strip() for line in lines) + "\n" + tail)
