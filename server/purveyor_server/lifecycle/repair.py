"""Repair: make every piece of an instance again with the settings that are applied.

Guarantee: the conflict matrix rules on it as on an update. It only goes forward: a piece that is there is put right, one that is gone
is made, and when it fails nothing is removed and nothing undone. The instance is as before then, and can be repaired again.
Limit: what was in a thing that is gone is not brought back: a database that is made again is empty.
"""

from __future__ import annotations

from functools import partial

import msgspec

from purveyor_server.domain.conflicts import Ask, Ruling, row_of, rule
from purveyor_server.domain.freezes import check_reason
from purveyor_server.domain.model import Operation
from purveyor_server.domain.names import check_id
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import InstanceState, Verb
from purveyor_server.lifecycle.checks import check_write
from purveyor_server.lifecycle.contract import Caller, Outcome, Repair
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.making import Order, begin
from purveyor_server.lifecycle.plans import PlanBook
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.lifecycle.preview import preview
from purveyor_server.lifecycle.refusals import check_capacity, refusal
from purveyor_server.lifecycle.running import Parts, accept, answer, order_of, replay
from purveyor_server.lifecycle.veiling import stored_clear
from purveyor_server.store.contract import Accept, Decision, Situation, Writes


class RepairAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A repair, ready to be judged."""

    request: Repair
    order: Order
    book: PlanBook
    settings: LifecycleSettings


async def repair(parts: Parts, caller: Caller, request: Repair) -> Outcome:
    """Make it again; see `Lifecycle.repair`."""
    scope = parts.door.enter_order(caller, Action.REPAIR_INSTANCE, request.tenant)
    check_write(request)
    check_id(request.instance_id, "instance_id")
    request = msgspec.structs.replace(request, reason=check_reason(request.reason))
    order = order_of(parts, caller, Action.REPAIR_INSTANCE, request, Verb.REPAIR)
    ask = RepairAsk(request=request, order=order, book=parts.book, settings=parts.settings)
    command = Accept(
        scope=scope,
        tenant=request.tenant,
        instance_id=request.instance_id,
        decide=partial(decide_repair, ask=ask),
        request=order.request,
        creates=True,
        dry_run=request.validate_only,
        label="repair",
    )

    async def prepare() -> Accept:
        return command

    decision = await accept(parts, caller, Action.REPAIR_INSTANCE, request, prepare)
    parts.door.note_decision(caller, Action.REPAIR_INSTANCE, request, decision)
    if request.validate_only:
        return preview(parts, decision, await stored_clear(parts, decision.operation))
    return await answer(parts, caller, scope, request, decision)


def decide_repair(situation: Situation, ask: RepairAsk) -> Decision:
    """The rule: request id, matrix as for an update, capacity; then the writes."""
    if (again := replay(situation, ask.order.request)) is not None:
        return again
    instance, request = situation.instance, ask.request
    if instance is None or instance.state is InstanceState.DELETED:
        raise refusal(Ruling.NOT_FOUND, situation, request.tenant, request.instance_id, ask.settings)
    if (running := _running(situation)) is not None:
        return Decision(operation=running, instance=instance, replayed=True)
    ruling = rule(row_of(instance, situation.operations), Ask.UPDATE_OTHER)
    if ruling is not Ruling.ACCEPT:
        raise refusal(ruling, situation, request.tenant, request.instance_id, ask.settings)
    check_capacity(situation.backlog, ask.settings)
    applied = instance.present
    operation = begin(ask.order, situation, ask.book.get(applied.plan), instance_uid=instance.uid, want=applied)
    changed = touch(
        instance,
        situation.now,
        state=InstanceState.UPDATING,
        in_flight=applied,
        last_operation=operation.operation_id,
    )
    return Decision(Writes(instances=(changed,), operations=(operation,)), operation, changed)


def _running(situation: Situation) -> Operation | None:
    return next((operation for operation in situation.operations if operation.verb is Verb.REPAIR), None)
