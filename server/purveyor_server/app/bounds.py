"""Bounds of the face and of the use-cases, from the settings."""

from __future__ import annotations

from purveyor_server.config.settings import Settings, over
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.rpc import RpcSettings


def rpc_settings(settings: Settings) -> RpcSettings:
    """Limits and times as the gRPC face takes them."""
    elsewhere = {"max_pending", "max_parked", "max_lag", "max_late"}
    given = {name: value for name, value in settings.limits if name not in elsewhere}
    for name, field in (
        ("call_timeout", "call_seconds"),
        ("max_wait", "wait_seconds"),
        ("write_timeout", "write_seconds"),
        ("heartbeat", "heartbeat_seconds"),
    ):
        given[field] = given.pop(name)
    identity = settings.identity
    given |= {"reflection": settings.listen.reflection, "reflection_open": identity.reflection == "open"}
    return over(RpcSettings(), given | {"recheck_seconds": identity.recheck})


def lifecycle_settings(settings: Settings) -> LifecycleSettings:
    """Bounds as the use-cases take them."""
    limits = settings.limits
    return LifecycleSettings(
        max_wait=limits.max_wait,
        max_pending=limits.max_pending,
        max_parked=limits.max_parked,
        max_lag=limits.max_lag.total_seconds(),
        quotas=settings.tenant_quotas,
        max_overlap=settings.reconcile.max_overlap,
        max_predecessors=settings.reconcile.max_predecessors,
        platforms=settings.reconcile.platforms,
    )
