"""What operators get, as values. Times are aware, in UTC; sizes in bytes."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping
    from datetime import datetime, timedelta

    from purveyor.catalog_values import CatalogRefusal
    from purveyor.orphan_values import InventoryStatus
    from purveyor.values import Binding, Json, OperationStatus


@dataclass(frozen=True, kw_only=True)
class Freeze:
    """A stop that an operator set."""

    name: str
    reason: str
    principal: str
    set_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class ProviderStatus:
    """A provider and its backend; `state`: UNKNOWN, READY, CIRCUIT_OPEN or UNUSABLE."""

    name: str
    kind: str
    state: str
    problem: str = ""
    running: int = 0


@dataclass(frozen=True, kw_only=True)
class Recovery:
    """The recovery that a restored store is in."""

    backup_time: datetime | None
    restore_time: datetime | None
    backup_revision: int


@dataclass(frozen=True, kw_only=True)
class BrokerStatus:
    """How a broker does. `waiting`: unfinished operations by what they wait for; `stuck`: how many the last look found that
    would not have ended; `remains_kept`: failed operations that wait for an operator."""

    version: str
    store_id: str
    epoch: int
    head_revision: int
    earliest_revision: int
    start_time: datetime | None
    pending: int
    parked: int
    waiting: Mapping[str, int]
    oldest_unfinished_age: timedelta | None
    oldest_unfinished_operation_id: str
    cleanup_required: int
    providers: tuple[ProviderStatus, ...]
    freezes: tuple[Freeze, ...]
    store_bytes: int
    disk_free_bytes: int
    disk_low_water_bytes: int
    disk_low: bool
    recovery: Recovery | None
    catalog_version: int
    log_level: str
    stuck: int = 0
    remains_kept: int = 0
    inventories: tuple[InventoryStatus, ...] = ()
    catalog_refusal: CatalogRefusal | None = None


@dataclass(frozen=True, kw_only=True)
class Cause:
    """One thing that keeps an operation where it is."""

    code: str
    sentence: str
    until: datetime | None = None
    operation_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """An operation with its steps, and why it does not move."""

    operation: OperationStatus
    causes: tuple[Cause, ...]


@dataclass(frozen=True, kw_only=True)
class Abandoned:
    """An operation that was given up, and what it may have left in backends."""

    operation: OperationStatus
    left_behind: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Purged:
    """What a purge forgot and what it may have left in backends."""

    resource: str
    left_behind: tuple[str, ...]
    ended_operation_ids: tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class AuditRecord:
    """Who did what. `outcome`: DONE, ACCEPTED, READ, DENIED, UNAUTHENTICATED or BROKEN.

    `body` is the record as it was chained (JSON), `key` the label of its key; `chain` and `previous_chain` are in hex.
    """

    number: int
    act_time: datetime | None
    principal: str
    action: str
    resource: str
    tenant: str
    reason: str
    request_id: str
    details: Mapping[str, Json] = field(default_factory=dict)
    outcome: str = "DONE"
    means: str = ""
    credential_id: str = ""
    on_behalf_of: str = ""
    origin: str = ""
    call_id: str = ""
    body: str = field(default="", repr=False)
    key: str = ""
    chain: str = ""
    previous_chain: str = ""


@dataclass(frozen=True, kw_only=True)
class AuditAnchor:
    """A record's number and its chain value in hex, to keep elsewhere."""

    number: int
    chain: str


@dataclass(frozen=True, kw_only=True)
class AuditFinding:
    """What is wrong with the records from `first_number` to `last_number`.

    `fault`: CHANGED, MISSING, INSERTED, UNCHAINED, UNKNOWN_KEY, HEAD, CHECKPOINT or ANCHOR.
    """

    fault: str
    first_number: int
    last_number: int
    sentence: str


@dataclass(frozen=True, kw_only=True)
class AuditVerification:
    """How far a verification is. `findings` (the first 100 faults) are there when it is `done`; `last` is an anchor then."""

    checked: int
    before_chain: int
    faults: int
    findings: tuple[AuditFinding, ...]
    last: AuditAnchor
    first_number: int
    done: bool


@dataclass(frozen=True, kw_only=True)
class BackupInfo:
    """A backup that was written."""

    file: str
    bytes: int
    sha256: str
    backup_time: datetime | None
    revision: int


@dataclass(frozen=True, kw_only=True)
class Difference:
    """What differs after a restore; `kind`: UNKNOWN_RESOURCE, MISSING, DRIFTED, UNFINISHED or UNREADABLE."""

    kind: str
    provider: str
    resource: str
    sentence: str
    tenant: str = ""
    instance_id: str = ""
    operation_id: str = ""


@dataclass(frozen=True, kw_only=True)
class Key:
    """A key that seals, by its label; `present`: its source has it. A label without `present` is a key that is lost."""

    label: str
    values: int
    primary: bool
    present: bool


@dataclass(frozen=True, kw_only=True)
class ForceRevoked:
    """A binding that was given up: its tombstone, what may still be there, the operations that ended with it, and until when its
    login may still work (None: without end)."""

    binding: Binding
    left_behind: tuple[str, ...]
    ended_operation_ids: tuple[str, ...]
    access_until: datetime | None


@dataclass(frozen=True, kw_only=True)
class KeyRotation:
    """How far a rotation is: every value is to be sealed with the key `label`. `unreadable` ones cannot be opened and stay."""

    label: str
    checked: int
    resealed: int
    unreadable: int
    done: bool


@dataclass(frozen=True, kw_only=True)
class Quota:
    """What a tenant, or a plan in it (both ids empty: the whole), has and may have; None is no limit.

    `set_limits`: what an operator set, by name, -1 for no limit; empty when nothing is set.
    """

    tenant: str
    service_id: str
    plan_id: str
    instances: int
    max_instances: int | None
    bindings: int
    max_bindings: int | None
    max_bindings_per_instance: int | None
    set_limits: Mapping[str, int] = field(default_factory=dict)
    reason: str = ""
    principal: str = ""
    set_time: datetime | None = None


@dataclass(frozen=True, kw_only=True)
class Token:
    """A static token, without what its holder shows."""

    token_id: str
    name: str
    roles: tuple[str, ...]
    tenants: tuple[str, ...]
    every_tenant: bool
    create_time: datetime | None
    creator: str
    expire_time: datetime | None = None
    use_time: datetime | None = None
    revoke_time: datetime | None = None


@dataclass(frozen=True)
class NewToken:
    """A token that was made, and its text: a secret that is shown once. The repr leaves it out."""

    token: Token
    text: str = field(repr=False)
