"""Drives one run: kill at a target, restart, repeat, judge, give back, compare.

Guarantee: `execute` ends with the lane as it was, or with the difference among its problems.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from pathlib import Path
from typing import Any, NamedTuple

from tests.recovery.lane import Lane
from tests.recovery.points import Target, targets
from tests.recovery.run import Kind, Problem, Run
from tests.recovery.scenarios import Phase, Scenario

RUN_SECONDS = 180.0


class Outcome(NamedTuple):
    """What came of one run; `reached` is false when the point was not passed this time."""

    scenario: str
    target: Target | None
    reached: bool
    problems: list[Problem]


async def trace(lane: Lane, scenario: Scenario, run: Run) -> tuple[list[Target], list[Problem]]:
    """A run without a kill that finds the targets of every phase."""
    files = [lane.folder / f"trace-{number}" for number in range(len(scenario.phases))]
    for file in files:
        file.write_text("", encoding="utf-8")
    await _bounded(_drive(lane, scenario, run, None, files), run)
    found = [target for number, file in enumerate(files) for target in targets(number, file.read_text().splitlines())]
    return found, run.problems


async def execute(lane: Lane, scenario: Scenario, run: Run, target: Target) -> Outcome:
    """Kill at `target` and see what comes of it."""
    reached = await _bounded(_drive(lane, scenario, run, target, []), run)
    return Outcome(scenario.name, target, reached, run.problems)


async def _bounded(driving: Coroutine[Any, Any, bool], run: Run) -> bool:
    try:
        async with asyncio.timeout(RUN_SECONDS):
            return await driving
    finally:
        await run.close()


async def _drive(lane: Lane, scenario: Scenario, run: Run, target: Target | None, traces: list[Path]) -> bool:
    lane.broker.arm("")
    await scenario.prepare(run)
    reached = target is None
    for number, phase in enumerate(scenario.phases):
        if target is not None and target.phase == number:
            reached = await _kill(lane, scenario, run, target)
        else:
            trace = traces[number] if traces else None
            await lane.start_broker(phase.plan, trace) if phase.starts else lane.broker.arm(phase.plan, trace)
            await phase.act(run)
    lane.broker.arm("")
    await _judge(lane, scenario, run)
    return reached


async def _kill(lane: Lane, scenario: Scenario, run: Run, target: Target) -> bool:
    """Do the target's phase with the kill armed; after the death restart, and do again what was done so far."""
    phase = scenario.phases[target.phase]
    if not await _dies(lane, phase, run, ",".join(filter(None, (phase.plan, target.plan)))):
        lane.broker.arm(phase.plan)
        return False
    await lane.start_broker(phase.plan)
    await run.check_known()
    if must_be_stored(target):
        await run.check_stored()
    run.repeating = True
    await _again(scenario.phases[: target.phase + 1], run)
    return True


async def _dies(lane: Lane, phase: Phase, run: Run, plan: str) -> bool:
    if phase.starts and await lane.dies_starting(plan):
        return True
    if not phase.starts:
        lane.broker.arm(plan)
    return await lane.dies_during(phase.act(run))


def must_be_stored(target: Target) -> bool:
    """Whether the request of the target's phase was committed when the broker died there."""
    command, _, moment = target.point.rpartition(".")
    if command.startswith(("store.accept", "store.amend")):
        return moment == "after"
    return command != "store.claim"  # the engine also looks for work while nothing was asked yet


async def _again(phases: tuple[Phase, ...], run: Run) -> None:
    for phase in phases:
        await phase.act(run)


async def _judge(lane: Lane, scenario: Scenario, run: Run) -> None:
    await scenario.judge(run)
    await run.check_records()
    await run.check_backend()
    await scenario.give_back(run)
    for change in await lane.changes(lane.baseline):
        run.report(Kind.LEFT_BEHIND if change.startswith("+") else Kind.LOST, change)
