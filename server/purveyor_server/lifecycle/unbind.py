"""Unbind: rules as a pure function, then one store command.

The binding is UNBINDING from the accept on, so that its credentials are not served any more. A bind or a clean-up that
still runs on it is taken over: it is asked to stop, and the unbind is blocked by it.
"""

from __future__ import annotations

from functools import partial

import msgspec

from purveyor_server.domain.conflicts import Ruling, binding_row_of, row_of, rule_unbind
from purveyor_server.domain.model import Binding, Operation, Settings
from purveyor_server.domain.names import check_id
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import BindingState, Verb
from purveyor_server.lifecycle.checks import check_etag, check_write
from purveyor_server.lifecycle.contract import Caller, Outcome, Unbind
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.making import Order, begin, stop
from purveyor_server.lifecycle.plans import KnownPlan, PlanBook
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.lifecycle.preview import preview
from purveyor_server.lifecycle.refusals import refusal
from purveyor_server.lifecycle.running import Parts, accept, answer, order_of, replay
from purveyor_server.store.contract import Accept, Decision, Situation, Writes

NEW = frozenset({Ruling.ACCEPT, Ruling.TAKE_OVER})


class UnbindAsk(msgspec.Struct, frozen=True, kw_only=True):
    """An unbind, ready to be judged."""

    request: Unbind
    order: Order
    book: PlanBook
    settings: LifecycleSettings


class Removal(msgspec.Struct, frozen=True):
    """The removal of a binding: its record, the UNBIND first among its operations."""

    binding: Binding
    operations: tuple[Operation, ...]


async def unbind(parts: Parts, caller: Caller, request: Unbind) -> Outcome:
    """Revoke a binding; see `Lifecycle.unbind`."""
    scope = parts.door.enter(caller, Action.UNBIND, request.tenant)
    parts.door.check_behalf(caller, Action.UNBIND, request.tenant, request.originating_identity)
    check_write(request)
    check_id(request.instance_id, "instance_id")
    check_id(request.binding_id, "binding_id")
    order = order_of(parts, caller, Action.UNBIND, request, Verb.UNBIND, binding_id=request.binding_id)
    ask = UnbindAsk(request=request, order=order, book=parts.book, settings=parts.settings)
    command = Accept(
        scope=scope,
        tenant=request.tenant,
        instance_id=request.instance_id,
        binding_id=request.binding_id,
        decide=partial(decide_unbind, ask=ask),
        request=order.request,
        dry_run=request.validate_only,
        label="unbind",
    )

    async def prepare() -> Accept:
        return command

    decision = await accept(parts, caller, Action.UNBIND, request, prepare)
    parts.door.note_decision(caller, Action.UNBIND, request, decision)
    if request.validate_only:
        return preview(parts, decision)
    return await answer(parts, caller, scope, request, decision)


def decide_unbind(situation: Situation, ask: UnbindAsk) -> Decision:
    """The rule: request id, etag, matrix; then the writes. Capacity is never asked."""
    if (again := replay(situation, ask.order.request)) is not None:
        return again
    request, instance, binding = ask.request, situation.instance, situation.binding
    row = binding_row_of(binding, situation.operations)
    ruling = rule_unbind(row_of(instance, situation.operations), row)
    if instance is None or binding is None or ruling is Ruling.NOT_FOUND:
        if request.allow_missing:
            return Decision()
        raise refusal(
            Ruling.NOT_FOUND, situation, request.tenant, request.instance_id, ask.settings, request.binding_id
        )
    check_etag(request.etag, binding)
    if ruling is Ruling.SAME_OPERATION:
        return Decision(operation=_running(situation, binding), instance=instance, binding=binding, replayed=True)
    if ruling not in NEW:
        raise refusal(ruling, situation, request.tenant, request.instance_id, ask.settings, request.binding_id)
    applied = instance.present
    removal = remove_binding(situation, ask.order, ask.book.get(binding.plan), binding, applied)
    writes = Writes(bindings=(removal.binding,), operations=removal.operations)
    return Decision(writes, removal.operations[0], instance, removal.binding)


def _running(situation: Situation, binding: Binding) -> Operation | None:
    own = (op for op in situation.operations if op.binding_uid == binding.uid and op.verb is Verb.UNBIND)
    return next(own, situation.last_operation)


def remove_binding(
    situation: Situation, order: Order, plan: KnownPlan, binding: Binding, applied: Settings, parent: str = ""
) -> Removal:
    """Accept the removal of a binding on which no UNBIND runs; whatever else runs on it is taken over."""
    others = tuple(
        stop(operation, situation.now, by=order.operation_id)
        for operation in situation.operations
        if operation.binding_uid == binding.uid
    )
    operation = begin(
        order,
        situation,
        plan,
        instance_uid=binding.instance_uid,
        binding_uid=binding.uid,
        want=applied,
        blocked_by=tuple(other.operation_id for other in others),
        parent=parent,
    )
    leaving = touch(binding, situation.now, state=BindingState.UNBINDING, last_operation=operation.operation_id)
    return Removal(leaving, (operation, *others))
