"""Catalogs in a store: versions with their history, one command each, and what there is of each plan."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec.structs import replace

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import Instance
from purveyor_server.domain.quotas import PlanKey, Used
from purveyor_server.domain.states import InstanceState
from purveyor_server.store.catalogs import CatalogChange, CatalogVersion, Origin
from purveyor_server.store.contract import Page, Store, Writes
from purveyor_server.store.operating import AuditLook
from tests.store_contract import records
from tests.store_contract.records import START, write

OURS, OTHER = PlanKey("service-1", "plan-1"), PlanKey("service-1", "plan-2")


def record(version: CatalogVersion) -> AuditRecord:
    return AuditRecord(
        at=START, principal="local", action="ApplyCatalog", resource=f"catalog/{version.version}", reason="why"
    )


async def apply(store: Store, text: str, **change: Any) -> CatalogVersion:
    fields: dict[str, Any] = {"principal": "local", "reason": "why", "origin": Origin.CALL, "record": record} | change
    return await store.apply_catalog(f"digest of {text}", text, [], CatalogChange(**fields))


async def refused(store: Store, text: str, **change: Any) -> Reason:
    with pytest.raises(PurveyorError) as failure:
        await apply(store, text, **change)
    return failure.value.reason


async def audited(store: Store) -> list[str]:
    return [found.record.resource for found in (await store.audit((), AuditLook(100, newest_first=False))).records]


async def made(store: Store, name: str, plan_id: str = "plan-1", tenant: str = "acme") -> Instance:
    new = records.instance(tenant, name, desired=replace(records.SETTINGS, plan_id=plan_id))
    await write(store, Writes(instances=(new,), operations=(records.operation(new),)), tenant, name)
    return new


async def test_a_history_with_who_and_why(store: Store) -> None:
    first = await store.apply_catalog("f", "file", [])
    assert (first.version, first.origin, first.principal) == (1, Origin.FILE, "")
    for number in range(2, 6):
        assert (await apply(store, f"t{number}", reason=f"r{number}", request_id=f"q{number}")).version == number
    newest = await store.catalog()
    assert newest is not None
    assert (newest.version, newest.body, newest.reason, newest.request_id) == (5, "t5", "r5", "q5")
    assert await store.catalog_version(5) == newest
    assert await store.catalog_version(9) is None
    page = await store.catalog_history(0, 2)
    assert [(v.version, v.body) for v in page] == [(5, ""), (4, "")]
    assert [v.version for v in await store.catalog_history(page[-1].version, 10)] == [3, 2, 1]
    of_file = await store.catalog_of_file()
    assert of_file is not None
    assert of_file.digest == "f"
    assert await audited(store) == [f"catalog/{number}" for number in range(2, 6)]


async def test_the_same_text_is_the_same_version(store: Store) -> None:
    first = await apply(store, "a")
    assert await apply(store, "a", reason="again") == first
    assert (await apply(store, "b")).version == 2
    assert (await apply(store, "a")).version == 3
    assert await audited(store) == ["catalog/1", "catalog/2", "catalog/3"]


async def test_a_request_sent_again_takes_nothing_back(store: Store) -> None:
    first = await apply(store, "a", request_id="r1")
    await apply(store, "b", request_id="r2")
    again = await apply(store, "a", request_id="r1")
    assert replace(again, body="a") == first
    assert (await store.catalog_history(0, 1))[0].version == 2
    assert await refused(store, "c", request_id="r1") is Reason.REQUEST_ID_REUSED
    assert (await apply(store, "c", request_id="r1", principal="another")).version == 3
    assert await store.catalog_of_request("local", "r1") is not None
    assert await store.catalog_of_request("local", "r9") is None
    assert await store.catalog_of_request("local", "") is None


async def test_of_two_at_once_on_one_version_one_is_taken(store: Store) -> None:
    await apply(store, "a", expected=0)
    found = await asyncio.gather(*(apply(store, text, expected=1) for text in ("b", "c", "d")), return_exceptions=True)
    assert sorted(type(one).__name__ for one in found) == ["CatalogVersion", "PurveyorError", "PurveyorError"]
    assert {one.reason for one in found if isinstance(one, PurveyorError)} == {Reason.ETAG_MISMATCH}
    assert len(await store.catalog_history(0, 10)) == 2
    assert len(await audited(store)) == 2


async def test_a_plan_that_came_into_use_meanwhile_refuses(store: Store) -> None:
    judged = await store.plan_usage()
    assert judged == {}
    await made(store, "one")
    assert await refused(store, "a", used=judged) is Reason.OPERATION_IN_PROGRESS
    assert await store.catalog() is None
    assert await audited(store) == []
    judged = await store.plan_usage()
    await made(store, "two")  # more of the same is no news
    assert (await apply(store, "a", used=judged)).version == 1


async def test_what_there_is_of_each_plan_in_all_tenants(store: Store) -> None:
    kept = [await made(store, f"i{n}", tenant=tenant) for n in range(3) for tenant in ("acme", "beta")]
    await made(store, "other", "plan-2")
    gone = await made(store, "gone", "plan-3")
    dead = replace(gone, state=InstanceState.DELETED, deleted_at=START)
    await write(store, Writes(instances=(dead,)), "acme", "gone")
    bound = records.binding(kept[0], plan_id="plan-1", service_id="service-1")
    await write(store, Writes(bindings=(bound,)), "acme", "i0")
    assert await store.plan_usage() == {OURS: Used(6, 1), OTHER: Used(1, 0)}

    seen: list[str] = []
    while page := await store.instances_of_plan(OURS, Page(2, seen[-1] if seen else "")):
        assert len(page) <= 2
        seen += [instance.uid for instance in page]
    assert seen == sorted(instance.uid for instance in kept)
    assert await store.instances_of_plan(PlanKey("service-1", "plan-3"), Page(2)) == ()
