"""What the end of one operation makes the broker begin on a binding: the record of that operation.

Guarantee: it begins after whatever else is at work on the binding, and its time is counted from then on; its parent is the
operation that caused it, whose settings, provider and contract it has.
"""

from __future__ import annotations

from datetime import timedelta

from purveyor_server.domain.model import Binding, ExpiryChange, Operation
from purveyor_server.domain.principal import BROKER
from purveyor_server.domain.states import FORWARD_ONLY, Verb, Waiting
from purveyor_server.kit.ids import new_id
from purveyor_server.store.contract import Job


def following(
    job: Job, cause: Operation, binding: Binding, verb: Verb, *, expiry: ExpiryChange | None = None
) -> Operation:
    """The operation `verb` on `binding`, due now or BLOCKED by those that are at work on it."""
    others = tuple(other.operation_id for other in job.siblings if other.binding_uid == binding.uid)
    return Operation(
        operation_id=new_id(),
        tenant=binding.tenant,
        verb=verb,
        instance_id=binding.instance_id,
        instance_uid=binding.instance_uid,
        binding_id=binding.binding_id,
        binding_uid=binding.uid,
        want=cause.want,
        provider=cause.provider,
        contract=cause.contract,
        principal=BROKER.subject,
        expiry=expiry,
        marked_revision=job.head,
        due_at=None if others else job.now,
        waiting=Waiting.BLOCKED if others else Waiting.NONE,
        blocked_by=others,
        budget=cause.budget,
        rollback_budget=cause.rollback_budget,
        deadline=None if others else job.now + timedelta(seconds=cause.budget),
        past_pivot=verb in FORWARD_ONLY,
        parent=cause.operation_id,
        created_at=job.now,
        version=1,
    )
