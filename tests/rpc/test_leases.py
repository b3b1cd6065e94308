"""Bindings as leases through both services and their clients, over a whole broker with a scripted backend."""

from __future__ import annotations

import asyncio
import json
import os
import sys
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import (
    AbortedError,
    FailedPreconditionError,
    InvalidRequestError,
    NotFoundError,
    OperationFailedError,
)
from purveyor_server.domain.policies import LeasePolicy
from purveyor_server.lifecycle.contract import ITSELF, Unbind
from purveyor_server.providers.contract import Ability, Context, Done, NotYet, Permanent
from tests.fakes.provider import ScriptedProvider, World, WorldPiece
from tests.rpc.whole import SERVICE, SMALL, Whole, whole_broker

HOUR = timedelta(hours=1)
POLICY = LeasePolicy(ttl=HOUR, max_ttl=4 * HOUR, renew_before=HOUR / 4, overlap=HOUR / 2)
LEASED = replace(SERVICE, plans=(replace(SMALL, lease=POLICY, binding_rotatable=True),))


class TimedPiece(WorldPiece):
    """A login that the world ends on time."""

    async def ensure(self, ctx: Context) -> Done | NotYet:
        answer = await super().ensure(ctx)
        assert ctx.work.binding is not None
        self._world.things[ctx.name("login")]["until"] = ctx.work.binding.expires_at
        return answer


class TimedProvider(ScriptedProvider):
    """A provider that ends an access on time by itself."""

    abilities = ScriptedProvider.abilities | {Ability.EXPIRY}

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self.login = TimedPiece(world, "login", "login", ("password",))


@pytest.fixture
async def broker(folder: Path) -> AsyncIterator[Whole]:
    async with whole_broker(folder, service=LEASED, scripted=TimedProvider) as running:
        yield running


async def bound(client: purveyor.Client, binding_id: str = "app", **more: Any) -> purveyor.ActiveBinding:
    await (await client.provision("svc", "small", instance_id="orders", wait=20)).result()
    return await (await client.bind("orders", binding_id=binding_id, wait=20, **more)).result()


def until(broker: Whole, binding: purveyor.Binding) -> datetime | None:
    """When the world ends the login."""
    found: datetime | None = broker.world.things[f"pv_login_{binding.uid.replace('-', '')}"]["until"]
    return found


async def test_a_renewal_moves_the_backend_s_end_and_no_credential(client: purveyor.Client, broker: Whole) -> None:
    made = await bound(client)
    assert until(broker, made) == made.expire_time
    target = datetime.now(UTC).replace(microsecond=0) + 2 * HOUR
    handle = await client.renew("orders", "app", expire_time=target, wait=20)
    assert (await handle.result()).expire_time == target
    assert handle.status.verb == "RENEW"
    assert until(broker, made) == target
    assert (await client.credentials("orders", "app")).reveal() == made.credentials.reveal()
    again = await client.renew("orders", "app", expire_time=target)
    assert (again.replayed, again.done) == (True, True)
    assert (await again.result()).expire_time == target


async def test_a_renewal_that_fails_is_put_back(client: purveyor.Client, broker: Whole) -> None:
    made = await bound(client)
    broker.world.plant("login.ensure", NotYet(0.01), Permanent("no"))
    with pytest.raises(OperationFailedError):
        await (await client.renew("orders", "app", ttl=7200, wait=20)).result()
    assert (await client.binding("orders", "app")).expire_time == made.expire_time == until(broker, made)
    assert (await client.credentials("orders", "app")).reveal() == made.credentials.reveal()
    assert broker.world.calls[-1] == "login.ensure"  # its undo is `ensure` with the previous end


async def test_a_renewal_is_cancelled(client: purveyor.Client, broker: Whole) -> None:
    made, gate = await bound(client), asyncio.Event()
    broker.world.entered.clear()
    broker.world.plant("login.ensure", gate)
    handle = await client.renew("orders", "app", ttl=7200)
    async with asyncio.timeout(10):
        await broker.world.entered["login.ensure"].wait()
    await handle.cancel()
    gate.set()
    with pytest.raises(OperationFailedError):
        await handle.result()
    assert (await client.binding("orders", "app")).expire_time == made.expire_time == until(broker, made)


