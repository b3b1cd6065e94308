"""Operations as they begin, stop and make room for one another: pure functions over records.

Guarantee: an operation is stored PENDING and due, or BLOCKED with the names of those it waits for and without a deadline.
"""

from __future__ import annotations

from datetime import datetime, timedelta

import msgspec
from msgspec.structs import replace

from purveyor_server.domain.model import Json, Operation, RequestKey, Settings
from purveyor_server.domain.policies import CleanupMode, CleanupPolicy
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import FORWARD_ONLY, KEEPING, REMOVALS, YIELDING, OperationState, Verb, Waiting
from purveyor_server.lifecycle.plans import KnownPlan, provider_missing
from purveyor_server.store.contract import Situation

_STOPPABLE = frozenset({OperationState.PENDING, OperationState.RUNNING})


class Order(msgspec.Struct, frozen=True, kw_only=True):
    """What an operation shall be, before the situation is known."""

    operation_id: str
    verb: Verb
    tenant: str
    instance_id: str
    principal: str
    binding_id: str = ""
    request: RequestKey | None = None
    adopt: dict[str, Json] | None = None


def begin(
    order: Order,
    situation: Situation,
    plan: KnownPlan,
    *,
    instance_uid: str,
    binding_uid: str = "",
    want: Settings | None = None,
    was: Settings | None = None,
    blocked_by: tuple[str, ...] = (),
    parent: str = "",
) -> Operation:
    """The new operation; due now, or waiting for `blocked_by`. Raises WRONG_STATE when its provider is missing."""
    now, blocked = situation.now, bool(blocked_by)
    return Operation(
        operation_id=order.operation_id,
        tenant=order.tenant,
        verb=order.verb,
        instance_id=order.instance_id,
        instance_uid=instance_uid,
        binding_id=order.binding_id,
        binding_uid=binding_uid,
        want=want,
        was=was,
        adopt=order.adopt,
        provider=plan.snapshot.provider.name,
        contract=_contract(order.verb, situation, plan),
        request=order.request,
        principal=order.principal,
        marked_revision=situation.head,
        due_at=None if blocked else now,
        waiting=Waiting.BLOCKED if blocked else Waiting.NONE,
        blocked_by=blocked_by,
        budget=plan.budget,
        rollback_budget=plan.rollback_budget,
        deadline=None if blocked else now + timedelta(seconds=plan.budget),
        past_pivot=order.verb in FORWARD_ONLY,
        parent=parent,
        remains=_remains(order.verb, plan.cleanup),
        version=1,
        created_at=now,
    )


def _remains(verb: Verb, policy: CleanupPolicy) -> CleanupPolicy | None:
    """The clean-up policy, where there is one that says something."""
    return policy if verb in KEEPING and policy.mode is not CleanupMode.IMMEDIATE else None


def finished(
    order: Order, situation: Situation, plan: KnownPlan, instance_uid: str, settings: Settings, binding_uid: str = ""
) -> Operation:
    """An operation that ended with its accept: what was asked for concerned no provider."""
    # The provider is not asked, so it need not be there.
    plan = replace(plan, contract=plan.contract or "")
    operation = begin(
        order, situation, plan, instance_uid=instance_uid, binding_uid=binding_uid, want=settings, was=settings
    )
    return replace(
        operation,
        state=OperationState.SUCCEEDED,
        percent=100.0,
        due_at=None,
        deadline=None,
        started_at=situation.now,
        ended_at=situation.now,
    )


def _contract(verb: Verb, situation: Situation, plan: KnownPlan) -> str:
    """The provider's contract; a removal is accepted without the provider, under the contract that made the thing."""
    if plan.contract is not None:
        return plan.contract
    if verb not in REMOVALS:
        raise provider_missing(plan.snapshot)
    return situation.last_operation.contract if situation.last_operation is not None else ""


def stop(operation: Operation, now: datetime, *, by: str = "") -> Operation:
    """The operation, asked to stop; `by` names the removal that takes its thing over.

    A CLEANUP or REISSUE goes forward only: it is told who takes over, and made due. Past the pivot nothing is asked.
    """
    if operation.verb in YIELDING:
        return touch(operation, now, taken_over_by=by, **_woken(operation, now))
    if operation.past_pivot:
        return operation
    changes: dict[str, object] = {"cancel_requested": True}
    if by:
        changes["taken_over_by"] = by
    if operation.state in _STOPPABLE:
        changes["state"] = OperationState.CANCELLING
    return touch(operation, now, **changes, **_woken(operation, now))


def _woken(operation: Operation, now: datetime) -> dict[str, object]:
    """Due now, unless somebody works on it (its lease is its due time) or others must end first."""
    if operation.lease_owner or operation.blocked_by:
        return {}
    return {"due_at": now, "waiting": Waiting.NONE, "waiting_detail": ""}
