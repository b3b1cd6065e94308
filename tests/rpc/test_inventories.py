"""Inventories of platforms on a whole broker: what is left out is told, and given back only when everything allows it."""

from __future__ import annotations

import asyncio
import json
import sys
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from msgspec.structs import replace

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import FailedPreconditionError, InvalidRequestError, NotFoundError, PermissionDeniedError
from purveyor.v1 import inventory_pb2 as pb
from purveyor.v1.broker_service_pb2_grpc import BrokerServiceStub
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.model import Instance
from purveyor_server.domain.platforms import OrphanPolicy, PlatformRules
from purveyor_server.domain.principal import LOCAL
from purveyor_server.domain.records import touch
from purveyor_server.lifecycle.admin.acts import record
from purveyor_server.lifecycle.admin.contract import Act
from purveyor_server.lifecycle.contract import ITSELF, Caller, Deprovision
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.inventories import Begin, Part
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.reconcile.platforms import PlatformLoop
from purveyor_server.store.contract import SYSTEM, Accept, Decision, Page, Situation, Writes
from tests.rpc.failures import read_failure
from tests.rpc.whole import Whole, whole_broker

RULES = PlatformRules(
    policy=OrphanPolicy.DEPROVISION, grace=timedelta(0), cap=2, claims=2, max_ids=50, pause=timedelta(seconds=0.5)
)
NAMES = [f"i{number}" for number in range(10)]


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[Whole]:
    async with whole_broker(folder, bounds=LifecycleSettings(platforms=RULES)) as running:
        yield running


@pytest.fixture
async def platform(broker: Whole, client: purveyor.Client) -> purveyor.Client:
    """A client that has ordered ten instances."""
    for name in NAMES:
        await (await client.provision("svc", "small", instance_id=name, wait=20)).result()
    return client


@pytest.fixture
def loop(broker: Whole) -> PlatformLoop:
    return PlatformLoop(broker.store, broker.use_cases, RULES, 60.0)


def parts(*messages: dict[str, Any]) -> list[pb.SyncInventoryRequest]:
    return [pb.SyncInventoryRequest(**message) for message in messages]


def begin(expected: int, snapshot_id: str = "s1") -> pb.InventoryBegin:
    return pb.InventoryBegin(snapshot_id=snapshot_id, total_expected=expected)


async def sent(broker: Whole, messages: Iterable[pb.SyncInventoryRequest]) -> pb.SyncInventoryResponse:
    async with grpc.aio.insecure_channel(broker.address) as channel:
        answer: pb.SyncInventoryResponse = await BrokerServiceStub(channel).SyncInventory(iter(messages))
        return answer


async def states(client: purveyor.Client) -> dict[str, bool]:
    """Whether each is a platform-orphan."""
    return {found.instance_id: found.platform_orphan_time is not None async for found in client.instances()}


async def test_what_is_left_out_is_told_once_and_healed_when_it_is_named_again(
    broker: Whole, platform: purveyor.Client, admin: AdminClient
) -> None:
    head = broker.store.head
    found = await platform.sync_inventory(NAMES[1:])
    assert (found.orphaned, found.orphans, found.known, found.named) == (("i0",), 1, 10, 9)
    assert [event.instance_id for event in await broker.store.events(head, 10)] == ["i0"]
    assert (await platform.instance("i0")).platform_orphan_time is not None

    head = broker.store.head
    assert (await platform.sync_inventory(NAMES[1:])).orphaned == ()
    assert broker.store.head == head  # the same again is no event
    (orphan,) = [orphan async for orphan in admin.platform_orphans()]
    assert (orphan.tenant, orphan.instance_id, orphan.owner) == ("t", "i0", "local")
    assert orphan.seen_time is not None
    assert orphan.since_time is not None
    assert orphan.seen_time > orphan.since_time

    assert (await platform.sync_inventory(NAMES)).healed == ("i0",)
    assert not any((await states(platform)).values())
    assert [orphan async for orphan in admin.platform_orphans()] == []
    actions = [r.action async for r in admin.audit()]
    assert actions.count("SyncInventory") == 3


