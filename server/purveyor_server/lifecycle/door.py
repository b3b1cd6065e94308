"""The door: nobody does anything without having passed here.

Guarantee: permission and tenant are checked before anything is read, so a refusal tells nothing of what exists: a tenant
outside the caller's is PERMISSION_DENIED, for reads and writes alike, whether or not it exists. While draining, writes are
refused (DRAINING) and reads go on. Each mutation that is accepted or answered again leaves one log line.
Limit: the log line is not the audit record, which is a row of its own (`recording`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from enum import StrEnum

import structlog

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import Identity
from purveyor_server.domain.names import check_tenant
from purveyor_server.domain.principal import Role
from purveyor_server.lifecycle.contract import Caller, Write
from purveyor_server.lifecycle.refusals import behind
from purveyor_server.store.contract import Decision, Scope

_log = structlog.get_logger(__name__)
DRAIN_RETRY = 1.0  # seconds
LATE_RETRY = 5.0  # seconds
MAX_LATE = 0.5  # seconds; a call takes several turns of the loop


class Action(StrEnum):
    """The use-cases, by the names of their methods."""

    GET_CATALOG = "GetCatalog"
    PROVISION = "Provision"
    UPDATE = "UpdateInstance"
    DEPROVISION = "Deprovision"
    GET_INSTANCE = "GetInstance"
    LIST_INSTANCES = "ListInstances"
    BIND = "Bind"
    UNBIND = "Unbind"
    RENEW_BINDING = "RenewBinding"
    ROTATE_BINDING = "RotateBinding"
    GET_BINDING = "GetBinding"
    LIST_BINDINGS = "ListBindings"
    GET_CREDENTIALS = "GetCredentials"
    GET_OPERATION = "GetOperation"
    LIST_OPERATIONS = "ListOperations"
    WAIT_OPERATION = "WaitOperation"
    CANCEL_OPERATION = "CancelOperation"
    WATCH_OPERATION = "WatchOperation"
    WATCH_EVENTS = "WatchEvents"
    WATCH_CATALOG = "WatchCatalog"
    GET_STATUS = "GetStatus"
    EXPLAIN_OPERATION = "ExplainOperation"
    FREEZE = "Freeze"
    THAW = "Thaw"
    PURGE_INSTANCE = "PurgeInstance"
    PURGE_BINDING = "PurgeBinding"
    LIST_EXPIRING_BINDINGS = "ListExpiringBindings"
    FORCE_REVOKE_BINDING = "ForceRevokeBinding"
    EDIT_STEP = "EditStep"
    RETRY_OPERATION = "RetryOperation"
    CLEAN_UP_OPERATION = "CleanUpOperation"
    ABANDON_OPERATION = "AbandonOperation"
    LIST_AUDIT_RECORDS = "ListAuditRecords"
    VERIFY_AUDIT = "VerifyAudit"
    SET_LOG_LEVEL = "SetLogLevel"
    BACKUP = "Backup"
    REVIEW_RECOVERY = "ReviewRecovery"
    FINISH_RECOVERY = "FinishRecovery"
    LIST_ORPHANS = "ListOrphans"
    SWEEP_INVENTORY = "SweepInventory"
    QUARANTINE_ORPHAN = "QuarantineOrphan"
    RELEASE_ORPHAN = "ReleaseOrphan"
    REAP_ORPHAN = "ReapOrphan"
    IGNORE_ORPHAN = "IgnoreOrphan"
    RESUME_SWEEP = "ResumeSweep"
    REBUILD_REPORT = "RebuildReport"
    LIST_KEYS = "ListKeys"
    ROTATE_KEYS = "RotateKeys"
    RETIRE_KEY = "RetireKey"
    CREATE_TOKEN = "CreateToken"  # noqa: S105 - a name of a method
    LIST_TOKENS = "ListTokens"
    REVOKE_TOKEN = "RevokeToken"  # noqa: S105 - a name of a method
    LIST_QUOTAS = "ListQuotas"
    SET_QUOTA = "SetQuota"
    DELETE_QUOTA = "DeleteQuota"
    CREATE_CAMPAIGN = "CreateCampaign"
    GET_CAMPAIGN = "GetCampaign"
    LIST_CAMPAIGNS = "ListCampaigns"
    LIST_CAMPAIGN_ITEMS = "ListCampaignItems"
    PAUSE_CAMPAIGN = "PauseCampaign"
    RESUME_CAMPAIGN = "ResumeCampaign"
    ABORT_CAMPAIGN = "AbortCampaign"
    RETRY_CAMPAIGN = "RetryCampaign"
    WATCH_CAMPAIGN = "WatchCampaign"
    DRAIN = "Drain"
    ROTATE_ROOT_CREDENTIALS = "RotateRootCredentials"
    OBSERVE_INSTANCE = "ObserveInstance"
    LIST_DRIFT = "ListDrift"
    PAUSE_RECONCILIATION = "PauseReconciliation"
    RESUME_RECONCILIATION = "ResumeReconciliation"
    REPAIR_INSTANCE = "RepairInstance"
    ADOPT_INSTANCE = "AdoptInstance"
    VALIDATE_CATALOG = "ValidateCatalog"
    DIFF_CATALOG = "DiffCatalog"
    APPLY_CATALOG = "ApplyCatalog"
    LIST_CATALOGS = "ListCatalogs"
    GET_CATALOG_VERSION = "GetCatalogVersion"
    SYNC_INVENTORY = "SyncInventory"
    CLAIM_INSTANCE = "ClaimInstance"
    LIST_PLATFORM_ORPHANS = "ListPlatformOrphans"


WRITES = frozenset(
    {
        Action.PROVISION,
        Action.UPDATE,
        Action.DEPROVISION,
        Action.BIND,
        Action.UNBIND,
        Action.RENEW_BINDING,
        Action.ROTATE_BINDING,
        Action.CANCEL_OPERATION,
        Action.SYNC_INVENTORY,
        Action.CLAIM_INSTANCE,
    }
)
# What asks for new work; removals are let in however late the broker is.
MAKING = frozenset({Action.PROVISION, Action.UPDATE, Action.BIND, Action.RENEW_BINDING, Action.ROTATE_BINDING})
# What operators and admins alone may do. It goes on while the server drains: a stop is when they need it.
OPERATOR_ACTIONS = frozenset(
    {
        Action.GET_STATUS,
        Action.EXPLAIN_OPERATION,
        Action.FREEZE,
        Action.THAW,
        Action.PURGE_INSTANCE,
        Action.PURGE_BINDING,
        Action.LIST_EXPIRING_BINDINGS,
        Action.FORCE_REVOKE_BINDING,
        Action.EDIT_STEP,
        Action.RETRY_OPERATION,
        Action.CLEAN_UP_OPERATION,
        Action.ABANDON_OPERATION,
        Action.SET_LOG_LEVEL,
        Action.BACKUP,
        Action.REVIEW_RECOVERY,
        Action.FINISH_RECOVERY,
        Action.LIST_ORPHANS,
        Action.SWEEP_INVENTORY,
        Action.QUARANTINE_ORPHAN,
        Action.RELEASE_ORPHAN,
        Action.REAP_ORPHAN,
        Action.IGNORE_ORPHAN,
        Action.RESUME_SWEEP,
        Action.REBUILD_REPORT,
        Action.LIST_KEYS,
        Action.ROTATE_KEYS,
        Action.RETIRE_KEY,
        Action.LIST_QUOTAS,
        Action.CREATE_CAMPAIGN,
        Action.GET_CAMPAIGN,
        Action.LIST_CAMPAIGNS,
        Action.LIST_CAMPAIGN_ITEMS,
        Action.PAUSE_CAMPAIGN,
        Action.RESUME_CAMPAIGN,
        Action.ABORT_CAMPAIGN,
        Action.RETRY_CAMPAIGN,
        Action.WATCH_CAMPAIGN,
        Action.DRAIN,
        Action.ROTATE_ROOT_CREDENTIALS,
        Action.OBSERVE_INSTANCE,
        Action.LIST_DRIFT,
        Action.PAUSE_RECONCILIATION,
        Action.RESUME_RECONCILIATION,
        Action.REPAIR_INSTANCE,
        Action.ADOPT_INSTANCE,
        Action.VALIDATE_CATALOG,
        Action.DIFF_CATALOG,
        Action.APPLY_CATALOG,
        Action.LIST_CATALOGS,
        Action.GET_CATALOG_VERSION,
        Action.LIST_PLATFORM_ORPHANS,
    }
)
# Who may do, and have, what is decided by those of another role. Operators are among those whom the audit records tell of,
# and the records name end users of every tenant.
ADMIN_ACTIONS = frozenset(
    {
        Action.CREATE_TOKEN,
        Action.LIST_TOKENS,
        Action.REVOKE_TOKEN,
        Action.SET_QUOTA,
        Action.DELETE_QUOTA,
        Action.LIST_AUDIT_RECORDS,
        Action.VERIFY_AUDIT,
    }
)
# The role of each use-case; the creator of a binding may read its credentials with CONSUMER (see `credentials`).
ROLES: Mapping[Action, frozenset[str]] = {
    action: frozenset(
        {Role.OPERATOR if action in OPERATOR_ACTIONS else Role.CONSUMER if action in WRITES else Role.VIEWER}
    )
    for action in Action
} | {
    Action.GET_CREDENTIALS: frozenset({Role.CREDENTIALS_READER, Role.CONSUMER}),
    **dict.fromkeys(ADMIN_ACTIONS, frozenset({Role.ADMIN})),
    **dict.fromkeys((Action.SYNC_INVENTORY, Action.CLAIM_INSTANCE), frozenset({Role.PLATFORM})),
}


class Door:
    """Checks and notes who enters."""

    def __init__(self, late: Callable[[], float] = lambda: 0.0, max_late: float = MAX_LATE) -> None:
        """`late` tells by how many seconds the event loop is behind; above `max_late` nothing new is let in."""
        self._draining = False
        self._late = late
        self._max_late = max_late

    @property
    def draining(self) -> bool:
        """True once `drain` was called."""
        return self._draining

    def drain(self) -> None:
        """From now on writes are refused."""
        self._draining = True

    def enter(self, caller: Caller, action: Action, tenant: str = "") -> Scope:
        """The scope of the call. An empty `tenant` is for use-cases that name an operation: its scope is the caller's own.

        Raises DRAINING, PERMISSION_DENIED, INVALID_REQUEST or TOO_MANY_OPERATIONS.
        """
        if self._draining and action in WRITES:
            raise PurveyorError(Reason.DRAINING, "the server is stopping", retry_after=DRAIN_RETRY)
        needed = ROLES[action]
        if not tenant and action in OPERATION_ACTIONS:
            tenants = caller.tenants_with(needed)
            if tenants is not None and not tenants:
                raise denied(action, *needed, tenant=caller.only)
            return Scope(tenants)
        check_tenant(tenant)
        if caller.roles_in(tenant).isdisjoint(needed):
            raise denied(action, *needed, tenant=tenant)
        if action in MAKING:
            self._check_late()
        return Scope(frozenset({tenant}))

    def _check_late(self) -> None:
        """Raise TOO_MANY_OPERATIONS while the process is behind: here, before anything is done for the call, it costs least."""
        late = self._late()
        if late > self._max_late:
            raise behind("broker", "process", late, self._max_late, LATE_RETRY)

    def enter_order(self, caller: Caller, action: Action, tenant: str) -> Scope:
        """Let an operator in who orders new work for a tenant. Raises DRAINING, PERMISSION_DENIED, INVALID_REQUEST."""
        self.enter_operator(caller, action)
        if self._draining:
            raise PurveyorError(Reason.DRAINING, "the server is stopping", retry_after=DRAIN_RETRY)
        check_tenant(tenant)
        return Scope(frozenset({tenant}))

    def enter_operator(self, caller: Caller, action: Action) -> None:
        """Let an operator in, whose scope is every tenant. Raises PERMISSION_DENIED."""
        if not any(caller.principal.holds(role) for role in ROLES[action]):
            raise denied(action, *ROLES[action])

    def check_behalf(self, caller: Caller, action: Action, tenant: str, identity: Identity | None) -> None:
        """Raise PERMISSION_DENIED when a caller speaks for somebody else without being a platform in that tenant."""
        if identity is not None and Role.PLATFORM not in caller.roles_in(tenant):
            raise denied(action, Role.PLATFORM, tenant=tenant)

    def note(self, caller: Caller, action: Action, tenant: str, **fields: str | bool) -> None:
        """Log one use-case: who, what, where, and how it went."""
        told = {name: value for name, value in fields.items() if value != ""}
        _log.info(
            "accepted", principal=caller.subject, method=str(action), tenant=tenant, request=caller.call_id, **told
        )

    def note_decision(self, caller: Caller, action: Action, request: Write, decision: Decision) -> None:
        """Log a mutation that was accepted (or answered again, or only validated)."""
        operation = decision.operation
        self.note(
            caller,
            action,
            request.tenant,
            instance=request.instance_id,
            binding=str(getattr(request, "binding_id", "")),
            operation=operation.operation_id if operation is not None and not request.validate_only else "",
            replayed=decision.replayed,
            validated=request.validate_only,
        )


OPERATION_ACTIONS = frozenset(
    {Action.GET_OPERATION, Action.WAIT_OPERATION, Action.CANCEL_OPERATION, Action.WATCH_OPERATION}
)


def denied(action: Action, *roles: str, tenant: str = "") -> PurveyorError:
    """PERMISSION_DENIED for want of one of `roles`: the same whether or not the tenant, or anything in it, exists."""
    needed = " or ".join(sorted(roles))
    where = {"tenant": tenant} if tenant else {}
    text = f"{action} needs the role {needed}" + (f" in the tenant {tenant!r}" if tenant else " in every tenant")
    return PurveyorError(Reason.PERMISSION_DENIED, text, metadata={"method": str(action), "role": needed, **where})
