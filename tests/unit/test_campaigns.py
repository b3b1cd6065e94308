"""The rules of campaigns, alone: counters, canary, batches, brakes, ends; who may go beside whom."""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from purveyor_server.domain import campaign_items
from purveyor_server.domain.campaign_items import Verdict, judge
from purveyor_server.domain.campaigns import (
    CAMPAIGN_TRANSITIONS,
    LIVE,
    MAX_LIVE,
    Aim,
    Campaign,
    CampaignState,
    Counts,
    Item,
    ItemState,
    Pace,
    aborted,
    applied,
    check_aim,
    check_alone,
    check_pace,
    gathered,
    paused,
    resumed,
    retried,
    room,
)
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import Failure, MaintenanceInfo, Pause
from purveyor_server.domain.states import InstanceState, OperationState, Verb
from tests.store_contract import records

NOW = datetime(2026, 1, 1, tzinfo=UTC)
AIM = Aim(service_id="svc", from_plan_id="a", to_plan_id="b")


def campaign(aim: Aim = AIM, campaign_id: str = "c1", **values: Any) -> Campaign:
    return Campaign(campaign_id=campaign_id, aim=aim, created_at=NOW, updated_at=NOW, **{"pace": Pace(), **values})


def item(place: int, **values: Any) -> Item:
    return Item(campaign_id="c1", place=place, uid=f"u{place}", tenant="t", instance_id=f"i{place}", **values)


class Run:
    """A campaign with its items, moved as the loop moves it; `check` holds after every step."""

    def __init__(self, pace: Pace, total: int, room: Callable[[Campaign], int] = room) -> None:
        self.campaign = campaign(pace=pace)
        self.items: list[Item] = []
        self.total = total
        self.room = room
        self.over: CampaignState | None = None

    def gather(self, count: int) -> None:
        if self.campaign.state is not CampaignState.PLANNED:
            return
        count = min(count, self.total - len(self.items))
        self.items += [item(len(self.items) + number) for number in range(1, count + 1)]
        done = len(self.items) == self.total
        self._become(gathered(self.campaign, count, f"u{len(self.items)}", NOW, done=done))

    def begin(self) -> None:
        free = [one for one in self.items if one.state is ItemState.PENDING][: self.room(self.campaign)]
        self._change([(one, campaign_items.begun(one, NOW)) for one in free])

    def end(self, verdict: Verdict) -> None:
        running = [one for one in self.items if one.state is ItemState.RUNNING][:1]
        self._change([(one, campaign_items.judged(one, verdict, NOW)) for one in running])

    def act(self, rule: Callable[[Campaign, datetime], Campaign]) -> None:
        if self.campaign.live:
            self._become(rule(self.campaign, NOW))

    def retry(self) -> None:
        if self.campaign.state in {CampaignState.ABORTED, CampaignState.SUCCEEDED}:
            return
        changed, again = retried(self.campaign, self.items, NOW)
        for one in again:
            self.items[one.place - 1] = one
        self._become(changed)

    def _change(self, changes: list[tuple[Item, Item]]) -> None:
        if not changes:
            return
        for _, after in changes:
            self.items[after.place - 1] = after
        self._become(applied(self.campaign, changes, NOW))

    def _become(self, after: Campaign) -> None:
        before, self.campaign = self.campaign, after
        allowed = CAMPAIGN_TRANSITIONS[before.state]
        planned = before.state is CampaignState.PLANNED  # and RUNNING, and over, in one step
        assert after.state is before.state or after.state in allowed or (planned and not after.counts.pending)
        self.check()

    def check(self) -> None:
        now, states = self.campaign, [one.state for one in self.items]
        counted = Counts(**{name.lower(): states.count(name) for name in ItemState})
        assert now.counts == counted
        assert now.counts.running <= now.pace.parallelism
        if now.in_canary and not now.counts.failed:
            assert now.counts.running + now.counts.succeeded <= now.pace.canary
        assert (now.ended_at is not None) == (now.state not in LIVE)
        if now.state in {CampaignState.SUCCEEDED, CampaignState.FINISHED_WITH_FAILURES}:
            assert not now.counts.pending
            assert not now.counts.running
            assert (now.counts.failed > 0) == (now.state is CampaignState.FINISHED_WITH_FAILURES)
        if now.state is CampaignState.RUNNING:
            assert now.new_failures <= now.pace.max_failures
            assert not (now.in_canary and now.new_failures)


