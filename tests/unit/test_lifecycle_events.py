"""A watch of events taken message by message: what a snapshot is when others write meanwhile, and how it is cut short."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1.event_pb2 import Event
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.lifecycle.contract import Following, Start, Told
from purveyor_server.rpc.convert.event import assemble
from tests.fakes.broker import Broker, open_broker, provision
from tests.fakes.situations import LOCAL, TENANT


@pytest.fixture
async def broker(tmp_path: Path) -> AsyncIterator[Broker]:
    async with open_broker(tmp_path) as opened:
        yield opened


def watch(broker: Broker, start: Start = Start.SNAPSHOT, token: str = "") -> Any:
    return broker.door.watch_events(LOCAL, Following(tenant=TENANT, start=start, token=token))


def read(told: Told) -> pb.WatchEventsResponse:
    return pb.WatchEventsResponse.FromString(assemble(told))


async def test_what_changes_while_a_snapshot_is_read_is_told_before_it_is_synced(broker: Broker) -> None:
    await broker.door.provision(LOCAL, provision("a"))
    stream = watch(broker)
    first = read(await anext(stream))
    assert [(e.type, e.instance_id) for e in first.events] == [(Event.TYPE_PRESENT, "a")]

    await broker.door.provision(LOCAL, provision("b"))  # too late for the page that has it
    rest = read(await anext(stream))
    assert [(e.type, e.kind) for e in rest.events] == [(Event.TYPE_PRESENT, Event.KIND_OPERATION)] * 2
    last = read(await anext(stream))
    assert [(e.revision, e.instance_id, e.kind) for e in last.events] == [
        (3, "b", Event.KIND_INSTANCE),
        (4, "b", Event.KIND_OPERATION),
    ]
    assert (first.synced, rest.synced, last.synced) == (False, False, True)
    await stream.aclose()


async def test_a_snapshot_that_is_cut_short_goes_on_where_it_was(broker: Broker) -> None:
    await broker.door.provision(LOCAL, provision("a"))
    stream = watch(broker)
    first = await anext(stream)
    broker.log.closing = True
    with pytest.raises(PurveyorError, match="DRAINING"):
        await anext(stream)
    broker.log.closing = False
    again = watch(broker, Start.AFTER, first.token)
    assert [e.kind for e in read(await anext(again)).events] == [Event.KIND_OPERATION]
    assert (await anext(again)).synced
    await again.aclose()


async def test_a_token_ahead_of_the_log_is_of_no_store_that_is(broker: Broker, tmp_path: Path) -> None:
    await broker.door.provision(LOCAL, provision("a"))
    stream = watch(broker, Start.NOW)
    token = (await anext(stream)).token
    await stream.aclose()
    broker.log.ring.skip_to(0)
    with pytest.raises(PurveyorError, match="INVALID_RESUME_TOKEN"):
        await anext(watch(broker, Start.AFTER, token))
    async with open_broker(tmp_path / "other") as other:
        with pytest.raises(PurveyorError, match="another store"):
            await anext(watch(other, Start.AFTER, token))
