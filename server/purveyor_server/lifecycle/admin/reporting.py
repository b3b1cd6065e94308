"""Status, the log level."""

from __future__ import annotations

from purveyor_server.domain.errors import invalid
from purveyor_server.domain.model import ProviderRef
from purveyor_server.lifecycle.admin.acts import enter, record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts, ProviderReport, Report
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.lifecycle.door import Action


def providers(parts: AdminParts) -> tuple[ProviderRef, ...]:
    """Every provider of the catalog, once, by name."""
    found = {offer.plan.provider.name: offer.plan.provider for offer in parts.catalog().offers}
    return tuple(found[name] for name in sorted(found))


def provider_report(parts: AdminParts, ref: ProviderRef) -> ProviderReport:
    """How one provider does, as far as this process knows."""
    finding = parts.backends.health(ref)
    return ProviderReport(ref, finding.health, finding.problem, parts.running().get(ref.name, 0))


async def report(parts: AdminParts, caller: Caller) -> Report:
    """How the broker does."""
    enter(parts, caller, Action.GET_STATUS)
    return await gather(parts)


async def gather(parts: AdminParts) -> Report:
    """The report, for faces that show it to nobody in particular. Raises STORE_UNAVAILABLE."""
    return Report(
        at=parts.clock.now(),
        version=parts.version,
        store_id=parts.store.store_id,
        epoch=parts.store.epoch,
        started_at=parts.started_at,
        facts=await parts.store.facts(),
        providers=tuple(provider_report(parts, ref) for ref in providers(parts)),
        freezes=await parts.store.freezes(),
        recovery=await parts.store.recovery(),
        catalog_version=parts.catalog().version,
        log_level=parts.levels.current(),
        stuck=parts.stuck.now,
        inventories=await parts.store.inventories(),
        sightings=await parts.store.count_sightings(),
        catalog_refused=parts.catalogs.refused,
    )


async def set_log_level(parts: AdminParts, caller: Caller, level: str, act: Act) -> str:
    """Log more or less; the level before. Raises INVALID_REQUEST."""
    enter(parts, caller, Action.SET_LOG_LEVEL, act)
    before = parts.levels.current()
    if level not in {"debug", "info", "warning", "error"}:
        raise invalid("level", f"{level!r} is not one of debug, info, warning, error")
    if act.validate_only:
        return before
    await parts.store.note(record(parts, caller, Action.SET_LOG_LEVEL, act, "log", level=level, before=before))
    tell(parts, caller, Action.SET_LOG_LEVEL, act, "log")
    return parts.levels.change(level)