MOVED = Verdict(ItemState.SUCCEEDED)
FAILED = Verdict(ItemState.FAILED, "PROVIDER_FAILED", "no")
BUSY = Verdict(ItemState.PENDING, "OPERATION_IN_PROGRESS", "busy")
SKIPPED = Verdict(ItemState.SKIPPED, campaign_items.GONE, "gone")
STEPS: dict[str, Callable[[Run], None]] = {
    "gather": lambda run: run.gather(3),
    "begin": lambda run: run.begin(),
    "moved": lambda run: run.end(MOVED),
    "moved too": lambda run: run.end(MOVED),
    "failed": lambda run: run.end(FAILED),
    "busy": lambda run: run.end(BUSY),
    "skipped": lambda run: run.end(SKIPPED),
    "pause": lambda run: run.act(paused),
    "resume": lambda run: run.act(resumed),
    "abort": lambda run: run.act(aborted),
    "retry": lambda run: run.retry(),
}
PACES = st.builds(
    Pace,
    canary=st.integers(0, 3),
    batch_size=st.integers(0, 4),
    parallelism=st.integers(1, 4),
    max_failures=st.integers(0, 2),
)


@settings(max_examples=300, deadline=None)
@given(PACES, st.integers(3, 12), st.lists(st.sampled_from(sorted(STEPS)), max_size=60))
def test_whatever_happens_the_counters_are_those_of_the_items(pace: Pace, total: int, steps: list[str]) -> None:
    run = Run(pace, total)
    for step in steps:
        STEPS[step](run)
    if run.campaign.state is CampaignState.ABORTED:
        return
    for _ in range(10 * total):  # it always comes to an end when nothing fails any more
        run.act(resumed)
        for step in ("gather", "begin", "moved"):
            STEPS[step](run)
    assert run.campaign.state in {CampaignState.SUCCEEDED, CampaignState.FINISHED_WITH_FAILURES}


def test_a_rule_that_forgets_the_canary_is_found() -> None:
    """Negative control."""
    run = Run(Pace(canary=1, parallelism=4), 6, lambda seen: min(4 - seen.counts.running, seen.counts.pending))
    run.gather(6)
    with pytest.raises(AssertionError):
        run.begin()


def test_the_rest_begins_once_the_whole_canary_has_succeeded() -> None:
    run = Run(Pace(canary=2, parallelism=4), 8)
    for _ in range(3):
        run.gather(3)
    run.begin()
    assert (run.campaign.batch, run.campaign.counts.running) == (0, 2)
    run.end(MOVED)
    run.begin()
    assert run.campaign.counts.running == 1
    run.end(MOVED)
    run.begin()
    assert (run.campaign.batch, run.campaign.counts.running) == (1, 4)


def test_a_failed_canary_pauses_it_whatever_is_allowed() -> None:
    run = Run(Pace(canary=1, max_failures=5), 4)
    run.gather(4)
    run.begin()
    run.end(FAILED)
    assert (run.campaign.state, run.campaign.problem) == (CampaignState.PAUSED, "the canary failed")
    run.act(resumed)
    run.begin()
    assert run.campaign.counts.running == 1  # another canary


def test_a_batch_waits_for_all_of_the_one_before() -> None:
    run = Run(Pace(canary=0, batch_size=3, parallelism=2), 7)
    for _ in range(3):
        run.gather(3)
    run.begin()
    run.end(MOVED)
    run.end(BUSY)  # it has not had its turn
    run.begin()
    assert run.campaign.counts.running == 2
    run.end(MOVED)
    run.begin()
    assert (run.campaign.batch, run.campaign.counts.running) == (1, 1)
    run.end(MOVED)
    run.begin()
    assert (run.campaign.batch, run.campaign.counts.running) == (2, 2)


