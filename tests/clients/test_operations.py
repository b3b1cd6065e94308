"""Handles: results, iteration, and watches over a server that stops and starts again on the same socket."""

from __future__ import annotations

import asyncio
import pickle
from functools import partial
from typing import TYPE_CHECKING, Any

import grpc
import pytest

import purveyor
import purveyor.client
from purveyor import watch
from purveyor.connection import Limits
from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1.error_reason_pb2 import ERROR_REASON_CANCELLED_BY_CALLER, ERROR_REASON_PROVIDER_FAILED
from purveyor.v1.operation_pb2 import OPERATION_VIEW_FULL, Operation, Step
from tests.clients.scripted import (
    HANG,
    Refusal,
    ScriptedBroker,
    binding,
    failure,
    instance,
    operation,
    retry_after,
    serving,
)

if TYPE_CHECKING:
    from pathlib import Path

    from purveyor import Client, OperationHandle

WAIT_SECONDS = 20
DRAINING = Refusal(grpc.StatusCode.UNAVAILABLE, "DRAINING", "the server is stopping", details=(retry_after(0.01),))


async def provision(client: Client, broker: ScriptedBroker) -> OperationHandle[purveyor.Instance]:
    broker.script["Provision"] = [messages.ProvisionResponse(operation=operation("PENDING", 0), replayed=True)]
    broker.script["GetInstance"] = [messages.GetInstanceResponse(instance=instance())]
    return await client.provision("postgresql", "shared", instance_id="orders")


async def test_result_waits_for_the_end_and_fetches(client: Client, broker: ScriptedBroker) -> None:
    broker.script["WatchOperation"] = [[operation(), operation(percent=50), operation("SUCCEEDED", 100)]]
    handle = await provision(client, broker)

    found = await handle.result(timeout=WAIT_SECONDS)

    assert (found.instance_id, found.state, handle.replayed, handle.done) == ("orders", "READY", True, True)


async def test_a_result_of_another_incarnation_is_refused(client: Client, broker: ScriptedBroker) -> None:
    broker.script["WatchOperation"] = [[operation("SUCCEEDED", 100)]]
    handle = await provision(client, broker)
    broker.script["GetInstance"] = [messages.GetInstanceResponse(instance=instance(uid="uid-2"))]

    with pytest.raises(purveyor.NotFoundError, match="in use again"):
        await handle.result(timeout=WAIT_SECONDS)


async def test_iteration_leaves_out_what_did_not_change(client: Client, broker: ScriptedBroker) -> None:
    broker.script["WatchOperation"] = [
        [operation(percent=1), operation(percent=1), operation(percent=60), operation("SUCCEEDED", 100)]
    ]
    handle = await provision(client, broker)

    assert [status.percent async for status in handle] == [1, 60, 100]
    assert [status.state async for status in handle] == ["SUCCEEDED"]  # known by now: asks nobody
    assert len(broker.seen["WatchOperation"]) == 1


async def test_a_failed_operation_raises_its_reason(client: Client, broker: ScriptedBroker) -> None:
    broker.script["WatchOperation"] = [[operation("FAILED", failure=failure(ERROR_REASON_PROVIDER_FAILED))]]
    handle = await provision(client, broker)

    with pytest.raises(purveyor.OperationFailedError) as failed:
        await handle.result(timeout=WAIT_SECONDS)

    assert (failed.value.reason, failed.value.message) == ("PROVIDER_FAILED", "the database could not be made")
    assert failed.value.failure
    assert (failed.value.failure.step, failed.value.failure.retryable) == ("database", True)


async def test_a_cancelled_operation_raises_its_own_class(client: Client, broker: ScriptedBroker) -> None:
    broker.script["WatchOperation"] = [
        [operation("CANCELLED", failure=failure(ERROR_REASON_CANCELLED_BY_CALLER, "cancelled by a caller"))]
    ]
    handle = await provision(client, broker)

    with pytest.raises(purveyor.OperationCancelledError, match="CANCELLED_BY_CALLER"):
        await handle.result(timeout=WAIT_SECONDS)


