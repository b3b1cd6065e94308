"""Parameters that a schema marks as secret reach the provider in clear and nobody else, at rest neither."""

from __future__ import annotations

import base64
import sqlite3
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import InvalidRequestError, OperationFailedError, PurveyorError
from purveyor_server.domain.catalog import PlanSchemas
from purveyor_server.domain.states import Make, Verb
from purveyor_server.kit.hiding import MASK
from purveyor_server.providers.contract import Context, Done, NotYet, Outputs, Permanent, PlannedStep, Work
from purveyor_server.store.operating import Resealed
from tests.fakes.provider import ScriptedProvider, World, WorldPiece
from tests.rpc.whole import BIG, SERVICE, Whole, whole_broker

TENANT = "t"
FIRST, SECOND, BOUND = "correct-horse-1", "correct-horse-2", "battery-staple"
SCHEMA = {
    "type": "object",
    "properties": {
        "size": {"type": "integer"},
        "admin": {"type": "object", "properties": {"password": {"type": "string", "writeOnly": True}}},
    },
    "additionalProperties": False,
}
BINDING = {"type": "object", "properties": {"pin": {"x-secret": True}, "note": {"type": "string"}}}
PLAN = replace(BIG, schemas=PlanSchemas(SCHEMA, SCHEMA, BINDING))


class Keeper(WorldPiece):
    """Takes its parameters and says nothing of them, but when it fails."""

    leak: str = ""

    async def ensure(self, ctx: Context) -> Done | NotYet:
        name = ctx.name(self._kind)
        binding = ctx.work.binding
        given = binding.parameters if binding is not None else ctx.want.parameters if ctx.want is not None else {}
        secret = str(given.get("admin", {}).get("password", "")) or str(given.get("pin", ""))
        if self.leak == "outputs":
            return Done({"uri": f"x://u:{secret}@h"})
        if self.leak:
            ctx.report(10, f"trying {secret}")
            self.leak = ""
            message = f"cannot set {secret}"
            raise Permanent(message, f"the server said: {secret} is weak")
        self._world.things[name] = dict(given)
        return Done({"name": name})


class Provider(ScriptedProvider):
    def __init__(self, world: World, names: Sequence[str] = ("role",)) -> None:
        super().__init__(world, names)
        self.pieces = [Keeper(world, "role", "role")]
        self.login = Keeper(world, "login", "login", ("password",))

    def plan(self, work: Work, done: Mapping[str, Outputs]) -> Sequence[PlannedStep]:
        """A plan that depends on a secret: the provider plans with it, at validate_only too."""
        if work.verb is Verb.PROVISION and work.want is not None:
            password = work.want.parameters.get("admin", {}).get("password")
            if password is not None and password.startswith("correct"):
                return (PlannedStep(self.pieces[0]),)
        return super().plan(work, done) if work.verb is not Verb.PROVISION else (PlannedStep(self.login, Make.ENSURE),)


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[Whole]:
    async with whole_broker(folder, service=replace(SERVICE, plans=(PLAN,)), scripted=Provider) as running:
        yield running


@pytest.fixture
async def client(broker: Whole) -> AsyncIterator[purveyor.Client]:
    async with purveyor.Client(broker.address, tenant=TENANT) as opened:
        yield opened


def parameters(password: str, size: int = 1) -> dict[str, Any]:
    return {"size": size, "admin": {"password": password}}


async def provisioned(client: purveyor.Client, password: str = FIRST) -> None:
    handle = await client.provision("svc", "big", instance_id="orders", parameters=parameters(password), wait=20)
    await handle.result()


def kept(broker: Whole) -> list[dict[str, Any]]:
    return list(broker.world.things.values())


def stored(folder: Path, *secrets: str) -> list[str]:
    """Which secrets are in clear anywhere in the files of the store."""
    found = b"".join(path.read_bytes() for path in folder.glob("store.db*"))
    return [s for s in secrets if s.encode() in found or base64.b64encode(s.encode()) in found]


async def test_the_provider_alone_sees_it(broker: Whole, client: purveyor.Client, folder: Path) -> None:
    await provisioned(client)
    assert kept(broker) == [parameters(FIRST)]
    await (await client.update("orders", parameters=parameters(SECOND, 2), wait=20)).result()
    assert kept(broker) == [parameters(SECOND, 2)]
    await (await client.bind("orders", binding_id="app", parameters={"pin": BOUND, "note": "n"}, wait=20)).result()
    assert {"pin": BOUND, "note": "n"} in kept(broker)

    told = [repr(await client.instance("orders")), repr(await client.binding("orders", "app"))]
    told += [repr(item) async for item in client.instances()] + [repr(item) async for item in client.bindings()]
    told += [repr(item) async for item in client.operations(steps=True)]
    async with AdminClient(broker.address) as admin:
        async for operation in client.operations():
            told.append(repr(await admin.explain(operation.operation_id)))
    events = await broker.store.events(0, 1000)
    told += [event.body.decode() for event in events]

    shown = await client.instance("orders")
    assert shown.parameters == {"size": 2, "admin": {"password": MASK}}
    assert (await client.binding("orders", "app")).parameters == {"pin": MASK, "note": "n"}
    assert [s for s in (FIRST, SECOND, BOUND) if any(s in text for text in told)] == []
    assert len(events) > 5
    assert stored(folder, FIRST, SECOND, BOUND) == []
    with closing(sqlite3.connect(folder / "store.db")) as database, database:  # the search finds what is there
        database.execute("CREATE TABLE planted (value TEXT)")
        database.execute("INSERT INTO planted VALUES (?)", (BOUND,))
    assert stored(folder, FIRST, SECOND, BOUND) == [BOUND]


