"""Failures of the way to the broker: each has a class, and a name that a script can branch on."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import purveyor
from purveyor import TransportReason
from purveyor.connection import Backoff
from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1.error_reason_pb2 import ErrorReason
from tests.clients.scripted import HANG, Refusal, instance, operation

if TYPE_CHECKING:
    from pathlib import Path

    from purveyor import Client
    from tests.clients.scripted import ScriptedBroker

WAIT_SECONDS = 20
LARGE = "SERVER: Received message larger than max (5000000 vs. 4194304)"
SHORT: dict[str, Any] = {"timeout": 2, "retry_for": 0.2}


class Stuck:
    """A script's entry that is never answered."""

    def __init__(self) -> None:
        self.asked = asyncio.Event()

    async def __call__(self, _: Any) -> Any:
        self.asked.set()
        await asyncio.Event().wait()


def test_no_transport_reason_is_taken_for_one_of_the_server() -> None:
    assert not {f"ERROR_REASON_{reason}" for reason in TransportReason} & set(ErrorReason.keys())


async def test_nobody_at_the_address(folder: Path) -> None:
    async with purveyor.Client(f"unix:{folder / 'nobody'}", **SHORT) as client:
        with pytest.raises(purveyor.UnavailableError) as failed:
            await client.deprovision("orders", request_id="mine")

    assert failed.value.transport_reason == TransportReason.UNREACHABLE
    assert (failed.value.reason, failed.value.request_id) == ("", "mine")
    assert str(failed.value).endswith("cannot be reached (no such file or directory) [UNREACHABLE]")


async def test_a_refused_connection(folder: Path) -> None:
    async with purveyor.Client("127.0.0.1:1", **SHORT) as client:
        with pytest.raises(purveyor.UnavailableError, match=r"connection refused\) \[UNREACHABLE\]"):
            await client.catalog()


async def test_a_request_that_the_transport_finds_too_large(broker: ScriptedBroker, client: Client) -> None:
    with pytest.raises(purveyor.ResourceExhaustedError) as failed:
        await client.provision("svc-pg", "plan-shared", parameters={"text": "x" * 5_000_000})

    assert failed.value.transport_reason == TransportReason.CALL_TOO_LARGE
    assert "too large" in failed.value.message
    assert not broker.seen["Provision"]


async def test_a_page_that_is_too_large_is_asked_for_in_halves(broker: ScriptedBroker, client: Client) -> None:
    too_large = Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, message=LARGE)
    last = messages.ListInstancesResponse(instances=[instance()])
    broker.script["ListInstances"] = [too_large, too_large, last]

    assert [item.instance_id async for item in client.instances()] == ["orders"]
    assert [sent.page_size for sent in broker.seen["ListInstances"]] == [0, 50, 25]

    broker.script["ListInstances"] = [too_large]
    with pytest.raises(purveyor.ResourceExhaustedError, match="CALL_TOO_LARGE"):
        _ = [item async for item in client.instances(page_size=2)]


async def test_a_large_page_is_read(broker: ScriptedBroker, client: Client) -> None:
    many = [instance(instance_id=f"i-{number}", labels={"text": "x" * 100_000}) for number in range(60)]
    broker.script["ListInstances"] = [messages.ListInstancesResponse(instances=many)]

    assert len([item async for item in client.instances()]) == 60


async def test_no_answer_in_time(broker: ScriptedBroker, folder: Path) -> None:
    broker.script["Deprovision"] = [Stuck()]
    async with purveyor.Client(f"unix:{folder / 's'}", timeout=0.2) as client:
        with pytest.raises(purveyor.DeadlineExceededError) as failed:
            await client.deprovision("orders", request_id="mine")

    assert failed.value.transport_reason == TransportReason.CALL_TIMED_OUT
    assert failed.value.request_id == "mine"


@pytest.mark.parametrize("code", ["CANCELLED", "UNKNOWN", "INTERNAL", "UNAVAILABLE"])
async def test_a_broken_connection(broker: ScriptedBroker, folder: Path, code: str) -> None:
    broker.script["Deprovision"] = [Refusal(grpc.StatusCode[code], message="Stream removed")]
    async with purveyor.Client(f"unix:{folder / 's'}", **SHORT) as client:
        with pytest.raises(purveyor.UnavailableError) as failed:
            await client.deprovision("orders")

    assert (failed.value.code, failed.value.transport_reason) == (code, TransportReason.CONNECTION_LOST)
    assert len(broker.seen["Deprovision"]) > 1  # the same request id: sent again


@pytest.mark.parametrize("code", ["UNIMPLEMENTED", "UNAUTHENTICATED", "NOT_FOUND", "RESOURCE_EXHAUSTED"])
async def test_an_answer_that_no_broker_gives(broker: ScriptedBroker, client: Client, code: str) -> None:
    broker.script["Deprovision"] = [Refusal(grpc.StatusCode[code], message="Method not found!")]

    with pytest.raises(purveyor.PurveyorError) as failed:
        await client.deprovision("orders")

    assert (failed.value.code, failed.value.transport_reason) == (code, TransportReason.NOT_A_BROKER)
    assert len(broker.seen["Deprovision"]) == 1


async def test_closing_the_client_ends_its_calls_with_an_error_of_ours(broker: ScriptedBroker, folder: Path) -> None:
    stuck = Stuck()
    broker.script |= {
        "Deprovision": [messages.DeprovisionResponse(operation=operation()), stuck],
        "WatchOperation": [[operation(), HANG]],
    }
    client = purveyor.Client(f"unix:{folder / 's'}", tenant="t")
    async with client, asyncio.timeout(WAIT_SECONDS):
        watch = asyncio.create_task((await client.deprovision("orders")).result())
        call = asyncio.create_task(client.deprovision("orders", request_id="mine"))
        await broker.watching.wait()
        await stuck.asked.wait()
        await client.close()
        ended = await asyncio.gather(watch, call, return_exceptions=True)

    for failure in ended:
        assert isinstance(failure, purveyor.UnavailableError), failure
        assert failure.transport_reason == TransportReason.CLIENT_CLOSED
    assert getattr(ended[1], "request_id", "") == "mine"


@pytest.mark.parametrize("method", ["WatchOperation", "GetInstance"])
async def test_closing_the_client_between_two_attempts(broker: ScriptedBroker, folder: Path, method: str) -> None:
    class Signalling(Backoff):
        def delay(self, attempt: int, least: float | None = None) -> float:
            waiting.set()
            return 0.05

    waiting = asyncio.Event()
    down = Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING")
    broker.script |= {
        "Deprovision": [messages.DeprovisionResponse(operation=operation())],
        "WatchOperation": [[down] if method == "WatchOperation" else [operation("SUCCEEDED")]],
        "GetInstance": [down],
    }
    client = purveyor.Client(f"unix:{folder / 's'}", tenant="t")
    async with client, asyncio.timeout(WAIT_SECONDS):
        client.connection.backoff = Signalling()
        result = asyncio.create_task((await client.deprovision("orders")).result())
        await waiting.wait()
        await client.close()
        with pytest.raises(purveyor.UnavailableError, match="CLIENT_CLOSED"):
            await result


async def test_a_cancelled_task_stays_cancelled(broker: ScriptedBroker, client: Client) -> None:
    stuck = Stuck()
    broker.script["Deprovision"] = [stuck]
    call = asyncio.create_task(client.deprovision("orders"))
    await asyncio.wait_for(stuck.asked.wait(), WAIT_SECONDS)

    call.cancel()

    with pytest.raises(asyncio.CancelledError):
        await call
