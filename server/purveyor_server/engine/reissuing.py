"""Credentials that are made again because an update took the instance elsewhere, or a repair made it anew: pure functions over `Job`.

Guarantee: the command that ends such an update, or a repair, makes one REISSUE for every ACTIVE binding, so none can be forgotten. A REISSUE runs
the bind plan with the binding's own uid and secrets; its success gives the new credentials out, with an event of the binding. One that
fails is followed by the next in the same command, later each time, until one succeeds or the binding is taken away; meanwhile
the binding names what is missing (`cleanup_required`), and its last operation tells why.
Limit: the instance is READY from the end of the update on: whether a binding has its new credentials, its last operation tells.
"""

from __future__ import annotations

from datetime import timedelta

from purveyor_server.domain.model import Binding, Operation
from purveyor_server.domain.principal import BROKER
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import BindingState, Verb, Waiting
from purveyor_server.engine.following import following
from purveyor_server.kit.ids import new_id
from purveyor_server.store.contract import Job


def begun(job: Job, update: Operation) -> tuple[tuple[Binding, ...], tuple[Operation, ...]]:
    """The active bindings of the updated instance, and the REISSUE of each, children of the update."""
    active = [binding for binding in job.bindings if binding.state is BindingState.ACTIVE]
    operations = tuple(following(job, update, binding, Verb.REISSUE) for binding in active)
    bindings = tuple(
        touch(binding, job.now, last_operation=operation.operation_id)
        for binding, operation in zip(active, operations, strict=True)
    )
    return bindings, operations


def next_try(job: Job, failed: Operation, delay: timedelta) -> Operation:
    """The REISSUE that follows one that failed."""
    due = job.now + delay
    return Operation(
        operation_id=new_id(),
        tenant=failed.tenant,
        verb=Verb.REISSUE,
        instance_id=failed.instance_id,
        instance_uid=failed.instance_uid,
        binding_id=failed.binding_id,
        binding_uid=failed.binding_uid,
        want=failed.want,
        provider=failed.provider,
        contract=failed.contract,
        principal=BROKER.subject,
        marked_revision=job.head,
        due_at=due,
        waiting=Waiting.BACKOFF,
        waiting_detail=f"operation {failed.operation_id} failed; the credentials are made again later",
        budget=failed.budget,
        deadline=due + timedelta(seconds=failed.budget),
        past_pivot=True,
        parent=failed.parent,
        generation=failed.generation + 1,
        created_at=job.now,
        version=1,
    )
