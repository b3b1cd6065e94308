"""Operators' values as messages."""

from __future__ import annotations

from collections import Counter

from purveyor.v1 import admin_service_pb2 as pb
from purveyor.v1 import campaign_pb2, catalog_admin_pb2, drift_pb2, lease_pb2, remains_pb2, roots_pb2
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.principal import Role
from purveyor_server.domain.recovery import Recovery
from purveyor_server.domain.states import Waiting
from purveyor_server.domain.tokens import Token
from purveyor_server.lifecycle.admin.contract import (
    Act,
    Cause,
    Difference,
    KeyReport,
    Mark,
    ProviderReport,
    Report,
    Rotation,
)
from purveyor_server.lifecycle.admin.leasing import Expiring
from purveyor_server.lifecycle.admin.tokens import TokenWish
from purveyor_server.rpc.convert.catalogs import encode_refused
from purveyor_server.rpc.convert.enums import ROLES, WAITINGS
from purveyor_server.rpc.convert.orphans import encode_inventory
from purveyor_server.rpc.convert.values import from_duration, to_duration, to_timestamp

HEALTHS = {
    name.removeprefix("STATE_"): number for name, number in pb.ProviderStatus.State.items() if number
}  # names of providers.inspection.Health
DIFFERENCES = {name.removeprefix("KIND_"): number for name, number in pb.ReviewRecoveryResponse.Kind.items() if number}
MARKS = {number: Mark(name.removeprefix("MARK_")) for name, number in pb.EditStepRequest.Mark.items() if number}

Acting = (
    pb.FreezeRequest
    | pb.ThawRequest
    | pb.PurgeInstanceRequest
    | pb.PurgeBindingRequest
    | lease_pb2.ForceRevokeBindingRequest
    | pb.EditStepRequest
    | remains_pb2.RetryOperationRequest
    | remains_pb2.CleanUpOperationRequest
    | remains_pb2.AbandonOperationRequest
    | pb.SetLogLevelRequest
    | pb.FinishRecoveryRequest
    | pb.RotateKeysRequest
    | pb.RetireKeyRequest
    | pb.CreateTokenRequest
    | pb.RevokeTokenRequest
    | pb.SetQuotaRequest
    | pb.DeleteQuotaRequest
    | campaign_pb2.CreateCampaignRequest
    | campaign_pb2.PauseCampaignRequest
    | campaign_pb2.ResumeCampaignRequest
    | campaign_pb2.AbortCampaignRequest
    | campaign_pb2.RetryCampaignRequest
    | pb.DrainRequest
    | roots_pb2.RotateRootCredentialsRequest
    | drift_pb2.ObserveInstanceRequest
    | drift_pb2.PauseReconciliationRequest
    | drift_pb2.ResumeReconciliationRequest
    | catalog_admin_pb2.ApplyCatalogRequest
)
_ROLES = {number: str(role) for role, number in ROLES.items()}


def decode_act(request: Acting) -> Act:
    """What every act carries."""
    return Act(reason=request.reason, request_id=request.request_id, validate_only=request.validate_only)


def decode_expiring(request: lease_pb2.ListExpiringBindingsRequest) -> Expiring:
    """Which bindings are asked for."""
    return Expiring(
        tenant=request.tenant,
        within=from_duration(request, "within"),
        blocked=request.revocation_blocked,
        page_size=request.page_size,
        page_token=request.page_token,
    )


def encode_freeze(freeze: Freeze) -> pb.Freeze:
    """A freeze."""
    return pb.Freeze(
        name=freeze.name, reason=freeze.reason, principal=freeze.principal, set_time=to_timestamp(freeze.at)
    )


def encode_recovery(recovery: Recovery | None) -> pb.Recovery | None:
    """A recovery; None stays absent."""
    if recovery is None:
        return None
    return pb.Recovery(
        backup_time=to_timestamp(recovery.taken_at),
        restore_time=to_timestamp(recovery.restored_at),
        backup_revision=recovery.revision,
    )


