"""Quotas as messages."""

from __future__ import annotations

from purveyor.v1 import admin_service_pb2 as pb
from purveyor_server.domain.errors import invalid
from purveyor_server.domain.quotas import UNLIMITED, Limits, PlanKey
from purveyor_server.lifecycle.admin.contract import QuotaReport
from purveyor_server.rpc.convert.values import to_timestamp

NAMES = ("instances", "bindings", "bindings_per_instance")


def decode_plan(request: pb.SetQuotaRequest | pb.DeleteQuotaRequest) -> PlanKey:
    """The plan that is meant, or the tenant as a whole. Raises INVALID_REQUEST for half of a plan."""
    if bool(request.service_id) != bool(request.plan_id):
        raise invalid("plan_id" if request.service_id else "service_id", "a plan is named by both, a tenant by neither")
    return PlanKey(request.service_id, request.plan_id)


def decode_limits(limits: pb.QuotaLimits) -> Limits:
    """Absent numbers stay unsaid."""
    return Limits(**{field.name: value for field, value in limits.ListFields()})


def encode_quota(report: QuotaReport) -> pb.Quota:
    """What holds, what is there, and what was set."""
    holds = {name: getattr(report.limits, name) for name in NAMES}
    found = pb.Quota(
        tenant=report.tenant,
        service_id=report.plan.service_id,
        plan_id=report.plan.plan_id,
        limits=pb.QuotaLimits(**{name: limit for name, limit in holds.items() if limit != UNLIMITED}),
        instances=report.used.instances,
        bindings=report.used.bindings,
    )
    if report.quota is not None:
        kept = report.quota
        said = pb.QuotaLimits(**{name: getattr(kept.limits, name) for name in NAMES})
        found.MergeFrom(
            pb.Quota(set_limits=said, reason=kept.reason, principal=kept.principal, set_time=to_timestamp(kept.at))
        )
    return found
