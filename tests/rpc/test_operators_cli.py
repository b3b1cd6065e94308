"""What operators type: names as good as ids, views without a command, tries that say so, exit codes, remarks said once."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import pytest

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import FailedPreconditionError, NotFoundError
from purveyor_server.providers.contract import Outputs, Permanent, PlannedStep, RightsMissing, Work
from tests.fakes.provider import ScriptedProvider
from tests.rpc.test_adopt import adopted, plant
from tests.rpc.test_orphans import ready, run, stray
from tests.rpc.whole import Whole

WHY = "--reason why"


async def test_names_views_and_tries(broker: Whole, client: purveyor.Client) -> None:
    await ready(client)
    plant(broker)
    head = broker.store.head
    t = f"-a {broker.address} -t t"
    adopt = f"adopt one service/small --source thing=crm {WHY}"
    tried, repair, dry, unknown, *views, leave, both, pair, sweep = await run(
        broker,
        f"{t} {adopt} --validate-only",
        f"{t} drift repair orders {WHY} --validate-only",
        f"{t} campaign start service/big --to small --dry-run",
        f"{t} campaign start service/never --to big {WHY}",
        "drift",
        "campaign",
        "inventory",
        f"{t} drift pause orders {WHY} --validate-only",
        f"{t} bindings orders --expiring",
        f"{t} adopt one service/small --source thing {WHY}",
        f"orphans sweep main {WHY} --validate-only",
    )
    assert (tried[0], "nothing was changed" in tried[1], "adopted" in tried[1]) == (0, True, True), tried
    assert (repair[0], "nothing was changed" in repair[1], "PLANNED" in repair[1]) == (0, True, True), repair
    assert "svc/big to small" in dry[1], dry
    assert "instances" not in dry[1].split("NO ")[0]  # a try counts what it found, not what was done
    assert (unknown[0], "UNKNOWN_PLAN" in unknown[1]) == (3, True), unknown
    for (code, out), column in zip(views, ("DRIFT", "SKIPPED", "PLATFORM"), strict=True):
        assert (code, column in out) == (0, True), out
    assert "would be left alone" in leave[1]
    assert (both[0], pair[0]) == (2, 2), (both, pair)
    assert sweep[1].count("without a record") == 1
    assert broker.store.head == head


async def test_an_order_that_fails_says_so_with_its_exit_code_and_a_refusal_says_it_once(
    broker: Whole, client: purveyor.Client
) -> None:
    plant(broker)
    t = f"-a {broker.address} -t t"
    broker.world.plant("grant.ensure", Permanent("not today"))
    failed, refused, shown = await run(
        broker,
        f"{t} adopt one svc/small --source thing=crm {WHY}",
        f"{t} adopt two svc/small --source thing=nothing {WHY}",
        f"{t} instance one",
    )
    assert (failed[0], "not today" in failed[1]) == (1, True), failed
    assert (refused[0], len(refused[1].strip().splitlines())) == (5, 1), refused
    assert "adopted" in shown[1]


async def test_a_failure_of_before_is_not_that_of_this_act(broker: Whole, client: purveyor.Client) -> None:
    await ready(client)
    thing = f"main space {stray(broker)}"
    broker.world.plant("quarantine", RightsMissing("it belongs to somebody else", "run: ALTER"))
    _, failed, ignored, tried = await run(
        broker,
        f"orphans sweep main {WHY}",
        f"orphans quarantine {thing} {WHY}",
        f"orphans ignore {thing} {WHY}",
        f"orphans quarantine {thing} {WHY} --validate-only",
    )
    assert (failed[0], "not done: it belongs to somebody else: run: ALTER" in failed[1]) == (1, True), failed
    assert (ignored[0], "not done" in ignored[1]) == (0, False), ignored
    assert (tried[0], "nothing was changed" in tried[1]) == (0, True), tried


async def test_a_plan_that_cannot_adopt_is_refused_before_anything_is_stored(
    broker: Whole, client: purveyor.Client, admin: AdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    plant(broker)
    planned = ScriptedProvider.plan

    def picky(self: ScriptedProvider, work: Work, done: Mapping[str, Outputs]) -> Sequence[PlannedStep]:
        if work.adopt is not None:
            raise Permanent("only other plans can")
        return planned(self, work, done)

    monkeypatch.setattr(ScriptedProvider, "plan", picky)
    with pytest.raises(FailedPreconditionError, match="only other plans can") as refused:
        await adopted(admin)
    assert (refused.value.reason, refused.value.metadata["cause"]) == ("ADOPTION_REFUSED", "PLAN")
    with pytest.raises(NotFoundError):
        await client.instance("one")


async def test_what_a_step_said_is_not_said_of_the_next(broker: Whole, client: purveyor.Client) -> None:
    handle = await client.provision("svc", "big", instance_id="orders", wait=20)
    await handle.result()
    ended = await client.operation(handle.id)
    assert (ended.status.state, ended.status.sentence) == ("SUCCEEDED", "")
