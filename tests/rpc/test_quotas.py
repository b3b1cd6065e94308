"""Quotas on a whole broker: set by an operator, they hold for the next create, are told, and take nothing away."""

from __future__ import annotations

import asyncio
import json
import sys
from typing import Any

import grpc
import pytest

import purveyor
from purveyor.admin import AdminClient
from purveyor.errors import InvalidRequestError, ResourceExhaustedError
from purveyor.v1 import admin_service_pb2 as pb
from purveyor.v1.admin_service_pb2_grpc import AdminServiceStub
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.principal import Principal
from purveyor_server.domain.quotas import WHOLE, Limits
from purveyor_server.lifecycle.admin.contract import Act
from purveyor_server.lifecycle.admin.quotas import list_quotas, set_quota
from purveyor_server.lifecycle.contract import Caller
from tests.rpc.failures import failure_of
from tests.rpc.whole import Whole

TENANT = "t"
OPERATOR = Caller(Principal(subject="op", roles=frozenset({"OPERATOR"}), tenants=None))


async def provisioned(client: purveyor.Client, name: str, plan: str = "small") -> None:
    await (await client.provision("svc", plan, instance_id=name, wait=20)).result()


async def test_a_create_above_the_quota_is_refused_with_its_numbers(
    broker: Whole, admin: AdminClient, client: purveyor.Client
) -> None:
    await admin.set_quota(TENANT, "a small customer", instances=1, bindings_per_instance=0)
    await provisioned(client, "one")

    with pytest.raises(ResourceExhaustedError) as refused:
        await client.provision("svc", "small", instance_id="two")
    with pytest.raises(ResourceExhaustedError):
        await client.provision("svc", "small", instance_id="two", validate_only=True)
    with pytest.raises(ResourceExhaustedError) as unbound:
        await client.bind("one", binding_id="app")

    assert (refused.value.reason, refused.value.retry_after) == ("QUOTA_EXCEEDED", None)
    assert refused.value.metadata == {"tenant": TENANT, "quota": "instances", "limit": "1", "used": "1"}
    assert unbound.value.metadata["quota"] == "bindings_per_instance"
    assert (await client.provision("svc", "small", instance_id="one")).status.instance_id == "one"  # again
    async with purveyor.Client(broker.address, tenant="other") as neighbour:
        await provisioned(neighbour, "one")


async def test_less_than_what_is_there_takes_nothing_away(admin: AdminClient, client: purveyor.Client) -> None:
    for name in ("one", "two"):
        await provisioned(client, name)

    found = await admin.set_quota(TENANT, "too much", instances=1)

    assert (found.instances, found.max_instances, found.set_limits) == (2, 1, {"instances": 1})
    assert {instance.state async for instance in client.instances()} == {"READY"}
    await (await client.deprovision("one", wait=20)).result()
    with pytest.raises(ResourceExhaustedError):
        await client.provision("svc", "small", instance_id="three")
    await (await client.deprovision("two", wait=20)).result()
    await provisioned(client, "three")


async def test_many_at_once_never_pass_it(admin: AdminClient, client: purveyor.Client) -> None:
    await admin.set_quota(TENANT, "ten of a plan", service_id="svc", plan_id="small", instances=10)

    asked = [client.provision("svc", "small", instance_id=f"i{number}") for number in range(60)]
    answers = await asyncio.gather(*asked, return_exceptions=True)

    assert sum(not isinstance(answer, BaseException) for answer in answers) == 10
    reasons = {answer.reason for answer in answers if isinstance(answer, purveyor.PurveyorError)}
    assert reasons == {"QUOTA_EXCEEDED"}
    await provisioned(client, "another", "big")


async def test_a_move_into_a_full_plan_is_refused(admin: AdminClient, client: purveyor.Client) -> None:
    await provisioned(client, "one", "big")
    await admin.set_quota(TENANT, "no more", service_id="svc", plan_id="small", instances=0)

    with pytest.raises(ResourceExhaustedError) as refused:
        await client.update("one", plan="small")

    assert refused.value.metadata["plan_id"] == "small"


