"""What a campaign asks of one instance, and what it needs of the catalog.

Guarantee: an instance is moved by the same update that anybody else would send, so the same rules hold for it: plan, schema,
quota, visibility. The update names the version of the instance that was looked at, and a request id of its own.
Limit: deletion protection and adoption do not stand in the way: nothing is deleted, and an operator has asked for it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from purveyor_server.domain.campaigns import Aim
from purveyor_server.domain.catalog import Catalog, Offer
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason
from purveyor_server.domain.etags import etag_of
from purveyor_server.domain.model import Instance, MaintenanceInfo
from purveyor_server.domain.planrules import Use, check_use, why_not_from
from purveyor_server.lifecycle.contract import Caller, Outcome, Update
from purveyor_server.lifecycle.update import not_updatable

UpdateInstance = Callable[[Caller, Update], Awaitable[Outcome]]


def update_of(
    aim: Aim, to_version: str, instance: Instance, request_id: str = "", *, validate_only: bool = False
) -> Update:
    """The update that moves an instance."""
    body: dict[str, object] = {"service_id": aim.service_id, "instance_uid": instance.uid}
    body |= {"plan_id": aim.to_plan_id} if aim.to_plan_id else {"maintenance_version": to_version}
    return Update(
        tenant=instance.tenant,
        instance_id=instance.instance_id,
        request_id=request_id,
        validate_only=validate_only,
        body=body,
        plan_id=aim.to_plan_id or None,
        maintenance_info=None if aim.to_plan_id else MaintenanceInfo(to_version),
        etag=etag_of(instance),
    )


def check_target(catalog: Catalog, aim: Aim) -> Offer:
    """Where the campaign leads. Raises UNKNOWN_SERVICE, UNKNOWN_PLAN (a retired one too), PLAN_NOT_UPDATABLE, and
    MAINTENANCE_INFO_CONFLICT for an upgrade to no version."""
    offer = catalog.offer(aim.service_id, aim.target)
    if aim.to_plan_id:
        _check_move(catalog, aim, offer)
    elif offer.plan.maintenance_info is None:
        text = f"the plan {aim.target!r} has no maintenance version to upgrade to"
        raise PurveyorError(
            Reason.MAINTENANCE_INFO_CONFLICT,
            text,
            metadata={"plan_id": aim.target},
            preconditions=(Precondition("MAINTENANCE_INFO", f"plan/{aim.target}", text),),
        )
    return offer


def version_of(aim: Aim, offer: Offer) -> str:
    """The maintenance version that an upgrade leads to; "" for a move."""
    info = offer.plan.maintenance_info
    return "" if aim.to_plan_id or info is None else info.version


def _check_move(catalog: Catalog, aim: Aim, offer: Offer) -> None:
    new = offer.plan
    check_use(Use.ENTER, new.state, new.id)
    try:
        old = catalog.offer(aim.service_id, aim.from_plan_id).plan
    except PurveyorError:
        return  # no catalog has it any more: each instance is judged by what it was made with
    if why := why_not_from(new, old.id, leavable=old.plan_updateable):
        raise not_updatable(old.id, new.id, why)
    if (new.provider.name, new.provider.kind) != (old.provider.name, old.provider.kind):
        raise not_updatable(old.id, new.id, "the other plan is made by another provider")