@pytest.mark.parametrize(
    ("messages", "brake"),
    [
        (parts({"tenant": "t", "begin": begin(9), "instance_ids": NAMES[1:]}), "truncated"),
        (parts({"tenant": "t", "begin": begin(10), "instance_ids": NAMES[1:], "end": {}}), "truncated"),
        (parts({"tenant": "t", "begin": begin(8), "instance_ids": NAMES[1:], "end": {}}), "truncated"),
        (parts({"tenant": "t", "begin": begin(0), "end": {}}), "empty"),
        (parts({"tenant": "t", "begin": begin(1), "instance_ids": ["x"], "end": {}}), "strange"),
        (parts({"tenant": "t", "begin": begin(8), "instance_ids": NAMES[2:], "end": {}}), "too_many"),
    ],
)
async def test_what_looks_like_an_accident_changes_nothing(
    broker: Whole, platform: purveyor.Client, messages: list[pb.SyncInventoryRequest], brake: str
) -> None:
    before = await states(platform)
    head = broker.store.head
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await sent(broker, messages)
    failure = read_failure(refused.value)
    assert (failure.reason, failure.metadata["brake"]) == ("INVENTORY_REFUSED", brake)
    assert (await states(platform), broker.store.head) == (before, head)
    assert await broker.store.last_inventory("t", "local") is None


@pytest.mark.parametrize(
    "messages",
    [
        parts({"tenant": "t", "instance_ids": NAMES}),
        parts({"tenant": "t", "begin": begin(2), "instance_ids": ["i0", "i0"], "end": {}}),
        parts({"tenant": "t", "begin": begin(1), "instance_ids": ["no id!"], "end": {}}),
        parts({"tenant": "t", "begin": begin(51)}),
        parts({"tenant": "t", "begin": begin(1, "has blanks"), "instance_ids": ["i0"], "end": {}}),
        parts({"tenant": "t", "begin": begin(2), "instance_ids": ["i0"]}, {"tenant": "u", "instance_ids": ["i1"]}),
        parts({"tenant": "t", "begin": begin(2), "instance_ids": ["i0"]}, {"begin": begin(2)}),
    ],
)
async def test_what_is_no_inventory_is_refused(broker: Whole, messages: list[pb.SyncInventoryRequest]) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await sent(broker, messages)
    assert read_failure(refused.value).reason == "INVALID_REQUEST"


async def test_one_that_stops_or_is_broken_off_changes_nothing(broker: Whole, platform: purveyor.Client) -> None:
    head = broker.store.head
    async with grpc.aio.insecure_channel(broker.address) as channel:
        slow = BrokerServiceStub(channel).SyncInventory()
        await slow.write(parts({"tenant": "t", "begin": begin(9), "instance_ids": NAMES[1:]})[0])
        with pytest.raises(grpc.aio.AioRpcError) as late:
            await slow
        broken = BrokerServiceStub(channel).SyncInventory()
        await broken.write(parts({"tenant": "t", "begin": begin(9), "instance_ids": NAMES[1:]})[0])
        broken.cancel()
    assert read_failure(late.value).reason == "DEADLINE_EXCEEDED"
    assert broker.store.head == head
    assert not any((await states(platform)).values())


async def test_several_messages_are_one_inventory_and_the_same_again_is_answered_again(
    broker: Whole, platform: purveyor.Client
) -> None:
    messages = parts(
        {"tenant": "t", "begin": begin(9), "instance_ids": NAMES[1:4]}, {"instance_ids": NAMES[4:]},
        {"tenant": "t", "end": {}},
    )  # fmt: skip
    first = await sent(broker, messages)
    assert (list(first.orphaned_instance_ids), first.replayed) == (["i0"], False)
    again = await sent(broker, messages)
    assert (list(again.orphaned_instance_ids), again.replayed) == (["i0"], True)
    assert await broker.store.platform_orphans(Page(10), timedelta(0)) == ()  # the second is not a second look
    with pytest.raises(InvalidRequestError) as reused:
        await platform.sync_inventory(NAMES, snapshot_id="s1")
    assert reused.value.reason == "REQUEST_ID_REUSED"