async def test_what_cannot_be_put_back_at_once_is_cleaned_up_and_keeps_its_secrets(
    client: purveyor.Client, broker: Whole
) -> None:
    made = await bound(client)
    broker.world.plant("login.ensure", Permanent("no"), Permanent("nor back"))
    with pytest.raises(OperationFailedError):
        await (await client.renew("orders", "app", ttl=7200, wait=20)).result()
    async for status in client.operations("verb = CLEANUP"):
        await (await client.operation(status.operation_id)).result()
    after = await client.binding("orders", "app")
    assert (after.state, after.cleanup_required) == ("ACTIVE", ())
    assert until(broker, made) == made.expire_time
    assert (await client.credentials("orders", "app")).reveal() == made.credentials.reveal()


async def test_a_rotation_tells_watchers_when_to_change(client: purveyor.Client, broker: Whole) -> None:
    made = await bound(client)
    new = await (await client.rotate("orders", "app", successor_id="next", overlap=600, wait=20)).result()
    assert new.credentials.reveal() != made.credentials.reveal()
    assert new.predecessor_binding_id == "app"
    old = await client.binding("orders", "app")
    assert old.successor_binding_id == "next"
    assert old.expire_time is not None
    assert old.expire_time < made.expire_time  # type: ignore[operator] # it has one
    assert old.last_operation is not None
    await (await client.operation(old.last_operation.operation_id)).result()  # the backend is told
    assert until(broker, made) == old.expire_time
    told = [event async for event in client.events("earliest", kinds=["BINDING"], follow=False)]
    (change,) = [event.record for event in told if event.binding_id == "next" and event.state == "ACTIVE"]
    assert isinstance(change, purveyor.Binding)
    assert change.predecessor_binding_id == "app"
    retired = [event.record for event in told if event.binding_id == "app"][-1]
    assert isinstance(retired, purveyor.Binding)
    assert (retired.successor_binding_id, retired.expire_time) == ("next", old.expire_time)
    again = await client.rotate("orders", "app")
    assert again.replayed
    assert (await again.result()).credentials.reveal() == new.credentials.reveal()


async def test_refusals_name_the_field_or_the_reason(client: purveyor.Client) -> None:
    await bound(client)
    with pytest.raises(InvalidRequestError) as beyond:
        await client.renew("orders", "app", ttl=5 * 3600)
    assert (beyond.value.violations[0].field, beyond.value.metadata["max_ttl_seconds"]) == ("ttl", "14400")
    with pytest.raises(InvalidRequestError) as both:
        await client.renew("orders", "app", ttl=60, expire_time=datetime.now(UTC) + HOUR)
    assert both.value.violations[0].field == "ttl"
    with pytest.raises(InvalidRequestError) as long:
        await client.rotate("orders", "app", overlap=8 * 86400)
    assert long.value.violations[0].field == "overlap"
    with pytest.raises(NotFoundError):
        await client.renew("orders", "none", ttl=60)
    with pytest.raises(ValueError, match="no time zone"):
        await client.renew("orders", "app", expire_time=datetime(2027, 1, 1))  # noqa: DTZ001 - what is refused
    await (await client.rotate("orders", "app", successor_id="next", wait=20)).result()
    with pytest.raises(FailedPreconditionError) as chained:
        await client.rotate("orders", "next")
    assert (chained.value.reason, chained.value.metadata["predecessor"]) == ("NOT_ROTATABLE", "app")


async def blocked(client: purveyor.Client, broker: Whole, binding_id: str = "app") -> purveyor.ActiveBinding:
    made = await bound(client, binding_id)
    broker.world.plant("login.absent", Permanent("the backend says no"))
    with pytest.raises(OperationFailedError):
        await (await client.unbind("orders", binding_id, wait=20)).result()
    return made


