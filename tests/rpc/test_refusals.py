"""Every failure of a call: what the caller sees, and what nobody sees."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import Any

import grpc
import pytest

from purveyor.v1 import broker_service_pb2 as pb
from purveyor_server.domain.errors import PurveyorError, Reason, instance_not_found, invalid
from purveyor_server.rpc import RpcServer, RpcSettings
from purveyor_server.rpc.errors import TABLE
from tests.rpc.failures import Failure, failure_of
from tests.rpc.scripted import ScriptedDoor, instance

GET = pb.GetInstanceRequest(tenant="t", instance_id="orders")
SECRET = "postgres://u:geheim@h/db"


@pytest.fixture
def settings() -> RpcSettings:
    return RpcSettings(request_bytes=1000, receive_bytes=4000, send_bytes=2000)


@pytest.mark.parametrize("reason", list(Reason))
async def test_every_reason_arrives_with_its_code(stub: Any, door: ScriptedDoor, reason: Reason) -> None:
    door.script["get_instance"] = PurveyorError(reason, "text", metadata={"key": "value"})

    failure = await failure_of(stub.GetInstance(GET))

    assert (failure.code, failure.message, failure.reason) == (TABLE[reason].code, "text", reason.value)
    assert failure.metadata == {"key": "value"}


async def test_details_arrive(stub: Any, door: ScriptedDoor) -> None:
    door.script["get_instance"] = instance_not_found("t", "orders")
    assert (await failure_of(stub.GetInstance(GET))).details["ResourceInfo"].resource_name == "orders"

    door.script["get_instance"] = invalid("instance_id", "is odd")
    bad = (await failure_of(stub.GetInstance(GET))).details["BadRequest"]
    assert (bad.field_violations[0].field, bad.field_violations[0].description) == ("instance_id", "is odd")


async def test_a_defect_shows_its_request_id_only(stub: Any, door: ScriptedDoor) -> None:
    door.script["get_instance"] = ValueError(SECRET)

    failure = await failure_of(stub.GetInstance(GET, metadata=(("x-request-id", "mine-1"),)))

    assert (failure.code, failure.message) == (grpc.StatusCode.INTERNAL, "internal error")
    assert failure.metadata == {"request_id": "mine-1"}
    assert failure.details["RequestInfo"].request_id == "mine-1"
    assert SECRET not in repr(failure)


async def test_a_defect_in_a_stream_after_its_first_message(stub: Any, door: ScriptedDoor) -> None:
    door.watched.put_nowait(RuntimeError(SECRET))
    stream = stub.WatchOperation(pb.WatchOperationRequest(tenant="t", operation_id="o"))

    failure = await failure_of(stream.read())

    assert (failure.code, failure.message) == (grpc.StatusCode.INTERNAL, "internal error")
    assert SECRET not in repr(failure)


async def test_a_long_text_is_cut_and_arrives(stub: Any, door: ScriptedDoor) -> None:
    door.script["get_instance"] = PurveyorError(
        Reason.INVALID_PARAMETERS, "\u20ac" * 20_000, metadata={"k": "\u20ac" * 20_000}
    )

    failure = await failure_of(stub.GetInstance(GET))

    assert failure.reason == "INVALID_PARAMETERS"
    assert failure.message.endswith("...")


async def test_the_request_id_of_the_caller_is_echoed(stub: Any, door: ScriptedDoor) -> None:
    door.script["get_instance"] = instance()
    call = stub.GetInstance(GET, metadata=(("x-request-id", "mine-1"),))

    await call

    assert ("x-request-id", "mine-1") in tuple(await call.trailing_metadata())
    assert door.seen["get_instance"][0][0].call_id == "mine-1"


@pytest.mark.parametrize("sent", ["", "with space", "x" * 65])
async def test_a_malformed_request_id_is_replaced(stub: Any, door: ScriptedDoor, sent: str) -> None:
    door.script["get_instance"] = instance_not_found("t", "orders")

    failure = await failure_of(stub.GetInstance(GET, metadata=(("x-request-id", sent),)))

    assert len(failure.trailers["x-request-id"]) == 36


async def test_a_request_above_the_limit_is_refused_with_a_reason(stub: Any, door: ScriptedDoor) -> None:
    failure = await failure_of(stub.GetInstance(pb.GetInstanceRequest(tenant="t", instance_id="x" * 1000)))

    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")
    assert failure.metadata == {"limit_bytes": "1000"}
    assert not door.seen


async def test_a_request_far_above_the_limit_is_refused_by_the_core(stub: Any, door: ScriptedDoor) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await stub.GetInstance(pb.GetInstanceRequest(tenant="t", instance_id="x" * 5000))

    assert caught.value.code() is grpc.StatusCode.RESOURCE_EXHAUSTED
    assert not door.seen


async def test_an_answer_above_the_limit_is_refused_with_a_reason(stub: Any, door: ScriptedDoor) -> None:
    from purveyor_server.lifecycle.contract import PageOf  # noqa: PLC0415 - used here only

    door.script["list_instances"] = PageOf(tuple(instance() for _ in range(20)))

    failure = await failure_of(stub.ListInstances(pb.ListInstancesRequest(tenant="t")))

    assert (failure.code, failure.reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "MESSAGE_TOO_LARGE")


async def test_bytes_that_are_no_message_are_refused(channel: grpc.aio.Channel, door: ScriptedDoor) -> None:
    method: Any = channel.unary_unary("/purveyor.v1.BrokerService/Provision")

    failure = await failure_of(method(b"\xff\xff\xff"))

    assert (failure.code, failure.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_REQUEST")
    assert not door.seen


async def _refused(ask: Callable[[], Any]) -> Failure:
    """The failure of a call. A client whose call ends while it still sends may make up a status of its own: asked again."""
    for _ in range(4):
        with suppress(KeyError):
            return await failure_of(ask())
    return await failure_of(ask())


@pytest.mark.parametrize("kind", ["unary_unary", "unary_stream", "stream_unary", "stream_stream"])
@pytest.mark.parametrize("path", ["/purveyor.v1.BrokerService/Nothing", "/nobody.Knows/It"])
async def test_an_unknown_method_is_refused_with_a_reason(channel: grpc.aio.Channel, kind: str, path: str) -> None:
    method: Any = getattr(channel, kind)(path)

    def asked() -> Any:
        call = method(iter([b""]) if kind.startswith("stream") else b"", timeout=10)
        return call.read() if kind.endswith("stream") else call

    failure = await _refused(asked)

    assert (failure.code, failure.reason) == (grpc.StatusCode.UNIMPLEMENTED, "UNKNOWN_METHOD")
    assert failure.metadata == {"method": path}


async def test_an_unknown_view_is_refused(stub: Any, server: RpcServer) -> None:
    request = pb.GetOperationRequest(tenant="t", operation_id="o")
    request.view = 99  # type: ignore[assignment] # a later version's

    failure = await failure_of(stub.GetOperation(request))

    assert failure.details["BadRequest"].field_violations[0].field == "view"
