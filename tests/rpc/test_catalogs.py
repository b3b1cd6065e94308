"""Catalogs that change under a running broker: compared, refused, applied, watched, looked up; by calls and by the file."""

# ruff: noqa: ASYNC240 - files of a test, written between two looks

from __future__ import annotations

import asyncio
from contextlib import aclosing
from pathlib import Path
from typing import Any

import pytest
import structlog.testing

import purveyor
from purveyor import errors
from purveyor.admin import AdminClient
from purveyor.catalog_values import AppliedCatalog, CatalogChange
from purveyor_server.app.catalogs import CatalogFileWatch
from purveyor_server.domain.catalogchanges import Policy, PolicyMode
from purveyor_server.domain.quotas import PlanKey
from purveyor_server.lifecycle.catalogs import LiveCatalog, Wish
from purveyor_server.lifecycle.catalogtext import Judged
from purveyor_server.store.catalogs import Origin
from purveyor_server.store.contract import SYSTEM
from tests.fakes.situations import LOCAL
from tests.rpc.whole import Whole, judge

WAIT_SECONDS = 10
SCHEMA = "{type: object, properties: {size: {type: integer, minimum: %d}}, additionalProperties: false}"
SMALL = (
    "{id: small, name: small, description: A small one., provider: main, schemas: {service_instance:"
    f" {{create: {{parameters: {SCHEMA % 1}}}, update: {{parameters: {SCHEMA % 1}}}}}}}}}"
)
STRICT = SMALL.replace("minimum: 1", "minimum: 5")
BIG = SMALL.replace("small", "big")


def text(*plans: str, provider: str = "scripted") -> str:
    offered = "".join(f"\n      - {plan}" for plan in plans)
    return (
        f"providers: {{main: {{kind: {provider}}}}}\nservices:\n  - id: svc\n    name: service\n"
        f"    description: Things.\n    bindable: true\n    plans:{offered}\n"
    )


TWO, ONE = text(SMALL, BIG), text(BIG)


async def order(client: purveyor.Client, *names: str, size: int = 1) -> None:
    for name in names:
        handle = await client.provision("svc", "small", instance_id=name, parameters={"size": size})
        await handle.result()


def blocking(changes: tuple[CatalogChange, ...]) -> list[str]:
    return [change.kind for change in changes if change.blocking]


async def plans(client: purveyor.Client) -> list[str]:
    return [plan.id for service in (await client.catalog()).services for plan in service.plans]


async def versions(admin: AdminClient) -> list[int]:
    return [found.version async for found in admin.catalog_history(page_size=2)]


async def test_a_good_catalog_is_served_at_once_and_has_a_history(admin: AdminClient, client: purveyor.Client) -> None:
    applied = await admin.apply_catalog(
        text(SMALL, BIG, SMALL.replace("small", "tiny")), "one more", expected_version=1
    )
    assert applied.catalog is not None
    assert (applied.catalog.version, applied.catalog.principal, applied.catalog.origin) == (2, "local", "CALL")
    assert await plans(client) == ["small", "big", "tiny"]
    assert (await client.catalog()).version == 2
    await order(client, "one")
    await admin.apply_catalog(TWO, "back")
    assert await versions(admin) == [3, 2, 1]
    kept = await admin.catalog_text(2)
    assert ("tiny" in kept.text, kept.catalog.reason) == (True, "one more")
    assert (await admin.catalog_text()).text == TWO
    acts = [record.resource async for record in admin.audit(filter="action = ApplyCatalog")]
    assert acts == ["catalog/3", "catalog/2"]


async def test_watchers_are_told_at_once(admin: AdminClient, client: purveyor.Client, broker: Whole) -> None:
    async with aclosing(client.catalogs()) as found, asyncio.timeout(WAIT_SECONDS):
        assert (await anext(found)).version == 1
        waiting = asyncio.ensure_future(anext(found))
        await admin.apply_catalog(ONE, "smaller")
        told = await waiting
        assert (told.version, [plan.id for plan in told.services[0].plans]) == (2, ["big"])


