"""What operators are told about campaigns, as values."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from datetime import datetime

ENDED = frozenset({"ABORTED", "SUCCEEDED", "FINISHED_WITH_FAILURES"})


@dataclass(frozen=True, kw_only=True)
class CampaignItem:
    """One instance of a campaign; `state`: PENDING, RUNNING, SUCCEEDED, FAILED or SKIPPED. `code` and `message` say why it failed,
    has to wait or was skipped. `place` is its number in the campaign, 0 in a dry run.
    """

    tenant: str
    instance_id: str
    instance_uid: str
    state: str
    code: str = ""
    message: str = ""
    operation_id: str = ""
    place: int = 0
    attempt: int = 1
    start_time: datetime | None = None
    end_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Campaign:
    """Every instance of a plan on its way to another (`to_plan_id`), or to a maintenance version (`to_version`).

    `state`: PLANNED, RUNNING, PAUSED, ABORTED, SUCCEEDED or FINISHED_WITH_FAILURES. `problem`: why it paused itself.
    `failures`: the first 20 at most; empty in lists.
    """

    campaign_id: str
    service_id: str
    from_plan_id: str
    to_plan_id: str
    to_version: str
    tenant: str
    canary: int
    batch_size: int
    parallelism: int
    max_failures: int
    state: str
    problem: str
    pending: int
    running: int
    succeeded: int
    failed: int
    skipped: int
    batch: int
    failures: tuple[CampaignItem, ...] = ()
    reason: str = ""
    principal: str = ""
    create_time: datetime | None = None
    update_time: datetime | None = None
    end_time: datetime | None = None

    @property
    def total(self) -> int:
        """Instances that are written down."""
        return self.pending + self.running + self.succeeded + self.failed + self.skipped

    @property
    def over(self) -> bool:
        """Whether nothing of it runs, or will."""
        return self.state in ENDED and not self.running


@dataclass(frozen=True, kw_only=True)
class CampaignPlan:
    """A page of a dry run: what the campaign would be, how many instances it concerns in all, and some of them.

    An item is PENDING when it would be moved (with a `code`: later), FAILED when it could not, SKIPPED when there is nothing to do.
    """

    campaign: Campaign
    total: int
    items: tuple[CampaignItem, ...]