async def test_a_blocked_revocation_is_listed_and_given_up_with_a_reason(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    made = await blocked(client, broker)
    (found,) = [binding async for binding in admin.expiring_bindings(blocked=True)]
    assert (found.tenant, found.binding_id, found.state) == ("t", "app", "REVOCATION_BLOCKED")
    assert found.revocation_attempts == 1
    assert found.revocation_retry_time is not None
    tried = await admin.force_revoke("t", "orders", "app", "the server is gone", validate_only=True)
    assert (await client.binding("orders", "app")).state == "REVOCATION_BLOCKED"
    done = await admin.force_revoke("t", "orders", "app", "the server is gone")
    assert done.left_behind == tried.left_behind != ()
    assert (done.binding.state, done.access_until) == ("DELETED", made.expire_time)
    assert len(broker.world.things) == 4  # nothing was touched
    (noted,) = [record async for record in admin.audit(filter='action = "ForceRevokeBinding"')]
    assert (noted.reason, noted.outcome) == ("the server is gone", "DONE")
    assert noted.details["access_until"] == made.expire_time.isoformat()  # type: ignore[union-attr] # it has one
    assert noted.details["left_behind"] == list(done.left_behind)
    with pytest.raises(NotFoundError):
        await client.credentials("orders", "app")
    again = await admin.force_revoke("t", "orders", "app", "the server is gone")
    assert again.binding.uid == made.uid
    assert [binding async for binding in admin.expiring_bindings(blocked=True)] == []


async def test_only_what_is_blocked_is_given_up(admin: AdminClient, client: purveyor.Client, broker: Whole) -> None:
    await bound(client)
    with pytest.raises(FailedPreconditionError) as alive:
        await admin.force_revoke("t", "orders", "app", "no reason")
    assert alive.value.metadata["state"] == "ACTIVE"
    with pytest.raises(NotFoundError):
        await admin.force_revoke("t", "orders", "none", "no reason")
    with pytest.raises(InvalidRequestError) as silent:
        await admin.force_revoke("t", "orders", "app", " ")
    assert silent.value.violations[0].field == "reason"
    await blocked(client, broker, "stuck")
    gate = asyncio.Event()
    broker.world.entered.clear()
    broker.world.plant("login.absent", gate)
    await broker.use_cases.unbind(ITSELF, Unbind(tenant="t", instance_id="orders", binding_id="stuck"))
    async with asyncio.timeout(10):
        await broker.world.entered["login.absent"].wait()
    with pytest.raises(AbortedError):  # it is being tried just now
        await admin.force_revoke("t", "orders", "stuck", "no patience")
    gate.set()


async def test_what_ends_first_is_listed_first_page_by_page(admin: AdminClient, client: purveyor.Client) -> None:
    for number in (3, 1, 2):
        await bound(client, f"b{number}", ttl=number * 3600)
    found = [binding.binding_id async for binding in admin.expiring_bindings(page_size=1)]
    assert found == ["b1", "b2", "b3"]
    soon = [binding.binding_id async for binding in admin.expiring_bindings(2 * 3600 + 60, tenant="t")]
    assert soon == ["b1", "b2"]
    assert [binding async for binding in admin.expiring_bindings(tenant="nobody")] == []
    with pytest.raises(InvalidRequestError):
        [binding async for binding in admin.expiring_bindings(page_size=-1)]


def test_the_blocking_clients_have_the_same_calls() -> None:
    for name in ("renew", "rotate"):
        assert hasattr(purveyor.SyncClient, name)
    for name in ("expiring_bindings", "force_revoke"):
        assert hasattr(purveyor.SyncAdminClient, name)


async def run(broker: Whole, *words: str) -> Any:
    """What a command prints as JSON; it must end well."""
    where = ("--address", broker.address, "--tenant", "t", "--json")
    command = (sys.executable, "-m", "purveyor.cli", *where, *words)
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PURVEYOR_ADMIN_ADDRESS": broker.address},
    )
    out, err = await asyncio.wait_for(process.communicate(), 30)
    assert process.returncode == 0, err.decode()
    return json.loads(out)


async def test_the_commands(client: purveyor.Client, broker: Whole) -> None:
    await bound(client)
    renewed = await run(broker, "renew", "orders", "app", "--ttl", "2h")
    assert renewed["verb"] == "RENEW"
    rotated = await run(broker, "rotate", "orders", "app", "--id", "next", "--overlap", "10m")
    assert rotated["binding_id"] == "next"
    listed = await run(broker, "bindings", "--expiring", "--within", "30m")
    assert [found["binding_id"] for found in listed] == ["app"]
    assert (await run(broker, "freeze", "rotation", "--reason", "a test"))["name"] == "rotation"
    broker.world.plant("login.absent", Permanent("no"))
    with pytest.raises(OperationFailedError):
        await (await client.unbind("orders", "next", wait=20)).result()
    assert [found["binding_id"] for found in await run(broker, "bindings", "--blocked")] == ["next"]
    given_up = await run(broker, "force-revoke", "orders", "next", "--reason", "the server is gone")
    assert given_up["binding"]["state"] == "DELETED"
