"""Renew: rules as a pure function, then one store command.

Guarantee: a renewal goes to a time, so the same target again is the same answer; a binding that lasts as long already is
answered as it is. A later end is promised when the RENEW has reached the backend, an earlier one with the accept.
Limit: where the provider cannot end an access on time by itself, the end is kept by the broker's sweep alone, and the
operation has ended with its accept.
"""

from __future__ import annotations

from functools import partial

import msgspec
from msgspec.structs import replace

from purveyor_server.domain.conflicts import Ruling, binding_row_of, row_of, rule_renew
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource
from purveyor_server.domain.leases import Terms, renewal_target, terms
from purveyor_server.domain.model import Binding, ExpiryChange, Instance, Operation
from purveyor_server.domain.names import check_id
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import Verb
from purveyor_server.lifecycle.checks import check_etag, check_write
from purveyor_server.lifecycle.contract import Caller, Outcome, Renew
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.making import Order, begin, finished
from purveyor_server.lifecycle.plans import KnownPlan, PlanBook
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.lifecycle.preview import preview
from purveyor_server.lifecycle.refusals import check_capacity, refusal
from purveyor_server.lifecycle.running import Parts, accept, answer, order_of, replay
from purveyor_server.lifecycle.veiling import binding_clear
from purveyor_server.store.contract import Accept, Decision, Situation, Writes


class RenewAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A renewal, ready to be judged."""

    request: Renew
    order: Order
    book: PlanBook
    settings: LifecycleSettings


async def renew(parts: Parts, caller: Caller, request: Renew) -> Outcome:
    """Move the end of a binding; see `Lifecycle.renew`."""
    scope = parts.door.enter(caller, Action.RENEW_BINDING, request.tenant)
    parts.door.check_behalf(caller, Action.RENEW_BINDING, request.tenant, request.originating_identity)
    check_write(request)
    check_id(request.instance_id, "instance_id")
    check_id(request.binding_id, "binding_id")
    order = order_of(parts, caller, Action.RENEW_BINDING, request, Verb.RENEW, binding_id=request.binding_id)
    ask = RenewAsk(request=request, order=order, book=parts.book, settings=parts.settings)
    command = Accept(
        scope=scope,
        tenant=request.tenant,
        instance_id=request.instance_id,
        binding_id=request.binding_id,
        decide=partial(decide_renew, ask=ask),
        request=order.request,
        dry_run=request.validate_only,
        label="renew",
    )

    async def prepare() -> Accept:
        binding = await parts.store.binding(scope, request.tenant, request.instance_id, request.binding_id)
        if binding is not None:
            parts.book.refresh(binding.plan)
        return command

    decision = await accept(parts, caller, Action.RENEW_BINDING, request, prepare)
    parts.door.note_decision(caller, Action.RENEW_BINDING, request, decision)
    if request.validate_only:
        return preview(parts, decision, await binding_clear(parts, decision))
    return await answer(parts, caller, scope, request, decision)


def decide_renew(situation: Situation, ask: RenewAsk) -> Decision:
    """The rule: request id, etag, matrix, the plan's bounds, capacity; then the writes."""
    if (again := replay(situation, ask.order.request)) is not None:
        return again
    request, instance, binding = ask.request, situation.instance, situation.binding
    row, bound = row_of(instance, situation.operations), binding_row_of(binding, situation.operations, situation.now)
    ruling = rule_renew(row, bound, same=False)
    if instance is None or binding is None or ruling not in {Ruling.ACCEPT, Ruling.IN_PROGRESS}:
        raise refusal(ruling, situation, request.tenant, request.instance_id, ask.settings, request.binding_id)
    check_etag(request.etag, binding)
    if binding.successor_binding_id:
        raise _replaced(binding)
    plan = ask.book.get(binding.plan)
    target = renewal_target(
        plan.lease,
        binding.created_at,
        situation.now,
        at=request.expire_time,
        ttl=request.ttl,
        most=ask.settings.max_ttl,
    )
    running = _running(situation, binding)
    if running is not None and running.expiry is not None and running.expiry.to == target:
        return Decision(operation=running, instance=instance, binding=binding, replayed=True)
    if ruling is not Ruling.ACCEPT:
        raise refusal(ruling, situation, request.tenant, request.instance_id, ask.settings, request.binding_id)
    later = binding.expires_at is not None and target > binding.expires_at
    if not later and (target == binding.expires_at or not request.allow_shorter):
        return Decision(instance=instance, binding=binding, replayed=True)
    check_capacity(situation.backlog, ask.settings)
    new = terms(plan.lease, binding.uid, situation.now, target, rotatable=plan.rotatable)
    return _accepted(situation, ask, (instance, binding, plan), new)


def _running(situation: Situation, binding: Binding) -> Operation | None:
    own = (op for op in situation.operations if op.binding_uid == binding.uid and op.verb is Verb.RENEW)
    return next(own, None)


def _accepted(situation: Situation, ask: RenewAsk, about: tuple[Instance, Binding, KnownPlan], new: Terms) -> Decision:
    instance, binding, plan = about
    assert new.expires_at is not None
    applied = instance.present
    now_promised = msgspec.structs.asdict(new)
    if plan.contract is not None and not plan.ends_by_itself:
        operation = finished(ask.order, situation, plan, instance.uid, applied, binding.uid)
    else:
        operation = begin(ask.order, situation, plan, instance_uid=instance.uid, binding_uid=binding.uid, want=applied)
        if binding.expires_at is not None and new.expires_at > binding.expires_at:
            now_promised = {}
    back = new.expires_at if now_promised else binding.expires_at
    change = ExpiryChange(new.expires_at, back, new.renew_before, new.rotate_at)
    operation = replace(operation, expiry=change)
    renewed = touch(binding, situation.now, last_operation=operation.operation_id, **now_promised)
    writes = Writes(bindings=(renewed,), operations=(operation,))
    return Decision(writes, operation, instance, renewed)


def _replaced(binding: Binding) -> PurveyorError:
    successor = binding.successor_binding_id
    text = f"the binding {binding.binding_id!r} is being replaced by {successor!r}: use that one"
    return PurveyorError(
        Reason.WRONG_STATE,
        text,
        metadata={"binding_id": binding.binding_id, "state": str(binding.state), "successor": successor},
        resource=Resource("binding", binding.binding_id),
        preconditions=(Precondition("STATE", f"binding/{binding.binding_id}", text),),
    )