async def test_a_time_out_leaves_the_operation_alone(client: Client, broker: ScriptedBroker) -> None:
    broker.script["WatchOperation"] = [[operation(), HANG]]
    handle = await provision(client, broker)

    with pytest.raises(TimeoutError):
        await handle.result(timeout=0.2)

    assert not broker.seen["CancelOperation"]


@pytest.mark.parametrize(
    "end",
    [
        DRAINING,
        Refusal(grpc.StatusCode.CANCELLED),
        Refusal(grpc.StatusCode.RESOURCE_EXHAUSTED, "TOO_MANY_STREAMS", details=(retry_after(0.01),)),
    ],
)
async def test_a_broken_stream_is_opened_again(client: Client, broker: ScriptedBroker, end: Refusal) -> None:
    broker.script["WatchOperation"] = [[operation(percent=1), end], [operation(percent=2)], [operation("SUCCEEDED")]]
    handle = await provision(client, broker)

    assert [status.percent async for status in handle] == [1, 2, 10]
    assert len(broker.seen["WatchOperation"]) == 3


async def test_an_unknown_operation_is_not_asked_for_again(client: Client, broker: ScriptedBroker) -> None:
    broker.script["WatchOperation"] = [[Refusal(grpc.StatusCode.NOT_FOUND, "OPERATION_NOT_FOUND")]]
    handle = await provision(client, broker)

    with pytest.raises(purveyor.NotFoundError):
        await handle.result(timeout=WAIT_SECONDS)

    assert len(broker.seen["WatchOperation"]) == 1


async def test_a_watch_survives_a_restart_on_the_same_socket(folder: Path) -> None:
    first, second = ScriptedBroker(), ScriptedBroker()
    first.script["WatchOperation"] = [[operation(percent=1), HANG]]
    second.script["WatchOperation"] = [[operation(percent=70), operation("SUCCEEDED", 100)]]
    second.script["GetInstance"] = [messages.GetInstanceResponse(instance=instance())]
    async with purveyor.Client(f"unix:{folder / 's'}", tenant="t") as client, asyncio.timeout(WAIT_SECONDS):
        async with serving(first, folder / "s"):
            handle = await provision(client, first)
            waiting = asyncio.create_task(handle.result())
            await first.watching.wait()
        assert not waiting.done()
        async with serving(second, folder / "s"):
            assert (await waiting).state == "READY"


async def test_a_watch_gives_up_when_the_server_stays_away(folder: Path) -> None:
    broker = ScriptedBroker()
    broker.script["WatchOperation"] = [[operation(), HANG]]
    async with purveyor.Client(f"unix:{folder / 's'}", tenant="t", outage_limit=0.5) as client:
        async with serving(broker, folder / "s"), asyncio.timeout(WAIT_SECONDS):
            handle = await provision(client, broker)
            waiting = asyncio.create_task(handle.result())
            await broker.watching.wait()
        with pytest.raises(purveyor.UnavailableError):
            await asyncio.wait_for(waiting, WAIT_SECONDS)


async def test_a_silent_stream_is_taken_for_dead(
    broker: ScriptedBroker, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "SILENCE_SLACK_SECONDS", 0.1)
    monkeypatch.setattr(purveyor.client, "Limits", partial(Limits, heartbeat=0.05))
    broker.script["WatchOperation"] = [[operation(percent=1), HANG], [operation("SUCCEEDED")]]
    async with purveyor.Client(f"unix:{folder / 's'}", tenant="t") as client:
        handle = await provision(client, broker)
        await handle.result(timeout=WAIT_SECONDS)

    assert len(broker.seen["WatchOperation"]) == 2


