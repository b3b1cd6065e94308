"""`client.events`: each event once, over streams that end in every way, and over the reader's own restarts."""

from __future__ import annotations

import asyncio
import json
from contextlib import aclosing
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import purveyor
from purveyor import errors
from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1.event_pb2 import Event
from tests.clients.scripted import HANG, Refusal, ScriptedBroker, binding, instance, operation, retry_after, serving
from tests.clients.test_cli import run

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from purveyor import Client

WAIT_SECONDS = 20
START = messages.WatchEventsRequest.Start
EXPIRED = Refusal(grpc.StatusCode.UNAVAILABLE, "STREAM_EXPIRED", details=(retry_after(0.01),))
DRAINING = Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING", details=(retry_after(0.01),))
FULL = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", details=(retry_after(0.01),))
COMPACTED = Refusal(grpc.StatusCode.OUT_OF_RANGE, "COMPACTED", metadata={"earliest_token": "e"})
END = Refusal(grpc.StatusCode.INVALID_ARGUMENT, "INVALID_RESUME_TOKEN")


def event(revision: int, *, present: bool = False, **fields: Any) -> Event:
    kind = Event.TYPE_PRESENT if present else Event.TYPE_CHANGED
    base: dict[str, Any] = {"kind": Event.KIND_INSTANCE, "instance": instance(), "uid": f"u{revision}"}
    return Event(revision=revision, type=kind, **base | fields)


def told(token: str, *events: Event, synced: bool = False) -> messages.WatchEventsResponse:
    return messages.WatchEventsResponse(events=events, resume_token=token, synced=synced)


async def taken(events: AsyncIterator[purveyor.Event], count: int) -> list[int]:
    """Revisions of the next `count` events."""
    found: list[int] = []
    async with asyncio.timeout(WAIT_SECONDS):
        while len(found) < count:
            found.append((await anext(events)).revision)
    return found


async def test_each_event_once_over_streams_that_end_in_every_way(client: Client, broker: ScriptedBroker) -> None:
    broker.script["WatchEvents"] = [
        [told("a"), told("b", event(1), event(2)), DRAINING],
        FULL,
        [told("c", event(2), event(3)), EXPIRED],  # 2 again: a server may repeat, a reader may not
        [told("d")],  # ended OK, which the contract never does
        [told("e", event(5)), HANG],
    ]
    async with aclosing(client.events(kinds=["instance"], instance_id="orders")) as events:
        assert await taken(events, 4) == [1, 2, 3, 5]
    asked = broker.seen["WatchEvents"]
    assert [request.resume_token for request in asked] == ["", "b", "b", "c", "d"]
    assert [request.start for request in asked] == [START.START_NOW, *[START.START_AFTER] * 4]
    assert {(request.tenant, request.instance_id, *request.kinds) for request in asked} == {
        ("t", "orders", Event.KIND_INSTANCE)
    }


async def test_a_message_that_was_not_taken_in_whole_is_asked_for_again(
    client: Client, broker: ScriptedBroker, folder: Path
) -> None:
    place = folder / "place"
    broker.script["WatchEvents"] = [[told("a", event(1)), told("b", event(2), event(3)), HANG]]
    async with aclosing(client.events(place=place)) as events:
        assert await taken(events, 2) == [1, 2]  # and the reader dies here
    assert place.read_text() == "a\n"
    broker.script["WatchEvents"] = [[told("b", event(2), event(3)), told("c", event(4)), HANG]]
    async with aclosing(client.events("earliest", place=place)) as events:
        assert await taken(events, 3) == [2, 3, 4]
    again = broker.seen["WatchEvents"][-1]
    assert (again.resume_token, again.start) == ("a", START.START_AFTER)
    assert place.read_text() == "b\n"


async def test_a_place_that_is_damaged_is_no_beginning(client: Client, broker: ScriptedBroker, folder: Path) -> None:
    (folder / "place").write_text("")
    with pytest.raises(ValueError, match="holds no place"):
        await taken(client.events(place=str(folder / "place")), 1)
    assert not broker.seen["WatchEvents"]


