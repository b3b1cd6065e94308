"""Every cell of the table in docs/security.md, on a real server, by callers with real tokens.

A call counts as let in when it is answered, or refused for any reason but permission: most name what is not there, or leave out
what they need, so that nothing is changed by trying.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from google.protobuf import duration_pb2
from google.protobuf.message_factory import GetMessageClass

from purveyor.v1 import broker_service_pb2 as pb
from purveyor_server.domain.principal import EVERY_ROLE, LOCAL
from purveyor_server.lifecycle.admin.contract import Act
from purveyor_server.lifecycle.admin.tokens import TokenWish, create_token
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.rpc.methods import SERVICES
from tests.rpc.access_table import EVERYWHERE, NEVER, TENANT, Cell, cells
from tests.rpc.failures import read_failure
from tests.rpc.identity import shows
from tests.rpc.whole import whole_broker

OWN, FOREIGN = "acme", "beta"
INSTANCE, BINDING, MISSING = "orders", "app", "nothing-here"
SECONDS = 10.0
BROKER = "BrokerService"
METHODS = {method.name: method for service in SERVICES for method in service.methods}
TABLE = cells()


class House:
    """A broker that lets nobody in without a token; tokens by role and by whether they hold it in OWN alone or everywhere."""

    def __init__(self, channel: grpc.aio.Channel, tokens: dict[tuple[str, str], str]) -> None:
        self._channel = channel
        self._tokens = tokens
        self.operation_id = ""

    async def ask(self, holder: tuple[str, str], name: str, **fields: Any) -> Any:
        """The first answer to a call of the method `name`."""
        method = METHODS[name]
        request: Any = GetMessageClass(method.input_type)(**fields)
        path = f"/{method.containing_service.full_name}/{name}"
        kind: Any = self._channel.unary_stream if method.server_streaming else self._channel.unary_unary
        decode = GetMessageClass(method.output_type).FromString
        call = kind(path, type(request).SerializeToString, decode)
        if not method.server_streaming:
            return await call(request, timeout=SECONDS, metadata=shows(self._tokens[holder]))
        stream = call(request, timeout=SECONDS, metadata=shows(self._tokens[holder]))
        try:
            return await stream.read()
        finally:
            stream.cancel()

    async def refusal(self, holder: tuple[str, str], name: str, **fields: Any) -> str:
        """The message of PERMISSION_DENIED, "" when the caller was let in."""
        try:
            await self.ask(holder, name, **fields)
        except grpc.aio.AioRpcError as error:
            if error.code() is grpc.StatusCode.UNAUTHENTICATED:
                raise
            if error.code() is not grpc.StatusCode.PERMISSION_DENIED:
                return ""
            failure = read_failure(error)
            return f"{failure.reason} {failure.message} {sorted(failure.metadata.items())}"
        return ""


def fields_of(house: House, name: str, tenant: str, instance_id: str) -> dict[str, Any]:
    """A request that names something: there in OWN when `instance_id` is INSTANCE. It changes nothing."""
    known: dict[str, Any] = {"validate_only": True, "service_id": "svc", "plan_id": "small"}
    if METHODS[name].containing_service.name == BROKER:
        known |= {
            "tenant": tenant,
            "instance_id": instance_id,
            "binding_id": BINDING,
            "operation_id": house.operation_id,
        }
    has = METHODS[name].input_type.fields_by_name
    return {field: value for field, value in known.items() if field in has}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    async with whole_broker(tmp_path, local=False) as whole:
        tokens: dict[tuple[str, str], str] = {}
        for role in sorted(EVERY_ROLE):
            for held, tenants in ((TENANT, (OWN,)), (EVERYWHERE, ())):
                wish = TokenWish(
                    name=f"{role}-{held}".lower(), roles=(role,), tenants=tenants, every_tenant=not tenants
                )
                made = await create_token(whole.admin_parts, Caller(LOCAL), wish, Act(reason="test"))
                assert made.text is not None
                tokens[role, held] = made.text.reveal()
        async with grpc.aio.insecure_channel(whole.address) as channel:
            house = House(channel, tokens)
            await _furnish(house)
            yield house


async def _furnish(house: House) -> None:
    """An instance and a binding, made by a consumer of OWN."""
    maker, wait = ("CONSUMER", TENANT), duration_pb2.Duration(seconds=5)
    named = {"tenant": OWN, "instance_id": INSTANCE}
    made = await house.ask(maker, "Provision", **named, service_id="svc", plan_id="small", wait=wait)
    assert made.instance.usable, made
    bound = await house.ask(maker, "Bind", **named, binding_id=BINDING, wait=wait)
    assert bound.HasField("credentials"), bound  # the creator may read them
    house.operation_id = made.operation.operation_id


async def wrong(house: House, cell: Cell) -> list[str]:
    """Where the server differs from a cell."""
    found = []
    for held in (TENANT, EVERYWHERE):
        for tenant in (OWN, FOREIGN):
            allowed = cell.where == TENANT and (held == EVERYWHERE or tenant == OWN)
            allowed = allowed or (cell.where == EVERYWHERE and held == EVERYWHERE)
            refusals = {
                await house.refusal((cell.role, held), cell.call, **fields_of(house, cell.call, tenant, name))
                for name in (INSTANCE, MISSING)
            }
            # The creator of a binding reads its credentials; what another made is refused, and what is not there is not found.
            if cell.where not in {TENANT, EVERYWHERE, NEVER}:
                refusals -= {""} if held == EVERYWHERE or tenant == OWN else set()
            if (refusals == {""}) is not allowed or len(refusals) > 1:
                found.append(f"{cell.call} by {cell.role} ({held}) in {tenant}: {refusals}")
    return found


@pytest.mark.timeout(180)
async def test_the_server_is_as_the_table_says(house: House) -> None:
    found = [difference for cell in TABLE for difference in await wrong(house, cell)]
    assert not found, "\n".join(found)


async def test_a_cell_that_is_turned_round_is_found(house: House) -> None:
    """Negative control, one cell of each kind."""
    planted = [
        Cell("GetInstance", "VIEWER", NEVER),
        Cell("GetInstance", "VIEWER", EVERYWHERE),
        Cell("GetInstance", "OPERATOR", TENANT),
        Cell("GetStatus", "OPERATOR", TENANT),
        Cell("GetStatus", "VIEWER", EVERYWHERE),
        Cell("WatchEvents", "CONSUMER", TENANT),
    ]
    assert [cell for cell in planted if not await wrong(house, cell)] == []


async def test_credentials_are_for_their_creator_and_for_readers(house: House) -> None:
    named = {"tenant": OWN, "instance_id": INSTANCE, "binding_id": BINDING}
    mine = await house.ask(("CONSUMER", TENANT), "GetCredentials", **named)
    assert mine.credentials
    assert not mine.HasField("binding")  # that is for viewers
    assert (await house.ask(("CREDENTIALS_READER", TENANT), "GetCredentials", **named)).credentials == mine.credentials
    assert await house.refusal(("CONSUMER", EVERYWHERE), "GetCredentials", **named)


async def test_what_is_another_tenants_is_as_if_it_were_not(house: House) -> None:
    """Ids, filters, page tokens and resume tokens of a foreign tenant, by somebody who may see both and by somebody who may not."""
    viewer, everywhere = ("VIEWER", TENANT), ("VIEWER", EVERYWHERE)
    listed = await house.ask(everywhere, "ListOperations", tenant=OWN, page_size=1)
    events = await house.ask(everywhere, "WatchEvents", tenant=OWN, start=pb.WatchEventsRequest.START_EARLIEST)

    async def answered(holder: tuple[str, str], name: str, **fields: Any) -> str:
        try:
            await house.ask(holder, name, **fields)
        except grpc.aio.AioRpcError as error:
            failure = read_failure(error)
            told = {key: value for key, value in failure.metadata.items() if key != "operation_id"}
            return f"{failure.reason} {failure.message.replace(house.operation_id, 'ID')} {told}"
        return "answered"

    for call in ("GetOperation", "WaitOperation", "WatchOperation"):
        real = await answered(everywhere, call, tenant=FOREIGN, operation_id=house.operation_id)
        none = await answered(everywhere, call, tenant=FOREIGN, operation_id="ID")
        assert real.replace(house.operation_id, "ID") == none
        assert real.startswith("OPERATION_NOT_FOUND")
    token = listed.next_page_token
    assert token
    assert (await answered(everywhere, "ListOperations", tenant=FOREIGN, page_token=token)).startswith(
        "INVALID_PAGE_TOKEN"
    )
    after = {"start": pb.WatchEventsRequest.START_AFTER, "resume_token": events.resume_token}
    assert (await answered(everywhere, "WatchEvents", tenant=FOREIGN, **after)).startswith("SCOPE_CHANGED")
    empty = await house.ask(everywhere, "ListInstances", tenant=FOREIGN, filter=f'instance_id = "{INSTANCE}"')
    assert not empty.instances
    for call, fields in (
        ("ListOperations", {"page_token": token}),
        ("WatchEvents", after),
        ("ListInstances", {"filter": "this is no filter"}),
    ):
        assert (await answered(viewer, call, tenant=FOREIGN, **fields)).startswith("PERMISSION_DENIED")


def test_every_method_is_in_the_table() -> None:
    assert {cell.call for cell in TABLE} == set(METHODS)
