"""Update: rules as a pure function, then one store command.

Parameters are merged by top-level key over the applied ones. An instance keeps the plan snapshot that it was made with
until an update names a plan or a maintenance version. What concerns no provider (labels, context, deletion_protected, or a
wish that is applied already) ends with its accept: its operation is stored SUCCEEDED, so that the request id holds for it.
"""

from __future__ import annotations

from functools import partial

import msgspec

from purveyor_server.domain.automation import why_left_alone
from purveyor_server.domain.catalog import Offer
from purveyor_server.domain.conflicts import Ask, Row, Ruling, row_of, rule
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, invalid
from purveyor_server.domain.model import Instance, Operation, Settings
from purveyor_server.domain.parameters import check_change, check_json, check_kept, for_update
from purveyor_server.domain.planrules import Use, check_use, why_not_from
from purveyor_server.domain.quotas import PlanKey, check_moved_instance
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import InstanceState, OperationState, Verb
from purveyor_server.lifecycle.checks import check_etag, check_update
from purveyor_server.lifecycle.contract import ITSELF, Caller, Outcome, Update
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.making import Order, begin, finished
from purveyor_server.lifecycle.plans import KnownPlan, unprepared
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.lifecycle.preview import preview
from purveyor_server.lifecycle.provision import check_maintenance, settings_of
from purveyor_server.lifecycle.refusals import check_capacity, left_alone, refusal
from purveyor_server.lifecycle.running import Parts, accept, answer, order_of, replay
from purveyor_server.lifecycle.veiling import Veiled, merged, stored_clear, veil
from purveyor_server.providers.contract import Ability
from purveyor_server.store.contract import Accept, Decision, Scope, Situation, Writes

# Where a change of the record alone meets nothing: it concerns no provider, so nothing conflicts with it.
RECORD_ROWS = frozenset(
    {
        Row.READY,
        Row.READY_BINDING_WORK,
        Row.READY_CLEANUP,
        Row.FAILED,
        Row.FAILED_CLEANUP,
        Row.FAILED_KEPT,
        Row.DELETE_FAILED,
    }
)


class Target(msgspec.Struct, frozen=True):
    """Where a change of settings leads: the plan it ends with, and the offer whose defaults count."""

    plan: KnownPlan
    offer: Offer


class UpdateAsk(msgspec.Struct, frozen=True, kw_only=True):
    """An update, ready to be judged against an instance whose settings are of the plan `seen`."""

    request: Update
    order: Order
    settings: LifecycleSettings
    itself: bool = False
    seen: KnownPlan | None = None
    seen_uid: str = ""  # of the instance for which `veiled` is
    veiled: Veiled = Veiled({})  # what was sent, without nulls
    target: Target | None = None
    refused: PurveyorError | None = None

    @property
    def record_only(self) -> bool:
        """True when neither plan, parameters nor maintenance version are asked for."""
        request = self.request
        return request.plan_id is None and request.parameters is None and request.maintenance_info is None


async def update(parts: Parts, caller: Caller, request: Update) -> Outcome:
    """Change an instance; see `Lifecycle.update`."""
    scope = parts.door.enter(caller, Action.UPDATE, request.tenant)
    parts.door.check_behalf(caller, Action.UPDATE, request.tenant, request.originating_identity)
    check_update(request)
    order = order_of(parts, caller, Action.UPDATE, request, Verb.UPDATE)
    itself = caller.principal == ITSELF.principal
    blank = ready = UpdateAsk(request=request, order=order, settings=parts.settings, itself=itself)

    async def prepare() -> Accept:
        nonlocal ready
        ready = await _prepared(parts, scope, blank)
        return _command(scope, ready)

    decision = await accept(parts, caller, Action.UPDATE, request, prepare)
    parts.door.note_decision(caller, Action.UPDATE, request, decision)
    if request.validate_only:
        return preview(parts, decision, ready.veiled.clear | await stored_clear(parts, decision.operation))
    return await answer(parts, caller, scope, request, decision)


def _command(scope: Scope, ask: UpdateAsk) -> Accept:
    return Accept(
        scope=scope,
        tenant=ask.request.tenant,
        instance_id=ask.request.instance_id,
        decide=partial(decide_update, ask=ask),
        request=ask.order.request,
        creates=not ask.record_only,
        counts=ask.request.plan_id is not None,
        dry_run=ask.request.validate_only,
        label="update",
    )


