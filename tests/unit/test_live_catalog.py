"""The live catalog over a real store, whatever is applied: what is refused changes nothing, what is served is stored."""

from __future__ import annotations

import asyncio
import tempfile
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from purveyor_server.domain.catalog import Catalog, Service
from purveyor_server.domain.catalogchanges import Contents, Level, Policies, Policy
from purveyor_server.domain.catalogdiff import diff
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.quotas import PlanKey, Used
from purveyor_server.kit.clock import SystemClock
from purveyor_server.lifecycle.catalogs import LiveCatalog, Refused, Wish
from purveyor_server.lifecycle.catalogtext import Judged
from purveyor_server.store.catalogs import Origin
from purveyor_server.store.contract import Store, Writes
from purveyor_server.store.operating import AuditLook
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.store.sqlite.store import open_store
from tests.fakes.situations import LOCAL, REF, plan
from tests.store_contract import records
from tests.unit.test_catalog_diff import CONTENTS, NAMES

KEYS = st.builds(PlanKey, NAMES, NAMES)
STEPS = st.one_of(
    st.tuples(st.just("apply"), CONTENTS, st.frozensets(KEYS, max_size=4)),
    st.tuples(st.just("order"), KEYS, st.just(None)),
)


def judged(contents: Contents) -> Judged:
    return Judged(contents, repr(contents), str(hash(repr(contents))))


async def facts(store: Store, live: LiveCatalog) -> tuple[Any, ...]:
    """All that an apply may change."""
    history = await store.catalog_history(0, 1000)
    audit = await store.audit((), AuditLook(1000))
    return history, len(audit.records), live(), live.contents


async def order(store: Store, key: PlanKey, number: int) -> None:
    wish = replace(records.SETTINGS, service_id=key.service_id, plan_id=key.plan_id)
    new = records.instance("acme", f"i{number}", desired=wish)
    await records.write(store, Writes(instances=(new,), operations=(records.operation(new),)), "acme", f"i{number}")


class Judgement:
    """What should become of an apply, by the rules alone."""

    def __init__(self, old: Contents, new: Contents, used: dict[PlanKey, Used], policies: Policies) -> None:
        changes = diff(old, new, used)
        needed = {plan for change in changes if change.level is Level.DANGEROUS for plan in change.plans}
        self.senseless = not policies.keys() <= needed
        self.refused = any(change.level is Level.REFUSED for change in changes) or not needed <= policies.keys()


async def run(steps: list[Any], *, careless: bool = False) -> list[str]:
    """What went wrong."""
    found: list[str] = []
    with tempfile.TemporaryDirectory() as folder:
        store = await open_store(Path(folder) / "s.db", clock=SystemClock(), settings=SqliteSettings(low_water_bytes=0))
        try:
            live = LiveCatalog(store, None, SystemClock())  # type: ignore[arg-type] # texts are judged already
            await live.begin(judged(Contents()))
            for number, (what, thing, plans) in enumerate(steps):
                if what == "order":
                    await order(store, thing, number)
                else:
                    found += await applied(store, live, thing, dict.fromkeys(plans, Policy()), careless=careless)
        finally:
            await store.close()
    return found


async def applied(store: Store, live: LiveCatalog, new: Contents, policies: Policies, *, careless: bool) -> list[str]:
    before = await facts(store, live)
    expected = Judgement(live.contents, new, await store.plan_usage(), policies)
    try:
        await live.apply(judged(new), Wish(caller=LOCAL, reason="why", origin=Origin.CALL, policies=policies))
    except PurveyorError as failure:
        if careless:
            version = await store.apply_catalog("planted", "planted", [])
            live.serve(new, version)
        found = [] if await facts(store, live) == before else [f"{failure.reason} changed something"]
        right = Reason.INVALID_REQUEST if expected.senseless else Reason.CATALOG_REFUSED
        return found + ([] if failure.reason is right else [f"{failure.reason} instead of {right}"])
    newest = await store.catalog()
    assert newest is not None
    stored = {
        digest: await store.plan(digest) for digest in (s.digest for s in Catalog(new.services).snapshots.values())
    }
    found = [f"the plan {digest} is served and not stored" for digest, plan in stored.items() if plan is None]
    found += [] if live().version == newest.version else ["what is served is not the newest"]
    return found + (["it should have been refused"] if expected.senseless or expected.refused else [])


