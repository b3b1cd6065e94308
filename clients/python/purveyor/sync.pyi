"""The blocking classes as type checkers see them. Made by scripts/sync_stub.py; do not edit."""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from os import PathLike
from pathlib import Path
from types import TracebackType
from typing import Generic, Self, TypeVar

from purveyor.admin_values import (
    Abandoned,
    AuditAnchor,
    AuditRecord,
    AuditVerification,
    BackupInfo,
    BrokerStatus,
    Difference,
    Explanation,
    ForceRevoked,
    Freeze,
    Key,
    KeyRotation,
    NewToken,
    Purged,
    Quota,
    Recovery,
    Token,
)
from purveyor.blocking import BlockingIterator
from purveyor.campaign_values import Campaign, CampaignItem, CampaignPlan
from purveyor.catalog_values import AppliedCatalog, CatalogCheck, CatalogDiff, CatalogText, CatalogVersion
from purveyor.credentials import Credentials
from purveyor.drift_values import DriftReport
from purveyor.inventory_values import InventoryOutcome, PlatformOrphan
from purveyor.orphan_values import InventoryStatus, Orphan, RebuildLine
from purveyor.places import EventPlace
from purveyor.root_values import RotatedRoots
from purveyor.tls import Tls
from purveyor.values import (
    ActiveBinding,
    Binding,
    Catalog,
    Event,
    EventKind,
    Instance,
    JsonInput,
    OperationStatus,
    Seconds,
)

Result_co = TypeVar("Result_co", covariant=True)

class SyncOperationHandle(Generic[Result_co]):
    """One operation; `Result_co` is what it ends with: an Instance, an ActiveBinding, or a tombstone.

    `replayed`: whether the server answered an earlier request again and started nothing."""
    @property
    def replayed(self) -> bool: ...
    @property
    def id(self) -> str:
        """The operation's id; empty when nothing was started (validate_only, or nothing to do)."""
    @property
    def status(self) -> OperationStatus:
        """The newest state that this handle has seen; asks nobody."""
    @property
    def done(self) -> bool:
        """Whether that state is an end."""
    def result(self, timeout: Seconds | None = None) -> Result_co:
        """Wait for the end and return what was made.

        `timeout`: seconds; None waits as long as the server is heard from. Raises TimeoutError (the operation goes on),
        OperationFailedError or OperationCancelledError, PurveyorError, and ValueError for a handle of validate_only."""
    def __iter__(self) -> BlockingIterator[OperationStatus]:
        """The states as they change, the present one first, until the end. Raises PurveyorError."""
    def watch(self, *, steps: bool = False) -> BlockingIterator[OperationStatus]:
        """As iteration over the handle; `steps` adds the steps. Raises PurveyorError, and ValueError as `result` does."""
    def children(self) -> BlockingIterator[OperationStatus]:
        """The operations that this one caused: the unbinds of a cascade, the clean-ups of a failure. Raises PurveyorError."""
    def refresh(self) -> OperationStatus:
        """Ask for the present state. Raises PurveyorError, and ValueError as `result` does."""
    def cancel(self, wait: Seconds | None = None, *, request_id: str | None = None) -> OperationStatus:
        """Ask the operation to stop and undo what it did. Raises FailedPreconditionError past its pivot.

        Raises ValueError where there is no operation: validate_only, or nothing to do."""