def test_more_failures_than_allowed_pause_it_and_a_resume_accepts_them() -> None:
    run = Run(Pace(canary=0, parallelism=1, max_failures=1), 6)
    run.gather(3)
    run.gather(3)
    for _ in range(2):
        run.begin()
        run.end(FAILED)
    assert (run.campaign.state, run.campaign.problem) == (CampaignState.PAUSED, "2 failed, 1 are allowed")
    run.begin()
    assert run.campaign.counts.running == 0
    run.act(resumed)
    run.begin()
    run.end(FAILED)
    assert run.campaign.state is CampaignState.RUNNING


def test_what_is_over_stays_over() -> None:
    over = campaign(state=CampaignState.ABORTED, ended_at=NOW)
    assert aborted(over, NOW) is over
    for rule in (paused, resumed):
        with pytest.raises(PurveyorError) as refused:
            rule(over, NOW)
        assert refused.value.reason is Reason.WRONG_STATE
    with pytest.raises(PurveyorError):
        retried(over, [], NOW)


@pytest.mark.parametrize(
    ("other", "said"),
    [
        (AIM, "same instances"),
        (replace(AIM, to_plan_id=""), "same instances"),
        (replace(AIM, from_plan_id="b", to_plan_id="a"), "circle"),
        (replace(AIM, from_plan_id="z", to_plan_id="a"), "move them on"),
        (replace(AIM, from_plan_id="b", to_plan_id="z"), "would move them to"),
        (replace(AIM, from_plan_id="b", to_plan_id=""), "would move them to"),
        (replace(AIM, tenant="t"), "same instances"),
    ],
)
def test_two_that_are_in_each_others_way(other: Aim, said: str) -> None:
    for state in LIVE:
        with pytest.raises(PurveyorError) as refused:
            check_alone(AIM, (campaign(other, "c7", state=state),))
        assert refused.value.reason is Reason.CAMPAIGN_CONFLICT
        assert said in refused.value.message
        assert refused.value.metadata == {"campaigns": "c7"}


@pytest.mark.parametrize(
    "other",
    [
        replace(AIM, service_id="other"),
        replace(AIM, from_plan_id="z"),
        replace(AIM, from_plan_id="z", to_plan_id="y"),
    ],
)
def test_two_that_are_not(other: Aim) -> None:
    check_alone(AIM, (campaign(other),))
    check_alone(AIM, (campaign(AIM, state=CampaignState.SUCCEEDED),))
    check_alone(replace(AIM, tenant="t"), (campaign(replace(AIM, tenant="u")),))


def test_there_are_not_too_many_at_once() -> None:
    others = tuple(campaign(replace(AIM, service_id=f"s{number}"), f"c{number}") for number in range(MAX_LIVE))
    check_alone(AIM, others[1:])
    with pytest.raises(PurveyorError) as refused:
        check_alone(AIM, others)
    assert refused.value.reason is Reason.CAMPAIGN_CONFLICT


@pytest.mark.parametrize(
    ("pace", "field"),
    [
        (Pace(parallelism=0), "parallelism"),
        (Pace(parallelism=101), "parallelism"),
        (Pace(canary=4), "canary"),
        (Pace(canary=-1), "canary"),
        (Pace(batch_size=-1), "batch_size"),
        (Pace(max_failures=-1), "max_failures"),
    ],
)
def test_a_bad_pace_is_refused(pace: Pace, field: str) -> None:
    with pytest.raises(PurveyorError) as refused:
        check_pace(pace, 3)
    assert [violation.field for violation in refused.value.violations] == [field]


def test_a_bad_aim_is_refused() -> None:
    for aim, field in (
        (replace(AIM, service_id=""), "service_id"),
        (replace(AIM, from_plan_id=""), "from_plan_id"),
        (replace(AIM, to_plan_id="a"), "to_plan_id"),
    ):
        with pytest.raises(PurveyorError) as refused:
            check_aim(aim)
        assert refused.value.violations[0].field == field


OF_A = replace(records.SETTINGS, service_id="svc", plan_id="a")
READY = records.instance(uid="u1", state=InstanceState.READY, desired=OF_A, applied=OF_A)