async def test_a_try_changes_nothing(broker: Whole, platform: purveyor.Client) -> None:
    head = broker.store.head
    assert (await platform.sync_inventory(NAMES[1:], validate_only=True)).orphaned == ("i0",)
    assert broker.store.head == head
    assert (await platform.sync_inventory(NAMES)).replayed is False


async def test_what_was_ordered_after_the_snapshot_is_not_judged(platform: purveyor.Client) -> None:
    before = datetime.now(UTC)
    await (await platform.provision("svc", "small", instance_id="later", wait=20)).result()
    assert (await platform.sync_inventory(NAMES, snapshot_time=before)).orphaned == ()
    with pytest.raises(FailedPreconditionError) as stale:
        await platform.sync_inventory(NAMES, snapshot_time=before - timedelta(seconds=1))
    assert stale.value.metadata["brake"] == "stale"


async def test_what_is_ordered_while_it_comes_is_not_judged(broker: Whole, platform: purveyor.Client) -> None:
    async def stream() -> AsyncIterator[Part]:
        yield Part(tenant="t", begin=Begin(snapshot_id="s1", expected=10))
        await platform.provision("svc", "small", instance_id="later")
        yield Part(instance_ids=tuple(NAMES), end=True)

    taken = await broker.use_cases.sync_inventory(Caller(LOCAL), stream())
    assert (taken.report.orphaned, taken.report.known) == ((), 11)


async def test_only_what_the_caller_itself_has_ordered_is_concerned(
    broker: Whole, platform: purveyor.Client, admin: AdminClient
) -> None:
    roles = ("PLATFORM", "CONSUMER", "VIEWER")
    other = await admin.create_token("other", roles, "a second platform", tenants=("t",))
    nobody = await admin.create_token("nobody", ("CONSUMER", "VIEWER"), "no platform", tenants=("t",))
    async with purveyor.Client(broker.address, tenant="t", token=other.text) as second:
        await (await second.provision("svc", "small", instance_id="mine", wait=20)).result()
        found = await second.sync_inventory(["mine", *NAMES])
        assert (found.known, found.unknown, found.orphaned) == (1, 10, ())
        await platform.sync_inventory(NAMES[1:])
        with pytest.raises(NotFoundError):
            await second.claim("i0")
    assert [name for name, orphan in (await states(platform)).items() if orphan] == ["i0"]
    async with purveyor.Client(broker.address, tenant="t", token=nobody.text) as third:
        with pytest.raises(PermissionDeniedError):
            await third.sync_inventory(NAMES)
        await (await third.provision("svc", "small", instance_id="plain", wait=20)).result()
    assert (await platform.sync_inventory(NAMES)).known == 10


async def test_a_claim_takes_it_back_so_often(platform: purveyor.Client, loop: PlatformLoop) -> None:
    for _ in range(RULES.claims):
        await platform.sync_inventory(NAMES[1:])
        await platform.sync_inventory(NAMES[1:])
        assert (await platform.claim("i0")).platform_orphan_time is None
        await loop.once()
    await platform.sync_inventory(NAMES[1:])
    with pytest.raises(FailedPreconditionError) as refused:
        await platform.claim("i0")
    assert refused.value.metadata["claims"] == "2"
    await platform.sync_inventory(NAMES)  # naming it starts anew
    await platform.sync_inventory(NAMES[1:])
    await platform.claim("i0")
    with pytest.raises(NotFoundError):
        await platform.claim("nobody")


async def kept(broker: Whole, loop: PlatformLoop, name: str = "i0") -> bool:
    """Whether a round of the loop leaves it alone."""
    await loop.once()
    instance = await broker.store.instance(SYSTEM, "t", name)
    assert instance is not None
    return instance.state == "READY"


async def test_one_inventory_gives_nothing_back_and_a_second_one_does(
    broker: Whole, platform: purveyor.Client, loop: PlatformLoop
) -> None:
    await platform.sync_inventory(NAMES[1:])
    assert await kept(broker, loop)
    await platform.sync_inventory(NAMES[1:])
    patient = PlatformLoop(broker.store, broker.use_cases, replace(RULES, grace=timedelta(days=1)), 60.0)
    assert await kept(broker, patient)
    reporting = PlatformLoop(broker.store, broker.use_cases, replace(RULES, policy=OrphanPolicy.REPORT), 60.0)
    assert await kept(broker, reporting)
    assert not await kept(broker, loop)
    (removal,) = [o async for o in platform.operations() if o.verb == "DEPROVISION"]
    await (await platform.operation(removal.operation_id)).result()
    assert (await platform.sync_inventory(NAMES[1:])).known == 9