async def test_what_is_set_is_listed_and_recorded_and_can_be_taken_back(
    admin: AdminClient, client: purveyor.Client
) -> None:
    await provisioned(client, "one")
    await admin.set_quota(TENANT, "first", instances=5)
    await admin.set_quota(TENANT, "of a plan", service_id="svc", plan_id="small", instances=-1, bindings=3)
    await admin.set_quota("unknown", "not there yet", instances=0)
    assert (await admin.set_quota(TENANT, "a try", instances=7, validate_only=True)).max_instances == 7

    listed = [
        (q.tenant, q.plan_id, q.instances, q.max_instances, q.max_bindings) async for q in admin.quotas(page_size=1)
    ]
    assert listed == [(TENANT, "", 1, 5, None), (TENANT, "small", 1, None, 3), ("unknown", "", 0, 0, None)]
    assert [q.reason async for q in admin.quotas("unknown")] == ["not there yet"]

    found, removed = await admin.delete_quota(TENANT, "no longer")
    assert (found.max_instances, removed) == (None, True)
    assert (await admin.delete_quota(TENANT, "again"))[1] is False
    records = [(r.action, r.resource, r.reason) async for r in admin.audit()]
    assert records[:3] == [
        ("DeleteQuota", "quota/t", "again"), ("DeleteQuota", "quota/t", "no longer"),
        ("SetQuota", "quota/unknown", "not there yet"),
    ]  # fmt: skip
    assert ("SetQuota", "quota/t/svc/small", "of a plan") in records


async def test_a_quota_that_makes_no_sense_is_refused(broker: Whole, admin: AdminClient) -> None:
    with pytest.raises(InvalidRequestError, match=r"limits\.instances"):
        await admin.set_quota(TENANT, "why", instances=-2)
    with pytest.raises(InvalidRequestError, match="at least one number"):
        await admin.set_quota(TENANT, "why")
    with pytest.raises(InvalidRequestError, match="reason"):
        await admin.set_quota(TENANT, " ", instances=1)
    async with grpc.aio.insecure_channel(broker.address) as channel:
        half = pb.SetQuotaRequest(tenant=TENANT, plan_id="small", reason="why", limits=pb.QuotaLimits(instances=1))
        failure = await failure_of(AdminServiceStub(channel).SetQuota(half))
    assert [violation.field for violation in failure.details["BadRequest"].field_violations] == ["service_id"]


async def test_operators_look_and_administrators_set(broker: Whole) -> None:
    assert (await list_quotas(broker.admin_parts, OPERATOR, "", 0, "")).items == ()
    with pytest.raises(PurveyorError) as refused:
        await set_quota(broker.admin_parts, OPERATOR, TENANT, WHOLE, Limits(1), Act(reason="why"))
    assert (refused.value.reason, refused.value.metadata["role"]) == (Reason.PERMISSION_DENIED, "ADMIN")


async def test_a_drain_is_recorded_before_it_begins(broker: Whole, admin: AdminClient) -> None:
    asked: list[str] = []
    object.__setattr__(broker.admin_parts, "stop", lambda: asked.append("stop"))

    await admin.drain("a try", validate_only=True)
    assert asked == []
    await admin.drain("a new version")

    assert asked == ["stop"]
    assert [(r.action, r.reason) async for r in admin.audit()] == [("Drain", "a new version")]


async def command(broker: Whole, *arguments: str) -> tuple[int | None, Any]:
    """Exit code and answer of the command line."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-m", "purveyor.cli", "--json", *arguments, "--admin", broker.address,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.DEVNULL,
    )  # fmt: skip
    async with asyncio.timeout(60):
        answer, _ = await process.communicate()
    return process.returncode, json.loads(answer) if answer else None


async def test_the_command_line_sets_lists_and_takes_back(broker: Whole) -> None:
    code, made = await command(broker, "quota", "set", TENANT, "svc/small", "--instances", "3", "--reason", "r")
    assert (code, made["max_instances"]) == (0, 3)
    code, listed = await command(broker, "quota", "list")
    assert (code, [(quota["tenant"], quota["plan_id"]) for quota in listed]) == (0, [(TENANT, ""), (TENANT, "small")])
    code, taken = await command(broker, "quota", "unset", TENANT, "svc/small", "--reason", "r")
    assert (code, taken["max_instances"]) == (0, None)
    code, _ = await command(broker, "quota", "set", TENANT, "svc", "--instances", "3", "--reason", "r")
    assert code == 2


async def test_the_command_line_drains(broker: Whole) -> None:
    asked: list[str] = []
    object.__setattr__(broker.admin_parts, "stop", lambda: asked.append("stop"))
    assert await command(broker, "drain", "--reason", "a try", "--validate-only") == (0, {"draining": False})
    assert asked == []
    assert await command(broker, "drain", "--reason", "a new version") == (0, {"draining": True})
    assert asked == ["stop"]