@pytest.mark.parametrize(
    ("changes", "state", "code"),
    [
        ({}, ItemState.PENDING, ""),
        ({"deletion_protected": True}, ItemState.PENDING, ""),
        ({"adopted": True}, ItemState.PENDING, ""),
        ({"uid": "u2"}, ItemState.SKIPPED, "GONE"),
        ({"state": InstanceState.DELETED}, ItemState.SKIPPED, "GONE"),
        ({"state": InstanceState.DEPROVISIONING}, ItemState.SKIPPED, "GONE"),
        ({"state": InstanceState.FAILED}, ItemState.SKIPPED, "NOT_USABLE"),
        ({"state": InstanceState.DELETE_FAILED}, ItemState.SKIPPED, "NOT_USABLE"),
        ({"state": InstanceState.UPDATING}, ItemState.PENDING, "OPERATION_IN_PROGRESS"),
        ({"state": InstanceState.PROVISIONING}, ItemState.PENDING, "OPERATION_IN_PROGRESS"),
        ({"applied": replace(OF_A, plan_id="b")}, ItemState.SKIPPED, "ALREADY_THERE"),
        ({"applied": replace(OF_A, plan_id="z")}, ItemState.SKIPPED, "LEFT_PLAN"),
        ({"reconcile_paused": Pause("hands off", "op", NOW)}, ItemState.SKIPPED, "LEFT_ALONE"),
    ],
)
def test_every_instance_has_a_verdict(changes: dict[str, Any], state: ItemState, code: str) -> None:
    verdict = judge(AIM, "", replace(READY, **changes), "u1")
    assert (verdict.state, verdict.code) == (state, code)
    assert bool(verdict.message) == bool(code)


def test_what_is_busy_for_too_long_is_a_failure() -> None:
    found = campaign_items.judged(item(1), BUSY, NOW)
    assert (found.state, found.not_before) == (ItemState.PENDING, NOW + campaign_items.BUSY_AGAIN)
    later = campaign_items.judged(campaign_items.begun(found, NOW), BUSY, NOW + timedelta(minutes=59))
    assert later.state is ItemState.PENDING
    last = campaign_items.judged(later, BUSY, NOW + timedelta(minutes=60))
    assert (last.state, last.code, last.ended_at) == (ItemState.FAILED, BUSY.code, NOW + timedelta(minutes=60))
    again = campaign_items.accepted(later, "o1")
    assert again.busy_since is None


def test_an_upgrade_passes_over_what_has_the_version() -> None:
    aim = replace(AIM, to_plan_id="")
    old, new = (replace(OF_A, maintenance_info=MaintenanceInfo(version)) for version in ("1.0.0", "1.1.0"))
    assert judge(aim, "1.1.0", replace(READY, applied=old), "u1").go
    assert judge(aim, "1.1.0", READY, "u1").go
    assert judge(aim, "1.1.0", replace(READY, applied=new), "u1").code == "ALREADY_THERE"
    assert judge(aim, "1.1.0", None, "u1").code == "GONE"


def test_an_operation_that_was_taken_over_is_no_failure() -> None:
    running = item(1, state=ItemState.RUNNING, operation_id="o1")
    for reason, state in (("TAKEN_OVER", "SKIPPED"), ("PURGED", "SKIPPED"), ("PROVIDER_FAILED", "FAILED")):
        failure = Failure(reason, "for callers", "for operators")
        over = records.operation(READY, Verb.UPDATE, state=OperationState.FAILED, failure=failure)
        found = campaign_items.ended(running, over, NOW + timedelta(seconds=1))
        assert (found.state, found.code, found.message) == (state, reason, "for operators")
    forgotten = campaign_items.lost(running, READY, AIM, "", NOW)
    assert (forgotten.state, forgotten.code) == (ItemState.FAILED, "OPERATION_NOT_FOUND")
    there = replace(READY, applied=replace(OF_A, plan_id="b"))
    assert campaign_items.lost(running, replace(there, uid="u1"), AIM, "", NOW).state is ItemState.SUCCEEDED
