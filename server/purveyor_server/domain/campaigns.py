"""Campaigns: every instance of a plan is moved to another one, or upgraded, a few at a time.

Guarantee: pure. The counters of a campaign are those of its items, whatever order things happen in; nothing beyond the canary
begins before the whole canary has succeeded; more failures than are allowed pause it; an ended campaign stays as it is, but
for those of its items that were still running and for a retry of what failed.
Limit: how instances are changed is not known here; a campaign that is paused or aborted takes nothing back that it began.
Source: DESIGN.md section 9.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum

import msgspec
from msgspec.structs import replace

from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource, invalid

MAX_PARALLELISM = 100
MAX_LIVE = 100  # campaigns that are not over
MOST = 1_000_000  # of any other number
MAX_PROBLEM = 300  # characters


class CampaignState(StrEnum):
    """Life of a campaign."""

    PLANNED = "PLANNED"  # its instances are being written down
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"  # nothing new begins
    ABORTED = "ABORTED"
    SUCCEEDED = "SUCCEEDED"
    FINISHED_WITH_FAILURES = "FINISHED_WITH_FAILURES"


class ItemState(StrEnum):
    """What becomes of one instance."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    SKIPPED = "SKIPPED"  # there was nothing to do, or nobody to do it to


LIVE = frozenset({CampaignState.PLANNED, CampaignState.RUNNING, CampaignState.PAUSED})

CAMPAIGN_TRANSITIONS: dict[CampaignState, frozenset[CampaignState]] = {
    CampaignState.PLANNED: frozenset({CampaignState.RUNNING, CampaignState.PAUSED, CampaignState.ABORTED}),
    CampaignState.RUNNING: frozenset(
        {
            CampaignState.PAUSED,
            CampaignState.ABORTED,
            CampaignState.SUCCEEDED,
            CampaignState.FINISHED_WITH_FAILURES,
        }
    ),
    CampaignState.PAUSED: frozenset(
        {
            CampaignState.PLANNED,
            CampaignState.RUNNING,
            CampaignState.ABORTED,
            CampaignState.SUCCEEDED,
            CampaignState.FINISHED_WITH_FAILURES,
        }
    ),
    CampaignState.FINISHED_WITH_FAILURES: frozenset({CampaignState.RUNNING}),
    CampaignState.SUCCEEDED: frozenset(),
    CampaignState.ABORTED: frozenset(),
}


class Counts(msgspec.Struct, frozen=True):
    """Items by state."""

    pending: int = 0
    running: int = 0
    succeeded: int = 0
    failed: int = 0
    skipped: int = 0

    @property
    def total(self) -> int:
        """All of them."""
        return self.pending + self.running + self.succeeded + self.failed + self.skipped


class Aim(msgspec.Struct, frozen=True, kw_only=True):
    """What a campaign is about. An empty `to_plan_id` is an upgrade: the plan stays, its maintenance version becomes the
    catalog's. An empty `tenant` is every tenant."""

    service_id: str
    from_plan_id: str
    to_plan_id: str = ""
    tenant: str = ""

    @property
    def target(self) -> str:
        """The plan that instances have in the end."""
        return self.to_plan_id or self.from_plan_id

    def meets(self, other: Aim) -> bool:
        """Whether there may be instances that concern both, plans aside."""
        return self.service_id == other.service_id and (not self.tenant or other.tenant in {"", self.tenant})


class Pace(msgspec.Struct, frozen=True, kw_only=True):
    """How a campaign goes: `canary` instances first, which must all succeed; then batches of `batch_size` (0: all in one), one
    after the other; never more than `parallelism` at once. It pauses itself when more than `max_failures` have failed."""

    canary: int = 1
    batch_size: int = 0
    parallelism: int = 4
    max_failures: int = 0


class Campaign(msgspec.Struct, frozen=True, kw_only=True):
    """One campaign. `gathered_to` is the uid up to which instances are written down, `gathered` whether all are. `excused` are
    failures that were known when it was last resumed. `batch` 0 is the canary; `in_batch` is how many of it have begun."""

    campaign_id: str
    aim: Aim
    pace: Pace
    to_version: str = ""  # of an upgrade: the maintenance version
    provider: str = ""
    state: CampaignState = CampaignState.PLANNED
    counts: Counts = Counts()
    gathered: bool = False
    gathered_to: str = ""
    excused: int = 0
    batch: int = 0
    in_batch: int = 0
    problem: str = ""  # why it does not go on
    reason: str = ""
    principal: str = ""
    request_id: str = ""
    fingerprint: str = ""
    version: int = 1
    created_at: datetime
    updated_at: datetime
    ended_at: datetime | None = None

    @property
    def live(self) -> bool:
        """Whether it may still begin something."""
        return self.state in LIVE

    @property
    def in_canary(self) -> bool:
        """Whether the canary has not succeeded yet."""
        return self.counts.succeeded < self.pace.canary

    @property
    def new_failures(self) -> int:
        """Failures that count against the limit."""
        return max(0, self.counts.failed - self.excused)


