"""Bind: rules as a pure function, then one store command; the answer carries credentials once the binding is ACTIVE.

A fresh attempt after a failed bind is a new incarnation, as with instances.
"""

from __future__ import annotations

from datetime import timedelta
from functools import partial

import msgspec

from purveyor_server.domain.conflicts import Ruling, binding_row_of, row_of, rule_bind
from purveyor_server.domain.digests import keyed_digest
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, invalid
from purveyor_server.domain.leases import first_terms
from purveyor_server.domain.model import Binding, Instance
from purveyor_server.domain.parameters import for_bind
from purveyor_server.domain.planrules import Use, check_use
from purveyor_server.domain.quotas import PlanKey, check_new_binding
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import BindingState, Verb
from purveyor_server.kit.ids import new_id
from purveyor_server.lifecycle.checks import check_bind
from purveyor_server.lifecycle.contract import Bind, Caller, Outcome
from purveyor_server.lifecycle.credentials import with_credentials
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.making import Order, begin
from purveyor_server.lifecycle.plans import KnownPlan, unprepared
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.lifecycle.preview import preview
from purveyor_server.lifecycle.refusals import check_capacity, refusal
from purveyor_server.lifecycle.running import Parts, accept, answer, order_of, replay
from purveyor_server.lifecycle.veiling import Veiled, stored_clear, veil
from purveyor_server.providers.contract import Ability
from purveyor_server.store.contract import Accept, Decision, Scope, Situation, Writes


class BindAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A bind, ready to be judged against instances of `plan` (None when no instance was seen)."""

    request: Bind
    order: Order
    uid: str
    digest: str
    settings: LifecycleSettings
    plan: KnownPlan | None = None
    veiled: Veiled = Veiled({})
    refused: PurveyorError | None = None


async def bind(parts: Parts, caller: Caller, request: Bind) -> Outcome:
    """Make a binding; see `Lifecycle.bind`."""
    scope = parts.door.enter(caller, Action.BIND, request.tenant)
    parts.door.check_behalf(caller, Action.BIND, request.tenant, request.originating_identity)
    check_bind(request, parts.settings)
    if not request.binding_id:
        request = msgspec.structs.replace(request, binding_id=new_id())
    blank = ready = _blank(parts, caller, request)

    async def prepare() -> Accept:
        nonlocal ready
        ready = await _prepared(parts, scope, blank)
        return _command(scope, ready)

    decision = await accept(parts, caller, Action.BIND, request, prepare)
    parts.door.note_decision(caller, Action.BIND, request, decision)
    if request.validate_only:
        return preview(parts, decision, ready.veiled.clear | await stored_clear(parts, decision.operation))
    outcome = await answer(parts, caller, scope, request, decision)
    return await with_credentials(parts, caller, scope, outcome)


def _blank(parts: Parts, caller: Caller, request: Bind) -> BindAsk:
    order = order_of(parts, caller, Action.BIND, request, Verb.BIND, binding_id=request.binding_id)
    digest = keyed_digest(parts.digest_key, "bind", request.body)
    return BindAsk(request=request, order=order, uid=new_id(), digest=digest, settings=parts.settings)


def _command(scope: Scope, ask: BindAsk) -> Accept:
    return Accept(
        scope=scope,
        tenant=ask.request.tenant,
        instance_id=ask.request.instance_id,
        binding_id=ask.request.binding_id,
        decide=partial(decide_bind, ask=ask),
        request=ask.order.request,
        creates=True,
        counts=True,
        dry_run=ask.request.validate_only,
        label="bind",
    )


async def _prepared(parts: Parts, scope: Scope, ask: BindAsk) -> BindAsk:
    """The ask with the plan of the instance as it is now, and the parameters checked by it."""
    instance = await parts.store.instance(scope, ask.request.tenant, ask.request.instance_id)
    if instance is None:
        return ask
    digest = instance.present.plan
    parts.book.refresh(digest)
    plan = parts.book.get(digest)
    try:
        catalog, named = parts.catalog(), (plan.snapshot.service_id, plan.snapshot.plan_id)
        check_use(Use.BIND, catalog.state_of(*named), plan.snapshot.plan_id)
        offer = catalog.offer(*named)
        parameters = for_bind(offer, ask.request.parameters)
        veiled = veil(parts, ask.uid, (offer.plan.schemas.binding_create,), parameters)
    except PurveyorError as error:
        return msgspec.structs.replace(ask, plan=plan, refused=error)
    return msgspec.structs.replace(ask, plan=plan, veiled=veiled)


def decide_bind(situation: Situation, ask: BindAsk) -> Decision:
    """The rule: request id, matrix with the digest, plan and schema, capacity; then the writes."""
    if (again := replay(situation, ask.order.request)) is not None:
        return again
    instance, binding = situation.instance, situation.binding
    same = binding is not None and binding.digest == ask.digest
    row = binding_row_of(binding, situation.operations)
    ruling = rule_bind(row_of(instance, situation.operations), row, same=same)
    if ruling is Ruling.SAME_OPERATION or ruling is Ruling.CURRENT_STATE:
        return Decision(operation=situation.last_operation, instance=instance, binding=binding, replayed=True)
    if instance is None or (ruling is not Ruling.ACCEPT and ruling is not Ruling.FRESH_ATTEMPT):
        request = ask.request
        named = request.binding_id if ruling is not Ruling.NOT_FOUND else ""
        raise refusal(ruling, situation, request.tenant, request.instance_id, ask.settings, named)
    if ask.plan is None or ask.plan.snapshot.digest != instance.present.plan:
        raise unprepared()
    check_bindable(ask.plan, ask.request.ttl)
    if ask.refused is not None:
        raise ask.refused
    if ruling is not Ruling.FRESH_ATTEMPT:  # that one takes the place of what failed
        plan = ask.plan.snapshot
        key, ids = PlanKey(plan.service_id, plan.plan_id), (instance.tenant, instance.instance_id)
        check_new_binding(ask.settings.quotas, situation.usage, ids[0], key, ids[1])
    check_capacity(situation.backlog, ask.settings)
    return _accepted(situation, ask, instance, ask.plan, binding if ruling is Ruling.FRESH_ATTEMPT else None)


def check_bindable(plan: KnownPlan, ttl: timedelta | None) -> None:
    """Raise NOT_BINDABLE, or INVALID_REQUEST for a ttl that nobody would enforce."""
    if plan.contract is not None and ttl is not None and Ability.EXPIRY not in plan.abilities:
        raise invalid("ttl", "the plan's provider cannot end an access on time by itself")
    if plan.snapshot.bindable and (plan.contract is None or Ability.BIND in plan.abilities):
        return
    plan_id = plan.snapshot.plan_id
    text = f"instances of the plan {plan_id!r} cannot be bound"
    raise PurveyorError(
        Reason.NOT_BINDABLE,
        text,
        metadata={"plan_id": plan_id},
        preconditions=(Precondition("BINDABLE", f"plan/{plan_id}", text),),
    )


def _accepted(
    situation: Situation, ask: BindAsk, instance: Instance, plan: KnownPlan, failed: Binding | None
) -> Decision:
    now, request = situation.now, ask.request
    applied = instance.present
    operation = begin(ask.order, situation, plan, instance_uid=instance.uid, binding_uid=ask.uid, want=applied)
    terms = first_terms(plan.lease, ask.uid, now, request.ttl, rotatable=plan.rotatable)
    binding = Binding(
        uid=ask.uid,
        tenant=request.tenant,
        instance_id=request.instance_id,
        instance_uid=instance.uid,
        binding_id=request.binding_id,
        state=BindingState.BINDING,
        plan=applied.plan,
        service_id=applied.service_id,
        plan_id=applied.plan_id,
        parameters=ask.veiled.shown,
        sealed=ask.veiled.columns,
        bind_resource=request.bind_resource,
        context=request.context,
        originating_identity=request.originating_identity,
        labels=request.labels,
        digest=ask.digest,
        creator=ask.order.principal,
        expires_at=terms.expires_at,
        renew_before=terms.renew_before,
        rotate_at=terms.rotate_at,
        last_operation=operation.operation_id,
        version=1,
        created_at=now,
        updated_at=now,
    )
    buried = () if failed is None else (touch(failed, now, state=BindingState.DELETED, deleted_at=now),)
    writes = Writes(
        bindings=(*buried, binding),
        operations=(operation,),
        secrets=ask.veiled.rows,
        erase=tuple(record.uid for record in buried),
    )
    return Decision(writes, operation, instance, binding)
