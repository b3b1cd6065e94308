"""The settings of a broker: every number with its unit, every default, one model per section.

Guarantee: values are frozen, unknown keys are refused, and no setting holds a secret: what must stay secret is in a file
or an environment variable that a reference names.
Limit: a section shows what an operator may need; the parts have further numbers of their own (`EngineSettings`, ...).
"""

from __future__ import annotations

from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

import msgspec
from pydantic import AfterValidator, BeforeValidator, Field, model_validator

from purveyor_server.config.identity import IdentitySettings
from purveyor_server.config.listening import AdminSettings, FilePath, ListenSettings, Section
from purveyor_server.config.values import Duration, Size, TenantName, absent
from purveyor_server.domain.drift import Pace
from purveyor_server.domain.platforms import OrphanPolicy, PlatformRules
from purveyor_server.domain.quotas import MOST, MOST_PER_INSTANCE, UNLIMITED, Limits, Quotas, Standard
from purveyor_server.domain.stuck import Bounds
from purveyor_server.engine.settings import EngineSettings
from purveyor_server.providers.facade import FacadeSettings
from purveyor_server.store.contract import Retention
from purveyor_server.store.sqlite.settings import SqliteSettings
from purveyor_server.watch.settings import WatchSettings

S = TypeVar("S", bound=msgspec.Struct)
_ENGINE, _SQLITE, _FACADE, _WATCH, _PACE = EngineSettings(), SqliteSettings(), FacadeSettings(), WatchSettings(), Pace()
_BOUNDS = Bounds()
_PLATFORMS = PlatformRules()
MIN_LEASE = timedelta(seconds=3)
MIB = 1024 * 1024
# An operation is kept at least this long after its end: clients may ask for its outcome that late.
MIN_OPERATION_RETENTION = timedelta(days=30)


def _seconds(value: float) -> timedelta:
    return timedelta(seconds=value)


def _kept_long_enough(value: timedelta) -> timedelta:
    if value < MIN_OPERATION_RETENTION:
        raise ValueError("must be at least 30d: clients may ask for an outcome that late")
    return value


def _long_enough(value: timedelta) -> timedelta:
    if value < MIN_LEASE:
        raise ValueError(f"must be at least {MIN_LEASE.total_seconds():.0f}s: a third of it is left when work stops")
    return value


def _split(value: Any) -> Any:
    return tuple(value.split(",")) if isinstance(value, str) else value


Count = Annotated[int, Field(ge=1, le=10_000_000)]
Most = Annotated[int, Field(ge=UNLIMITED, le=MOST)]
MostPerInstance = Annotated[int, Field(ge=UNLIMITED, le=MOST_PER_INSTANCE)]
Rate = Annotated[float, Field(ge=0, le=10_000_000, allow_inf_nan=False)]  # 0: no limit


class LogSettings(Section):
    """Logs, to standard error."""

    format: Literal["json", "console"] = "json"
    level: Literal["debug", "info", "warning", "error"] = "info"


class KeySettings(Section):
    """Where the keys are that seal secrets in the store. `variable` and `command` are for their source alone."""

    source: Literal["file", "environment", "command"] = "file"
    variable: Annotated[str, Field(pattern=r"^[A-Za-z_][A-Za-z0-9_]*$")] = "PURVEYOR_KEYS"
    command: Annotated[tuple[str, ...], BeforeValidator(_split)] = ()
    timeout: Duration = _seconds(10.0)

    @model_validator(mode="after")
    def _has_command(self) -> KeySettings:
        if self.source == "command" and not self.command:
            raise ValueError('source "command" needs `command`: the program and its arguments')
        return self


class StoreSettings(Section):
    """The SQLite store."""

    queue_limit: Count = _SQLITE.queue_limit
    batch_limit: Count = _SQLITE.batch_limit
    command_timeout: Duration = _SQLITE.command_timeout
    close_timeout: Duration = _SQLITE.close_timeout
    readers: Annotated[int, Field(ge=1, le=64)] = _SQLITE.readers
    read_timeout: Duration = _SQLITE.read_timeout
    cache_bytes: Size = _SQLITE.cache_bytes
    wal_limit_bytes: Size = _SQLITE.wal_limit_bytes
    low_water_bytes: Size = _SQLITE.low_water_bytes

    def values(self) -> SqliteSettings:
        """As the store takes them."""
        return over(_SQLITE, dict(self))


