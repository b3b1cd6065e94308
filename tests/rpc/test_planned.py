"""validate_only says what would happen, steps included, for every verb, and nothing happens; the command line prints it."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Mapping, Sequence
from pathlib import Path

import pytest
from msgspec.structs import replace

import purveyor
from purveyor.values import OperationStatus
from purveyor_server.domain.states import Make, Verb
from purveyor_server.providers.contract import Outputs, PlannedStep, Work
from tests.fakes.provider import ScriptedProvider, WorldPiece
from tests.rpc.whole import BIG, SERVICE, SMALL, Whole, whole_broker

LARGE = replace(BIG, id="large", name="large", settings={"extra": True})


class Extending(ScriptedProvider):
    """An update to a plan with `extra` makes one piece more, behind a pivot, and removes another."""

    def plan(self, work: Work, done: Mapping[str, Outputs]) -> Sequence[PlannedStep]:
        """The pieces, and what the wanted plan has besides."""
        steps = tuple(super().plan(work, done))
        wanted = work.want is not None and work.want.plan.get("extra")
        if work.verb is not Verb.UPDATE or not wanted:
            return steps
        extra, old = (WorldPiece(self.world, name, name) for name in ("extra", "old"))
        return (*steps, PlannedStep(extra, pivot=True), PlannedStep(old, Make.ABSENT))


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[Whole]:
    async with whole_broker(folder, service=replace(SERVICE, plans=(SMALL, BIG, LARGE)), scripted=Extending) as running:
        yield running


@pytest.fixture
async def bound(client: purveyor.Client) -> None:
    """`orders` of the plan big, with the bindings `app` and `job`."""
    await (await client.provision("svc", "big", instance_id="orders", wait=20)).result()
    for name in ("app", "job"):
        await (await client.bind("orders", binding_id=name, wait=20)).result()


def shown(status: OperationStatus) -> list[tuple[str, str, bool]]:
    assert (status.operation_id, {step.state for step in status.steps} <= {"PLANNED"}) == ("", True)
    return [(step.name, step.make, step.pivot) for step in status.steps]


ENSURES = [(name, "ENSURE", False) for name in ("role", "space", "grant")]
ABSENTS = [(name, "ABSENT", False) for name in ("grant", "space", "role")]


async def test_a_provision(client: purveyor.Client) -> None:
    assert shown((await client.provision("svc", "big", instance_id="orders", validate_only=True)).status) == ENSURES


@pytest.mark.usefixtures("bound")
async def test_every_other_verb(client: purveyor.Client, broker: Whole) -> None:
    things, calls = dict(broker.world.things), list(broker.world.calls)
    planned = {
        "update": await client.update("orders", parameters={"size": 2}, validate_only=True),
        "bind": await client.bind("orders", binding_id="new", validate_only=True),
        "unbind": await client.unbind("orders", "app", validate_only=True),
    }
    assert {verb: shown(handle.status) for verb, handle in planned.items()} == {
        "update": ENSURES,
        "bind": [("login", "ENSURE", False)],
        "unbind": [("login", "ABSENT", False)],
    }
    listed = [one async for one in client.operations()]
    assert len(listed) == 3
    assert (broker.world.things, broker.world.calls) == (things, calls)


@pytest.mark.usefixtures("bound")
async def test_an_update_to_another_plan_shows_pivot_and_removals(client: purveyor.Client) -> None:
    handle = await client.update("orders", plan="large", validate_only=True)
    assert shown(handle.status) == [*ENSURES, ("extra", "ENSURE", True), ("old", "ABSENT", False)]


@pytest.mark.usefixtures("bound")
async def test_an_update_that_changes_nothing_has_no_steps_and_is_done(client: purveyor.Client, broker: Whole) -> None:
    calls = list(broker.world.calls)
    first = await client.update("orders", parameters={"size": 2})
    await first.result()
    calls = list(broker.world.calls)
    handle = await client.update("orders", parameters={"size": 2}, validate_only=True)
    assert (handle.status.done, handle.status.steps) == (True, ())
    again = await client.update("orders", parameters={"size": 2})
    assert (again.status.done, broker.world.calls) == (True, calls)


@pytest.mark.usefixtures("bound")
async def test_a_cascade_shows_its_children_first(client: purveyor.Client) -> None:
    handle = await client.deprovision("orders", cascade=True, validate_only=True)
    children = [(f"binding/{name}/login", "ABSENT", False) for name in ("app", "job")]
    assert shown(handle.status) == [*children, *ABSENTS]


@pytest.mark.usefixtures("bound")
@pytest.mark.parametrize(
    ("words", "names"),
    [
        (("update", "orders", "--plan", "large"), ("role", "extra", "old")),
        (("deprovision", "orders", "--cascade"), ("binding/app/login", "binding/job/login", "role")),
    ],
)
async def test_the_command_line_prints_it(broker: Whole, words: tuple[str, ...], names: tuple[str, ...]) -> None:
    command = (sys.executable, "-m", "purveyor.cli", "--address", broker.address, "--tenant", "t", *words, "--dry-run")
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err.decode()
    for name in names:
        assert name in out.decode()
    assert "nothing was changed" in err.decode()
