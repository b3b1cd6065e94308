"""Retry, clean-up and abandon through AdminService, its client and the command line, over a whole broker."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from msgspec.structs import replace

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import (
    AbortedError,
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
    OperationFailedError,
)
from purveyor.values import OperationStatus
from purveyor_server.domain.policies import CleanupMode, CleanupPolicy
from purveyor_server.providers.contract import Ambiguous, NotYet, Permanent, Unreachable
from tests.rpc.whole import BIG, SERVICE, SMALL, Whole, whole_broker

TENANT = "t"
MANUAL = replace(BIG, binding_rotatable=True, cleanup=CleanupPolicy(CleanupMode.MANUAL))
LATER = replace(BIG, id="later", name="later", cleanup=CleanupPolicy(CleanupMode.DELAYED, timedelta(hours=1)))
ACTS = "outcome = DONE"


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[Whole]:
    """`big` keeps remains for an operator, `later` for an hour, `small` not at all."""
    service = replace(SERVICE, plans=(SMALL, MANUAL, LATER))
    async with whole_broker(folder, service=service) as running:
        yield running


async def failed(client: purveyor.Client, broker: Whole, plan: str = "big") -> OperationStatus:
    """A provision of `orders` whose last step failed for good."""
    broker.world.plant("grant.ensure", Permanent("no grants today"))
    handle = await client.provision("svc", plan, instance_id="orders", parameters={"size": 3})
    with pytest.raises(OperationFailedError):
        await handle.result()
    return await (await client.operation(handle.id)).refresh()


async def ended(client: purveyor.Client, operation_id: str) -> OperationStatus:
    handle = await client.operation(operation_id)
    async with asyncio.timeout(20):
        async for status in handle:
            if status.done:
                return status
    raise AssertionError("the stream ended before the operation")


async def acts(admin: AdminClient) -> list[tuple[str, str]]:
    return [(record.action, record.reason) async for record in admin.audit(filter=ACTS)]


async def test_what_is_kept_is_shown_and_says_what_helps(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    status = await failed(client, broker)
    assert (status.state, status.waiting is not None and status.waiting.reason) == ("FAILED", "HELD")
    assert status.cleanup_required == ("grant", "space", "role")
    why = await admin.explain(status.operation_id)
    assert [cause.code for cause in why.causes] == ["ENDED", "HELD"]
    with pytest.raises(FailedPreconditionError) as refused:
        await client.provision("svc", "big", instance_id="orders", parameters={"size": 3})
    assert "kept for an operator" in str(refused.value)


async def test_a_retry_goes_on_from_the_failed_step(admin: AdminClient, client: purveyor.Client, broker: Whole) -> None:
    status = await failed(client, broker)
    tried = await admin.retry(status.operation_id, "try", validate_only=True)
    assert (tried.operation_id, tried.resumed_operation_id) == ("", status.operation_id)

    made = await admin.retry(status.operation_id, "the grants are back", request_id="r1")
    assert made.operation_id != status.operation_id
    assert made.deadline is not None
    assert made.first_failure is not None
    assert made.first_failure.message == "no grants today"
    again = await admin.retry(status.operation_id, "the grants are back", request_id="r1")
    assert again.operation_id == made.operation_id
    done = await ended(client, made.operation_id)

    assert done.state == "SUCCEEDED"
    counts = {step: broker.world.calls.count(f"{step}.ensure") for step in ("role", "space", "grant")}
    assert counts == {"role": 1, "space": 1, "grant": 2}
    instance = await client.instance("orders")
    assert (instance.state, instance.uid) == ("READY", status.instance_uid)
    old = await (await client.operation(status.operation_id)).refresh()
    assert (old.state, old.waiting, old.taken_over_by) == ("FAILED", None, made.operation_id)
    assert old.failure is not None
    assert old.failure.message == "no grants today"
    assert await acts(admin) == [("RetryOperation", "the grants are back")]


async def test_a_retry_settles_what_may_still_happen(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    broker.world.plant("space.ensure", *[Ambiguous("lost")] * 5)
    handle = await client.provision("svc", "big", instance_id="orders")
    with pytest.raises(OperationFailedError):
        await handle.result()
    broker.world.calls.clear()
    made = await admin.retry(handle.id, "again")
    assert (await ended(client, made.operation_id)).state == "SUCCEEDED"
    assert broker.world.calls[:3] == ["space.settle", "space.ensure", "grant.ensure"]


async def test_a_kept_bind_goes_on_too(admin: AdminClient, client: purveyor.Client, broker: Whole) -> None:
    await (await client.provision("svc", "big", instance_id="orders", wait=20)).result()
    broker.world.plant("login.ensure", Permanent("no logins today"))
    handle = await client.bind("orders", binding_id="app")
    with pytest.raises(OperationFailedError):
        await handle.result()
    binding = await client.binding("orders", "app")
    assert (binding.state, binding.cleanup_required) == ("FAILED", ("login",))
    made = await admin.retry(handle.id, "they are back")
    assert (await ended(client, made.operation_id)).state == "SUCCEEDED"
    assert (await client.credentials("orders", "app"))["username"]


async def test_a_failed_successor_is_rotated_anew(admin: AdminClient, client: purveyor.Client, broker: Whole) -> None:
    """Its predecessor has let go of it when it failed, and may have another one."""
    await (await client.provision("svc", "big", instance_id="orders", wait=20)).result()
    await (await client.bind("orders", binding_id="app", wait=20)).result()
    broker.world.plant("login.ensure", Permanent("no logins today"))
    handle = await client.rotate("orders", "app", successor_id="next")
    with pytest.raises(OperationFailedError):
        await handle.result()
    with pytest.raises(FailedPreconditionError, match="rotate that one again"):
        await admin.retry(handle.id, "again")
    assert (await ended(client, (await admin.clean_up(handle.id, "away")).operation_id)).state == "SUCCEEDED"


async def test_a_cleaned_up_create_is_begun_anew(admin: AdminClient, client: purveyor.Client, broker: Whole) -> None:
    status = await failed(client, broker, "small")
    made = await admin.retry(status.operation_id, "again")
    assert (made.resumed_operation_id, made.instance_uid == status.instance_uid) == ("", False)
    assert (await ended(client, made.operation_id)).state == "SUCCEEDED"
    instance = await client.instance("orders")
    assert instance.applied is not None
    assert (instance.state, dict(instance.applied.parameters)) == ("READY", {"size": 3})


async def test_failed_updates_removals_and_unbinds_are_tried_anew(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    await (await client.provision("svc", "small", instance_id="orders", wait=20)).result()
    await (await client.bind("orders", binding_id="app", wait=20)).result()
    for call, ask in (
        ("grant.ensure", lambda: client.update("orders", parameters={"size": 2})),
        ("login.absent", lambda: client.unbind("orders", "app")),
        ("grant.absent", lambda: client.deprovision("orders")),
    ):
        broker.world.plant(call, Permanent("not today"))
        handle = await ask()
        with pytest.raises(OperationFailedError):
            await handle.result()
        made = await admin.retry(handle.id, "again")
        assert (await ended(client, made.operation_id)).state == "SUCCEEDED", call
    assert broker.world.things == {}


async def test_a_clean_up_by_hand_removes_what_was_kept(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    status = await failed(client, broker)
    tried = await admin.clean_up(status.operation_id, "try", validate_only=True)
    assert (tried.operation_id, tried.verb) == ("", "CLEANUP")
    assert broker.world.things
    made = await admin.clean_up(status.operation_id, "looked at it")
    assert (made.verb, made.parent_operation_id) == ("CLEANUP", status.operation_id)
    assert made.first_failure is not None
    assert (await ended(client, made.operation_id)).state == "SUCCEEDED"
    assert broker.world.things == {}
    assert (await client.instance("orders")).cleanup_required == ()
    with pytest.raises(FailedPreconditionError):
        await admin.clean_up(status.operation_id, "again")
    assert await acts(admin) == [("CleanUpOperation", "looked at it")]
    fresh = await client.provision("svc", "big", instance_id="orders", parameters={"size": 3}, wait=20)
    assert (await fresh.result()).state == "READY"


async def test_a_clean_up_that_waits_is_begun_now(admin: AdminClient, client: purveyor.Client, broker: Whole) -> None:
    status = await failed(client, broker, "later")
    assert status.waiting is None
    made = await admin.clean_up(status.operation_id, "no need to wait")
    assert (await ended(client, made.operation_id)).state == "SUCCEEDED"
    assert broker.world.things == {}


async def test_an_abandoned_operation_has_ended_and_names_what_is_left(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    broker.world.plant("space.ensure", NotYet(3600, "tomorrow"))
    handle = await client.provision("svc", "small", instance_id="orders")
    async with asyncio.timeout(10):
        async for status in handle:
            if status.waiting is not None and status.waiting.reason == "PARKED":
                break
    tried = await admin.abandon(handle.id, "try", validate_only=True)
    assert tried.left_behind
    assert not (await (await client.operation(handle.id)).refresh()).done
    calls = list(broker.world.calls)
    found = await admin.abandon(handle.id, "the server burnt down")
    assert (found.operation.state, found.operation.done) == ("FAILED", True)
    assert found.operation.failure is not None
    assert (found.operation.failure.reason, found.operation.failure.operator_message) == (
        "ABANDONED", "the server burnt down",
    )  # fmt: skip
    assert [name.split()[0] for name in found.left_behind] == ["instance/space", "instance/role"]
    assert found.left_behind[1].startswith("instance/role name=pv_role_")
    assert await admin.abandon(handle.id, "again") == found
    assert await acts(admin) == [("AbandonOperation", "the server burnt down")]

    instance = await client.instance("orders")
    assert (instance.state, instance.cleanup_required) == ("FAILED", ("space", "role"))
    assert broker.world.calls == calls
    with pytest.raises(FailedPreconditionError):
        await admin.retry(handle.id, "after all")
    made = await admin.clean_up(handle.id, "after all")  # it is never too late
    assert (await ended(client, made.operation_id)).state == "SUCCEEDED"
    assert broker.world.things == {}


async def test_a_clean_up_that_never_succeeds_can_be_abandoned(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    broker.world.plant("role.absent", *[Unreachable("gone")] * 10_000)
    broker.world.plant("grant.ensure", Permanent("no grants today"))
    handle = await client.provision("svc", "later", instance_id="orders")
    with pytest.raises(OperationFailedError):
        await handle.result()
    (cleanup,) = [o async for o in client.operations() if o.verb == "CLEANUP"]
    found = await admin.abandon(cleanup.operation_id, "the server is gone for good")
    assert (found.operation.state, len(found.left_behind)) == ("FAILED", 3)
    assert found.operation.first_failure is not None
    assert found.operation.first_failure.message == "no grants today"
    assert [o.verb async for o in client.operations()] == ["PROVISION", "CLEANUP"]
    gone = await admin.purge(TENANT, "orders", "it is")
    assert [name.split()[0] for name in gone.left_behind] == ["instance/grant", "instance/space", "instance/role"]


async def test_what_is_kept_can_be_given_up(admin: AdminClient, client: purveyor.Client, broker: Whole) -> None:
    status = await failed(client, broker)
    found = await admin.abandon(status.operation_id, "not worth it")
    assert found.operation.waiting is None
    assert found.operation.first_failure is not None
    assert found.operation.first_failure.message == "no grants today"
    assert [name.split()[0] for name in found.left_behind] == ["instance/grant", "instance/space", "instance/role"]


async def test_each_refusal_names_what_stands_in_the_way(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    done = await client.provision("svc", "small", instance_id="fine", wait=20)
    await done.result()
    gate = asyncio.Event()
    broker.world.plant("role.ensure", gate)
    running = await client.provision("svc", "small", instance_id="busy")
    await broker.world.entered["role.ensure"].wait()
    for act in (admin.retry, admin.clean_up, admin.abandon):
        with pytest.raises(FailedPreconditionError) as refused:
            await act(done.id, "no")
        assert refused.value.reason == "WRONG_STATE"
        with pytest.raises(NotFoundError):
            await act("0198c0de-0000-7000-8000-000000000000", "no")
        with pytest.raises(InvalidRequestError):
            await act(running.id, " ")
    for act in (admin.retry, admin.clean_up):
        with pytest.raises(FailedPreconditionError, match="not ended"):
            await act(running.id, "no")
    with pytest.raises(AbortedError):
        await admin.abandon(running.id, "no")
    gate.set()
    await running.result()
    status = await failed(client, broker)
    await (await client.deprovision("orders", wait=20)).result()
    with pytest.raises(FailedPreconditionError, match="gone"):
        await admin.retry(status.operation_id, "no")
    status = await failed(client, broker)
    await admin.purge(TENANT, "orders", "away")
    with pytest.raises(FailedPreconditionError, match="gone"):
        await admin.clean_up(status.operation_id, "no")


async def test_the_command_line_does_all_three(client: purveyor.Client, broker: Whole) -> None:
    status = await failed(client, broker)

    async def run(*words: str) -> str:
        command = (sys.executable, "-m", "purveyor.cli", *words, "--admin", broker.address, "--reason", "why not")
        process = await asyncio.create_subprocess_exec(
            *command, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE
        )
        out, err = await asyncio.wait_for(process.communicate(), 30)
        assert process.returncode == 0, err.decode()
        return out.decode()

    broker.world.plant("grant.ensure", Permanent("still none"))
    made = json.loads(await run("retry", status.operation_id, "--json"))
    assert made["resumed_operation_id"] == status.operation_id
    assert (await ended(client, made["operation_id"])).state == "FAILED"
    assert "left behind: instance/grant" in await run("abandon", made["operation_id"])
    assert "cleans up" in await run("cleanup", made["operation_id"])


async def test_an_update_that_failed_past_its_pivot_goes_on(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    """What it leads to is there: it had been left to be deleted, with the data that was moved there."""
    await (await client.provision("svc", "big", instance_id="orders", parameters={"size": 3}, wait=20)).result()
    broker.provider.pivot = "space"
    broker.world.plant("grant.ensure", Permanent("the old place does not answer"))
    handle = await client.update("orders", parameters={"size": 9})
    with pytest.raises(OperationFailedError):
        await handle.result()
    assert (await client.instance("orders")).state == "DELETE_FAILED"
    broker.world.calls.clear()
    again = await admin.retry(handle.id, "it answers again")
    assert (await ended(client, again.operation_id)).state == "SUCCEEDED"
    assert [call for call in broker.world.calls if call.endswith(".ensure")] == ["grant.ensure"]
    instance = await client.instance("orders")
    assert (instance.state, instance.usable, instance.cleanup_required) == ("READY", True, ())
    assert instance.parameters == {"size": 9}
    with pytest.raises(FailedPreconditionError):
        await admin.retry(handle.id, "once more")