async def test_a_plan_in_use_is_not_dropped_without_a_policy(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    await order(client, "one", "two")
    shown = await admin.diff_catalog(ONE)
    assert (shown.base_version, shown.refused, blocking(shown.changes)) == (1, True, ["PLAN_REMOVED"])
    gone = next(change for change in shown.changes if change.blocking)
    assert (gone.level, gone.plans, gone.instances, gone.subject) == ("DANGEROUS", ("svc/small",), 2, "plan/svc/small")
    assert gone.concerned == ("t/one", "t/two")
    with pytest.raises(errors.FailedPreconditionError) as refused:
        await admin.apply_catalog(ONE, "away with it")
    assert refused.value.name == "CATALOG_REFUSED"
    assert (await versions(admin), await plans(client)) == ([1], ["small", "big"])
    assert not [r async for r in admin.audit(filter="action = ApplyCatalog")]

    applied = await admin.apply_catalog(ONE, "away with it", policies=["svc/small=keep"])
    assert applied.catalog is not None
    assert await plans(client) == ["big"]
    # What is there lives on, and ends.
    assert (await client.instance("one")).plan_id == "small"
    with pytest.raises(errors.NotFoundError):
        await client.provision("svc", "small", instance_id="three")
    with pytest.raises(errors.FailedPreconditionError):
        await client.bind("one", binding_id="late")
    await (await client.deprovision("one")).result()
    assert (await broker.store.plan_usage())[PlanKey("svc", "small")].instances == 1


async def test_a_schema_that_refuses_what_instances_have_names_them(
    admin: AdminClient, client: purveyor.Client
) -> None:
    await order(client, "a", "b", size=3)
    await order(client, "c", size=9)
    narrow = text(STRICT, BIG)
    shown = await admin.diff_catalog(narrow)
    found = next(change for change in shown.changes if change.kind == "PLAN_NARROWED")
    assert (found.level, found.instances, found.concerned) == ("DANGEROUS", 2, ("t/a", "t/b"))
    with pytest.raises(errors.FailedPreconditionError, match="no longer takes the parameters of 2 instances"):
        await admin.apply_catalog(narrow, "stricter")
    await admin.apply_catalog(narrow, "stricter", policies=["svc/small=keep"])
    # What was narrowed before is not counted again.
    again = await admin.diff_catalog(text(STRICT.replace("minimum: 5", "minimum: 6"), BIG))
    assert "PLAN_NARROWED" not in {change.kind for change in again.changes}
    wider = await admin.diff_catalog(TWO)
    assert not wider.refused


async def test_what_is_never_taken_and_what_makes_no_sense(admin: AdminClient, client: purveyor.Client) -> None:
    await order(client, "one")
    stranger = text(SMALL, BIG, provider="stranger")
    with pytest.raises(errors.FailedPreconditionError, match="is made by a stranger"):
        await admin.apply_catalog(stranger, "other")
    for policies, words in (
        (["svc/smal=keep"], "is the name right"),
        (["svc/small=migrate:small"], "itself"),
        (["svc/small=migrate:nope"], "no plan 'nope'"),
        (["svc/small=migrate:big"], "nothing moves to the plan 'big'"),
        (["svc/small=keep", "svc/small=keep"], "more than one"),
        (["svc/small"], "is not SERVICE/PLAN=keep"),
    ):
        with pytest.raises(errors.InvalidRequestError, match=words):
            await admin.apply_catalog(ONE, "why", policies=policies)
    with pytest.raises(errors.InvalidRequestError, match="is the name right"):
        await admin.apply_catalog(text(SMALL, BIG, SMALL.replace("small", "new")), "why", policies=["svc/big=keep"])
    assert await versions(admin) == [1]


TAKES = BIG[:-1] + ", transitions: {from: [small]}}"


async def test_a_plan_is_removed_and_its_instances_are_migrated(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    await order(client, "one")
    content, policies = text(TAKES), ["svc/small=migrate:big"]
    tried = await admin.apply_catalog(content, "gone", policies=policies, validate_only=True)
    assert (tried.refused, tried.campaign_ids) == (False, ())
    done = await admin.apply_catalog(content, "gone", policies=policies, request_id="r1")
    (campaign_id,) = done.campaign_ids
    campaign = await admin.campaign(campaign_id)
    assert (campaign.from_plan_id, campaign.to_plan_id, campaign.reason) == ("small", "big", "gone")
    again = await admin.apply_catalog(content, "gone", policies=policies, request_id="r1")
    assert (again.replayed, again.campaign_ids) == (True, done.campaign_ids)
    # What the campaign asks for each instance.
    await (await client.update("one", plan="big")).result()
    assert (await client.instance("one")).plan_id == "big"
    assert PlanKey("svc", "small") not in await broker.store.plan_usage()


@pytest.mark.parametrize(
    "bad", ["", ": [", "services: 1", "\x00", "- " * 3000, TWO.replace("bindable: true", "bindable: maybe")]
)
async def test_garbage_is_refused_by_name(admin: AdminClient, bad: str) -> None:
    check = await admin.validate_catalog(bad)
    assert check.problems
    assert check.sha256 == ""
    for call in (admin.diff_catalog(bad), admin.apply_catalog(bad, "why")):
        with pytest.raises(errors.InvalidRequestError, match="the catalog is not valid"):
            await call
    good = await admin.validate_catalog(TWO)
    assert (good.problems, good.services, good.plans) == ((), 1, 2)


async def test_unknown_versions_and_empty_reasons(admin: AdminClient) -> None:
    with pytest.raises(errors.NotFoundError):
        await admin.catalog_text(99)
    for call in (
        admin.apply_catalog(TWO, " "),
        admin.catalog_text(-1),
        admin.apply_catalog(TWO, "r", expected_version=-1),
    ):
        with pytest.raises(errors.InvalidRequestError):
            await call


async def test_of_applies_at_once_one_wins_and_requests_are_remembered(admin: AdminClient) -> None:
    texts = [text(SMALL, BIG, SMALL.replace("small", f"new-{n}")) for n in range(4)]
    found = await asyncio.gather(
        *(admin.apply_catalog(one, "race", expected_version=1) for one in texts), return_exceptions=True
    )
    won = [one for one in found if isinstance(one, AppliedCatalog)]
    assert len(won) == 1
    assert all(isinstance(one, errors.AbortedError) for one in found if not isinstance(one, AppliedCatalog))
    mine = text(SMALL, BIG, SMALL.replace("small", "mine"))
    first = await admin.apply_catalog(mine, "r", request_id="r1")
    assert first.catalog is not None
    await admin.apply_catalog(TWO, "r", request_id="r2")
    again = await admin.apply_catalog(mine, "r", request_id="r1")
    assert (again.replayed, again.catalog and again.catalog.version) == (True, first.catalog.version)
    assert (await admin.catalog_text()).text == TWO
    with pytest.raises(errors.InvalidRequestError):
        await admin.apply_catalog(ONE, "r", request_id="r1")


async def test_a_dry_run_answers_the_diff_and_changes_nothing(admin: AdminClient, client: purveyor.Client) -> None:
    await order(client, "one")
    tried = await admin.apply_catalog(ONE, "why", validate_only=True)
    assert (tried.catalog, tried.refused, blocking(tried.changes)) == (None, True, ["PLAN_REMOVED"])
    kept = await admin.apply_catalog(ONE, "why", policies=["svc/small=keep"], validate_only=True)
    assert (kept.refused, "PLAN_REMOVED" in {change.kind for change in kept.changes}) == (False, True)
    assert (await versions(admin), await plans(client)) == ([1], ["small", "big"])


async def test_work_under_way_goes_on_over_a_change(admin: AdminClient, client: purveyor.Client, broker: Whole) -> None:
    async def keep_ordering() -> int:
        made = 0
        for number in range(20):
            handle = await client.provision("svc", "big", instance_id=f"i{number}")
            await handle.result()
            made += 1
        return made

    ordering = asyncio.ensure_future(keep_ordering())
    for number in range(5):
        await admin.apply_catalog(text(SMALL, BIG.replace("A big one.", f"Big {number}.")), "again")
    assert await ordering == 20


async def test_a_provider_configured_anew_leaves_what_it_made_as_it_is(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    await order(client, "before")
    configured = TWO.replace("kind: scripted", "kind: scripted, config: {size: 2}")
    changed = await admin.apply_catalog(configured, "bigger")
    assert "PROVIDER_CONFIG" in {change.kind for change in changed.changes}
    await order(client, "after")
    configs = {}
    for name in ("before", "after"):
        instance = await broker.store.instance(SYSTEM, "t", name)
        assert instance is not None
        assert instance.applied is not None
        plan = await broker.store.plan(instance.applied.plan)
        assert plan is not None
        configs[name] = plan.provider.config
        await (await client.deprovision(name)).result()
    assert configs == {"before": {}, "after": {"size": 2}}


async def test_a_text_that_is_too_large_is_refused(admin: AdminClient) -> None:
    large = TWO + "#" * (1024 * 1024)
    for call in (admin.validate_catalog(large), admin.apply_catalog(large, "why")):
        with pytest.raises(errors.PurveyorError) as refused:
            await call
        assert "MESSAGE_TOO_LARGE" in str(refused.value)


# The file.


@pytest.fixture
def file(folder: Path, broker: Whole) -> Path:
    path = folder / "catalog.yaml"
    path.write_text(TWO)
    return path


def live(broker: Whole) -> LiveCatalog:
    return broker.admin_parts.catalogs


async def look(watch: CatalogFileWatch) -> None:
    """Until the file was still for a look."""
    await watch.once()
    await watch.once()


async def test_a_changed_file_is_taken_or_refused_and_told(
    admin: AdminClient, client: purveyor.Client, broker: Whole, file: Path
) -> None:
    watch = CatalogFileWatch(file, live(broker))
    await order(client, "one")
    file.write_text(text(SMALL, BIG, SMALL.replace("small", "tiny")))
    await look(watch)
    assert await plans(client) == ["small", "big", "tiny"]
    newest = await broker.store.catalog()
    assert newest is not None
    assert (newest.version, newest.origin, newest.reason) == (2, Origin.FILE, "the catalog file changed")

    for bad, why in (
        (ONE, "PLAN_REMOVED"),
        ("services: [", "catalog"),
        (text(SMALL, BIG, provider="x"), "PROVIDER_KIND"),
    ):
        file.write_text(bad)
        await look(watch)
        refusal = (await admin.status()).catalog_refusal
        assert refusal is not None
        assert why in " ".join(refusal.reasons)
        assert await plans(client) == ["small", "big", "tiny"]
    file.write_text(TWO)
    await look(watch)
    assert (await admin.status()).catalog_refusal is None
    assert await plans(client) == ["small", "big"]


async def test_what_was_refused_is_taken_once_it_endangers_nothing(
    admin: AdminClient, client: purveyor.Client, broker: Whole, file: Path
) -> None:
    watch = CatalogFileWatch(file, live(broker))
    await order(client, "one")
    file.write_text(ONE)
    await look(watch)
    await (await client.deprovision("one")).result()
    await look(watch)
    assert await plans(client) == ["small", "big"]  # nobody looks at what did not change
    watch.ask()  # SIGHUP
    await watch.once()
    assert await plans(client) == ["big"]
    assert (await admin.status()).catalog_refusal is None  # what is applied settles it


async def test_a_file_that_goes_away_changes_nothing(client: purveyor.Client, broker: Whole, file: Path) -> None:
    watch = CatalogFileWatch(file, live(broker))
    file.unlink()
    with structlog.testing.capture_logs() as logs:
        await look(watch)
    assert [line["event"] for line in logs] == ["the catalog file cannot be read, the catalog before goes on"]
    assert await plans(client) == ["small", "big"]


async def restarted(broker: Whole, content: str) -> LiveCatalog:
    """The catalog of a process that starts with this file on the same store."""
    again = LiveCatalog(broker.store, judge, broker.admin_parts.clock)
    await again.begin(found(content))
    return again


def found(content: str) -> Judged:
    return judge(content.encode())


def offered(catalog: LiveCatalog) -> list[str]:
    return [offer.plan.id for offer in catalog().offers]


async def test_a_start_takes_a_new_file_and_no_dangerous_one(
    admin: AdminClient, client: purveyor.Client, broker: Whole
) -> None:
    await admin.apply_catalog(TWO, "by hand")
    await order(client, "one")
    more = text(SMALL, BIG, SMALL.replace("small", "tiny"))
    assert offered(await restarted(broker, more)) == ["small", "big", "tiny"]
    dangerous = await restarted(broker, ONE)
    assert offered(dangerous) == ["small", "big", "tiny"]
    assert dangerous.refused is not None
    assert dangerous.refused.why[0].startswith("PLAN_REMOVED")
    assert "t/one" in dangerous.refused.why[0]
    assert await versions(admin) == [3, 2, 1]
    meant = Wish(
        caller=LOCAL, reason="meant", origin=Origin.CALL, policies={PlanKey("svc", "small"): Policy(PolicyMode.KEEP)}
    )
    await dangerous.apply(found(ONE), meant)
    settled = await restarted(broker, ONE)
    assert (offered(settled), settled.refused) == (["big"], None)


async def test_a_file_that_did_not_change_does_not_undo_what_was_applied(broker: Whole) -> None:
    started = await restarted(broker, ONE)
    assert offered(started) == ["big"]  # the file, applied at a start
    await started.apply(found(TWO), Wish(caller=LOCAL, reason="by hand", origin=Origin.CALL))
    again = await restarted(broker, ONE)
    assert (offered(again), again.refused) == (["small", "big"], None)
    assert not await again.reload(ONE.encode())
    assert not await again.reload(ONE.encode(), again=True)
    assert await again.reload(text(SMALL).encode())


async def test_an_empty_store_takes_the_file(tmp_path: Path, broker: Whole) -> None:
    from purveyor_server.store.sqlite.settings import SqliteSettings  # noqa: PLC0415 - here alone
    from purveyor_server.store.sqlite.store import open_store  # noqa: PLC0415 - as above

    store = await open_store(tmp_path / "s.db", clock=broker.admin_parts.clock, settings=SqliteSettings())
    try:
        live = LiveCatalog(store, judge, broker.admin_parts.clock)
        told: list[Any] = []
        live.on_change = told.append
        await live.begin(found(ONE))
        assert (offered(live), live().version, len(told)) == (["big"], 1, 1)
        newest = await store.catalog()
        assert newest is not None
        assert (newest.principal != "", newest.reason) == (True, "the first catalog")
    finally:
        await store.close()