@given(st.lists(STEPS, max_size=6))
@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.too_slow])
def test_what_is_refused_changes_nothing_and_what_is_served_is_stored(steps: list[Any]) -> None:
    assert asyncio.run(run(steps)) == []


def test_a_refusal_that_changes_something_is_found() -> None:
    """Negative control."""
    senseless = ("apply", Contents(), frozenset({PlanKey("a", "a")}))
    assert asyncio.run(run([senseless])) == []
    assert asyncio.run(run([senseless], careless=True)) == ["INVALID_REQUEST changed something"]


class Gated:
    """A store whose catalogs are stored when the gate opens; the answer of `lost` commands never comes."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.entered, self.gate = asyncio.Event(), asyncio.Event()
        self.lost = False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)

    async def apply_catalog(self, *things: Any) -> Any:
        self.entered.set()
        await self.gate.wait()
        version = await self._store.apply_catalog(*things)
        if self.lost:
            raise PurveyorError(Reason.OUTCOME_UNKNOWN, "the answer is lost")
        return version


def small(name: str) -> Contents:
    return Contents((Service(id="db", name="db", description="d", plans=(plan(name),)),), {REF.name: REF})


TEXTS = {name: judged(small(name)) for name in ("one", "two", "three")}


def judge(text: bytes, *, ask_providers: bool = True) -> Judged:
    return next(known for known in TEXTS.values() if known.text.encode() == text)


@pytest.fixture
async def gated(tmp_path: Path) -> AsyncIterator[tuple[LiveCatalog, Gated]]:
    """Serving `one`."""
    store = await open_store(tmp_path / "s.db", clock=SystemClock(), settings=SqliteSettings(low_water_bytes=0))
    made = Gated(store)
    made.gate.set()
    live = LiveCatalog(made, judge, SystemClock())
    await live.begin(TEXTS["one"])
    yield live, made
    await store.close()


def offered(live: LiveCatalog) -> list[str]:
    return [offer.plan.id for offer in live().offers]


async def test_a_caller_that_goes_away_leaves_nothing_half_done(gated: tuple[LiveCatalog, Gated]) -> None:
    live, store = gated
    store.entered.clear()
    store.gate.clear()
    calling = asyncio.ensure_future(live.apply(TEXTS["two"], Wish(caller=LOCAL, reason="r", origin=Origin.CALL)))
    await store.entered.wait()
    calling.cancel()
    with pytest.raises(asyncio.CancelledError):
        await calling
    moved = asyncio.ensure_future(live.moved(10))
    store.gate.set()
    await moved
    assert (offered(live), live().version) == (["two"], 2)
    await live.apply(TEXTS["three"], Wish(caller=LOCAL, reason="r", origin=Origin.CALL, expected=2))
    assert (offered(live), live().version) == (["three"], 3)


async def test_what_was_stored_and_whose_answer_was_lost_is_served_by_the_next_call(
    gated: tuple[LiveCatalog, Gated],
) -> None:
    live, store = gated
    store.lost = True
    wish = Wish(caller=LOCAL, reason="r", origin=Origin.CALL, request_id="r1")
    with pytest.raises(PurveyorError) as unknown:
        await live.apply(TEXTS["two"], wish)
    assert (unknown.value.reason, live().version) == (Reason.OUTCOME_UNKNOWN, 1)
    store.lost = False
    again = await live.apply(TEXTS["two"], wish)
    assert (again.replayed, again.version.version, offered(live)) == (True, 2, ["two"])


async def test_an_apply_by_hand_does_not_hide_a_bad_file(gated: tuple[LiveCatalog, Gated]) -> None:
    live, _ = gated
    live.refused = Refused(SystemClock().now(), "of the file", ("why",))
    await live.apply(TEXTS["two"], Wish(caller=LOCAL, reason="r", origin=Origin.CALL))
    assert live.refused is not None
    live.refused = Refused(SystemClock().now(), TEXTS["three"].digest, ("why",))
    await live.apply(TEXTS["three"], Wish(caller=LOCAL, reason="meant", origin=Origin.CALL))
    assert live.refused is None