async def _prepared(parts: Parts, scope: Scope, ask: UpdateAsk) -> UpdateAsk:
    """The ask with its target, judged by the catalog and by the instance as it is now."""
    instance = await parts.store.instance(scope, ask.request.tenant, ask.request.instance_id)
    if instance is None:
        return ask
    present = instance.present
    parts.book.refresh(present.plan)
    ask = msgspec.structs.replace(ask, seen=parts.book.get(present.plan), seen_uid=instance.uid)
    try:
        _check_context(parts, ask, present)
        if ask.record_only:
            return ask
        target = _target(parts, ask, present)
        schemas = target.offer.plan.schemas
        sent = {key: value for key, value in (ask.request.parameters or {}).items() if value is not None}
        veiled = veil(parts, instance.uid, (schemas.instance_create, schemas.instance_update), sent)
        return msgspec.structs.replace(ask, target=target, veiled=veiled)
    except PurveyorError as error:
        return msgspec.structs.replace(ask, refused=error)


def _check_context(parts: Parts, ask: UpdateAsk, present: Settings) -> None:
    if ask.request.context is None:
        return
    offer = parts.catalog().offer(present.service_id, present.plan_id)
    if not offer.service.allow_context_updates:
        raise invalid("context", f"the service {present.service_id!r} does not allow its change")


def _target(parts: Parts, ask: UpdateAsk, present: Settings) -> Target:
    """Raises UNKNOWN_PLAN, PLAN_NOT_UPDATABLE, MAINTENANCE_INFO_CONFLICT or INVALID_PARAMETERS."""
    request = ask.request
    current = parts.book.get(present.plan)
    moves = request.plan_id not in {None, "", present.plan_id}
    # An instance keeps the plan that it has, also when others are not shown it any more; it cannot move to a hidden one.
    catalog = parts.catalog()
    if moves:
        catalog = catalog.seen_by(request.tenant)
    else:
        use = Use.CHANGE if request.maintenance_info is None else Use.UPGRADE
        check_use(use, catalog.state_of(present.service_id, present.plan_id), present.plan_id)
    offer = catalog.offer(present.service_id, request.plan_id or present.plan_id)
    if moves:
        _check_move(parts, current, offer)
    if current.contract is not None and Ability.UPDATE not in current.abilities:
        raise not_updatable(present.plan_id, offer.plan.id, "its provider cannot change instances")
    check_maintenance(request.maintenance_info, offer.plan.id, offer.plan.maintenance_info)
    check_change(offer, request.parameters or {})
    upgrades = request.maintenance_info is not None
    return Target(parts.book.of(offer) if moves or upgrades else current, offer)


def _check_move(parts: Parts, current: KnownPlan, offer: Offer) -> None:
    """A plan may be left for one of the same provider when that one takes its instances or, where it does not say, when the plan
    that is left says so (the live catalog's word before the snapshot's)."""
    old = current.snapshot
    try:
        leavable = parts.catalog().offer(old.service_id, old.plan_id).plan.plan_updateable
    except PurveyorError:
        leavable = old.plan_updateable
    if why := why_not_from(offer.plan, old.plan_id, leavable=leavable):
        raise not_updatable(old.plan_id, offer.plan.id, why)
    new = offer.plan.provider
    if (new.name, new.kind) != (old.provider.name, old.provider.kind):
        raise not_updatable(old.plan_id, offer.plan.id, "the other plan is made by another provider")


def not_updatable(old: str, new: str, why: str) -> PurveyorError:
    """FAILED_PRECONDITION with the two plans."""
    text = f"an instance of the plan {old!r} cannot be changed to {new!r}: {why}"
    return PurveyorError(
        Reason.PLAN_NOT_UPDATABLE,
        text,
        metadata={"from": old, "to": new},
        preconditions=(Precondition("PLAN_UPDATEABLE", f"plan/{old}", text),),
    )


