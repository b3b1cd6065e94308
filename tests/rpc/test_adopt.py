"""Adoption on a whole broker: refused early and clearly, never a loss of what was there, and protected afterwards."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import pytest

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import ConflictError, FailedPreconditionError, InvalidRequestError, NotFoundError
from purveyor_server.providers.contract import Ability, Permanent, PlannedStep, Work
from tests.fakes.provider import ScriptedProvider
from tests.rpc.whole import Whole

CRM = {"kept": "data"}
SOURCE = {"thing": "crm"}


def plant(broker: Whole, name: str = "crm") -> None:
    """A thing that nobody manages."""
    broker.world.things[name] = dict(CRM)


async def adopted(admin: AdminClient, *, validate_only: bool = False) -> purveyor.OperationStatus:
    why = "it was there before us"
    return await admin.adopt("t", "one", "svc", "small", SOURCE, why, wait=20, validate_only=validate_only)


async def test_what_is_there_becomes_an_instance(broker: Whole, client: purveyor.Client, admin: AdminClient) -> None:
    plant(broker)
    found = await adopted(admin)
    assert (found.verb, found.state) == ("PROVISION", "SUCCEEDED")
    instance = await client.instance("one")
    assert (instance.state, instance.adopted, instance.deletion_protected) == ("READY", True, True)
    assert "crm" not in broker.world.things
    assert [thing for thing in broker.world.things.values() if thing == CRM]
    await (await client.bind("one", binding_id="app", wait=20)).result()
    (record,) = [r async for r in admin.audit() if r.action == "AdoptInstance"]
    assert (record.reason, record.tenant, record.resource) == ("it was there before us", "t", "instance/one")


async def test_the_same_again_is_answered_and_another_is_refused(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    plant(broker)
    first = await adopted(admin)
    assert (await adopted(admin)).operation_id == first.operation_id
    with pytest.raises(ConflictError) as exists:
        await client.provision("svc", "small", instance_id="one")
    assert exists.value.reason == "INSTANCE_ALREADY_EXISTS"
    assert [i.instance_id async for i in client.instances()] == ["one"]


async def test_a_try_looks_and_changes_nothing(broker: Whole, client: purveyor.Client, admin: AdminClient) -> None:
    plant(broker)
    head = broker.store.head
    found = await adopted(admin, validate_only=True)
    assert [step.name for step in found.steps] == ["role", "adopted", "grant"]
    assert (broker.store.head, broker.world.things) == (head, {"crm": CRM})
    broker.world.things.clear()
    with pytest.raises(FailedPreconditionError):
        await adopted(admin, validate_only=True)


async def test_what_cannot_be_adopted_is_refused_with_the_cause(
    broker: Whole, client: purveyor.Client, admin: AdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(FailedPreconditionError) as absent:
        await adopted(admin)
    assert (absent.value.reason, absent.value.metadata["cause"]) == ("ADOPTION_REFUSED", "SOURCE")
    plant(broker)
    await adopted(admin)
    (name,) = [name for name, thing in broker.world.things.items() if thing == CRM]
    with pytest.raises(FailedPreconditionError) as owned:
        await admin.adopt("t", "two", "svc", "small", {"thing": name}, "stolen")
    uid = (await client.instance("one")).uid
    assert (owned.value.metadata["cause"], owned.value.metadata["uid"]) == ("OWNED", uid)
    with pytest.raises(NotFoundError):
        await admin.adopt("t", "two", "svc", "nothing", SOURCE, "no such plan")
    with pytest.raises(InvalidRequestError):
        await admin.adopt("t", "two", "svc", "small", {}, "no source")
    with pytest.raises(NotFoundError):
        await client.instance("two")


async def test_a_provider_that_cannot_adopt_says_so(
    broker: Whole, admin: AdminClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ScriptedProvider, "abilities", frozenset({Ability.BIND}))
    with pytest.raises(FailedPreconditionError) as refused:
        await adopted(admin)
    assert refused.value.metadata["cause"] == "ABILITY"


async def test_a_failed_adoption_gives_back_what_it_took(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    plant(broker)
    broker.world.plant("grant.ensure", Permanent("not today"))
    found = await adopted(admin)
    assert found.state == "FAILED"
    assert broker.world.things == {"crm": CRM}
    instance = await client.instance("one")
    assert (instance.state, instance.adopted, instance.deletion_protected) == ("FAILED", True, False)
    retried = await admin.retry(found.operation_id, "now it works")
    handle = await client.operation(retried.operation_id)
    await handle.result()
    assert [thing for thing in broker.world.things.values() if thing == CRM]  # taken over, not made empty
    assert "crm" not in broker.world.things


async def test_a_removal_that_takes_over_gives_it_back(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    plant(broker)
    gate = asyncio.Event()
    broker.world.plant("grant.ensure", gate)
    running = await admin.adopt("t", "one", "svc", "small", SOURCE, "why")
    await asyncio.wait_for(broker.world.entered["grant.ensure"].wait(), 5)
    cancelling = await client.cancel(running.operation_id)
    gate.set()
    handle = await client.operation(cancelling.operation_id)
    with pytest.raises(purveyor.PurveyorError, match="CANCELLED"):
        await handle.result(20)
    assert broker.world.things == {"crm": CRM}


@pytest.fixture
def pivoted(monkeypatch: pytest.MonkeyPatch) -> None:
    """The last step of an adoption is one from which nothing is given back."""
    plan = ScriptedProvider.plan

    def planned(self: ScriptedProvider, work: Work, done: Any) -> tuple[PlannedStep, ...]:
        *steps, last = plan(self, work, done)
        return (*steps, last._replace(pivot=work.adopt is not None))

    monkeypatch.setattr(ScriptedProvider, "plan", planned)


@pytest.mark.usefixtures("pivoted")
async def test_nothing_removes_it_beside_the_step_from_which_nothing_is_given_back(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    """A deprovision had waited for its end, and then dropped what was there before the broker."""
    plant(broker)
    gate = asyncio.Event()
    broker.world.plant("grant.ensure", gate)
    begun = await admin.adopt("t", "one", "svc", "small", SOURCE, "it was there before us")
    await asyncio.wait_for(broker.world.entered["grant.ensure"].wait(), 5)
    with pytest.raises(FailedPreconditionError) as refused:
        await client.deprovision("one", cascade=True)
    gate.set()
    await (await client.operation(begun.operation_id)).result()
    assert refused.value.reason == "DELETION_PROTECTED"
    assert [thing for thing in broker.world.things.values() if thing == CRM]


@pytest.mark.usefixtures("pivoted")
async def test_one_that_failed_where_nothing_is_given_back_is_protected(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    plant(broker)
    broker.world.plant("grant.ensure", Permanent("not today"))
    assert (await adopted(admin)).state == "FAILED"
    with pytest.raises(FailedPreconditionError) as refused:
        await client.deprovision("one", cascade=True)
    assert refused.value.reason == "DELETION_PROTECTED"
    assert [thing for thing in broker.world.things.values() if thing == CRM]
    await client.update("one", deletion_protected=False, wait=20)
    await (await client.deprovision("one", wait=20)).result()


async def test_an_adopted_instance_is_removed_only_by_somebody_who_says_so_twice(
    broker: Whole, client: purveyor.Client, admin: AdminClient
) -> None:
    plant(broker)
    await adopted(admin)
    for cascade in (False, True):
        with pytest.raises(FailedPreconditionError) as refused:
            await client.deprovision("one", cascade=cascade)
        assert refused.value.reason == "DELETION_PROTECTED"
    await client.update("one", deletion_protected=False, wait=20)
    await (await client.deprovision("one", wait=20)).result()
    assert broker.world.things == {}


async def test_purge_forgets_it_and_keeps_the_thing(broker: Whole, client: purveyor.Client, admin: AdminClient) -> None:
    plant(broker)
    await adopted(admin)
    before = dict(broker.world.things)
    await admin.purge("t", "one", "given back to its team", even_if_in_use=True)
    assert broker.world.things == before


async def test_the_command_line(broker: Whole) -> None:
    plant(broker)
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "purveyor.cli", "--json", "--tenant", "t", "adopt", "one", "svc/small",
        "--source", "thing=crm", "--reason", "it was there", "--admin", broker.address,
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await process.communicate()
    assert (process.returncode, json.loads(out)["state"]) == (0, "SUCCEEDED")