async def test_what_is_not_sent_is_kept_and_an_equal_one_changes_nothing(
    broker: Whole, client: purveyor.Client
) -> None:
    await provisioned(client)
    await (await client.update("orders", parameters={"size": 5}, wait=20)).result()
    assert kept(broker) == [parameters(FIRST, 5)]
    made = len(broker.world.calls), len([o async for o in client.operations()])

    again = await client.update("orders", parameters=parameters(FIRST, 5), wait=20)
    await again.result()

    assert (len(broker.world.calls), len([o async for o in client.operations()])) == made
    await (await client.update("orders", parameters={"admin": None}, wait=20)).result()
    assert kept(broker) == [{"size": 5}]
    assert (await client.instance("orders")).parameters == {"size": 5}


async def test_replays_and_digests_tell_values_apart(broker: Whole, client: purveyor.Client) -> None:
    await provisioned(client)
    again = await client.provision("svc", "big", instance_id="orders", parameters=parameters(FIRST), wait=20)
    await again.result()
    with pytest.raises(PurveyorError) as other:
        await client.provision("svc", "big", instance_id="orders", parameters=parameters(SECOND), wait=20)
    assert other.value.reason == "INSTANCE_ALREADY_EXISTS"
    assert kept(broker) == [parameters(FIRST)]


async def test_an_update_that_fails_goes_back_to_the_secret_before(broker: Whole, client: purveyor.Client) -> None:
    await provisioned(client)
    broker.provider.pieces[0].leak = "failure"

    with pytest.raises(OperationFailedError) as caught:
        await (await client.update("orders", parameters=parameters(SECOND), wait=20)).result()

    assert SECOND not in repr(caught.value)
    assert f"cannot set {MASK}" in str(caught.value)
    async with AdminClient(broker.address) as admin:
        explained = repr(await admin.explain(caught.value.operation.operation_id))
    assert f"the server said: {MASK} is weak" in explained
    assert SECOND not in explained
    assert kept(broker) == [parameters(FIRST)]


async def test_outputs_that_hold_it_are_refused(broker: Whole, client: purveyor.Client, folder: Path) -> None:
    broker.provider.pieces[0].leak = "outputs"

    with pytest.raises(OperationFailedError, match="secret parameter among its outputs"):
        await provisioned(client)

    assert stored(folder, FIRST) == []


async def test_the_mask_is_no_value(client: purveyor.Client) -> None:
    with pytest.raises(InvalidRequestError, match=r"parameters\.admin\.password"):
        await client.provision("svc", "big", instance_id="orders", parameters=parameters(MASK))
    await provisioned(client)
    with pytest.raises(InvalidRequestError, match="shown instead of a secret"):
        await client.update("orders", parameters=parameters(MASK))
    with pytest.raises(InvalidRequestError):
        await client.bind("orders", parameters={"pin": MASK})


async def test_a_bad_value_is_refused_without_being_told(client: purveyor.Client) -> None:
    with pytest.raises(InvalidRequestError) as caught:
        await client.provision("svc", "big", parameters={"admin": {"password": 4711_4711}})
    assert "47114711" not in repr(caught.value)


async def test_what_would_be_done_is_planned_with_it(broker: Whole, client: purveyor.Client, folder: Path) -> None:
    planned = await client.provision(
        "svc", "big", instance_id="orders", parameters=parameters(FIRST), validate_only=True
    )

    assert [step.name for step in planned.status.steps] == ["role"]
    assert stored(folder, FIRST) == []
    assert await broker.store.sealed(("", ""), 10) == ()


async def test_a_secret_that_cannot_be_opened_holds_what_needs_it_and_no_removal(
    broker: Whole, client: purveyor.Client
) -> None:
    await provisioned(client)
    sealer = broker.admin_parts.keys.sealer
    (row,) = [row for row in await broker.store.sealed(("", ""), 10) if "parameter" in row.name]
    await broker.store.reseal([Resealed(row.owner, row.name, row.sealed, sealer.seal("elsewhere", "x", b'"garbage"'))])

    update = await client.update("orders", parameters={"size": 7}, wait=1)
    async for status in update:
        if status.waiting is not None and status.waiting.reason == "HELD":
            assert status.waiting.detail == "a secret parameter cannot be unsealed"
            break
    assert kept(broker) == [parameters(FIRST)]
    await (await client.deprovision("orders", wait=20)).result()
    assert kept(broker) == []