def decide_update(situation: Situation, ask: UpdateAsk) -> Decision:
    """The rule: request id, etag, matrix with the target, catalog and schema, capacity; then the writes."""
    if (again := replay(situation, ask.order.request)) is not None:
        return again
    instance, request = situation.instance, ask.request
    row = row_of(instance, situation.operations)
    if instance is None or instance.state is InstanceState.DELETED:
        raise refusal(Ruling.NOT_FOUND, situation, request.tenant, request.instance_id, ask.settings)
    check_etag(request.etag, instance)
    wanted = _wanted(ask, instance)
    ruling = _ruling(ask, row, instance, wanted)
    if ruling is Ruling.SAME_OPERATION:
        return Decision(operation=_running(situation), instance=instance, replayed=True)
    if ruling is not Ruling.ACCEPT:
        raise refusal(ruling, situation, request.tenant, request.instance_id, ask.settings)
    if ask.itself and (why := why_left_alone(instance)):
        raise left_alone(request.instance_id, why)
    if ask.seen is None or ask.seen.snapshot.digest != instance.present.plan:
        raise unprepared()
    if ask.veiled.columns and ask.seen_uid != instance.uid:
        raise unprepared()
    if ask.refused is not None:
        raise ask.refused
    if wanted is None or wanted == instance.applied:
        return _record_alone(situation, ask, instance, ask.seen)
    return _accepted(situation, ask, instance, wanted)


def _ruling(ask: UpdateAsk, row: Row, instance: Instance, wanted: Settings | None) -> Ruling:
    if ask.record_only and row in RECORD_ROWS:
        return Ruling.ACCEPT
    same = wanted is not None and wanted == instance.in_flight
    return rule(row, Ask.UPDATE_SAME if same else Ask.UPDATE_OTHER)


def _wanted(ask: UpdateAsk, instance: Instance) -> Settings | None:
    """The settings that the update leads to; None when it does not concern them, or was refused."""
    if ask.target is None:
        return None
    sent, base = (ask.request.parameters or {}) | ask.veiled.shown, instance.present
    parameters = for_update(ask.target.offer, base.parameters, sent)
    return settings_of(ask.target.plan.snapshot, parameters, merged(base.sealed, sent, ask.veiled.columns))


def _running(situation: Situation) -> Operation | None:
    found = (operation for operation in situation.operations if operation.verb is Verb.UPDATE)
    return next(found, situation.last_operation)


def _record_changes(ask: UpdateAsk, instance: Instance) -> dict[str, object]:
    request = ask.request
    sent = {
        "labels": request.labels,
        "context": request.context,
        "deletion_protected": request.deletion_protected,
    }
    return {name: value for name, value in sent.items() if value is not None and value != getattr(instance, name)}


def _record_alone(situation: Situation, ask: UpdateAsk, instance: Instance, plan: KnownPlan) -> Decision:
    """Nothing for a provider to do: what differs of the record is written, and the operation is over."""
    changes = _record_changes(ask, instance)
    last = situation.last_operation
    if not changes and instance.desired == instance.present and last is not None and _succeeded(last):
        return Decision(operation=last, instance=instance, replayed=True)
    if instance.state is InstanceState.READY:
        changes["desired"] = instance.present  # the wish of a failed update is given up
        changes["last_operation"] = ask.order.operation_id
    operation = finished(ask.order, situation, plan, instance.uid, instance.present)
    changed = touch(instance, situation.now, **changes)
    return Decision(Writes(instances=(changed,), operations=(operation,)), operation, changed)


def _succeeded(operation: Operation) -> bool:
    return operation.state is OperationState.SUCCEEDED


def _accepted(situation: Situation, ask: UpdateAsk, instance: Instance, wanted: Settings) -> Decision:
    assert ask.target is not None, "settings are wanted, so there is a target"
    check_json(wanted.parameters, "parameters")
    plan = PlanKey(wanted.service_id, wanted.plan_id)
    present = instance.present
    if wanted.plan != present.plan:
        check_kept(ask.target.offer, wanted.parameters, wanted.sealed)
    if plan != PlanKey(present.service_id, present.plan_id):
        check_moved_instance(ask.settings.quotas, situation.usage, instance.tenant, plan)
    check_capacity(situation.backlog, ask.settings)
    operation = begin(
        ask.order, situation, ask.target.plan, instance_uid=instance.uid, want=wanted, was=instance.present
    )
    changed = touch(
        instance,
        situation.now,
        state=InstanceState.UPDATING,
        desired=wanted,
        in_flight=wanted,
        last_operation=operation.operation_id,
        **_record_changes(ask, instance),
    )
    writes = Writes(instances=(changed,), operations=(operation,), secrets=ask.veiled.rows)
    return Decision(writes, operation, changed)