class EngineSection(Section):
    """Bounds of running operations."""

    running: Count = _ENGINE.running
    per_provider: Count = _ENGINE.per_provider
    per_tenant: Count = _ENGINE.per_tenant
    reserved: Count = _ENGINE.reserved
    lease: Annotated[Duration, AfterValidator(_long_enough)] = _ENGINE.lease
    max_attempts: Count = _ENGINE.max_attempts
    retry_first: Duration = _seconds(_ENGINE.retry.first)
    retry_ceiling: Duration = _seconds(_ENGINE.retry.ceiling)
    cleanup_retry_first: Duration = _seconds(_ENGINE.cleanup_retry.first)
    cleanup_retry_ceiling: Duration = _seconds(_ENGINE.cleanup_retry.ceiling)
    cleanup_budget: Duration = _seconds(_ENGINE.cleanup_budget)
    rollback_budget: Duration = _seconds(_ENGINE.rollback_budget)
    stop_grace: Duration = _seconds(_ENGINE.stop_grace)

    def values(self) -> EngineSettings:
        """As the engine takes them."""
        given = dict(self)
        for name in ("retry", "cleanup_retry"):
            first, ceiling = given.pop(f"{name}_first"), given.pop(f"{name}_ceiling")
            bounds = {"first": first.total_seconds(), "ceiling": ceiling.total_seconds()}
            given[name] = getattr(_ENGINE, name)._replace(**bounds)
        return over(_ENGINE, given)


class ProviderSettings(Section):
    """The guard around every provider."""

    call_timeout: Duration = _seconds(_FACADE.call)
    settle_timeout: Duration = _seconds(_FACADE.settle)
    cancel_grace: Duration = _seconds(_FACADE.grace)

    def values(self) -> FacadeSettings:
        """As the facade takes them."""
        return FacadeSettings(
            self.call_timeout.total_seconds(), self.settle_timeout.total_seconds(), self.cancel_grace.total_seconds()
        )


class LimitSettings(Section):
    """Bounds of what callers may ask for at once; `_per_caller` is the share of one caller."""

    request_bytes: Annotated[Size, Field(ge=1024, le=4 * MIB)] = MIB
    call_timeout: Duration = _seconds(30.0)
    max_wait: Duration = _seconds(300.0)
    write_timeout: Duration = _seconds(20.0)
    heartbeat: Duration = _seconds(15.0)
    calls: Count = 1_024
    calls_per_caller: Count = 512
    waits: Count = 10_000
    waits_per_caller: Count = 5_000
    streams: Count = 20_000
    streams_per_caller: Count = 10_000
    reads_per_second: Rate = 200.0
    reads_burst: Rate = 400.0
    writes_per_second: Rate = 50.0
    writes_burst: Rate = 100.0
    principals: Count = 10_000
    max_pending: Count = 10_000
    max_parked: Count = 1_000_000
    max_lag: Duration = _seconds(1.0)
    max_late: Duration = _seconds(0.5)


class WatchSection(Section):
    """Streams of events."""

    ring_events: Count = _WATCH.ring_events
    ring_bytes: Size = _WATCH.ring_bytes
    message_events: Annotated[int, Field(ge=1, le=10_000)] = _WATCH.message_events
    message_bytes: Annotated[Size, Field(ge=1024, le=MIB)] = _WATCH.message_bytes
    page_events: Annotated[int, Field(ge=1, le=1_000)] = _WATCH.page_events
    max_age: Duration = _seconds(_WATCH.max_age)

    def values(self) -> WatchSettings:
        """As the streams take them."""
        return over(_WATCH, dict(self))


class RetentionSettings(Section):
    """What may be forgotten, and how often that is looked after."""

    operations: Annotated[Duration, AfterValidator(_kept_long_enough)] = MIN_OPERATION_RETENTION
    tombstones: Duration = timedelta(days=30)
    events: Duration = timedelta(days=7)
    max_events: Count = 1_000_000
    audit: Duration = timedelta(days=400)
    interval: Duration = timedelta(hours=1)

    def values(self) -> Retention:
        """As the store takes them."""
        return Retention(self.operations, self.tombstones, self.events, self.max_events, audit=self.audit)


