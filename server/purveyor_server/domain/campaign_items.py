"""Items of a campaign: whether an instance can be moved now, and what became of it.

Guarantee: pure, and every situation has one answer. What is gone, was never usable, has left the plan or is there already is
passed over with the reason; what is busy waits, an hour at most; whatever else does not work is a failure with its reason.
Limit: what the catalog, the schema, a quota or the provider say is judged where an update is accepted.
"""

from __future__ import annotations

from datetime import datetime, timedelta
from typing import NamedTuple

from msgspec.structs import replace

from purveyor_server.domain.automation import AUTOMATION, why_left_alone
from purveyor_server.domain.campaigns import MAX_PROBLEM, Aim, Item, ItemState
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import Instance, Operation
from purveyor_server.domain.states import InstanceState, OperationState

BUSY_AGAIN = timedelta(seconds=5)
BUSY_AT_MOST = timedelta(hours=1)  # a clean-up that cannot be done must not keep a campaign open for ever
GONE = "GONE"
ALREADY_THERE = "ALREADY_THERE"
LEFT_PLAN = "LEFT_PLAN"
NOT_USABLE = "NOT_USABLE"
LEFT_ALONE = "LEFT_ALONE"
_GONE_STATES = frozenset({InstanceState.DELETED, InstanceState.DEPROVISIONING})
_BUSY_STATES = frozenset({InstanceState.PROVISIONING, InstanceState.UPDATING})
_UNUSABLE = {
    InstanceState.FAILED: "it could not be made",
    InstanceState.DELETE_FAILED: "it is half deleted",
}
# Nothing was accepted, and the same may be asked for later.
POSTPONING = frozenset(
    {Reason.OPERATION_IN_PROGRESS, Reason.ETAG_MISMATCH, Reason.TOO_MANY_OPERATIONS, Reason.STORE_FULL}
)
# Nobody knows whether it was accepted: the same request is sent again.
UNSURE = frozenset({Reason.STORE_UNAVAILABLE, Reason.OUTCOME_UNKNOWN})
_TAKEN = frozenset({Reason.TAKEN_OVER, Reason.PURGED})


class Verdict(NamedTuple):
    """What to do with an instance now: PENDING without a code, move it; with one, wait; SKIPPED, pass it over."""

    state: ItemState
    code: str = ""
    message: str = ""

    @property
    def go(self) -> bool:
        """Whether it can be moved now."""
        return self.state is ItemState.PENDING and not self.code


GO = Verdict(ItemState.PENDING)


def judge(aim: Aim, to_version: str, instance: Instance | None, uid: str) -> Verdict:
    """The verdict on the instance that was written down with `uid`, as it is now."""
    if instance is None or instance.uid != uid or instance.state in _GONE_STATES:
        return Verdict(ItemState.SKIPPED, GONE, "it is deleted, or on its way")
    if instance.state in _UNUSABLE:
        return Verdict(ItemState.SKIPPED, NOT_USABLE, _UNUSABLE[instance.state])
    if instance.state in _BUSY_STATES:
        code, text = str(Reason.OPERATION_IN_PROGRESS), f"it is {instance.state}: its turn comes afterwards"
        return Verdict(ItemState.PENDING, code, text)
    if why := why_left_alone(instance):
        return Verdict(ItemState.SKIPPED, LEFT_ALONE, why[:MAX_PROBLEM])
    present = instance.present
    if aim.to_plan_id and present.plan_id == aim.to_plan_id:
        return Verdict(ItemState.SKIPPED, ALREADY_THERE, f"its plan is {aim.to_plan_id!r} already")
    if present.plan_id != aim.from_plan_id:
        return Verdict(ItemState.SKIPPED, LEFT_PLAN, f"its plan is {present.plan_id!r} now")
    version = present.maintenance_info.version if present.maintenance_info is not None else ""
    if not aim.to_plan_id and version == to_version:
        return Verdict(ItemState.SKIPPED, ALREADY_THERE, f"its maintenance version is {to_version} already")
    return GO


def refused(failure: PurveyorError) -> Verdict:
    """The verdict on an instance whose update was refused."""
    if any(precondition.kind == AUTOMATION for precondition in failure.preconditions):
        return Verdict(ItemState.SKIPPED, LEFT_ALONE, failure.message[:MAX_PROBLEM])
    state = ItemState.PENDING if failure.reason in POSTPONING else ItemState.FAILED
    return Verdict(state, str(failure.reason), failure.message[:MAX_PROBLEM])


def judged(item: Item, verdict: Verdict, now: datetime) -> Item:
    """The item after a verdict that is not to go."""
    since = item.busy_since or now
    waits = verdict.state is ItemState.PENDING and now - since < BUSY_AT_MOST
    return replace(
        item,
        state=ItemState.FAILED if verdict.state is ItemState.PENDING and not waits else verdict.state,
        code=verdict.code,
        message=verdict.message,
        operation_id="",
        not_before=now + BUSY_AGAIN if waits else None,
        busy_since=since if waits else None,
        ended_at=None if waits else now,
    )


def begun(item: Item, now: datetime) -> Item:
    """The item whose turn it is: it is asked for next."""
    return replace(item, state=ItemState.RUNNING, code="", message="", not_before=None, started_at=now)


def accepted(item: Item, operation_id: str) -> Item:
    """The item whose update was accepted."""
    return replace(item, operation_id=operation_id, busy_since=None)


def ended(item: Item, operation: Operation, now: datetime) -> Item:
    """The item whose operation has ended."""
    at = operation.ended_at or now
    if operation.state is OperationState.SUCCEEDED:
        return replace(item, state=ItemState.SUCCEEDED, code="", message="", ended_at=at)
    failure = operation.failure
    code = failure.reason if failure is not None else str(operation.state)
    text = (failure.operator_message or failure.message) if failure is not None else "the operation did not succeed"
    state = ItemState.SKIPPED if code in _TAKEN else ItemState.FAILED
    return replace(item, state=state, code=code, message=text[:MAX_PROBLEM], ended_at=at)


def lost(item: Item, instance: Instance | None, aim: Aim, to_version: str, now: datetime) -> Item:
    """The item whose operation nobody knows any more: what the instance is like counts."""
    verdict = judge(aim, to_version, instance, item.uid)
    if verdict.code == ALREADY_THERE:
        return replace(item, state=ItemState.SUCCEEDED, code="", message="", ended_at=now)
    if verdict.state is ItemState.SKIPPED:
        return judged(item, verdict, now)
    text = "its operation is forgotten, and it was not moved"
    return judged(item, Verdict(ItemState.FAILED, str(Reason.OPERATION_NOT_FOUND), text), now)
