"""A cascade: the unbinds are operations of their own, seen from their parent, and one that fails is never passed over."""

from __future__ import annotations

import asyncio
import sys

import pytest

import purveyor
from purveyor.errors import FailedPreconditionError, OperationFailedError
from purveyor.values import OperationStatus
from purveyor_server.providers.contract import NotYet, Permanent
from tests.rpc.test_stuck import changed, waiting
from tests.rpc.whole import Whole

pytestmark = pytest.mark.usefixtures("bound")
NAMES = ("app", "job")


@pytest.fixture
async def bound(client: purveyor.Client) -> None:
    """`orders` with the bindings `app` and `job`."""
    await (await client.provision("svc", "big", instance_id="orders", wait=20)).result()
    for name in NAMES:
        await (await client.bind("orders", binding_id=name, wait=20)).result()


async def run(broker: Whole, *words: str) -> tuple[int, str, str]:
    command = (sys.executable, "-m", "purveyor.cli", "--address", broker.address, "--tenant", "t", *words)
    process = await asyncio.create_subprocess_exec(
        *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode is not None
    return process.returncode, out.decode(), err.decode()


async def test_children_are_listed_by_their_parent_and_move_it(client: purveyor.Client, broker: Whole) -> None:
    gates = [asyncio.Event(), asyncio.Event()]
    broker.world.plant("login.absent", *gates)
    parent = await client.deprovision("orders", cascade=True)
    assert parent.status.waiting is not None
    assert parent.status.waiting.detail == "0 of 2 bindings are out of the way"
    children = [child async for child in parent.children()]
    assert [(child.verb, child.binding_id) for child in children] == [("UNBIND", "app"), ("UNBIND", "job")]
    assert {child.parent_operation_id for child in children} == {parent.id}
    assert [one async for one in client.operations('parent_operation_id = "x"')] == []

    gates[0].set()
    seen: list[OperationStatus] = []
    async with asyncio.timeout(20):
        async for status in parent:
            seen.append(status)
            if status.waiting is not None and status.waiting.detail.startswith("1 of 2"):
                assert status.percent == pytest.approx(50 / 2)
                gates[1].set()
    assert (seen[-1].state, seen[-1].percent) == ("SUCCEEDED", 100)
    percents = [status.percent for status in seen]
    assert percents == sorted(percents)
    assert {child.state async for child in parent.children()} == {"SUCCEEDED"}


async def test_a_failed_child_fails_its_parent_and_the_next_attempt_goes_on_with_what_is_left(
    client: purveyor.Client, broker: Whole
) -> None:
    broker.world.plant("login.absent", Permanent("the server says no"))
    parent = await client.deprovision("orders", cascade=True)
    with pytest.raises(OperationFailedError) as failed:
        await parent.result()
    assert failed.value.reason == "CHILD_FAILED"
    instance = await client.instance("orders")
    assert (instance.state, instance.usable) == ("DELETE_FAILED", False)
    states = {child.binding_id: child.state async for child in parent.children()}
    assert sorted(states.values()) == ["FAILED", "SUCCEEDED"]
    (left,) = [name for name, state in states.items() if state == "FAILED"]
    assert (await client.binding("orders", left)).state == "REVOCATION_BLOCKED"
    assert not [call for call in broker.world.calls if call == "role.absent"]

    with pytest.raises(FailedPreconditionError) as refused:
        await client.deprovision("orders")
    assert refused.value.reason == "BINDINGS_EXIST"
    again = await client.deprovision("orders", cascade=True)
    await again.result()
    assert [child.binding_id async for child in again.children()] == [left]
    assert broker.world.things == {}


async def test_an_unbind_that_ran_before_is_not_passed_over_when_it_fails(
    client: purveyor.Client, broker: Whole
) -> None:
    await (await client.unbind("orders", "job", wait=20)).result()
    broker.world.plant("login.absent", NotYet(3600, "tomorrow"), Permanent("the server says no"))
    unbind = await client.unbind("orders", "app")
    await waiting(client, unbind.id, "PARKED")
    parent = await client.deprovision("orders", cascade=True)
    assert parent.status.waiting is not None
    assert parent.status.waiting.blocked_by == (unbind.id,)
    await changed(broker, unbind.id, due_at=broker.admin_parts.clock.now())
    with pytest.raises(OperationFailedError) as failed:
        await parent.result()
    assert failed.value.reason == "CHILD_FAILED"
    assert (await client.instance("orders")).state == "DELETE_FAILED"
    assert (await client.binding("orders", "app")).state == "REVOCATION_BLOCKED"


async def test_the_command_line_tells_of_each_child(broker: Whole) -> None:
    code, _, told = await run(broker, "deprovision", "orders", "--cascade")
    assert code == 0, told
    for name in NAMES:
        assert f"  unbind {name}: SUCCEEDED  succeeded" in told.splitlines()


async def test_the_command_line_tells_which_child_failed(broker: Whole) -> None:
    broker.world.plant("login.absent", Permanent("the server says no"), Permanent("the server says no"))
    code, _, told = await run(broker, "deprovision", "orders", "--cascade")
    assert code == 1
    assert "  unbind app: FAILED  failed: the server says no" in told.splitlines()
    assert "CHILD_FAILED" in told