async def test_a_snapshot_says_where_it_ends_once(client: Client, broker: ScriptedBroker) -> None:
    broker.script["WatchEvents"] = [
        [told("a", event(7, present=True), event(7, present=True, uid="v")), DRAINING],
        [told("b", event(7, present=True, uid="w")), told("c", synced=True), told("d", event(8)), DRAINING],
        [told("d", synced=True), told("e", event(9)), HANG],
    ]
    async with aclosing(client.events("snapshot")) as events:
        found = [await anext(events) for _ in range(6)]
    assert [found.uid for found in found] == ["u7", "v", "w", "", "u8", "u9"]
    assert [found.type for found in found] == ["PRESENT", "PRESENT", "PRESENT", "SYNCED", "CHANGED", "CHANGED"]


async def test_what_is_lost_is_raised(client: Client, broker: ScriptedBroker) -> None:
    broker.script["WatchEvents"] = [[told("a", event(1)), COMPACTED]]
    with pytest.raises(purveyor.EventsLostError) as lost:
        await taken(client.events("token"), 2)
    assert (lost.value.reason, lost.value.metadata["earliest_token"]) == ("COMPACTED", "e")
    assert broker.seen["WatchEvents"][0].resume_token == "token"


async def test_an_outage_ends_after_its_limit(broker: ScriptedBroker, folder: Path) -> None:
    broker.script["WatchEvents"] = [DRAINING]
    async with purveyor.Client(f"unix:{folder / 's'}", tenant="t", outage_limit=0.3) as client:
        with pytest.raises(errors.UnavailableError) as failed:
            await taken(client.events(), 1)
    assert failed.value.reason == "DRAINING"


@pytest.mark.parametrize(("changes", "field"), [({"start": ""}, "start"), ({"kinds": ["plan"]}, "kinds")])
async def test_what_cannot_be_asked_names_its_field(client: Client, changes: dict[str, Any], field: str) -> None:
    with pytest.raises(purveyor.InvalidRequestError) as refused:
        await taken(client.events(**changes), 1)
    assert refused.value.violations[0].field == field


async def test_records_come_as_values(client: Client, broker: ScriptedBroker) -> None:
    records = (
        event(1),
        event(2, kind=Event.KIND_BINDING, instance=None, binding=binding()),
        event(3, kind=Event.KIND_OPERATION, instance=None, operation=operation("SUCCEEDED")),
        event(4, instance=None),
    )
    broker.script["WatchEvents"] = [[told("a", *records, synced=True)]]
    found = [item async for item in client.events("earliest", follow=False)]
    kinds = [type(item.record).__name__ for item in found]
    assert kinds == ["Instance", "Binding", "OperationStatus", "NoneType"]
    assert [item.kind for item in found] == ["INSTANCE", "BINDING", "OPERATION", "INSTANCE"]


async def test_the_command_prints_what_there_is(broker: ScriptedBroker, folder: Path) -> None:
    one = event(1, instance_id="orders", state="READY")
    two = event(2, kind=Event.KIND_OPERATION, instance_id="orders", operation_id="op-1", state="SUCCEEDED")
    broker.script["WatchEvents"] = [[told("a", one, two, synced=True)]]
    shown = await run(folder, "events")
    assert [line.split() for line in shown.out.splitlines()] == [
        ["1", "-", "instance", "changed", "orders", "READY"],
        ["2", "-", "operation", "changed", "orders", "SUCCEEDED", "op-1"],
    ]
    assert broker.seen["WatchEvents"][-1].start == START.START_EARLIEST
    lines = await run(folder, "--json", "events", "--since", "t-1", "--kind", "operation", "--place", f"{folder}/place")
    assert [json.loads(line)["revision"] for line in lines.out.splitlines()] == [1, 2]
    assert broker.seen["WatchEvents"][-1].resume_token == "t-1"
    assert (folder / "place").read_text() == "a\n"


async def test_the_command_follows_over_a_restart(folder: Path) -> None:
    first, second = ScriptedBroker(), ScriptedBroker()
    first.script["WatchEvents"] = [[told("a", event(1)), HANG]]
    second.script["WatchEvents"] = [[told("b", event(2)), END]]
    async with serving(first, folder / "s"):
        running = asyncio.create_task(run(folder, "--json", "events", "--follow"))
        await asyncio.wait_for(first.watching.wait(), WAIT_SECONDS)
    async with serving(second, folder / "s"):
        ran = await running
    assert [json.loads(line)["revision"] for line in ran.out.splitlines()] == [1, 2]
    assert second.seen["WatchEvents"][0].resume_token == "a"
    assert (ran.code, "INVALID_RESUME_TOKEN" in ran.err) == (2, True)
