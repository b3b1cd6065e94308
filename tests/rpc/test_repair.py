"""Repair on a whole broker: what is gone is made again, nothing is ever removed, and it meets others as an update does."""

from __future__ import annotations

import asyncio

import pytest

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import ConflictError, FailedPreconditionError, NotFoundError
from purveyor_server.providers.contract import Permanent
from tests.rpc.whole import Whole


async def provisioned(client: purveyor.Client, plan: str = "big") -> None:
    await (await client.provision("svc", plan, parameters={"size": 3}, instance_id="one", wait=20)).result()


async def test_what_is_gone_is_made_again_as_it_was_applied(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client)
    before = dict(broker.world.things)
    broker.world.things.clear()
    found = await admin.repair("t", "one", "dropped by mistake", wait=20)
    assert (found.verb, found.state, found.past_pivot) == ("REPAIR", "SUCCEEDED", True)
    assert broker.world.things == before
    instance = await client.instance("one")
    assert (instance.state, instance.usable, instance.in_flight) == ("READY", True, None)
    assert instance.parameters == {"size": 3}
    acts = [(r.action, r.reason, r.tenant) async for r in admin.audit() if r.action == "RepairInstance"]
    assert acts == [("RepairInstance", "dropped by mistake", "t")]


async def test_a_repair_that_fails_removes_nothing(broker: Whole, client: purveyor.Client, admin: AdminClient) -> None:
    await provisioned(client)
    (role,) = [name for name in broker.world.things if name.startswith("pv_role")]
    del broker.world.things[role]
    before = dict(broker.world.things)
    broker.world.calls.clear()
    broker.world.plant("space.ensure", Permanent("it cannot be made"))
    found = await admin.repair("t", "one", "a try", wait=20)
    assert found.state == "FAILED"
    assert not [call for call in broker.world.calls if call.endswith(".absent")]
    assert {role, *before} == set(broker.world.things)
    instance = await client.instance("one")
    assert (instance.state, instance.usable, instance.cleanup_required) == ("READY", True, ())
    assert [o.verb async for o in client.operations()] == ["PROVISION", "REPAIR"]
    assert (await admin.repair("t", "one", "again", wait=20)).state == "SUCCEEDED"


async def test_a_repair_meets_others_as_an_update_does(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    with pytest.raises(NotFoundError):
        await admin.repair("t", "one", "why")
    await provisioned(client)
    gate = asyncio.Event()
    broker.world.plant("role.ensure", gate)
    first = await admin.repair("t", "one", "why")
    assert (await admin.repair("t", "one", "why, again")).operation_id == first.operation_id
    with pytest.raises(ConflictError):
        await client.update("one", parameters={"size": 9})
    with pytest.raises(ConflictError):
        await client.bind("one", binding_id="app")
    with pytest.raises(FailedPreconditionError):
        await client.cancel(first.operation_id)
    removal = await client.deprovision("one")
    assert (await client.instance("one")).state == "DEPROVISIONING"
    gate.set()
    await removal.result()
    assert broker.world.things == {}
    assert (await (await client.operation(first.operation_id)).refresh()).state == "SUCCEEDED"


async def test_a_try_names_the_steps_and_changes_nothing(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client)
    head = broker.store.head
    found = await admin.repair("t", "one", "a look", validate_only=True)
    assert [step.name for step in found.steps] == ["role", "space", "grant"]
    assert (found.operation_id, broker.store.head) == ("", head)


async def test_bound_instances_can_be_repaired_while_an_update_cannot_be_disturbed(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    await provisioned(client)
    await (await client.bind("one", binding_id="app", wait=20)).result()
    credentials = await client.credentials("one", "app")
    assert (await admin.repair("t", "one", "why", wait=20)).state == "SUCCEEDED"
    (reissue,) = [o async for o in client.operations() if o.verb == "REISSUE"]
    await (await client.operation(reissue.operation_id)).result(20)
    assert (await client.credentials("one", "app"), reissue.binding_id) == (credentials, "app")
    gate = asyncio.Event()
    broker.world.plant("role.ensure", gate)
    update = await client.update("one", parameters={"size": 9})
    with pytest.raises(ConflictError):
        await admin.repair("t", "one", "why")
    gate.set()
    await update.result()
