"""`purveyor explain INSTANCE` over a whole broker: every act is told, in order, by whoever did it."""

from __future__ import annotations

import pytest

import purveyor
from purveyor.admin import AdminClient
from purveyor.cli import render, story
from purveyor.cli.contexts import Place
from purveyor.cli.session import Session
from purveyor.errors import NotFoundError, OperationFailedError
from purveyor_server.providers.contract import Permanent
from tests.rpc.whole import Whole

TENANT = "t"


def session(broker: Whole) -> Session:
    return Session(broker.address, TENANT, json=False, place=Place(broker.address, TENANT, broker.address, "here"))


async def test_a_life_is_told_from_its_order_to_its_purge(broker: Whole, capsys: pytest.CaptureFixture[str]) -> None:
    async with purveyor.Client(broker.address, tenant=TENANT) as client, AdminClient(broker.address) as admin:
        await (await client.provision("svc", "big", instance_id="orders", wait=20)).result()
        await (await client.provision("svc", "big", instance_id="other", wait=20)).result()
        broker.world.plant("login.ensure", Permanent("the role is refused"))
        with pytest.raises(OperationFailedError):
            await (await client.bind("orders", binding_id="app", wait=20)).result()
        await (await client.bind("orders", binding_id="app2", wait=20)).result()
        await admin.purge(TENANT, "orders", "its server burnt down", even_if_in_use=True)

    found = await story.read(session(broker), "orders", None)

    told = [(entry.who, entry.what, entry.state) for entry in found.entries if entry.who != story.NOBODY]
    assert told == [
        ("local", "PROVISION", "SUCCEEDED"),
        ("local", "BIND app", "FAILED"),
        ("local", "BIND app2", "SUCCEEDED"),
        ("local", "PurgeInstance instance/orders", ""),
    ]
    failed = next(entry for entry in found.entries if entry.state == "FAILED")
    assert any(line.startswith("failed at step login: ") and "the role is refused" in line for line in failed.told)
    assert any(line.startswith("steps: ") and "login" in line for line in failed.told)
    assert found.entries[-1].told == ("reason: its server burnt down",)
    assert found.left
    assert found.gaps == ()
    capsys.readouterr()  # the broker's log
    session(broker).show(render.story(found))
    shown = capsys.readouterr().out
    assert "its server burnt down" in shown
    assert "other" not in shown


async def test_what_cannot_be_told_is_said(broker: Whole) -> None:
    async with purveyor.Client(broker.address, tenant=TENANT) as client:
        await (await client.provision("svc", "big", instance_id="orders", wait=20)).result()
    alone = Session(broker.address, TENANT, json=False, place=Place(broker.address, TENANT))
    context = Session(broker.address, TENANT, json=False, place=Place(broker.address, TENANT, None, "here"))
    away = Session(broker.address, TENANT, json=False)

    for asked, admin, gap in (
        (alone, None, "--admin names"),
        (context, None, "admin address of context here"),
        (away, "unix:/nonexistent", "operators' acts"),
    ):
        found = await story.read(asked, "orders", admin)
        assert [entry.what for entry in found.entries] == ["PROVISION"]
        assert len(found.gaps) == 1
        assert gap in found.gaps[0]


async def test_only_what_never_was_is_not_found(broker: Whole) -> None:
    async with purveyor.Client(broker.address, tenant=TENANT) as client:
        for _ in range(2):
            await (await client.provision("svc", "big", instance_id="orders", wait=20)).result()
            await (await client.deprovision("orders", wait=20)).result()

    found = await story.read(session(broker), "orders", None)

    assert [entry.what for entry in found.entries] == ["PROVISION", "DEPROVISION"] * 2
    assert len({entry.instance_uid for entry in found.entries}) == 2
    with pytest.raises(NotFoundError):
        await story.read(session(broker), "never", None)