class SyncClient:
    """`with SyncClient("unix:/path", tenant="team-a") as client:`

    `address`: `unix:/path` or `host:port`; None = PURVEYOR_ADDRESS, else the socket of `purveyor serve --dev`. `timeout`,
    `retry_for`, `outage_limit`: seconds; see `connection.Limits`. `tls`: True for the authorities of the
    machine, False for a plain connection; None = PURVEYOR_TLS_*, else plain.
    `token`, `token_file`: who calls, sent over TLS, unix sockets and loopback alone; the file is read again when it changes;
    without both PURVEYOR_TOKEN, else PURVEYOR_TOKEN_FILE. Raises InvalidRequestError for a bad address."""
    @property
    def address(self) -> str: ...
    @property
    def tenant(self) -> str: ...
    def __init__(
        self,
        address: str | None = None,
        *,
        tenant: str = "default",
        tls: Tls | bool | None = None,
        token: str | None = None,
        token_file: str | PathLike[str] | None = None,
        timeout: Seconds = 30.0,
        retry_for: Seconds = 15.0,
        outage_limit: Seconds = 300.0,
    ) -> None: ...
    def catalog(self) -> Catalog:
        """What may be ordered."""
    def catalogs(self) -> BlockingIterator[Catalog]:
        """What may be ordered, and again whenever it has changed, over restarts of the broker; never ends by itself."""
    def provision(
        self,
        service: str,
        plan: str,
        *,
        instance_id: str | None = None,
        parameters: Mapping[str, JsonInput] | None = None,
        labels: Mapping[str, str] | None = None,
        context: Mapping[str, JsonInput] | None = None,
        maintenance_version: str | None = None,
        request_id: str | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> SyncOperationHandle[Instance]:
        """Order an instance; its operation is stored on the server before this returns.

        `service`, `plan`: id or name. `instance_id`: None = a fresh UUID. `wait`: seconds that the server may wait for the
        end before it answers. The same id with the same request again never makes a second instance.
        Raises NotFoundError (service, plan), InvalidRequestError, AlreadyExistsError, AbortedError and the common ones."""
    def update(
        self,
        instance_id: str,
        *,
        plan: str | None = None,
        parameters: Mapping[str, JsonInput] | None = None,
        labels: Mapping[str, str] | None = None,
        context: Mapping[str, JsonInput] | None = None,
        deletion_protected: bool | None = None,
        maintenance_version: str | None = None,
        etag: str = "",
        request_id: str | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> SyncOperationHandle[Instance]:
        """Change an instance; None means unchanged. `parameters` are merged at the top level, None removes a key; `labels`
        replace the old ones whole, `{}` clears them. `plan`: id or name."""
    def deprovision(
        self,
        instance_id: str,
        *,
        cascade: bool = False,
        allow_missing: bool = False,
        etag: str = "",
        request_id: str | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> SyncOperationHandle[Instance | None]:
        """Give an instance back. `cascade` unbinds its bindings first. The result is the tombstone, None if there was
        nothing (`allow_missing`) or the id is in use again."""
    def bind(
        self,
        instance_id: str,
        *,
        binding_id: str | None = None,
        parameters: Mapping[str, JsonInput] | None = None,
        labels: Mapping[str, str] | None = None,
        context: Mapping[str, JsonInput] | None = None,
        app_guid: str = "",
        ttl: Seconds | None = None,
        request_id: str | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> SyncOperationHandle[ActiveBinding]:
        """Make an access to an instance; the result carries its credentials.

        `binding_id`: None = a fresh UUID. `ttl`: seconds that the credentials shall work, enforced by the backend."""
    def unbind(
        self,
        instance_id: str,
        binding_id: str,
        *,
        allow_missing: bool = False,
        etag: str = "",
        request_id: str | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> SyncOperationHandle[Binding | None]:
        """Take a binding's access away, open sessions included. The result is its tombstone; None as in `deprovision`."""
    def instance(self, instance_id: str, *, show_deleted: bool = False) -> Instance:
        """One instance. Raises NotFoundError."""
    def instances(
        self, filter: str = "", *, show_deleted: bool = False, page_size: int = 0
    ) -> BlockingIterator[Instance]:
        """The tenant's instances, oldest first, fetched page by page. `filter`: see `ListInstancesRequest`."""
    def binding(self, instance_id: str, binding_id: str, *, show_deleted: bool = False) -> Binding:
        """One binding, without credentials. Raises NotFoundError."""
    def bindings(
        self, instance_id: str = "", filter: str = "", *, show_deleted: bool = False, page_size: int = 0
    ) -> BlockingIterator[Binding]:
        """The bindings of an instance, or of the whole tenant, oldest first, fetched page by page."""
    def credentials(self, instance_id: str, binding_id: str) -> Credentials:
        """The credentials of an ACTIVE binding. Raises NotFoundError, FailedPreconditionError when it has none."""
    def operation(self, operation_id: str, *, steps: bool = False) -> SyncOperationHandle[Instance | Binding | None]:
        """A handle on an operation that was started elsewhere or earlier; `handle.status` is its present state."""
    def operations(
        self, filter: str = "", *, steps: bool = False, page_size: int = 0
    ) -> BlockingIterator[OperationStatus]:
        """The tenant's operations, oldest first, fetched page by page. `filter`: see `ListOperationsRequest`."""
    def events(
        self,
        start: str = "now",
        *,
        kinds: Iterable[EventKind | str] = (),
        instance_id: str = "",
        place: str | PathLike[str] | EventPlace | None = None,
        follow: bool = True,
    ) -> BlockingIterator[Event]:
        """The changes of the tenant's instances, bindings and operations, each once and in order, over restarts of the broker.

        `start`: "now", "earliest", "snapshot" (what is there, a SYNCED event, then changes), or a resume token. `kinds`,
        `instance_id`: only these. `place`: a file, or an `EventPlace`, that keeps the place over restarts of the reader;
        `start` counts only while it is empty. Without `follow`, ends with what is there. Raises EventsLostError when the
        events behind the place are no longer kept."""
    def cancel(
        self,
        operation_id: str,
        *,
        etag: str = "",
        request_id: str | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> OperationStatus:
        """Ask an operation to stop and undo what it did. Raises FailedPreconditionError from its pivot on."""
    def sync_inventory(
        self,
        instance_ids: Iterable[str],
        *,
        snapshot_id: str | None = None,
        snapshot_time: datetime | None = None,
        validate_only: bool = False,
    ) -> InventoryOutcome:
        """Tell which instances there still are of those that this caller has ordered; the others become platform-orphans.

        `snapshot_time`: as of when (None: now); what was ordered later is not judged. Raises FailedPreconditionError
        (INVENTORY_REFUSED) for what looks like an accident: nothing is changed then."""
    def claim(self, instance_id: str, *, validate_only: bool = False) -> Instance:
        """Say of a platform-orphan that it is this caller's own after all. Raises NotFoundError, FailedPreconditionError."""
    def renew(
        self,
        instance_id: str,
        binding_id: str,
        *,
        expire_time: datetime | None = None,
        ttl: Seconds | None = None,
        allow_shorter: bool = False,
        etag: str = "",
        request_id: str | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> SyncOperationHandle[Binding]:
        """Move the end of a binding to `expire_time` (aware), or to `ttl` seconds from now; without both as the plan says.

        A binding that lasts as long already is left as it is, unless `allow_shorter`. Raises InvalidRequestError beyond
        the plan's max_ttl, FailedPreconditionError when it is not ACTIVE or has a successor, AbortedError."""
    def rotate(
        self,
        instance_id: str,
        binding_id: str,
        *,
        successor_id: str = "",
        ttl: Seconds | None = None,
        overlap: Seconds | None = None,
        etag: str = "",
        request_id: str | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> SyncOperationHandle[ActiveBinding]:
        """Make the successor of a binding; the result carries its credentials, the predecessor's work for `overlap` seconds.

        `successor_id`: empty = the server makes one. A binding that has a successor is answered with it. Raises
        FailedPreconditionError when it is not ACTIVE, its plan does not offer it or its own predecessor is still there."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def close(self) -> None:
        """Close the connection; calls in flight are cancelled here, never on the server."""

class SyncAdminClient:
    """`with SyncAdminClient("unix:/path/admin.sock") as admin:`

    `address`: as for `Client`; None = PURVEYOR_ADMIN_ADDRESS, else the admin socket of `purveyor serve --dev`. `tls`,
    `token`, `token_file`: as for `Client`."""
    @property
    def address(self) -> str: ...
    def __init__(
        self,
        address: str | None = None,
        *,
        tls: Tls | bool | None = None,
        token: str | None = None,
        token_file: str | PathLike[str] | None = None,
        timeout: Seconds = 30.0,
        retry_for: Seconds = 15.0,
    ) -> None: ...
    def status(self) -> BrokerStatus:
        """How the broker does."""
    def explain(self, operation_id: str) -> Explanation:
        """Why an operation does not move. Raises NotFoundError."""
    def freeze(self, name: str, reason: str, *, validate_only: bool = False) -> Freeze:
        """Stop `deletes`, `reaping`, `all` or `provider:NAME`; the freeze that holds now."""
    def thaw(self, name: str, reason: str, *, validate_only: bool = False) -> tuple[Freeze | None, int]:
        """Let go again: the freeze that was there, and how many operations go on."""
    def purge(
        self,
        tenant: str,
        instance_id: str,
        reason: str,
        *,
        binding_id: str = "",
        even_if_in_use: bool = False,
        validate_only: bool = False,
    ) -> Purged:
        """Forget an instance, or one binding of it, without touching any backend. Raises FailedPreconditionError (IN_USE)."""
    def edit_step(
        self, operation_id: str, step: str, mark: str, reason: str, *, validate_only: bool = False
    ) -> OperationStatus:
        """Declare a step `done` or `absent`. Raises FailedPreconditionError, AbortedError while somebody works on it."""
    def audit(
        self, *, filter: str = "", page_size: int = 0, oldest_first: bool = False
    ) -> BlockingIterator[AuditRecord]:
        """Who did what, newest first, fetched page by page. Fields of a filter: tenant, principal, action, resource, outcome,
        on_behalf, origin, request_id, call_id, act_time."""
    def verify_audit(self, anchors: Sequence[AuditAnchor] = ()) -> BlockingIterator[AuditVerification]:
        """Whether the audit records are those that were written; how far it is, `done` at its end. `anchors` were kept
        elsewhere: they find a store that was put back as it was before."""
    def set_log_level(self, level: str, reason: str, *, validate_only: bool = False) -> str:
        """Log more or less until the process ends; the level before."""
    def backup(self, file: str | Path) -> BackupInfo:
        """Write a copy of the store to `file` (0600), which must not exist. Raises FileExistsError, OSError."""
    def review_recovery(self) -> BlockingIterator[Difference]:
        """What differs after a restore, one by one. Raises FailedPreconditionError when there is no recovery."""
    def finish_recovery(self, reason: str, *, validate_only: bool = False) -> tuple[Recovery, int]:
        """End the recovery: what it was, and how many operations go on."""
    def keys(self) -> tuple[Key, ...]:
        """The labels of the keys that seal, and how many values each seals."""
    def rotate_keys(self, reason: str, *, validate_only: bool = False) -> BlockingIterator[KeyRotation]:
        """Seal everything with the key that is first in its source now; how far it is, `done` at its end.

        Broken off, it goes on where it was when it is called again. Raises FailedPreconditionError, AbortedError."""
    def retire_key(self, label: str, reason: str, *, validate_only: bool = False) -> bool:
        """Take a key with which nothing is sealed out of the key file; whether the broker did. Raises
        FailedPreconditionError (IN_USE)."""
    def quotas(self, tenant: str = "", *, page_size: int = 0) -> BlockingIterator[Quota]:
        """What tenants have and may have, or one: of each the whole, then its plans."""
    def set_quota(
        self,
        tenant: str,
        reason: str,
        *,
        service_id: str = "",
        plan_id: str = "",
        instances: int | None = None,
        bindings: int | None = None,
        bindings_per_instance: int | None = None,
        validate_only: bool = False,
    ) -> Quota:
        """Say how much a tenant, or a plan in it, may have, in the place of what was set before; -1 is no limit, and None
        leaves it to the settings."""
    def delete_quota(
        self, tenant: str, reason: str, *, service_id: str = "", plan_id: str = "", validate_only: bool = False
    ) -> tuple[Quota, bool]:
        """Take back what was set: what holds now, and whether there was anything."""
    def drain(self, reason: str, *, validate_only: bool = False) -> None:
        """Stop the broker as SIGTERM does; it answers before it is gone."""
    def create_token(
        self,
        name: str,
        roles: Sequence[str],
        reason: str,
        *,
        tenants: Sequence[str] = (),
        every_tenant: bool = False,
        ttl: Seconds | None = None,
        validate_only: bool = False,
    ) -> NewToken:
        """Make a static token; its text is in this answer and nowhere else. A call whose answer was lost
        leaves one that nobody can show: see `tokens`. Raises InvalidRequestError."""
    def tokens(self, *, page_size: int = 0) -> BlockingIterator[Token]:
        """Static tokens by id, revoked and expired ones too."""
    def revoke_token(self, token_id: str, reason: str, *, validate_only: bool = False) -> Token:
        """Take a static token back. Raises NotFoundError."""
    def adopt(
        self,
        tenant: str,
        instance_id: str,
        service_id: str,
        plan_id: str,
        source: Mapping[str, JsonInput],
        reason: str,
        *,
        parameters: Mapping[str, JsonInput] | None = None,
        labels: Mapping[str, str] | None = None,
        wait: Seconds | None = None,
        validate_only: bool = False,
    ) -> OperationStatus:
        """Bring an existing thing under management; `source` names it as the plan's provider wants it: {"database": "crm"}.

        Whatever fails, its data is never removed. Raises FailedPreconditionError (ADOPTION_REFUSED), ConflictError."""
    def validate_catalog(self, text: str) -> CatalogCheck:
        """Judge a text by all rules, those of the broker's providers included."""
    def diff_catalog(self, text: str, policies: Sequence[str] = ()) -> CatalogDiff:
        """What a text would change, and how dangerous that is. Raises InvalidRequestError."""
    def apply_catalog(
        self,
        text: str,
        reason: str,
        *,
        policies: Sequence[str] = (),
        expected_version: int = 0,
        request_id: str | None = None,
        validate_only: bool = False,
    ) -> AppliedCatalog:
        """Serve a catalog from now on; with `expected_version` only while that one is served.

        Raises FailedPreconditionError (CATALOG_REFUSED), AbortedError (another catalog is served), InvalidRequestError."""
    def catalog_history(self, *, page_size: int = 0) -> BlockingIterator[CatalogVersion]:
        """Which catalogs were applied, the newest first."""
    def catalog_text(self, version: int = 0) -> CatalogText:
        """One of them with its text; 0: the newest. Raises NotFoundError."""
    def create_campaign(
        self,
        service_id: str,
        from_plan_id: str,
        reason: str,
        *,
        to_plan_id: str = "",
        tenant: str = "",
        canary: int | None = None,
        batch_size: int = 0,
        parallelism: int | None = None,
        max_failures: int = 0,
        request_id: str = "",
    ) -> Campaign:
        """Move every instance of a plan to `to_plan_id`, or upgrade them all to its maintenance version.

        `canary` instances go first (None: one) and must all succeed; then batches of `batch_size` (0: one batch), at most
        `parallelism` at once (None: 4); it pauses itself when more than `max_failures` fail. Raises InvalidRequestError,
        NotFoundError, FailedPreconditionError."""
    def plan_campaign(
        self,
        service_id: str,
        from_plan_id: str,
        *,
        to_plan_id: str = "",
        tenant: str = "",
        canary: int | None = None,
        batch_size: int = 0,
        parallelism: int | None = None,
        max_failures: int = 0,
        page_size: int = 0,
    ) -> BlockingIterator[CampaignPlan]:
        """A dry run of `create_campaign`, page by page: what would become of each instance, and why."""
    def campaign(self, campaign_id: str) -> Campaign:
        """How far a campaign is, with the first of its failures. Raises NotFoundError."""
    def campaigns(self, *, page_size: int = 0) -> BlockingIterator[Campaign]:
        """Campaigns, the newest first."""
    def campaign_items(
        self, campaign_id: str, *, state: str = "", page_size: int = 0
    ) -> BlockingIterator[CampaignItem]:
        """What became of each instance; of one `state` (as in `CampaignItem`) or of all. Raises NotFoundError."""
    def pause_campaign(self, campaign_id: str, reason: str, *, validate_only: bool = False) -> Campaign:
        """Begin nothing more for now. Raises NotFoundError, FailedPreconditionError when it is over."""
    def resume_campaign(self, campaign_id: str, reason: str, *, validate_only: bool = False) -> Campaign:
        """Go on; failures until now are accepted. Raises NotFoundError, FailedPreconditionError when it is over."""
    def abort_campaign(self, campaign_id: str, reason: str, *, validate_only: bool = False) -> Campaign:
        """Begin nothing more, ever; nothing is taken back. Raises NotFoundError, FailedPreconditionError."""
    def retry_campaign(self, campaign_id: str, reason: str, *, validate_only: bool = False) -> tuple[Campaign, int]:
        """Try again what failed; how many. Raises NotFoundError, FailedPreconditionError."""
    def watch_campaign(self, campaign_id: str) -> BlockingIterator[Campaign]:
        """The campaign as it is, then as it becomes; ends when nothing of it runs any more. Raises NotFoundError."""
    def expiring_bindings(
        self, within: Seconds | None = None, *, tenant: str = "", blocked: bool = False, page_size: int = 0
    ) -> BlockingIterator[Binding]:
        """Bindings of every tenant, or of one, that end within so many seconds (None: a day), those that end first before
        others. `blocked`: instead those whose access could not be taken away, by their next attempt."""
    def force_revoke(
        self, tenant: str, instance_id: str, binding_id: str, reason: str, *, validate_only: bool = False
    ) -> ForceRevoked:
        """Give up a binding whose access cannot be taken away: it is DELETED, its login may still be there. Raises
        FailedPreconditionError unless it is REVOCATION_BLOCKED, AbortedError while somebody works on it."""
    def retry(
        self, operation_id: str, reason: str, *, request_id: str | None = None, validate_only: bool = False
    ) -> OperationStatus:
        """Go on from the failed step where its remains were kept, else begin anew; the operation that does. Raises
        FailedPreconditionError with what stands in the way."""
    def clean_up(self, operation_id: str, reason: str, *, validate_only: bool = False) -> OperationStatus:
        """Remove what a failed operation left behind, now; the CLEANUP operation. Raises FailedPreconditionError."""
    def abandon(self, operation_id: str, reason: str, *, validate_only: bool = False) -> Abandoned:
        """End an operation for good without touching any backend. Raises AbortedError while somebody works on it,
        FailedPreconditionError when it has ended otherwise."""
    def orphans(
        self, provider: str = "", *, states: Sequence[str] = (), page_size: int = 0
    ) -> BlockingIterator[Orphan]:
        """What sweeps have seen and no record stands for, of one provider or of all; without `states` what has not ended.

        Raises InvalidRequestError for an unknown state."""
    def sweep(self, provider: str, reason: str, *, validate_only: bool = False) -> BlockingIterator[InventoryStatus]:
        """Compare the backend of a provider with the records now, and do what its policy says; how far it is, the last one
        at its end. Raises FailedPreconditionError."""
    def quarantine_orphan(
        self, provider: str, kind: str, name: str, reason: str, *, validate_only: bool = False
    ) -> Orphan:
        """Make a thing unusable, and keep it; see `failure`. Raises NotFoundError, FailedPreconditionError (IN_USE)."""
    def release_orphan(
        self, provider: str, kind: str, name: str, reason: str, *, validate_only: bool = False
    ) -> Orphan:
        """Take a quarantine back; sweeps leave it alone from then on. Raises NotFoundError, FailedPreconditionError."""
    def reap_orphan(self, provider: str, kind: str, name: str, reason: str, *, validate_only: bool = False) -> Orphan:
        """Remove a thing for good; see `failure`. Raises NotFoundError, FailedPreconditionError (IN_USE)."""
    def ignore_orphan(
        self, provider: str, kind: str, name: str, reason: str, *, undo: bool = False, validate_only: bool = False
    ) -> Orphan:
        """Have sweeps leave a thing alone, or with `undo` not any more. Raises NotFoundError, FailedPreconditionError."""
    def resume_sweep(
        self, provider: str, reason: str, *, validate_only: bool = False
    ) -> tuple[InventoryStatus | None, bool]:
        """Have the sweeps of a provider go on after a brake; how they are, and whether they had been stopped."""
    def rebuild_report(self) -> BlockingIterator[RebuildLine]:
        """What the markers in the backends say that the store should hold, and records of which no backend has anything."""
    def drift(self, *, page_size: int = 0) -> BlockingIterator[DriftReport]:
        """Instances of every tenant whose backend is not what their record says, or cannot be asked."""
    def look(self, tenant: str, instance_id: str, reason: str, *, validate_only: bool = False) -> DriftReport:
        """Look at the backend of an instance now. Raises NotFoundError, FailedPreconditionError, ConflictError."""
    def pause(self, tenant: str, instance_id: str, reason: str, *, validate_only: bool = False) -> Instance:
        """Leave an instance alone: the broker does nothing to it by itself. Raises NotFoundError."""
    def resume(self, tenant: str, instance_id: str, reason: str, *, validate_only: bool = False) -> Instance:
        """Look after an instance again. Raises NotFoundError."""
    def repair(
        self, tenant: str, instance_id: str, reason: str, *, wait: Seconds | None = None, validate_only: bool = False
    ) -> OperationStatus:
        """Make every part of an instance again as it was applied; data that is gone is not brought back.

        Raises NotFoundError, ConflictError, FailedPreconditionError."""
    def platform_orphans(self, *, page_size: int = 0) -> BlockingIterator[PlatformOrphan]:
        """Instances of every tenant that their platforms no longer name."""
    def rotate_root(self, provider: str, reason: str, *, validate_only: bool = False) -> RotatedRoots:
        """Rotate them in a provider's backend. Raises FailedPreconditionError, with what to do, where that is done outside."""
    def __enter__(self) -> Self: ...
    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None: ...
    def close(self) -> None:
        """Close the connection; calls in flight are cancelled here, never on the server."""
