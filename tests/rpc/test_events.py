"""WatchEvents over real sockets: where it begins, what it tells, how it goes on, how it ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import pytest
from msgspec.structs import replace

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import broker_service_pb2_grpc
from purveyor.v1.event_pb2 import Event
from purveyor_server.kit.signals import Signals
from purveyor_server.lifecycle.contract import Told
from purveyor_server.rpc import RpcSettings
from purveyor_server.rpc.convert.event import MAX_PART, assemble, encode_event
from purveyor_server.store.contract import Retention
from purveyor_server.watch.settings import WatchSettings
from tests.rpc.conftest import Stub
from tests.rpc.failures import failure_of
from tests.rpc.test_bounds import SMALL_WINDOW
from tests.rpc.whole import Whole, whole_broker
from tests.store_contract import records

START = pb.WatchEventsRequest.Start
HOUR = timedelta(hours=1)
SECONDS = 10.0
RPC = RpcSettings(streams_per_caller=3, min_heartbeat_seconds=0.05)
NOTHING_KEPT = Retention(HOUR, HOUR, HOUR, max_events=1)


@asynccontextmanager
async def running(folder: Path, *, work: bool = False, **bounds: Any) -> AsyncIterator[tuple[Whole, Stub]]:
    """A broker that does nothing with what it accepts, unless `work`."""
    async with (
        whole_broker(folder, RPC, work=work, watch=WatchSettings(**bounds)) as broker,
        grpc.aio.insecure_channel(broker.address) as channel,
    ):
        yield broker, broker_service_pb2_grpc.BrokerServiceStub(channel)


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[tuple[Whole, Stub]]:
    async with running(folder) as both:
        yield both


def watch(start: Any = START.START_NOW, **changes: Any) -> pb.WatchEventsRequest:
    return pb.WatchEventsRequest(**{"tenant": "t", "start": start} | changes)


async def order(stub: Stub, instance_id: str, tenant: str = "t") -> Any:
    return await stub.Provision(
        pb.ProvisionRequest(tenant=tenant, instance_id=instance_id, service_id="svc", plan_id="big")
    )


async def take(stream: Any, count: int) -> list[Any]:
    """Messages until `count` events are there."""
    messages: list[Any] = []
    async with asyncio.timeout(SECONDS):
        while sum(len(message.events) for message in messages) < count:
            message = await stream.read()
            assert message is not grpc.aio.EOF
            messages.append(message)
    return messages


def events(messages: list[Any]) -> list[Any]:
    return [event for message in messages for event in message.events]


def told(messages: list[Any]) -> list[tuple[int, str, str]]:
    return [(e.revision, Event.Kind.Name(e.kind)[5:], e.instance_id) for e in events(messages)]


async def test_from_now_on_the_first_message_comes_at_once(broker: tuple[Whole, Stub]) -> None:
    _, stub = broker
    await order(stub, "before")
    stream = stub.WatchEvents(watch())
    first = await stream.read()
    assert (list(first.events), first.synced, bool(first.resume_token)) == ([], True, True)

    made = await order(stub, "orders")
    messages = await take(stream, 2)

    assert told(messages) == [(3, "INSTANCE", "orders"), (4, "OPERATION", "orders")]
    assert not any(message.synced for message in messages)
    instance, operation = events(messages)
    assert (instance.type, instance.state, instance.version) == (Event.TYPE_CREATED, "PROVISIONING", 1)
    assert instance.instance.uid == instance.uid == made.instance.uid
    assert instance.operation_id == instance.instance.last_operation.operation_id == made.operation.operation_id
    assert operation.operation == made.operation
    assert (operation.uid, operation.type) == (made.operation.operation_id, Event.TYPE_CREATED)


async def test_from_the_earliest_and_on_after_a_token(broker: tuple[Whole, Stub]) -> None:
    _, stub = broker
    for name in ("a", "b", "c"):
        await order(stub, name)
    everything = await take(stub.WatchEvents(watch(START.START_EARLIEST)), 6)
    assert [revision for revision, _, _ in told(everything)] == [1, 2, 3, 4, 5, 6]

    small = pb.WatchEventsRequest(tenant="t", start=START.START_EARLIEST, kinds=[Event.KIND_INSTANCE])
    (first,) = await take(stub.WatchEvents(small), 3)
    await order(stub, "d")
    small.ClearField("start")
    small.resume_token = first.resume_token
    assert told(await take(stub.WatchEvents(small), 1)) == [(7, "INSTANCE", "d")]


async def test_filters_and_other_tenants(broker: tuple[Whole, Stub]) -> None:
    _, stub = broker
    one = stub.WatchEvents(watch(instance_id="wanted", kinds=[Event.KIND_OPERATION]))
    await one.read()
    await order(stub, "wanted", "other")
    await order(stub, "unwanted")
    await order(stub, "wanted")
    assert told(await take(one, 1)) == [(6, "OPERATION", "wanted")]


async def test_what_is_ready_at_one_moment_is_one_message(broker: tuple[Whole, Stub]) -> None:
    _, stub = broker
    for number in range(20):
        await order(stub, f"i{number}")
    (message,) = await take(stub.WatchEvents(watch(START.START_EARLIEST)), 40)
    assert (len(message.events), message.synced) == (40, True)


async def test_heartbeats_move_the_token_on(broker: tuple[Whole, Stub]) -> None:
    whole, stub = broker
    request = watch()
    request.heartbeat_interval.FromMilliseconds(50)
    stream = stub.WatchEvents(request)
    first = await stream.read()
    await order(stub, "orders", "other")
    async with asyncio.timeout(SECONDS):
        while (beat := await stream.read()).resume_token == first.resume_token:
            assert not beat.events
    await whole.store.retain(NOTHING_KEPT)
    again = stub.WatchEvents(pb.WatchEventsRequest(tenant="t", resume_token=beat.resume_token))
    assert not (await again.read()).events


async def test_snapshot_then_what_changes(folder: Path) -> None:
    async with running(folder, page_events=2) as (_, stub):
        for name in ("a", "b", "c", "d", "e"):
            await order(stub, name)
        stream = stub.WatchEvents(watch(START.START_SNAPSHOT))
        messages = await take(stream, 10)
        present = events(messages)
        assert [(e.instance_id, e.kind) for e in present[:5]] == [(name, Event.KIND_INSTANCE) for name in "abcde"]
        assert {e.type for e in present} == {Event.TYPE_PRESENT}
        assert {e.revision for e in present} == {10}
        while not (end := await stream.read()).synced:
            assert not end.events

        # Any message of it is a place to go on from.
        rest = stub.WatchEvents(pb.WatchEventsRequest(tenant="t", resume_token=messages[1].resume_token))
        assert [e.uid for e in events(await take(rest, 6))] == [e.uid for e in present[4:]]
        await order(stub, "f")
        assert (
            told(await take(stream, 2)) == told(await take(rest, 2)) == [(11, "INSTANCE", "f"), (12, "OPERATION", "f")]
        )


async def test_a_snapshot_leaves_out_what_is_over(folder: Path) -> None:
    async with running(folder, work=True) as (_, stub):
        request = pb.ProvisionRequest(tenant="t", instance_id="orders", service_id="svc", plan_id="big")
        request.wait.FromSeconds(20)
        await stub.Provision(request)
        stream = stub.WatchEvents(watch(START.START_SNAPSHOT))
        messages: list[Any] = []
        while not messages or not messages[-1].synced:
            messages.append(await stream.read())
        assert [(e.instance_id, e.state, e.instance.usable) for e in events(messages)] == [("orders", "READY", True)]


async def test_what_is_no_longer_kept_is_said(broker: tuple[Whole, Stub]) -> None:
    whole, stub = broker
    stream = stub.WatchEvents(watch())
    first = await stream.read()
    for number in range(5):
        await order(stub, f"i{number}")
    await whole.store.retain(NOTHING_KEPT)
    whole.log.ring.skip_to(whole.log.last)

    late = pb.WatchEventsRequest(tenant="t", resume_token=first.resume_token)
    failure = await failure_of(stub.WatchEvents(late).read())

    assert (failure.code, failure.reason) == (grpc.StatusCode.OUT_OF_RANGE, "COMPACTED")
    assert failure.metadata["earliest_revision"] == "10"
    late.resume_token = failure.metadata["earliest_token"]
    assert told(await take(stub.WatchEvents(late), 1)) == [(10, "OPERATION", "i4")]


async def test_tokens_belong_to_their_question(broker: tuple[Whole, Stub]) -> None:
    _, stub = broker
    token = (await stub.WatchEvents(watch()).read()).resume_token
    for changes in ({"tenant": "u"}, {"instance_id": "a"}, {"kinds": [Event.KIND_BINDING]}):
        failure = await failure_of(stub.WatchEvents(watch(START.START_AFTER, resume_token=token, **changes)).read())
        assert (failure.code, failure.reason) == (grpc.StatusCode.OUT_OF_RANGE, "SCOPE_CHANGED"), changes
    for bad in (token[:-2], "A" + token[1:] if token[0] != "A" else "B" + token[1:], "ä", "x" * 2000, token + "="):
        failure = await failure_of(stub.WatchEvents(watch(START.START_AFTER, resume_token=bad)).read())
        assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_RESUME_TOKEN"), bad
        assert failure.details["BadRequest"].field_violations[0].field == "resume_token"


@pytest.mark.parametrize(
    ("changes", "field"),
    [
        ({"tenant": "T"}, "tenant"),
        ({"start": START.START_AFTER}, "resume_token"),
        ({"start": START.START_EARLIEST, "resume_token": "x"}, "start"),
        ({"start": 9}, "start"),
        ({"kinds": [9]}, "kinds"),
        ({"kinds": [0]}, "kinds"),
        ({"instance_id": ".."}, "instance_id"),
    ],
)
async def test_bad_requests_name_the_field(broker: tuple[Whole, Stub], changes: dict[str, Any], field: str) -> None:
    failure = await failure_of(broker[1].WatchEvents(watch(**changes)).read())
    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert failure.details["BadRequest"].field_violations[0].field == field


async def test_streams_of_one_caller_are_bounded(broker: tuple[Whole, Stub]) -> None:
    _, stub = broker
    held = [stub.WatchEvents(watch()) for _ in range(3)]
    for stream in held:
        await stream.read()
    failure = await failure_of(stub.WatchEvents(watch()).read())
    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS")
    assert "RetryInfo" in failure.details
    for stream in held:
        stream.cancel()


async def test_an_old_stream_ends_after_a_last_token(folder: Path) -> None:
    async with running(folder, max_age=0.2) as (_, stub):
        stream = stub.WatchEvents(watch())
        await stream.read()
        last = await stream.read()
        failure = await failure_of(stream.read())
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "STREAM_EXPIRED")
        assert "RetryInfo" in failure.details
        await order(stub, "orders")
        again = stub.WatchEvents(pb.WatchEventsRequest(tenant="t", resume_token=last.resume_token))
        assert len(events(await take(again, 2))) == 2


async def test_drain_ends_a_stream_after_a_last_token(folder: Path) -> None:
    async with running(folder) as (whole, stub):
        stream = stub.WatchEvents(watch())
        first = await stream.read()
        await order(stub, "orders", "other")
        whole.use_cases.drain()
        draining = asyncio.create_task(whole.server.drain(5))
        last = await stream.read()
        failure = await failure_of(stream.read())
        await draining
        assert (failure.code, failure.reason) == (grpc.StatusCode.UNAVAILABLE, "DRAINING")
        assert last.resume_token != first.resume_token
        assert len(whole.server.calls) == 0


async def test_a_client_that_goes_away_leaves_nothing(watch_logs: Signals, broker: tuple[Whole, Stub]) -> None:
    whole, stub = broker
    stream = stub.WatchEvents(watch())
    await stream.read()
    assert whole.log.watchers == 1
    stream.cancel()
    await watch_logs.wait("call ended")
    assert whole.log.watchers == 0


async def test_a_reader_that_stops_is_cut_off_and_nobody_waits_for_it(watch_logs: Signals, folder: Path) -> None:
    impatient = replace(RPC, write_seconds=0.1)
    async with (
        whole_broker(folder, impatient, work=False) as broker,
        grpc.aio.insecure_channel(broker.address, options=SMALL_WINDOW) as sleepy,
        grpc.aio.insecure_channel(broker.address) as channel,
    ):
        stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
        dead = broker_service_pb2_grpc.BrokerServiceStub(sleepy).WatchEvents(watch())
        awake = stub.WatchEvents(watch())
        await dead.read()
        await awake.read()
        labels = {f"k{number}": "x" * 255 for number in range(64)}
        stuck = asyncio.create_task(watch_logs.wait("client does not read"))
        count = 0
        while not stuck.done():
            request = pb.ProvisionRequest(tenant="t", instance_id=f"i{count}", service_id="svc", plan_id="big")
            request.labels.update(labels)
            await stub.Provision(request)
            count += 1
            assert len(events(await take(awake, 2))) == 2
        await stuck

        async def read_on() -> None:
            while await dead.read() is not grpc.aio.EOF:
                pass

        assert (await failure_of(read_on())).reason == "DEADLINE_EXCEEDED"
        awake.cancel()


async def test_a_burst_of_streams_loses_none(folder: Path) -> None:
    many = replace(RPC, streams_per_caller=2000)
    async with (
        whole_broker(folder, many, work=False) as broker,
        grpc.aio.insecure_channel(broker.address) as channel,
    ):
        stub = broker_service_pb2_grpc.BrokerServiceStub(channel)
        streams = [stub.WatchEvents(watch()) for _ in range(1000)]
        firsts: list[Any] = await asyncio.gather(*(stream.read() for stream in streams))
        assert all(first.synced for first in firsts)
        await order(stub, "orders")
        taken = await asyncio.gather(*(take(stream, 2) for stream in streams))
        assert {tuple(told(messages)) for messages in taken} == {
            ((1, "INSTANCE", "orders"), (2, "OPERATION", "orders"))
        }
        for stream in streams:
            stream.cancel()


def test_parts_put_together_are_the_message() -> None:
    made = records.instance()
    event = records.event_of(made)
    parts = (encode_event(event), encode_event(replace(event, revision=300)))
    message = pb.WatchEventsResponse.FromString(assemble(Told(parts, "token", synced=True)))
    assert [e.revision for e in message.events] == [event.revision, 300]
    assert (message.resume_token, message.synced) == ("token", True)
    assert message == pb.WatchEventsResponse(events=message.events, resume_token="token", synced=True)


def test_a_record_that_fits_into_no_message_is_left_out() -> None:
    made = records.instance()
    made = replace(made, desired=replace(made.desired, parameters={"text": "x" * MAX_PART}))
    part = encode_event(records.event_of(made))
    (event,) = pb.WatchEventsResponse.FromString(part).events
    assert (event.uid, event.WhichOneof("record")) == (made.uid, None)