class ReconcileSection(Section):
    """How often the broker's loops look; each knows what is due, so this is how late it may notice."""

    enabled: bool = True
    expiry: Duration = _seconds(5.0)
    rotation: Duration = timedelta(minutes=1)
    rotations_per_hour: Annotated[int, Field(ge=0, le=1_000_000)] = 100
    lease_page: Annotated[int, Field(ge=1, le=10_000)] = 200
    max_overlap: Duration = timedelta(days=7)
    max_predecessors: Annotated[int, Field(ge=1, le=100)] = 1
    drift: Duration = _PACE.every
    drift_confirm: Duration = _PACE.confirm
    drift_page: Annotated[int, Field(ge=1, le=10_000)] = 100
    campaigns: Duration = timedelta(seconds=5)
    stuck: Duration = timedelta(minutes=1)
    stuck_margin: Duration = _BOUNDS.margin
    stuck_held: Duration = _BOUNDS.held
    stuck_leased: Duration = _BOUNDS.leased
    platform_orphans: OrphanPolicy = _PLATFORMS.policy
    platform_grace: Duration = _PLATFORMS.grace
    platform_every: Duration = timedelta(minutes=10)
    platform_cap: Count = _PLATFORMS.cap
    platform_claims: Annotated[int, Field(ge=0, le=1000)] = _PLATFORMS.claims
    platform_brake_percent: Annotated[float, Field(ge=0, le=100)] = _PLATFORMS.brake_percent
    platform_brake_count: Annotated[int, Field(ge=0, le=10_000)] = _PLATFORMS.brake_count
    inventory_ids: Annotated[int, Field(ge=1, le=1_000_000)] = _PLATFORMS.max_ids
    inventory_pause: Duration = _PLATFORMS.pause
    inventory_longest: Duration = _PLATFORMS.longest

    @property
    def pace(self) -> Pace:
        """Of looks at backends."""
        return Pace(self.drift, self.drift_confirm)

    @property
    def stuck_bounds(self) -> Bounds:
        """How long past its deadline an operation is given."""
        return Bounds(self.stuck_margin, self.stuck_held, self.stuck_leased)

    @property
    def platforms(self) -> PlatformRules:
        """Of inventories of platforms."""
        return PlatformRules(
            policy=self.platform_orphans,
            grace=self.platform_grace,
            cap=self.platform_cap,
            brake_percent=self.platform_brake_percent,
            brake_count=self.platform_brake_count,
            claims=self.platform_claims,
            max_ids=self.inventory_ids,
            pause=self.inventory_pause,
            longest=self.inventory_longest,
        )


class QuotaSection(Section):
    """How much every tenant may have, unless more is said of it; -1 is no limit."""

    instances_per_tenant: Most = UNLIMITED
    bindings_per_tenant: Most = UNLIMITED
    instances_per_plan: Most = UNLIMITED
    bindings_per_plan: Most = UNLIMITED
    bindings_per_instance: MostPerInstance = UNLIMITED

    def values(self) -> Standard:
        """As they are judged by."""
        each = {name: None if value == UNLIMITED else value for name, value in self}
        whole = Limits(each["instances_per_tenant"], each["bindings_per_tenant"], each["bindings_per_instance"])
        return Standard(whole, Limits(each["instances_per_plan"], each["bindings_per_plan"]))


class TenantQuotaSection(Section):
    """How much one tenant may have; what is left out is as for every tenant."""

    instances: Most | None = None
    bindings: Most | None = None
    instances_per_plan: Most | None = None
    bindings_per_plan: Most | None = None
    bindings_per_instance: MostPerInstance | None = None

    def values(self) -> Standard:
        """As they are judged by."""
        whole = Limits(self.instances, self.bindings, self.bindings_per_instance)
        return Standard(whole, Limits(self.instances_per_plan, self.bindings_per_plan))


class TenantSection(Section):
    """What the broker is told of one tenant; one that is not named has no labels, and the quotas of all."""

    labels: dict[Annotated[str, Field(min_length=1, max_length=63)], Annotated[str, Field(max_length=255)]] = Field(
        default_factory=dict
    )
    quotas: TenantQuotaSection = absent()


class Settings(Section):
    """All of it. `catalog` None stands for the built-in one."""

    data_dir: FilePath
    catalog: FilePath | None = None
    key_file: FilePath | None = None
    listen: ListenSettings = absent()
    admin: AdminSettings = absent()
    identity: IdentitySettings = absent()
    log: LogSettings = absent()
    keys: KeySettings = absent()
    store: StoreSettings = absent()
    engine: EngineSection = absent()
    providers: ProviderSettings = absent()
    limits: LimitSettings = absent()
    watch: WatchSection = absent()
    retention: RetentionSettings = absent()
    reconcile: ReconcileSection = absent()
    quotas: QuotaSection = absent()
    tenants: dict[TenantName, TenantSection] = Field(default_factory=dict)

    @property
    def keys_path(self) -> Path:
        """Where the key file is, or would be."""
        return self.key_file or self.data_dir / "keys"

    @property
    def tenant_labels(self) -> dict[str, dict[str, str]]:
        """Labels by tenant."""
        return {name: tenant.labels for name, tenant in self.tenants.items()}

    @property
    def tenant_quotas(self) -> Quotas:
        """What tenants may have."""
        return Quotas(self.quotas.values(), {name: tenant.quotas.values() for name, tenant in self.tenants.items()})

    @property
    def database(self) -> Path:
        """Where the store is."""
        return self.data_dir / "purveyor.db"


def over(defaults: S, given: dict[str, Any]) -> S:
    """`defaults` with what was given: a duration becomes seconds where the part counts in seconds."""
    fitted = {
        name: value.total_seconds()
        if isinstance(value, timedelta) and isinstance(getattr(defaults, name), float)
        else value
        for name, value in given.items()
    }
    return msgspec.structs.replace(defaults, **fitted)