def encode_report(report: Report) -> pb.GetStatusResponse:
    """The status."""
    facts = report.facts
    oldest = facts.oldest
    waiting: Counter[Waiting] = Counter()
    for queue in facts.queues:
        waiting[queue.waiting] += queue.operations
    return pb.GetStatusResponse(
        version=report.version,
        store_id=report.store_id,
        epoch=report.epoch,
        head_revision=facts.head,
        earliest_revision=facts.earliest,
        start_time=to_timestamp(report.started_at),
        pending=facts.pending,
        parked=facts.parked,
        waiting=[
            pb.WaitingCount(reason=WAITINGS[reason], operations=count)  # type: ignore[arg-type] # enums are ints to protobuf
            for reason, count in sorted(waiting.items())
            if reason in WAITINGS
        ],
        oldest_unfinished_age=to_duration(report.at - oldest.oldest_at) if oldest is not None else None,
        oldest_unfinished_operation_id=oldest.oldest_id if oldest is not None else "",
        cleanup_required=facts.cleanups,
        providers=[_provider(provider) for provider in report.providers],
        freezes=[encode_freeze(freeze) for freeze in report.freezes],
        store_bytes=facts.store_bytes,
        disk_free_bytes=facts.free_bytes,
        disk_low_water_bytes=facts.low_water_bytes,
        disk_low=facts.free_bytes < facts.low_water_bytes,
        recovery=encode_recovery(report.recovery),
        catalog_version=report.catalog_version,
        log_level=report.log_level,
        stuck=report.stuck,
        remains_kept=facts.held,
        inventories=[encode_inventory(inventory) for inventory in report.inventories],
        catalog_refusal=encode_refused(report.catalog_refused),
    )


def _provider(report: ProviderReport) -> pb.ProviderStatus:
    return pb.ProviderStatus(
        name=report.ref.name,
        kind=report.ref.kind,
        state=HEALTHS[report.health],
        problem=report.problem,
        running=report.running,
    )


def encode_cause(cause: Cause) -> pb.Cause:
    """A cause."""
    until = to_timestamp(cause.until) if cause.until is not None else None
    return pb.Cause(code=cause.code, sentence=cause.sentence, until=until, operation_id=cause.operation_id)


def encode_difference(difference: Difference) -> pb.ReviewRecoveryResponse:
    """A difference."""
    return pb.ReviewRecoveryResponse(
        kind=DIFFERENCES[difference.kind],
        provider=difference.provider,
        resource=difference.resource,
        sentence=difference.sentence,
        tenant=difference.tenant,
        instance_id=difference.instance_id,
        operation_id=difference.operation_id,
    )


def encode_key(key: KeyReport) -> pb.Key:
    """A key, by its label."""
    return pb.Key(label=key.label, values=key.values, primary=key.primary, present=key.present)


def encode_rotation(rotation: Rotation) -> pb.RotateKeysResponse:
    """How far a rotation is."""
    return pb.RotateKeysResponse(
        label=rotation.label,
        checked=rotation.checked,
        resealed=rotation.resealed,
        unreadable=rotation.unreadable,
        done=rotation.done,
    )


def decode_wish(request: pb.CreateTokenRequest) -> TokenWish:
    """What a token shall be; a role that is not known here is its number, which no check takes."""
    return TokenWish(
        name=request.name,
        roles=tuple(_ROLES.get(number, str(number)) for number in request.roles),
        tenants=tuple(request.tenants),
        every_tenant=request.every_tenant,
        ttl=from_duration(request, "ttl"),
    )


def encode_token(token: Token) -> pb.Token:
    """A static token, without its hash."""
    return pb.Token(
        token_id=token.token_id,
        name=token.name,
        roles=sorted(ROLES[Role(role)] for role in token.roles),  # type: ignore[misc] # enums are ints to protobuf
        tenants=sorted(token.tenants or ()),
        every_tenant=token.tenants is None,
        create_time=to_timestamp(token.created_at),
        creator=token.created_by,
        expire_time=to_timestamp(token.expires_at),
        use_time=to_timestamp(token.used_at),
        revoke_time=to_timestamp(token.revoked_at),
    )
