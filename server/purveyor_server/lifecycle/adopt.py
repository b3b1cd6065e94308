"""Adopt: bring an existing thing under management, as an instance of a plan.

Guarantee: it is a provision whose first outside thing is there already: journalled, resumed, undone; what an undo gives back is as it
was, and its data is never removed. What another instance has, is not there, or may not be taken is refused before anything is
stored, with the reason. Once it has succeeded the instance is protected from deletion: whoever wants it gone must say so first.
Limit: what may be adopted, and how it is named, is the provider's; it looks once more when it takes it over.
"""

from __future__ import annotations

from functools import partial

import msgspec

from purveyor_server.domain.digests import keyed_digest
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, invalid
from purveyor_server.domain.freezes import check_reason
from purveyor_server.domain.names import check_id
from purveyor_server.domain.parameters import check_json, for_create
from purveyor_server.domain.states import Verb
from purveyor_server.kit.ids import new_id
from purveyor_server.lifecycle.checks import check_labels, check_write
from purveyor_server.lifecycle.contract import Adopt, Caller, Outcome, Provision
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.plans import KnownPlan, provider_missing
from purveyor_server.lifecycle.preview import preview, work_settings
from purveyor_server.lifecycle.provision import ProvisionAsk, decide_provision, settings_of
from purveyor_server.lifecycle.running import Parts, accept, answer, order_of
from purveyor_server.lifecycle.veiling import veil
from purveyor_server.providers.contract import Ability, Permanent, ProviderError, RightsMissing, Unreachable, Work
from purveyor_server.providers.registry import ProviderMissingError
from purveyor_server.store.contract import Accept

RETRY = 5.0  # seconds; for a backend that does not answer


async def adopt(parts: Parts, caller: Caller, request: Adopt) -> Outcome:
    """Take it under management; see `Lifecycle.adopt`."""
    scope = parts.door.enter_order(caller, Action.ADOPT_INSTANCE, request.tenant)
    _check(request)
    request = msgspec.structs.replace(request, reason=check_reason(request.reason))
    ask = _ask(parts, caller, request)

    async def prepare() -> Accept:
        return Accept(
            scope=scope,
            tenant=request.tenant,
            instance_id=request.instance_id,
            decide=partial(decide_provision, ask=await _judged(parts, ask, request)),
            request=ask.order.request,
            creates=True,
            counts=True,
            dry_run=request.validate_only,
            label="adopt",
        )

    decision = await accept(parts, caller, Action.ADOPT_INSTANCE, request, prepare)
    parts.door.note_decision(caller, Action.ADOPT_INSTANCE, request, decision)
    if request.validate_only:
        return preview(parts, decision, ask.veiled.clear)
    return await answer(parts, caller, scope, request, decision)


def _check(request: Adopt) -> None:
    """Raises INVALID_REQUEST or MESSAGE_TOO_LARGE."""
    check_write(request)
    for field in ("instance_id", "service_id", "plan_id"):
        check_id(getattr(request, field), field)
    check_json(request.parameters, "parameters")
    check_json(request.source, "source")
    check_labels(request.labels)
    if not request.source:
        raise invalid("source", "is required: it names what is to be adopted, as the provider wants it")


def _ask(parts: Parts, caller: Caller, request: Adopt) -> ProvisionAsk:
    """As of a provision, from the same catalog, schema and quota."""
    order = order_of(parts, caller, Action.ADOPT_INSTANCE, request, Verb.PROVISION, adopt=request.source)
    wish = Provision(
        tenant=request.tenant,
        instance_id=request.instance_id,
        service_id=request.service_id,
        plan_id=request.plan_id,
        parameters=request.parameters,
        labels=request.labels,
    )
    # Not among what makes two requests the same: why it was asked for.
    body = {name: value for name, value in request.body.items() if name != "reason"}
    digest = keyed_digest(parts.digest_key, "adopt", body)
    ask = ProvisionAsk(request=wish, order=order, uid=new_id(), digest=digest, adopted=True, settings=parts.settings)
    try:
        offer = parts.catalog().seen_by(request.tenant).offer(request.service_id, request.plan_id)
        parameters = for_create(offer, request.parameters)
        veiled = veil(parts, ask.uid, (offer.plan.schemas.instance_create,), parameters)
    except PurveyorError as error:
        return msgspec.structs.replace(ask, refused=error)
    plan = parts.book.of(offer)
    wanted = settings_of(plan.snapshot, veiled.shown, veiled.columns)
    return msgspec.structs.replace(ask, plan=plan, wanted=wanted, veiled=veiled)


async def _judged(parts: Parts, ask: ProvisionAsk, request: Adopt) -> ProvisionAsk:
    """The ask with what its provider says of the source; it counts only where something new is to begin."""
    if ask.refused is not None or ask.plan is None:
        return ask
    try:
        _plan(parts, ask, request)
        await _look(parts, ask.plan, request)
    except PurveyorError as error:
        return msgspec.structs.replace(ask, refused=error)
    return ask


def _plan(parts: Parts, ask: ProvisionAsk, request: Adopt) -> None:
    """Raise ADOPTION_REFUSED when the provider can adopt, but not as an instance of such a plan."""
    if ask.plan is None or ask.wanted is None or Ability.ADOPT not in ask.plan.abilities:
        return
    want = work_settings(parts, ask.wanted, ask.veiled.clear)
    work = Work(Verb.PROVISION, ask.uid, want, was=None, outputs={}, adopt=request.source)
    try:
        parts.plans.plan_steps(ask.plan.snapshot.provider, work)
    except Permanent as error:
        raise refused("PLAN", _words(error)) from None
    except (ProviderError, ProviderMissingError):
        return  # it cannot say at present


async def _look(parts: Parts, plan: KnownPlan, request: Adopt) -> None:
    """Raise ADOPTION_REFUSED for what cannot be adopted."""
    ref = plan.snapshot.provider
    if plan.contract is None:
        raise provider_missing(plan.snapshot)
    if Ability.ADOPT not in plan.abilities:
        raise refused("ABILITY", f"the provider {ref.name!r} of plan {request.plan_id!r} cannot adopt anything")
    try:
        owned = await parts.plans.adoptable(ref, request.source)
    except ProviderMissingError:
        raise provider_missing(plan.snapshot) from None
    except RightsMissing as error:
        raise refused("RIGHTS", _words(error)) from None
    except Unreachable as error:
        raise refused("BACKEND", error.message, retry_after=RETRY) from None
    except ProviderError as error:
        raise refused("SOURCE", _words(error)) from None
    if owned is not None:
        text = f"the {owned.kind} {owned.name} belongs to the instance with the uid {owned.uid} already"
        raise refused("OWNED", text, uid=owned.uid)


def _words(error: ProviderError) -> str:
    """For operators, who ask: with what an administrator of the backend has to do first."""
    return f"{error.message}: {error.detail}" if error.detail else error.message


def refused(cause: str, why: str, *, retry_after: float | None = None, **metadata: str) -> PurveyorError:
    """ADOPTION_REFUSED: nothing was changed."""
    return PurveyorError(
        Reason.ADOPTION_REFUSED,
        why,
        metadata={"cause": cause, **metadata},
        preconditions=(Precondition("ADOPTABLE", "source", why),),
        retry_after=retry_after,
    )