class Item(msgspec.Struct, frozen=True, kw_only=True):
    """One instance of a campaign. `place` (1 is the first) is its number there; `attempt` grows with every retry. RUNNING without
    an operation: it was, or is about to be, asked for. `code` and `message` say why it failed, was skipped or has to wait."""

    campaign_id: str
    place: int
    uid: str
    tenant: str
    instance_id: str
    state: ItemState = ItemState.PENDING
    attempt: int = 1
    operation_id: str = ""
    code: str = ""
    message: str = ""
    not_before: datetime | None = None
    busy_since: datetime | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None

    @property
    def request_id(self) -> str:
        """Of the update that moves it: the same after a restart, so nothing is asked for twice."""
        return f"{self.campaign_id}.{self.place}.{self.attempt}"


def check_aim(aim: Aim) -> Aim:
    """The aim, or INVALID_REQUEST."""
    if not aim.service_id:
        raise invalid("service_id", "is required")
    if not aim.from_plan_id:
        raise invalid("from_plan_id", "is required")
    if aim.to_plan_id == aim.from_plan_id:
        raise invalid("to_plan_id", "is the plan that they have: leave it empty to upgrade them")
    return aim


def check_pace(pace: Pace, total: int) -> Pace:
    """The pace of a campaign over `total` instances, or INVALID_REQUEST."""
    if not 1 <= pace.parallelism <= MAX_PARALLELISM:
        raise invalid("parallelism", f"must be 1 to {MAX_PARALLELISM}")
    for name in ("canary", "batch_size", "max_failures"):
        if not 0 <= getattr(pace, name) <= MOST:
            raise invalid(name, f"must be 0 to {MOST}")
    if pace.canary > total:
        raise invalid("canary", f"is {pace.canary}, and the campaign concerns {total} instances")
    return pace


def check_alone(aim: Aim, others: Sequence[Campaign]) -> None:
    """Raise CAMPAIGN_CONFLICT when a live campaign concerns the same instances, or leads where this one comes from."""
    found = [(other, why) for other in others if other.live and (why := _conflict(aim, other.aim))]
    if not found and len(others) < MAX_LIVE:
        return
    found = found or [(other, "is one of too many") for other in others[:1]]
    text = "; ".join(f"campaign {other.campaign_id} {why}" for other, why in found[:5])
    raise PurveyorError(
        Reason.CAMPAIGN_CONFLICT,
        f"another campaign is not over yet: {text}",
        metadata={"campaigns": ",".join(other.campaign_id for other, _ in found[:5])},
        resource=Resource("campaign", found[0][0].campaign_id),
        preconditions=tuple(
            Precondition("CAMPAIGN", f"campaign/{other.campaign_id}", f"{why}: wait for its end or abort it")
            for other, why in found[:5]
        ),
    )


def _conflict(aim: Aim, other: Aim) -> str:
    """Why the two cannot go on together; "" when they can."""
    if not (aim.meets(other) or other.meets(aim)):
        return ""
    if aim.from_plan_id == other.from_plan_id:
        return f"moves the same instances (of plan {other.from_plan_id!r})"
    if aim.target == other.from_plan_id and other.target == aim.from_plan_id:
        return f"moves from {other.from_plan_id!r} to {other.target!r}, the other way round: that would go in a circle"
    if other.target == aim.from_plan_id:
        return f"moves instances into {other.target!r}, from where this one would move them on"
    if aim.target == other.from_plan_id:
        return f"moves instances out of {other.from_plan_id!r}, where this one would move them to"
    return ""


def campaign_not_found(campaign_id: str) -> PurveyorError:
    """NOT_FOUND for a campaign."""
    return PurveyorError(
        Reason.CAMPAIGN_NOT_FOUND,
        f"there is no campaign {campaign_id!r}",
        metadata={"campaign_id": campaign_id},
        resource=Resource("campaign", campaign_id),
    )


def room(campaign: Campaign) -> int:
    """How many more may begin now."""
    if campaign.state is not CampaignState.RUNNING:
        return 0
    counts, pace = campaign.counts, campaign.pace
    left = pace.parallelism - counts.running
    if campaign.in_canary:
        left = min(left, pace.canary - counts.succeeded - counts.running)
    elif pace.batch_size:
        left = min(left, pace.batch_size - campaign.in_batch)
    return max(0, min(left, counts.pending))


def gathered(campaign: Campaign, count: int, upto: str, now: datetime, *, done: bool) -> Campaign:
    """`count` more items are written down, up to the uid `upto`; with `done` there are no others."""
    if campaign.gathered or not campaign.live:
        return campaign
    counts = replace(campaign.counts, pending=campaign.counts.pending + count)
    state = CampaignState.RUNNING if done and campaign.state is CampaignState.PLANNED else campaign.state
    changed = _touch(campaign, now, counts=counts, gathered=done, gathered_to=upto or campaign.gathered_to, state=state)
    return settled(changed, now)


