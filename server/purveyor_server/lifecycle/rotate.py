"""Rotate: a successor with what the predecessor was asked for, as a pure function, then one store command.

Guarantee: a binding has one live successor at most; the predecessor is marked with it in the same command, retired when it
becomes ACTIVE and freed when it fails (`engine.succession`). Secret parameters are sealed anew for the successor. The
successor belongs to whoever made the predecessor: rotating gives nobody credentials who could not read them before.
Limit: quotas are not asked, since a successor takes a place that is soon free; chains are bounded instead.
"""

from __future__ import annotations

from collections.abc import Iterable
from datetime import timedelta
from functools import partial

import msgspec
from msgspec.structs import replace

from purveyor_server.domain.automation import why_left_alone
from purveyor_server.domain.conflicts import BindingRow, Ruling, binding_row_of, row_of, rule_rotate
from purveyor_server.domain.digests import keyed_digest
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource, invalid
from purveyor_server.domain.leases import first_terms
from purveyor_server.domain.model import Binding, Instance, Operation, Succession
from purveyor_server.domain.names import check_id
from purveyor_server.domain.parameters import for_bind
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import BindingState, Verb
from purveyor_server.domain.veils import put_back
from purveyor_server.kit.ids import new_id
from purveyor_server.lifecycle.bind import check_bindable
from purveyor_server.lifecycle.checks import check_etag, check_write
from purveyor_server.lifecycle.contract import ITSELF, ZERO, Caller, Outcome, Rotate
from purveyor_server.lifecycle.credentials import not_available, with_credentials
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.making import Order, begin
from purveyor_server.lifecycle.plans import KnownPlan, unprepared
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.lifecycle.preview import preview
from purveyor_server.lifecycle.refusals import binding_exists, check_capacity, refusal
from purveyor_server.lifecycle.running import Parts, accept, answer, order_of, replay
from purveyor_server.lifecycle.veiling import Veiled, carried, stored_clear
from purveyor_server.security.sealing import SealError
from purveyor_server.store.contract import Accept, Decision, Scope, Situation, Writes


class RotateAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A rotation, ready to be judged against the incarnation `old` and instances of `plan`."""

    request: Rotate
    order: Order  # of the successor
    uid: str
    digest: str
    settings: LifecycleSettings
    itself: bool = False
    old: str = ""
    plan: KnownPlan | None = None
    veiled: Veiled = Veiled({})
    refused: PurveyorError | None = None


async def rotate(parts: Parts, caller: Caller, request: Rotate) -> Outcome:
    """Make the successor of a binding; see `Lifecycle.rotate`."""
    scope = parts.door.enter(caller, Action.ROTATE_BINDING, request.tenant)
    parts.door.check_behalf(caller, Action.ROTATE_BINDING, request.tenant, request.originating_identity)
    _check(request, parts.settings)
    blank = ready = _blank(parts, caller, request)

    async def prepare() -> Accept:
        nonlocal ready
        ready = await _prepared(parts, scope, blank)
        return _command(scope, ready)

    decision = await accept(parts, caller, Action.ROTATE_BINDING, request, prepare)
    parts.door.note_decision(caller, Action.ROTATE_BINDING, request, decision)
    if request.validate_only:
        return preview(parts, decision, ready.veiled.clear | await stored_clear(parts, decision.operation))
    outcome = await answer(parts, caller, scope, request, await _with_operation(parts, scope, decision))
    return outcome if ready.itself else await with_credentials(parts, caller, scope, outcome)


def _check(request: Rotate, settings: LifecycleSettings) -> None:
    check_write(request)
    check_id(request.instance_id, "instance_id")
    check_id(request.binding_id, "binding_id")
    if request.successor_id:
        check_id(request.successor_id, "successor_binding_id")
    if request.ttl is not None and not ZERO < request.ttl <= settings.max_ttl:
        raise invalid("ttl", f"must be more than 0 and at most {settings.max_ttl.days} days")
    if request.overlap is not None and not ZERO <= request.overlap <= settings.max_overlap:
        seconds = f"{settings.max_overlap.total_seconds():g}"
        raise invalid("overlap", f"must not be negative, and at most {seconds} seconds")


def _blank(parts: Parts, caller: Caller, request: Rotate) -> RotateAsk:
    order = order_of(
        parts, caller, Action.ROTATE_BINDING, request, Verb.BIND, binding_id=request.successor_id or new_id()
    )
    digest = keyed_digest(parts.digest_key, "rotate", request.body)
    itself = caller.principal == ITSELF.principal
    return RotateAsk(request=request, order=order, uid=new_id(), digest=digest, settings=parts.settings, itself=itself)


def _command(scope: Scope, ask: RotateAsk) -> Accept:
    return Accept(
        scope=scope,
        tenant=ask.request.tenant,
        instance_id=ask.request.instance_id,
        binding_id=ask.request.binding_id,
        decide=partial(decide_rotate, ask=ask),
        request=ask.order.request,
        with_bindings=True,
        creates=True,
        dry_run=ask.request.validate_only,
        label="rotate",
    )


async def _prepared(parts: Parts, scope: Scope, ask: RotateAsk) -> RotateAsk:
    """The ask with the instance's plan as it is now and the predecessor's parameters, sealed anew and checked by it."""
    request = ask.request
    instance = await parts.store.instance(scope, request.tenant, request.instance_id)
    old = await parts.store.binding(scope, request.tenant, request.instance_id, request.binding_id)
    if instance is None or old is None:
        return ask
    digest = instance.present.plan
    parts.book.refresh(digest)
    ready = replace(ask, plan=parts.book.get(digest), old=old.uid)
    try:
        veiled = await carried(parts, old, ask.uid)
        _check_parameters(parts, ready.plan, veiled)
    except SealError:
        return replace(ready, refused=not_available(old, "its secret parameters cannot be unsealed"))
    except PurveyorError as error:
        return replace(ready, refused=error)
    return replace(ready, veiled=veiled)


def _check_parameters(parts: Parts, plan: KnownPlan | None, veiled: Veiled) -> None:
    """Raise INVALID_PARAMETERS when the plan would not take them today; one that is in no catalog has no say."""
    assert plan is not None
    try:
        offer = parts.catalog().offer(plan.snapshot.service_id, plan.snapshot.plan_id)
    except PurveyorError:
        return
    secrets = {place: veiled.clear[column] for place, column in veiled.columns.items()}
    for_bind(offer, put_back(veiled.shown, secrets))


async def _with_operation(parts: Parts, scope: Scope, decision: Decision) -> Decision:
    """A successor that was there already, with the operation that made it, if that is still its newest."""
    if decision.operation is not None or decision.binding is None:
        return decision
    newest = await parts.store.operation(scope, decision.binding.last_operation)
    return replace(decision, operation=newest if newest is not None and newest.verb is Verb.BIND else None)


def decide_rotate(situation: Situation, ask: RotateAsk) -> Decision:
    """The rule: request id, matrix, etag, the successor that is there, plan, chain, capacity; then the writes."""
    if (again := replay(situation, ask.order.request)) is not None:
        return again
    request, instance, old = ask.request, situation.instance, situation.binding
    bound = binding_row_of(old, situation.operations, situation.now)
    ruling = rule_rotate(row_of(instance, situation.operations), bound)
    if instance is None or old is None or ruling not in {Ruling.ACCEPT, Ruling.IN_PROGRESS}:
        raise refusal(ruling, situation, request.tenant, request.instance_id, ask.settings, request.binding_id)
    check_etag(request.etag, old)
    if (successor := _successor(old, situation.bindings)) is not None:
        return _same(situation, ask, old, successor)
    if ruling is Ruling.IN_PROGRESS:
        raise refusal(ruling, situation, request.tenant, request.instance_id, ask.settings, request.binding_id)
    if ask.plan is None or ask.plan.snapshot.digest != instance.present.plan or ask.old != old.uid:
        raise unprepared()
    check_bindable(ask.plan, request.ttl)
    _check_rotatable(ask, (instance, old, ask.plan), situation.bindings)
    if ask.refused is not None:
        raise ask.refused
    failed = _failed_before(situation, old)
    taken = (binding for binding in situation.bindings if binding.binding_id == ask.order.binding_id)
    if any(binding not in failed for binding in taken):
        raise binding_exists(request.instance_id, ask.order.binding_id)
    check_capacity(situation.backlog, ask.settings)
    return _accepted(situation, ask, (instance, old, ask.plan), failed)


def _failed_before(situation: Situation, old: Binding) -> tuple[Binding, ...]:
    """Successors that came to nothing and left nothing: the new attempt takes their place, or they would pile up."""
    return tuple(
        binding
        for binding in situation.bindings
        if binding.predecessor_binding_id == old.binding_id
        and binding_row_of(binding, situation.operations) is BindingRow.FAILED
    )


def _successor(old: Binding, bindings: Iterable[Binding]) -> Binding | None:
    named = (binding for binding in bindings if binding.binding_id == old.successor_binding_id != "")
    return next((binding for binding in named if binding.predecessor_binding_id == old.binding_id), None)


def _same(situation: Situation, ask: RotateAsk, old: Binding, successor: Binding) -> Decision:
    """The successor that is there, unless another one was asked for."""
    if ask.request.successor_id not in {"", successor.binding_id}:
        raise not_rotatable(old, f"it has the successor {successor.binding_id!r}", successor=successor.binding_id)
    own = (op for op in situation.operations if op.binding_uid == successor.uid)
    running = (op for op in own if op.verb is Verb.BIND)
    return Decision(operation=next(running, None), instance=situation.instance, binding=successor, replayed=True)


def _check_rotatable(ask: RotateAsk, about: tuple[Instance, Binding, KnownPlan], bindings: Iterable[Binding]) -> None:
    instance, old, plan = about
    if ask.itself and (why := why_left_alone(instance)):
        raise not_rotatable(old, why)
    if not plan.rotatable:
        raise not_rotatable(old, f"the plan {plan.snapshot.plan_id!r} does not offer it", plan_id=plan.snapshot.plan_id)
    before = _predecessors(old, {binding.binding_id: binding for binding in bindings})
    if len(before) >= ask.settings.max_predecessors:
        first = before[-1]
        until = "" if first.expires_at is None else f" until {first.expires_at.isoformat()}"
        raise not_rotatable(old, f"its predecessor {first.binding_id!r} is there{until}", predecessor=first.binding_id)


def _predecessors(old: Binding, live: dict[str, Binding]) -> list[Binding]:
    """The live ones, nearest first."""
    found: list[Binding] = []
    newer = old
    while (before := live.get(newer.predecessor_binding_id)) is not None and before not in found:
        if before.successor_binding_id != newer.binding_id:
            break
        found.append(before)
        newer = before
    return found


def _accepted(
    situation: Situation, ask: RotateAsk, about: tuple[Instance, Binding, KnownPlan], failed: tuple[Binding, ...]
) -> Decision:
    instance, old, plan = about
    applied = instance.present
    operation = begin(ask.order, situation, plan, instance_uid=instance.uid, binding_uid=ask.uid, want=applied)
    overlap = plan.lease.overlap if ask.request.overlap is None else ask.request.overlap
    succession = Succession(old.uid, min(overlap, ask.settings.max_overlap), plan.ends_by_itself, old.rotate_at)
    operation = replace(operation, succession=succession)
    successor = _successor_of(situation, ask, about, operation)
    marked = touch(old, situation.now, successor_binding_id=successor.binding_id, rotate_at=None)
    now = situation.now
    buried = tuple(touch(binding, now, state=BindingState.DELETED, deleted_at=now) for binding in failed)
    writes = Writes(
        bindings=(*buried, marked, successor),
        operations=(operation,),
        secrets=ask.veiled.rows,
        erase=tuple(binding.uid for binding in buried),
    )
    return Decision(writes, operation, instance, successor)


def _successor_of(
    situation: Situation, ask: RotateAsk, about: tuple[Instance, Binding, KnownPlan], operation: Operation
) -> Binding:
    instance, old, plan = about
    now, applied = situation.now, instance.present
    terms = first_terms(plan.lease, ask.uid, now, _ttl(ask, plan, old), rotatable=plan.rotatable)
    return Binding(
        uid=ask.uid,
        tenant=old.tenant,
        instance_id=old.instance_id,
        instance_uid=instance.uid,
        binding_id=ask.order.binding_id,
        state=BindingState.BINDING,
        plan=applied.plan,
        service_id=applied.service_id,
        plan_id=applied.plan_id,
        parameters=ask.veiled.shown,
        sealed=ask.veiled.columns,
        bind_resource=old.bind_resource,
        context=old.context,
        originating_identity=ask.request.originating_identity or old.originating_identity,
        labels=old.labels,
        digest=ask.digest,
        creator=old.creator,
        predecessor_binding_id=old.binding_id,
        expires_at=terms.expires_at,
        renew_before=terms.renew_before,
        rotate_at=terms.rotate_at,
        rotated_at=now if ask.itself else None,
        last_operation=operation.operation_id,
        version=1,
        created_at=now,
        updated_at=now,
    )


def _ttl(ask: RotateAsk, plan: KnownPlan, old: Binding) -> timedelta | None:
    """As asked; else as the plan says; else as long as the predecessor's, within what the plan allows."""
    if ask.request.ttl is not None or plan.lease.ttl is not None or old.expires_at is None:
        return ask.request.ttl
    span = old.expires_at - old.created_at
    return span if plan.lease.max_ttl is None else min(span, plan.lease.max_ttl)


def not_rotatable(old: Binding, why: str, **metadata: str) -> PurveyorError:
    """FAILED_PRECONDITION with the reason why there will be no other successor."""
    text = f"the binding {old.binding_id!r} cannot be rotated: {why}"
    return PurveyorError(
        Reason.NOT_ROTATABLE,
        text,
        metadata={"binding_id": old.binding_id, **metadata},
        resource=Resource("binding", old.binding_id),
        preconditions=(Precondition("ROTATABLE", f"binding/{old.binding_id}", text),),
    )
