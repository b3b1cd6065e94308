"""Deprovision: rules as a pure function, then one store command.

The instance is DEPROVISIONING from the accept on, whatever still runs on it: what runs is asked to stop (an update past its
pivot is not), and the removal is blocked by all of it. With `cascade` each live binding gets an UNBIND as its child.
"""

from __future__ import annotations

from functools import partial

import msgspec

from purveyor_server.domain.automation import why_kept
from purveyor_server.domain.conflicts import Ask, Ruling, blocks_deprovision, row_of, rule
from purveyor_server.domain.model import Binding, Instance, Operation, Settings
from purveyor_server.domain.names import check_id
from purveyor_server.domain.principal import Means
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import BindingState, InstanceState, Verb
from purveyor_server.engine.transitions import out_of_the_way
from purveyor_server.kit.ids import new_id
from purveyor_server.lifecycle.checks import check_etag, check_write
from purveyor_server.lifecycle.contract import Caller, Deprovision, Outcome
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.making import Order, begin, stop
from purveyor_server.lifecycle.plans import KnownPlan, PlanBook
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.lifecycle.preview import preview
from purveyor_server.lifecycle.refusals import deletion_protected, left_alone, refusal
from purveyor_server.lifecycle.running import Parts, accept, answer, order_of, replay
from purveyor_server.lifecycle.unbind import remove_binding
from purveyor_server.store.contract import Accept, Decision, Situation, Writes

NEW = frozenset({Ruling.ACCEPT, Ruling.FRESH_ATTEMPT, Ruling.TAKE_OVER, Ruling.WAIT_AND_CANCEL})


class DeprovisionAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A deprovision, ready to be judged."""

    request: Deprovision
    order: Order
    book: PlanBook
    settings: LifecycleSettings
    by_itself: bool = False  # a loop asks, not a caller


async def deprovision(parts: Parts, caller: Caller, request: Deprovision) -> Outcome:
    """Give an instance back; see `Lifecycle.deprovision`."""
    scope = parts.door.enter(caller, Action.DEPROVISION, request.tenant)
    parts.door.check_behalf(caller, Action.DEPROVISION, request.tenant, request.originating_identity)
    check_write(request)
    check_id(request.instance_id, "instance_id")
    order = order_of(parts, caller, Action.DEPROVISION, request, Verb.DEPROVISION)
    by_itself = caller.principal.means is Means.ITSELF
    ask = DeprovisionAsk(request=request, order=order, book=parts.book, settings=parts.settings, by_itself=by_itself)
    command = Accept(
        scope=scope,
        tenant=request.tenant,
        instance_id=request.instance_id,
        decide=partial(decide_deprovision, ask=ask),
        request=order.request,
        with_bindings=True,
        dry_run=request.validate_only,
        label="deprovision",
    )

    async def prepare() -> Accept:
        return command

    decision = await accept(parts, caller, Action.DEPROVISION, request, prepare)
    parts.door.note_decision(caller, Action.DEPROVISION, request, decision)
    if request.validate_only:
        return preview(parts, decision)
    return await answer(parts, caller, scope, request, decision)


def decide_deprovision(situation: Situation, ask: DeprovisionAsk) -> Decision:
    """The rule: request id, etag, matrix, protection; then the writes. Capacity is never asked."""
    if (again := replay(situation, ask.order.request)) is not None:
        return again
    request, instance = ask.request, situation.instance
    row = row_of(instance, situation.operations)
    ruling = rule(row, _asked(situation, cascade=request.cascade))
    if instance is None or ruling is Ruling.NOT_FOUND:
        if request.allow_missing:
            return Decision()
        raise refusal(Ruling.NOT_FOUND, situation, request.tenant, request.instance_id, ask.settings)
    check_etag(request.etag, instance)
    if ruling is Ruling.SAME_OPERATION:
        return Decision(operation=_running(situation), instance=instance, replayed=True)
    if instance.deletion_protected or _is_taken(situation, instance):
        raise deletion_protected(request.instance_id)
    if ask.by_itself and (why := why_kept(instance)):
        raise left_alone(request.instance_id, why)
    if ruling not in NEW:
        blocking = tuple(b for b in situation.bindings if blocks_deprovision(b, situation.operations))
        seen = msgspec.structs.replace(situation, bindings=blocking)
        raise refusal(ruling, seen, request.tenant, request.instance_id, ask.settings)
    return _accepted(situation, ask, instance)


def _is_taken(situation: Situation, instance: Instance) -> bool:
    """Whether an adoption is past the step from which nothing is given back: its end protects the instance, and so does its way there."""
    adopting = (operation for operation in situation.operations if operation.verb is Verb.PROVISION)
    return instance.adopted and any(operation.past_pivot for operation in adopting)


def _asked(situation: Situation, *, cascade: bool) -> Ask:
    if not any(blocks_deprovision(binding, situation.operations) for binding in situation.bindings):
        return Ask.DEPROVISION
    return Ask.DEPROVISION_CASCADE if cascade else Ask.DEPROVISION_BOUND


def _running(situation: Situation) -> Operation | None:
    found = (operation for operation in situation.operations if operation.verb is Verb.DEPROVISION)
    return next(found, situation.last_operation)


def _accepted(situation: Situation, ask: DeprovisionAsk, instance: Instance) -> Decision:
    was = instance.applied or instance.in_flight or instance.desired
    plan = ask.book.get(was.plan)
    own = ask.order.operation_id
    running = [operation for operation in situation.operations if not operation.binding_uid]
    asked = [stop(operation, situation.now, by=_taker(operation, own)) for operation in running]
    stopped = tuple(after for before, after in zip(running, asked, strict=True) if after is not before)
    children = _children(situation, ask, instance)
    blockers = (*(operation.operation_id for operation in running), *children.blockers)
    operation = begin(ask.order, situation, plan, instance_uid=instance.uid, was=was, blocked_by=blockers)
    count = len(children.blockers)
    if count:
        operation = msgspec.structs.replace(operation, children=count, waiting_detail=out_of_the_way(0, count))
    going = touch(
        instance,
        situation.now,
        state=InstanceState.DEPROVISIONING,
        usable=False,
        last_operation=operation.operation_id,
    )
    writes = Writes(
        instances=(going,),
        bindings=children.bindings,
        operations=(operation, *stopped, *children.operations),
        erase=children.buried,
    )
    return Decision(writes, operation, going)


def _taker(operation: Operation, own: str) -> str:
    """Who takes over: an update is only waited for, its undo stays its own."""
    return "" if operation.verb is Verb.UPDATE else own


class _Children(msgspec.Struct, frozen=True):
    """What becomes of the bindings: their records, their operations, those the parent waits for, and graves."""

    bindings: tuple[Binding, ...] = ()
    operations: tuple[Operation, ...] = ()
    blockers: tuple[str, ...] = ()
    buried: tuple[str, ...] = ()


def _children(situation: Situation, ask: DeprovisionAsk, instance: Instance) -> _Children:
    found = _Children()
    for binding in situation.bindings:
        found = _joined(found, _child(situation, ask, instance, binding))
    return found


def _joined(left: _Children, right: _Children) -> _Children:
    return _Children(
        left.bindings + right.bindings,
        left.operations + right.operations,
        left.blockers + right.blockers,
        left.buried + right.buried,
    )


def _child(situation: Situation, ask: DeprovisionAsk, instance: Instance, binding: Binding) -> _Children:
    if not blocks_deprovision(binding, situation.operations):
        gone = touch(binding, situation.now, state=BindingState.DELETED, deleted_at=situation.now)
        return _Children(bindings=(gone,), buried=(binding.uid,))
    running = next(
        (op for op in situation.operations if op.binding_uid == binding.uid and op.verb is Verb.UNBIND), None
    )
    if running is not None:
        return _Children(blockers=(running.operation_id,))
    order = msgspec.structs.replace(
        ask.order, operation_id=new_id(), verb=Verb.UNBIND, binding_id=binding.binding_id, request=None
    )
    plan: KnownPlan = ask.book.get(binding.plan)
    applied: Settings = instance.present
    removal = remove_binding(situation, order, plan, binding, applied, parent=ask.order.operation_id)
    return _Children((removal.binding,), removal.operations, (order.operation_id,))