async def test_bind_asks_for_credentials_that_the_answer_had_not(client: Client, broker: ScriptedBroker) -> None:
    bind: dict[str, Any] = {"verb": Operation.VERB_BIND, "binding_id": "app", "binding_uid": "uid-b"}
    answer = messages.GetCredentialsResponse()
    answer.credentials.values.update({"uri": "postgresql://x"})
    broker.script |= {
        "Bind": [messages.BindResponse(operation=operation(**bind))],
        "WatchOperation": [[operation("SUCCEEDED", 100, **bind)]],
        "GetBinding": [messages.GetBindingResponse(binding=binding())],
        "GetCredentials": [answer],
    }

    bound = await (await client.bind("orders", binding_id="app")).result(timeout=WAIT_SECONDS)

    assert (bound.binding_id, bound.credentials["uri"]) == ("app", "postgresql://x")


async def test_giving_back_ends_with_the_tombstone_or_nothing(client: Client, broker: ScriptedBroker) -> None:
    broker.script |= {
        "Deprovision": [messages.DeprovisionResponse(operation=operation("SUCCEEDED")), messages.DeprovisionResponse()],
        "GetInstance": [messages.GetInstanceResponse(instance=instance("DELETED"))],
    }

    gone = await (await client.deprovision("orders")).result()
    nothing = await (await client.deprovision("orders", allow_missing=True)).result()

    assert gone
    assert (gone.state, broker.seen["GetInstance"][0].show_deleted) == ("DELETED", True)
    assert nothing is None


async def test_validate_only_shows_the_steps_and_has_no_result(client: Client, broker: ScriptedBroker) -> None:
    plan = operation("PENDING", 0, operation_id="", steps=[Step(name="role"), Step(name="database")])
    broker.script["Provision"] = [messages.ProvisionResponse(operation=plan)]

    handle = await client.provision("postgresql", "shared", validate_only=True)

    assert [step.name for step in handle.status.steps] == ["role", "database"]
    with pytest.raises(ValueError, match="validate_only"):
        await handle.result()


async def test_steps_cancel_and_refresh(client: Client, broker: ScriptedBroker) -> None:
    broker.script |= {
        "CancelOperation": [messages.CancelOperationResponse(operation=operation("CANCELLING"))],
        "GetOperation": [messages.GetOperationResponse(operation=operation("CANCELLED"))],
        "WatchOperation": [[operation("CANCELLED", steps=[Step(name="role", state=Step.STATE_UNDONE)])]],
    }
    handle = await provision(client, broker)

    assert (await handle.cancel(wait=1)).state == "CANCELLING"
    assert (await handle.refresh()).state == "CANCELLED"
    (final,) = [status async for status in handle.watch(steps=True)]
    assert [(step.name, step.state) for step in final.steps] == [("role", "UNDONE")]
    assert broker.seen["WatchOperation"][0].view == OPERATION_VIEW_FULL
    assert "CANCELLED" in repr(handle)


async def test_a_client_that_is_not_open_says_so() -> None:
    with pytest.raises(RuntimeError, match="async with"):
        await purveyor.Client("127.0.0.1:1").catalog()


async def test_a_handle_without_an_operation_asks_nobody(client: Client, broker: ScriptedBroker) -> None:
    broker.script["Deprovision"] = [messages.DeprovisionResponse()]
    handle = await client.deprovision("orders", allow_missing=True)

    assert (await handle.refresh()).state == "SUCCEEDED"
    with pytest.raises(ValueError, match="nothing was started"):
        await handle.cancel()
    assert not broker.seen["CancelOperation"]


async def test_a_client_is_opened_once(client: Client) -> None:
    with pytest.raises(RuntimeError, match="open already"):
        await client.__aenter__()


async def test_errors_survive_pickling(client: Client, broker: ScriptedBroker) -> None:
    broker.script["WatchOperation"] = [[operation("FAILED", failure=failure(ERROR_REASON_PROVIDER_FAILED))]]
    handle = await provision(client, broker)
    with pytest.raises(purveyor.OperationFailedError) as failed:
        await handle.result(timeout=WAIT_SECONDS)

    again = pickle.loads(pickle.dumps(failed.value))  # noqa: S301 - our own bytes

    assert (type(again), str(again), again.failure) == (type(failed.value), str(failed.value), failed.value.failure)
