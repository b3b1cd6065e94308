"""Which loops a broker runs."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from purveyor_server.config.settings import ReconcileSection
from purveyor_server.domain.catalog import Catalog
from purveyor_server.kit.clock import Clock
from purveyor_server.kit.tasks import TaskGroup
from purveyor_server.lifecycle.admin.administration import Administration
from purveyor_server.lifecycle.admin.contract import AdminParts
from purveyor_server.lifecycle.lifecycle import Lifecycle
from purveyor_server.providers.registry import ProviderRegistry
from purveyor_server.reconcile.campaigns import CampaignLoop
from purveyor_server.reconcile.drift import DriftLoop
from purveyor_server.reconcile.inventory import InventoryLoop
from purveyor_server.reconcile.leases import ExpiryLoop, RevocationLoop, RotationLoop
from purveyor_server.reconcile.loop import Loop, keep_going
from purveyor_server.reconcile.platforms import PlatformLoop
from purveyor_server.reconcile.stuck import StuckLoop
from purveyor_server.store.contract import Store


class LoopParts(msgspec.Struct, frozen=True):
    """What loops are made of."""

    store: Store
    use_cases: Lifecycle
    admin: AdminParts
    registry: ProviderRegistry
    catalog: Callable[[], Catalog]
    clock: Clock
    settings: ReconcileSection


def loops(parts: LoopParts) -> tuple[Loop, ...]:
    """Every loop."""
    every = parts.settings
    return (
        *_of_leases(parts),
        CampaignLoop(parts.store, parts.use_cases.update, parts.catalog, parts.clock, every.campaigns.total_seconds()),
        DriftLoop(parts.admin, every.drift_page),
        PlatformLoop(parts.store, parts.use_cases, every.platforms, every.platform_every.total_seconds()),
        StuckLoop(parts.admin, every.stuck.total_seconds(), every.stuck_bounds),
        InventoryLoop(Administration(parts.admin), parts.store, parts.clock),
    )


def _of_leases(parts: LoopParts) -> tuple[Loop, ...]:
    """What has ended comes first after a start."""
    about, settings = (parts.store, parts.use_cases, parts.clock), parts.settings
    page, every = settings.lease_page, settings.rotation
    return (
        ExpiryLoop(*about, every=settings.expiry, page=page),
        RevocationLoop(*about, every=every, page=page),
        RotationLoop(*about, every=every, page=page, per_hour=settings.rotations_per_hour),
    )


def start_loops(tasks: TaskGroup, every: Iterable[Loop]) -> None:
    """Run each as a task of its own; one that has an event `wake` comes earlier when that is set."""
    for loop in every:
        tasks.start(loop.name, keep_going(loop, getattr(loop, "wake", None)))
