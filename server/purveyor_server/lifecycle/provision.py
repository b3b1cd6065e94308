"""Provision: rules as a pure function, then one store command.

A fresh attempt after a failed create is a new incarnation: once nothing of the failed one is left it gets its tombstone,
and the new one a uid of its own, in one command; until then the attempt is ABORTED.
"""

from __future__ import annotations

from functools import partial

import msgspec

from purveyor_server.domain.conflicts import Ask, Ruling, row_of, rule
from purveyor_server.domain.digests import keyed_digest
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason
from purveyor_server.domain.model import Instance, MaintenanceInfo, PlanSnapshot, Settings
from purveyor_server.domain.parameters import for_create
from purveyor_server.domain.principal import Role
from purveyor_server.domain.quotas import PlanKey, check_new_instance
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import InstanceState, Verb
from purveyor_server.kit.ids import new_id
from purveyor_server.lifecycle.checks import check_provision
from purveyor_server.lifecycle.contract import Caller, Outcome, Provision
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.making import Order, begin
from purveyor_server.lifecycle.plans import KnownPlan
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.lifecycle.preview import preview
from purveyor_server.lifecycle.refusals import check_capacity, refusal
from purveyor_server.lifecycle.running import Parts, accept, answer, order_of, replay
from purveyor_server.lifecycle.veiling import Veiled, veil
from purveyor_server.store.contract import Accept, Decision, Situation, Writes


class ProvisionAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A provision, ready to be judged. `plan` is None with `refused` set: the catalog or its schema does not allow it."""

    request: Provision
    order: Order
    uid: str
    digest: str
    owner: str = ""  # the platform that asks
    adopted: bool = False  # what is to be managed is there already
    settings: LifecycleSettings
    plan: KnownPlan | None = None
    wanted: Settings | None = None
    veiled: Veiled = Veiled({})
    refused: PurveyorError | None = None


async def provision(parts: Parts, caller: Caller, request: Provision) -> Outcome:
    """Make an instance; see `Lifecycle.provision`."""
    scope = parts.door.enter(caller, Action.PROVISION, request.tenant)
    parts.door.check_behalf(caller, Action.PROVISION, request.tenant, request.originating_identity)
    check_provision(request)
    if not request.instance_id:
        request = msgspec.structs.replace(request, instance_id=new_id())
    ask = _ask(parts, caller, request)

    async def prepare() -> Accept:
        return Accept(
            scope=scope,
            tenant=request.tenant,
            instance_id=request.instance_id,
            decide=partial(decide_provision, ask=ask),
            request=ask.order.request,
            creates=True,
            counts=True,
            dry_run=request.validate_only,
            label="provision",
        )

    decision = await accept(parts, caller, Action.PROVISION, request, prepare)
    parts.door.note_decision(caller, Action.PROVISION, request, decision)
    if request.validate_only:
        return preview(parts, decision, ask.veiled.clear)
    return await answer(parts, caller, scope, request, decision)


def _ask(parts: Parts, caller: Caller, request: Provision) -> ProvisionAsk:
    order = order_of(parts, caller, Action.PROVISION, request, Verb.PROVISION)
    digest = keyed_digest(parts.digest_key, "provision", request.body)
    owner = caller.subject if Role.PLATFORM in caller.roles_in(request.tenant) else ""
    ask = ProvisionAsk(request=request, order=order, uid=new_id(), digest=digest, owner=owner, settings=parts.settings)
    try:
        offer = parts.catalog().seen_by(request.tenant).offer(request.service_id, request.plan_id)
        check_maintenance(request.maintenance_info, offer.plan.id, offer.plan.maintenance_info)
        parameters = for_create(offer, request.parameters)
        veiled = veil(parts, ask.uid, (offer.plan.schemas.instance_create,), parameters)
    except PurveyorError as error:
        return msgspec.structs.replace(ask, refused=error)
    plan = parts.book.of(offer)
    return msgspec.structs.replace(
        ask, plan=plan, wanted=settings_of(plan.snapshot, veiled.shown, veiled.columns), veiled=veiled
    )


def settings_of(snapshot: PlanSnapshot, parameters: dict[str, object], columns: dict[str, str]) -> Settings:
    """A wish: this plan with these parameters."""
    return Settings(
        snapshot.digest, snapshot.service_id, snapshot.plan_id, parameters, snapshot.maintenance_info, columns
    )


def check_maintenance(asked: MaintenanceInfo | None, plan_id: str, current: MaintenanceInfo | None) -> None:
    """Raise MAINTENANCE_INFO_CONFLICT when a version is asked for that is not the plan's."""
    version = current.version if current is not None else ""
    if asked is None or asked.version == version:
        return
    text = f"the plan {plan_id!r} is at maintenance version {version or 'none'}, not {asked.version[:80]}"
    raise PurveyorError(
        Reason.MAINTENANCE_INFO_CONFLICT,
        text,
        metadata={"plan_id": plan_id, "asked": asked.version[:80], "current": version},
        preconditions=(Precondition("MAINTENANCE_INFO", f"plan/{plan_id}", text),),
    )


