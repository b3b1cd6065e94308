"""Quotas of tenants: what is there, what holds, what operators set. And the stop.

Guarantee: what is set holds for the next command of the store, and its audit record is in the same command; nothing that is
there is ever taken away.
"""

from __future__ import annotations

from msgspec.structs import replace

from purveyor_server.domain.errors import invalid
from purveyor_server.domain.names import check_tenant
from purveyor_server.domain.quotas import (
    NOTHING,
    WHOLE,
    Limits,
    PlanKey,
    Quota,
    check_limits,
    check_place,
    limits_of,
)
from purveyor_server.lifecycle.admin.acts import enter, record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts, QuotaReport
from purveyor_server.lifecycle.contract import Caller, PageOf
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.paging import Question, read_token, write_token
from purveyor_server.store.contract import Page
from purveyor_server.store.operating import TenantUsage

DEFAULT_PAGE = 100  # tenants
MAX_PAGE = 500


async def list_quotas(parts: AdminParts, caller: Caller, tenant: str, page_size: int, page_token: str) -> PageOf:
    """A page of `QuotaReport`, tenant by tenant. Raises INVALID_PAGE_TOKEN, INVALID_REQUEST."""
    enter(parts, caller, Action.LIST_QUOTAS)
    if page_size < 0:
        raise invalid("page_size", "must not be negative")
    if tenant:
        check_tenant(tenant)
    size = min(page_size or DEFAULT_PAGE, MAX_PAGE)
    question = Question("quotas", tenant, "", "", show_deleted=False, store=parts.store.store_id)
    after = read_token(parts.token_key, question, page_token) if page_token else ""
    found = await parts.store.quotas(Page(limit=size + 1, after=after), tenant)
    items = tuple([report for one in found[:size] for report in _reports(parts, one)])
    more = write_token(parts.token_key, question, found[size - 1].tenant) if len(found) > size else ""
    return PageOf(items, more)


async def set_quota(
    parts: AdminParts, caller: Caller, tenant: str, plan: PlanKey, limits: Limits, act: Act
) -> QuotaReport:
    """Set it; what holds now. Raises INVALID_REQUEST."""
    reason = enter(parts, caller, Action.SET_QUOTA, act)
    check_place(tenant, plan)
    if check_limits(limits) == NOTHING:
        raise invalid("limits", "must say at least one number")
    quota = Quota(
        tenant=tenant, plan=plan, limits=limits, reason=reason, principal=caller.subject, at=parts.clock.now()
    )
    name = _name(tenant, plan)
    before = _report(parts, await _usage(parts, tenant), plan)
    if act.validate_only:
        return _with(parts, before, quota)
    numbers = {key: getattr(limits, key) for key in limits.__struct_fields__}
    details = {key: value for key, value in numbers.items() if value is not None}
    await parts.store.set_quota(quota, record(parts, caller, Action.SET_QUOTA, act, name, tenant, **details))
    tell(parts, caller, Action.SET_QUOTA, act, name, tenant)
    return _report(parts, await _usage(parts, tenant), plan)


async def delete_quota(
    parts: AdminParts, caller: Caller, tenant: str, plan: PlanKey, act: Act
) -> tuple[QuotaReport, bool]:
    """Take it back; what holds now, and whether something had been set. Raises INVALID_REQUEST."""
    enter(parts, caller, Action.DELETE_QUOTA, act)
    check_place(tenant, plan)
    name = _name(tenant, plan)
    if act.validate_only:
        before = _report(parts, await _usage(parts, tenant), plan)
        return _with(parts, before, None), before.quota is not None
    made = record(parts, caller, Action.DELETE_QUOTA, act, name, tenant)
    removed = await parts.store.delete_quota(tenant, plan, made)
    tell(parts, caller, Action.DELETE_QUOTA, act, name, tenant)
    return _report(parts, await _usage(parts, tenant), plan), removed is not None


async def drain(parts: AdminParts, caller: Caller, act: Act) -> None:
    """Begin to stop, once the record of it is kept."""
    enter(parts, caller, Action.DRAIN, act)
    if act.validate_only:
        return
    await parts.store.note(record(parts, caller, Action.DRAIN, act, "broker"))
    tell(parts, caller, Action.DRAIN, act, "broker")
    parts.stop()


async def _usage(parts: AdminParts, tenant: str) -> TenantUsage:
    (found,) = await parts.store.quotas(Page(limit=1), tenant)
    return found


def _reports(parts: AdminParts, found: TenantUsage) -> list[QuotaReport]:
    plans = {plan for plan, used in found.used.items() if used.instances or used.bindings}
    plans |= {quota.plan for quota in found.quotas}
    return [_report(parts, found, plan) for plan in sorted(plans | {WHOLE})]


def _report(parts: AdminParts, found: TenantUsage, plan: PlanKey) -> QuotaReport:
    usage = found.usage
    limits = limits_of(parts.quotas, usage, found.tenant, plan)
    kept = next((quota for quota in found.quotas if quota.plan == plan), None)
    return QuotaReport(tenant=found.tenant, plan=plan, limits=limits, used=usage.of(plan), quota=kept)


def _with(parts: AdminParts, before: QuotaReport, quota: Quota | None) -> QuotaReport:
    """The report as it would be."""
    alone = TenantUsage(before.tenant, {}, () if quota is None else (quota,))
    return replace(_report(parts, alone, before.plan), used=before.used)


def _name(tenant: str, plan: PlanKey) -> str:
    return f"quota/{tenant}" if plan == WHOLE else f"quota/{tenant}/{plan.service_id}/{plan.plan_id}"
