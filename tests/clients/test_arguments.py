"""Arguments that cannot be sent: refused by name, in the library's own error, before anything leaves."""

from __future__ import annotations

import math
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import pytest

import purveyor
from purveyor import encode
from purveyor.v1 import broker_service_pb2 as messages
from tests.clients.scripted import instance, operation

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from pathlib import Path

    from purveyor import Client
    from tests.clients.scripted import ScriptedBroker

NO_TIMES: tuple[Any, ...] = (
    -1,
    -0.001,
    timedelta(seconds=-1),
    1e12,
    timedelta.max,
    10**5000,
    math.inf,
    math.nan,
    "5",
    True,
)
CHANGES: dict[str, Callable[[Client, Any], Awaitable[Any]]] = {
    "Provision": lambda client, time: client.provision("svc-pg", "plan-shared", wait=time),
    "UpdateInstance": lambda client, time: client.update("orders", wait=time),
    "Deprovision": lambda client, time: client.deprovision("orders", wait=time),
    "Bind": lambda client, time: client.bind("orders", wait=time),
    "Unbind": lambda client, time: client.unbind("orders", "app", wait=time),
    "CancelOperation": lambda client, time: client.cancel("op-1", wait=time),
}


@pytest.mark.parametrize("method", CHANGES)
@pytest.mark.parametrize("time", NO_TIMES, ids=range(len(NO_TIMES)))
async def test_a_wait_that_cannot_be_sent_is_refused_by_name(
    client: Client, broker: ScriptedBroker, method: str, time: Any
) -> None:
    with pytest.raises(purveyor.InvalidRequestError) as refused:
        await CHANGES[method](client, time)

    assert [violation.field for violation in refused.value.violations] == ["wait"]
    assert refused.value.reason == "INVALID_REQUEST"
    assert not broker.seen[method]


@pytest.mark.parametrize("time", NO_TIMES, ids=range(len(NO_TIMES)))
async def test_other_times_are_refused_by_name(client: Client, broker: ScriptedBroker, time: Any) -> None:
    broker.script["Deprovision"] = [messages.DeprovisionResponse(operation=operation())]
    handle = await client.deprovision("orders")

    with pytest.raises(purveyor.InvalidRequestError, match=r"^ttl: "):
        await client.bind("orders", ttl=time)
    with pytest.raises(purveyor.InvalidRequestError, match=r"^timeout: "):
        await handle.result(timeout=time)
    for name in ("timeout", "retry_for", "outage_limit"):
        with pytest.raises(purveyor.InvalidRequestError, match=rf"^{name}: "):
            purveyor.Client("127.0.0.1:1", **{name: time})


@pytest.mark.parametrize("time", [encode.MAX_SECONDS, timedelta(days=365_000), 1e10])
async def test_a_long_wait_is_not_a_deadline_that_is_over(client: Client, broker: ScriptedBroker, time: Any) -> None:
    broker.script["Deprovision"] = [messages.DeprovisionResponse(operation=operation())]

    await client.deprovision("orders", wait=time)

    assert broker.seen["Deprovision"][0].wait.seconds == encode.seconds("wait", time)


def test_a_duration_is_exact_to_the_microsecond() -> None:
    made = encode.duration("wait", timedelta(seconds=1, microseconds=999_999))

    assert made is not None
    assert (made.seconds, made.nanos) == (1, 999_999_000)
    assert encode.duration("wait", None) is None


async def test_a_page_size_that_cannot_be_sent_is_refused_by_name(client: Client, broker: ScriptedBroker) -> None:
    with pytest.raises(purveyor.InvalidRequestError, match=rf"^page_size: {2**40} does not fit"):
        _ = [item async for item in client.instances(page_size=2**40)]

    assert not broker.seen["ListInstances"]


async def test_text_that_is_no_unicode_is_refused_by_name(client: Client, broker: ScriptedBroker) -> None:
    broken = b"\xff".decode(errors="surrogateescape")  # what a command line that is not UTF-8 turns into

    with pytest.raises(purveyor.InvalidRequestError, match=r"^instance_id: not Unicode"):
        await client.instance(broken)
    with pytest.raises(purveyor.InvalidRequestError, match=r"^labels: not Unicode"):
        await client.provision("svc-pg", "plan-shared", labels={"team": broken})
    with pytest.raises(purveyor.InvalidRequestError, match=r"^parameters\.list\[0\]: not Unicode"):
        await client.provision("svc-pg", "plan-shared", parameters={"list": [broken]})
    with pytest.raises(purveyor.InvalidRequestError, match=r"^parameters: not Unicode"):
        await client.provision("svc-pg", "plan-shared", parameters={broken: 1})
    assert not broker.seen["Provision"]


def test_a_refusal_does_not_repeat_a_value_that_may_be_secret() -> None:
    with pytest.raises(purveyor.InvalidRequestError) as refused:
        encode.request(messages.ProvisionRequest, tenant="t", labels={"token": b"hunter2\xff"})  # type: ignore[dict-item] # on purpose

    assert refused.value.violations[0].field == "labels"
    assert "hunter2" not in str(refused.value)


async def test_a_cancel_repeats_its_request_id(broker: ScriptedBroker, folder: Path) -> None:
    broker.script["CancelOperation"] = [messages.CancelOperationResponse(operation=operation("CANCELLING"))]
    broker.script["Provision"] = [messages.ProvisionResponse(operation=operation(), instance=instance())]
    async with purveyor.Client(f"unix:{folder / 's'}", tenant="t") as client:
        await client.cancel("op-1", request_id="mine")
        await (await client.provision("svc-pg", "plan-shared")).cancel(request_id="mine-too")
        await client.cancel("op-1")

    first, second, third = (request.request_id for request in broker.seen["CancelOperation"])
    assert (first, second) == ("mine", "mine-too")
    assert third not in {"", "mine", "mine-too"}