@pytest.mark.parametrize("freeze", ["deletes", "reaping", "all"])
async def test_freezes_stop_it(broker: Whole, platform: purveyor.Client, loop: PlatformLoop, freeze: str) -> None:
    for _ in range(2):
        await platform.sync_inventory(NAMES[1:])
    act, admin_parts = Act(reason="maintenance"), broker.admin_parts
    noted = record(admin_parts, ITSELF, Action.FREEZE, act, freeze)
    await broker.store.freeze(Freeze(freeze, "maintenance", "op", admin_parts.clock.now()), noted)
    assert await kept(broker, loop)
    await broker.store.thaw(freeze, noted)
    assert not await kept(broker, loop)


async def change(broker: Whole, name: str, **changes: Any) -> None:
    def decide(situation: Situation) -> Decision:
        found = situation.instance
        assert isinstance(found, Instance)
        return Decision(Writes(instances=(touch(found, situation.now, **changes),)))

    await broker.store.accept(Accept(SYSTEM, "t", name, decide))


async def test_what_must_not_go_by_itself_is_reported(
    broker: Whole, platform: purveyor.Client, admin: AdminClient, loop: PlatformLoop
) -> None:
    await platform.update("i0", deletion_protected=True)
    await admin.pause("t", "i1", "the team looks at it")
    await change(broker, "i2", adopted=True)
    await (await platform.bind("i3", binding_id="app", wait=20)).result()
    for name in ("i0", "i1", "i2", "i3"):
        await platform.sync_inventory([other for other in NAMES if other != name])
        await platform.sync_inventory([other for other in NAMES if other != name])
        assert await kept(broker, loop, name), name
        (orphan,) = [orphan async for orphan in admin.platform_orphans()]
        assert orphan.kept, name
        await platform.sync_inventory(NAMES)
    for name, words in (("i0", "protected"), ("i1", "looks at it"), ("i2", "adopted")):
        with pytest.raises(Exception, match=words):
            await broker.use_cases.deprovision(ITSELF, Deprovision(tenant="t", instance_id=name))
    with pytest.raises(Exception, match="live bindings"):
        await broker.use_cases.deprovision(ITSELF, Deprovision(tenant="t", instance_id="i3"))
    assert (await platform.deprovision("i1", wait=20)).status.state == "SUCCEEDED"  # a caller's own request goes on


async def test_a_round_gives_back_no_more_than_its_cap(
    broker: Whole, platform: purveyor.Client, loop: PlatformLoop
) -> None:
    gone: list[str] = []
    for name in NAMES[:4]:
        gone.append(name)
        await platform.sync_inventory([other for other in NAMES if other not in gone])
    await platform.sync_inventory(NAMES[4:])
    await loop.once()
    removals = [o.instance_id async for o in platform.operations() if o.verb == "DEPROVISION"]
    assert len(removals) == RULES.cap


async def test_the_command_line(broker: Whole, platform: purveyor.Client, folder: Path) -> None:
    async def ran(*arguments: str, given: str = "") -> Any:
        process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "purveyor.cli", "--json", "--address", broker.address, "--tenant", "t", *arguments,
            stdin=asyncio.subprocess.PIPE, stdout=asyncio.subprocess.PIPE,
        )  # fmt: skip
        out, _ = await process.communicate(given.encode())
        assert process.returncode == 0
        return json.loads(out)

    (folder / "ids").write_text("\n".join(NAMES[1:]) + "\n")
    assert (await ran("inventory", "sync", str(folder / "ids"), "--snapshot", "one"))["orphaned"] == ["i0"]
    assert (await ran("inventory", "sync", "-", "--snapshot", "one", given="\n".join(NAMES[1:])))["replayed"]
    assert [o["instance_id"] for o in await ran("inventory", "list", "--admin", broker.address)] == ["i0"]
    assert (await ran("claim", "i0"))["platform_orphan_time"] is None
