"""Inventories of platforms: what they change, and what the brake refuses."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from msgspec.structs import replace

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import Instance, Settings
from purveyor_server.domain.platforms import (
    Inventory,
    InventoryReport,
    OrphanPolicy,
    Placed,
    PlatformRules,
    Verdict,
    claimed,
    healed,
    judge,
    orphaned,
    replayed,
)
from purveyor_server.domain.states import InstanceState
from purveyor_server.reconcile import platforms
from purveyor_server.store.contract import Page
from purveyor_server.store.platforms import PlatformOrphan
from tests.fakes.situations import instance

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DAY = timedelta(days=1)
RULES = PlatformRules()


def placed(name: str, **values: Any) -> Placed:
    given_: dict[str, Any] = {"created_at": NOW - DAY, "orphaned": False, "leaving": False}
    return Placed(uid=f"u-{name}", instance_id=name, **(given_ | values))


def many(count: int) -> list[Placed]:
    return [placed(f"i{number:03}") for number in range(count)]


def taken(names: Any, snapshot_id: str = "s1", at: datetime = NOW) -> Inventory:
    return Inventory(snapshot_id=snapshot_id, taken_at=at, instance_ids=frozenset(names))


def judged(
    names: Any, here: list[Placed], last: InventoryReport | None = None, rules: PlatformRules = RULES
) -> Verdict:
    return judge(taken(names), here, last, NOW, rules, ("t", "p"))


def brake(names: Any, here: list[Placed], last: InventoryReport | None = None) -> str:
    with pytest.raises(PurveyorError) as refused:
        judged(names, here, last)
    assert refused.value.reason is Reason.INVENTORY_REFUSED
    assert "nothing was changed" in refused.value.message
    return refused.value.metadata["brake"]


def report(named: int, at: datetime = NOW - DAY) -> InventoryReport:
    return InventoryReport(
        tenant="t", owner="p", snapshot_id="s0", digest="", taken_at=at, received_at=at, named=named, known=named
    )


def test_what_is_left_out_becomes_an_orphan_and_what_is_named_again_is_none() -> None:
    here = [*many(20), placed("gone"), placed("back", orphaned=True), placed("still", orphaned=True)]
    found = judged([one.instance_id for one in here if one.instance_id not in {"gone", "still"}], here)
    assert (found.orphaned, found.healed, found.missing) == (("u-gone",), ("u-back",), ("u-still",))
    assert (found.report.orphaned, found.report.healed) == (("gone",), ("back",))
    assert (found.report.named, found.report.known, found.report.missing, found.report.unknown) == (21, 23, 2, 0)


def test_what_was_ordered_later_or_is_leaving_is_not_judged() -> None:
    here = [*many(10), placed("new", created_at=NOW + DAY), placed("leaving", leaving=True)]
    assert judged([one.instance_id for one in many(10)], here).orphaned == ()


def test_an_empty_inventory_never_deletes_the_world() -> None:
    assert brake([], many(3)) == "empty"
    assert brake([], many(1)) == "empty"
    assert judged([], []).report.known == 0


def test_one_that_names_nothing_known_is_of_somebody_else() -> None:
    assert brake(["x", "y"], many(1)) == "strange"
    assert brake(["x"], [placed("a", orphaned=True)]) == "strange"
    assert judged(["x"], []).report.unknown == 1


def test_too_many_orphans_at_once() -> None:
    here = many(100)
    names = [one.instance_id for one in here]
    assert len(judged(names[10:], here).orphaned) == 10
    assert brake(names[11:], here) == "too_many"
    here = many(1000)
    names = [one.instance_id for one in here]
    assert len(judged(names[20:], here).orphaned) == 20
    assert brake(names[21:], here) == "too_many"


def test_where_there_are_few_one_may_go_at_a_time() -> None:
    here = many(5)
    names = [one.instance_id for one in here]
    assert judged(names[1:], here).orphaned == ("u-i000",)
    assert brake(names[2:], here) == "too_many"


def test_one_that_shrank_by_half() -> None:
    here = many(40)
    names = [one.instance_id for one in here]
    assert brake(names[1:], here, report(100)) == "shrunk"
    assert judged(names, here, report(100)).orphaned == ()


def test_times_must_make_sense() -> None:
    here = many(5)
    with pytest.raises(PurveyorError) as ahead:
        judge(taken(["i000"], at=NOW + DAY), here, None, NOW, RULES, ("t", "p"))
    assert ahead.value.metadata["brake"] == "future"
    assert brake([one.instance_id for one in here], here, report(5, NOW + DAY)) == "stale"


def test_the_refusal_names_what_is_concerned() -> None:
    with pytest.raises(PurveyorError) as refused:
        judged([], many(30))
    assert refused.value.metadata["count"] == "30"
    assert len(refused.value.preconditions) == 20
    assert refused.value.metadata["instances"].split(",")[0] == "i000"


def test_the_same_again_and_another_under_its_name() -> None:
    first = taken(["a", "b"])
    kept = replace(report(2), snapshot_id="s1", digest=first.digest)
    assert replayed(first, kept)
    assert not replayed(taken(["a"], "s2"), kept)
    assert not replayed(first, None)
    with pytest.raises(PurveyorError) as reused:
        replayed(taken(["a"]), kept)
    assert reused.value.reason is Reason.REQUEST_ID_REUSED


@given(st.sets(st.integers(0, 59)), st.sets(st.integers(0, 59)), st.sets(st.integers(60, 70)))
def test_no_inventory_orphans_more_than_the_brake_allows(here: set[int], named: set[int], strange: set[int]) -> None:
    known = [placed(f"i{number:03}") for number in sorted(here)]
    names = [f"i{number:03}" for number in named | strange]
    try:
        found = judged(names, known)
    except PurveyorError:
        return
    assert len(found.orphaned) <= max(1, len(known) // 10)
    assert {uid.removeprefix("u-") for uid in found.orphaned} == {one.instance_id for one in known} - set(names)
    assert len(found.orphaned) < max(1, len(known)) or not known


def test_without_the_brake_the_property_fails() -> None:
    """Negative control: rules that allow everything orphan more than the property does."""
    here = many(50)
    loose = replace(RULES, brake_percent=100.0, brake_count=1000)
    assert len(judged(["i000"], here, rules=loose).orphaned) == 49


def test_claims_are_bounded_and_naming_starts_anew() -> None:
    made = Instance(
        uid="u", tenant="t", instance_id="i", state=InstanceState.READY, desired=Settings("d", "s", "p"),
        created_at=NOW, updated_at=NOW,
    )  # fmt: skip
    assert claimed(made, NOW, RULES) is made
    for count in (1, 2, 3):
        made = claimed(orphaned(made, NOW), NOW, RULES)
        assert (made.platform_orphan_since, made.claims) == (None, count)
    with pytest.raises(PurveyorError) as refused:
        claimed(orphaned(made, NOW), NOW, RULES)
    assert refused.value.reason is Reason.WRONG_STATE
    assert healed(orphaned(made, NOW), NOW).claims == 0


class Listed:
    """A store with so many platform-orphans that may not be touched; notes how many were read."""

    def __init__(self, count: int) -> None:
        self.uids = [f"u{number:05}" for number in range(count)]
        self.read: list[str] = []

    async def freezes(self) -> tuple[Any, ...]:
        return ()

    async def recovery(self) -> None:
        return None

    async def platform_orphans(self, page: Page, _grace: timedelta) -> tuple[PlatformOrphan, ...]:
        uids = [uid for uid in self.uids if uid > page.after][: page.limit]
        self.read += uids
        return tuple(PlatformOrphan(instance(uid=uid), NOW, 1) for uid in uids)


async def test_a_round_looks_at_a_bounded_number_and_the_next_goes_on() -> None:
    """However many have bindings: a round had read them all, each time."""
    most = platforms.PAGE * platforms.PAGES
    store: Any = Listed(most + platforms.PAGE // 2)
    rules = replace(RULES, policy=OrphanPolicy.DEPROVISION)
    unused: Any = None
    loop = platforms.PlatformLoop(store, unused, rules, 60.0)
    for expected in (store.uids[:most], store.uids[most:], store.uids[:most]):
        store.read.clear()
        await loop.once()
        assert store.read == expected