def applied(campaign: Campaign, changes: Sequence[tuple[Item, Item]], now: datetime) -> Campaign:
    """The campaign after items have become others (before, after)."""
    counts = {name: getattr(campaign.counts, name) for name in Counts.__struct_fields__}
    begun = 0
    for before, after in changes:
        counts[before.state.lower()] -= 1
        counts[after.state.lower()] += 1
        begun += before.state is ItemState.PENDING and after.state is ItemState.RUNNING
        begun -= before.state is ItemState.RUNNING and after.state is ItemState.PENDING  # it has to wait for its turn
    in_batch = campaign.in_batch if campaign.in_canary else max(0, campaign.in_batch + begun)
    return settled(_touch(campaign, now, counts=Counts(**counts), in_batch=in_batch), now)


def settled(campaign: Campaign, now: datetime) -> Campaign:
    """The campaign with what follows from its counters: its end, its next batch, its pause."""
    counts, pace = campaign.counts, campaign.pace
    if campaign.state not in {CampaignState.RUNNING, CampaignState.PAUSED} or not campaign.gathered:
        return campaign
    if not counts.pending and not counts.running:
        end = CampaignState.FINISHED_WITH_FAILURES if counts.failed else CampaignState.SUCCEEDED
        return replace(campaign, state=end, problem="", ended_at=now)
    if campaign.state is CampaignState.PAUSED:
        return campaign
    if campaign.in_canary and campaign.new_failures:
        return replace(campaign, state=CampaignState.PAUSED, problem="the canary failed")
    if campaign.new_failures > pace.max_failures:
        text = f"{campaign.new_failures} failed, {pace.max_failures} are allowed"
        return replace(campaign, state=CampaignState.PAUSED, problem=text)
    if campaign.in_canary:
        return campaign
    full = pace.batch_size and campaign.in_batch >= pace.batch_size and not counts.running
    if campaign.batch == 0 or full:
        return replace(campaign, batch=campaign.batch + 1, in_batch=0)
    return campaign


def paused(campaign: Campaign, now: datetime, problem: str = "") -> Campaign:
    """Nothing new begins. Raises WRONG_STATE once it has ended."""
    _check_live(campaign, "paused")
    if campaign.state is CampaignState.PAUSED:
        return campaign
    return _touch(campaign, now, state=CampaignState.PAUSED, problem=problem[:MAX_PROBLEM])


def resumed(campaign: Campaign, now: datetime) -> Campaign:
    """It goes on; the failures until now do not count against its limit any more. Raises WRONG_STATE once it has ended."""
    _check_live(campaign, "resumed")
    if campaign.state is not CampaignState.PAUSED:
        return campaign
    state = CampaignState.RUNNING if campaign.gathered else CampaignState.PLANNED
    return settled(_touch(campaign, now, state=state, problem="", excused=campaign.counts.failed), now)


def aborted(campaign: Campaign, now: datetime) -> Campaign:
    """Nothing new begins, ever. Raises WRONG_STATE when it has ended otherwise."""
    if campaign.state is CampaignState.ABORTED:
        return campaign
    _check_live(campaign, "aborted")
    return _touch(campaign, now, state=CampaignState.ABORTED, problem="", ended_at=now)


def check_retry(campaign: Campaign) -> None:
    """Raise WRONG_STATE for a campaign whose failures cannot be tried again."""
    if campaign.state in {CampaignState.ABORTED, CampaignState.SUCCEEDED}:
        raise wrong_state(campaign, "retried: begin another one")


def retried(campaign: Campaign, failures: Sequence[Item], now: datetime) -> tuple[Campaign, tuple[Item, ...]]:
    """The failed items wait for their turn again, as a new attempt. Raises WRONG_STATE."""
    check_retry(campaign)
    again = [item for item in failures if item.state is ItemState.FAILED]
    items = tuple(
        Item(
            campaign_id=item.campaign_id,
            place=item.place,
            uid=item.uid,
            tenant=item.tenant,
            instance_id=item.instance_id,
            attempt=item.attempt + 1,
        )
        for item in again
    )
    if not items:
        return campaign, ()
    counts = campaign.counts
    counts = replace(counts, failed=counts.failed - len(items), pending=counts.pending + len(items))
    ended = campaign.state is CampaignState.FINISHED_WITH_FAILURES
    state = CampaignState.RUNNING if ended else campaign.state
    excused = counts.failed if ended else min(campaign.excused, counts.failed)
    changed = _touch(campaign, now, counts=counts, state=state, excused=excused, ended_at=None)
    return settled(changed, now), items


def wrong_state(campaign: Campaign, what: str) -> PurveyorError:
    """WRONG_STATE: it is over."""
    text = f"the campaign {campaign.campaign_id} is {campaign.state}: it cannot be {what}"
    return PurveyorError(
        Reason.WRONG_STATE,
        text,
        metadata={"campaign_id": campaign.campaign_id, "state": str(campaign.state)},
        resource=Resource("campaign", campaign.campaign_id),
        preconditions=(Precondition("CAMPAIGN", f"campaign/{campaign.campaign_id}", text),),
    )


def _check_live(campaign: Campaign, what: str) -> None:
    if not campaign.live:
        raise wrong_state(campaign, what)


def _touch(campaign: Campaign, now: datetime, **changes: object) -> Campaign:
    return replace(campaign, version=campaign.version + 1, updated_at=now, **changes)