def decide_provision(situation: Situation, ask: ProvisionAsk) -> Decision:
    """The rule: request id, matrix with the digest, catalog and schema, capacity; then the writes."""
    if (again := replay(situation, ask.order.request)) is not None:
        return again
    instance = situation.instance
    same = instance is not None and instance.digest == ask.digest
    ruling = rule(row_of(instance, situation.operations), Ask.PROVISION_SAME if same else Ask.PROVISION_OTHER)
    if ruling is Ruling.SAME_OPERATION or ruling is Ruling.CURRENT_STATE:
        return Decision(operation=situation.last_operation, instance=instance, replayed=True)
    if ruling is not Ruling.ACCEPT and ruling is not Ruling.FRESH_ATTEMPT:
        raise refusal(ruling, situation, ask.request.tenant, ask.request.instance_id, ask.settings)
    if ask.refused is not None:
        raise ask.refused
    if ruling is not Ruling.FRESH_ATTEMPT:  # that one takes the place of what failed
        _check_quota(situation, ask)
    check_capacity(situation.backlog, ask.settings)
    return _accepted(situation, ask, instance if ruling is Ruling.FRESH_ATTEMPT else None)


def _check_quota(situation: Situation, ask: ProvisionAsk) -> None:
    plan = PlanKey(ask.request.service_id, ask.request.plan_id)
    check_new_instance(ask.settings.quotas, situation.usage, ask.request.tenant, plan)


def _accepted(situation: Situation, ask: ProvisionAsk, failed: Instance | None) -> Decision:
    assert ask.plan is not None, "not refused, so prepared"
    assert ask.wanted is not None, "not refused, so prepared"
    operation = begin(ask.order, situation, ask.plan, instance_uid=ask.uid, want=ask.wanted)
    request, now, snapshot = ask.request, situation.now, ask.plan.snapshot
    instance = Instance(
        uid=ask.uid,
        tenant=request.tenant,
        instance_id=request.instance_id,
        state=InstanceState.PROVISIONING,
        desired=ask.wanted,
        in_flight=ask.wanted,
        service_name=snapshot.service_name,
        plan_name=snapshot.plan_name,
        digest=ask.digest,
        context=request.context,
        originating_identity=request.originating_identity,
        labels=request.labels,
        owner=ask.owner,
        adopted=ask.adopted,
        last_operation=operation.operation_id,
        version=1,
        created_at=now,
        updated_at=now,
    )
    buried = () if failed is None else (touch(failed, now, state=InstanceState.DELETED, deleted_at=now),)
    writes = Writes(
        instances=(*buried, instance),
        operations=(operation,),
        secrets=ask.veiled.rows,
        erase=tuple(record.uid for record in buried),
    )
    return Decision(writes, operation, instance)
