"""AdminService: decode, one use-case, encode. Served on the admin listener alone.

Guarantee: no rule of the business lives here; a backup is sent in parts that the client's reading paces.
"""

# ruff: noqa: ARG002 - grpc hands a context to every handler; what they need of it is in the call

from __future__ import annotations

import asyncio
import hashlib
from contextlib import aclosing
from typing import Any

from purveyor.v1 import admin_service_pb2 as pb
from purveyor.v1 import adopt_pb2, drift_pb2, inventory_pb2, lease_pb2, remains_pb2
from purveyor_server.lifecycle.admin.administration import Administration
from purveyor_server.lifecycle.admin.purging import Aim
from purveyor_server.lifecycle.contract import Outcome
from purveyor_server.rpc.admin_campaigns import CampaignMethods
from purveyor_server.rpc.calls import current_call, current_caller
from purveyor_server.rpc.catalogs import CatalogCalls
from purveyor_server.rpc.convert import admin as convert
from purveyor_server.rpc.convert import audit, quotas
from purveyor_server.rpc.convert.adopt import decode_adopt
from purveyor_server.rpc.convert.binding import encode_binding
from purveyor_server.rpc.convert.drift import decode_repair, encode_drifted
from purveyor_server.rpc.convert.instance import encode_instance
from purveyor_server.rpc.convert.inventory import encode_stranded
from purveyor_server.rpc.convert.operation import encode_operation
from purveyor_server.rpc.convert.values import to_timestamp
from purveyor_server.rpc.orphans import OrphanMethods
from purveyor_server.rpc.roots import RootMethods

CHUNK_BYTES = 256 * 1024


class AdminService(RootMethods, CatalogCalls, CampaignMethods, OrphanMethods):  # type: ignore[misc] # as WatchOperation of BrokerService
    """The service of operators."""

    def __init__(self, administration: Administration) -> None:
        self._admin = administration

    async def GetStatus(self, request: pb.GetStatusRequest, context: Any) -> pb.GetStatusResponse:
        return convert.encode_report(await self._admin.status(current_caller()))

    async def ExplainOperation(self, request: pb.ExplainOperationRequest, context: Any) -> pb.ExplainOperationResponse:
        found, causes = await self._admin.explain(current_caller(), request.operation_id)
        operation = encode_operation(found.operation, found.steps, for_operator=True)
        return pb.ExplainOperationResponse(operation=operation, causes=[convert.encode_cause(c) for c in causes])

    async def Freeze(self, request: pb.FreezeRequest, context: Any) -> pb.FreezeResponse:
        freeze = await self._admin.freeze(current_caller(), request.name, convert.decode_act(request))
        return pb.FreezeResponse(freeze=convert.encode_freeze(freeze))

    async def Thaw(self, request: pb.ThawRequest, context: Any) -> pb.ThawResponse:
        freeze, operations = await self._admin.thaw(current_caller(), request.name, convert.decode_act(request))
        thawed = None if freeze is None else convert.encode_freeze(freeze)
        return pb.ThawResponse(freeze=thawed, operations=operations)

    async def PurgeInstance(self, request: pb.PurgeInstanceRequest, context: Any) -> pb.PurgeInstanceResponse:
        aim = Aim(request.tenant, request.instance_id, even_if_in_use=request.even_if_in_use)
        purged = await self._admin.purge(current_caller(), aim, convert.decode_act(request))
        return pb.PurgeInstanceResponse(
            instance=encode_instance(purged.instance),
            left_behind=purged.left_behind,
            ended_operation_ids=purged.ended,
        )

    async def PurgeBinding(self, request: pb.PurgeBindingRequest, context: Any) -> pb.PurgeBindingResponse:
        aim = Aim(request.tenant, request.instance_id, request.binding_id, request.even_if_in_use)
        purged = await self._admin.purge(current_caller(), aim, convert.decode_act(request))
        return pb.PurgeBindingResponse(
            binding=None if purged.binding is None else encode_binding(purged.binding),
            left_behind=purged.left_behind,
            ended_operation_ids=purged.ended,
        )

    async def ListExpiringBindings(
        self, request: lease_pb2.ListExpiringBindingsRequest, context: Any
    ) -> lease_pb2.ListExpiringBindingsResponse:
        page = await self._admin.list_expiring(current_caller(), convert.decode_expiring(request))
        bindings = [encode_binding(binding) for binding in page.items]
        return lease_pb2.ListExpiringBindingsResponse(bindings=bindings, next_page_token=page.next_page_token)

    async def ForceRevokeBinding(
        self, request: lease_pb2.ForceRevokeBindingRequest, context: Any
    ) -> lease_pb2.ForceRevokeBindingResponse:
        aim = Aim(request.tenant, request.instance_id, request.binding_id, even_if_in_use=True, parked=True)
        given_up = await self._admin.purge(current_caller(), aim, convert.decode_act(request))
        binding = given_up.binding
        return lease_pb2.ForceRevokeBindingResponse(
            binding=None if binding is None else encode_binding(binding),
            left_behind=given_up.left_behind,
            ended_operation_ids=given_up.ended,
            access_until=None if binding is None else to_timestamp(binding.expires_at),
        )

    async def EditStep(self, request: pb.EditStepRequest, context: Any) -> pb.EditStepResponse:
        found = await self._admin.edit_step(
            current_caller(),
            request.operation_id,
            request.step,
            convert.MARKS.get(request.mark),
            convert.decode_act(request),
        )
        return pb.EditStepResponse(operation=encode_operation(found.operation, found.steps, for_operator=True))

    async def RetryOperation(
        self, request: remains_pb2.RetryOperationRequest, context: Any
    ) -> remains_pb2.RetryOperationResponse:
        act = convert.decode_act(request)
        operation = await self._admin.retry(current_caller(), request.operation_id, act)
        return remains_pb2.RetryOperationResponse(operation=encode_operation(operation, for_operator=True))

    async def CleanUpOperation(
        self, request: remains_pb2.CleanUpOperationRequest, context: Any
    ) -> remains_pb2.CleanUpOperationResponse:
        act = convert.decode_act(request)
        operation = await self._admin.clean_up(current_caller(), request.operation_id, act)
        return remains_pb2.CleanUpOperationResponse(operation=encode_operation(operation, for_operator=True))

    async def AbandonOperation(
        self, request: remains_pb2.AbandonOperationRequest, context: Any
    ) -> remains_pb2.AbandonOperationResponse:
        act = convert.decode_act(request)
        found = await self._admin.abandon(current_caller(), request.operation_id, act)
        operation = encode_operation(found.operation, for_operator=True)
        return remains_pb2.AbandonOperationResponse(operation=operation, left_behind=found.left_behind)

    async def ListAuditRecords(self, request: pb.ListAuditRecordsRequest, context: Any) -> pb.ListAuditRecordsResponse:
        page = await self._admin.audit(current_caller(), audit.decode_listing(request))
        records = [audit.encode_record(found) for found in page.items]
        return pb.ListAuditRecordsResponse(records=records, next_page_token=page.next_page_token)

    async def VerifyAudit(  # type: ignore[override] # as WatchOperation of BrokerService
        self, request: pb.VerifyAuditRequest, context: Any
    ) -> None:
        call = current_call()
        verifying = self._admin.verify_audit(current_caller(), audit.decode_anchors(request))
        async with aclosing(verifying) as told:  # type: ignore[type-var] # a generator behind an iterator's type
            async for verification in told:
                await call.write(audit.encode_verification(verification))

    async def SetLogLevel(self, request: pb.SetLogLevelRequest, context: Any) -> pb.SetLogLevelResponse:
        before = await self._admin.set_log_level(current_caller(), request.level, convert.decode_act(request))
        return pb.SetLogLevelResponse(previous_level=before)

    async def Backup(  # type: ignore[override] # as WatchOperation of BrokerService
        self, request: pb.BackupRequest, context: Any
    ) -> None:
        call, digest = current_call(), hashlib.sha256()
        async with self._admin.backup(current_caller()) as made:
            with made.path.open("rb") as file:
                size = made.path.stat().st_size
                taken = to_timestamp(made.copied.taken_at)
                await call.write(pb.BackupResponse(total_bytes=size, backup_time=taken, revision=made.copied.revision))
                while chunk := await asyncio.to_thread(file.read, CHUNK_BYTES):
                    digest.update(chunk)
                    await call.write(pb.BackupResponse(chunk=chunk))
        await call.write(pb.BackupResponse(sha256=digest.hexdigest()))

    async def ReviewRecovery(  # type: ignore[override] # as above
        self, request: pb.ReviewRecoveryRequest, context: Any
    ) -> None:
        call = current_call()
        async with aclosing(self._admin.review_recovery(current_caller())) as found:  # type: ignore[type-var] # a generator behind an iterator's type
            async for difference in found:
                await call.write(convert.encode_difference(difference))

    async def FinishRecovery(self, request: pb.FinishRecoveryRequest, context: Any) -> pb.FinishRecoveryResponse:
        recovery, operations = await self._admin.finish_recovery(current_caller(), convert.decode_act(request))
        return pb.FinishRecoveryResponse(recovery=convert.encode_recovery(recovery), operations=operations)

    async def ListKeys(self, request: pb.ListKeysRequest, context: Any) -> pb.ListKeysResponse:
        found = await self._admin.list_keys(current_caller())
        return pb.ListKeysResponse(keys=[convert.encode_key(key) for key in found])

    async def RotateKeys(  # type: ignore[override] # as above
        self, request: pb.RotateKeysRequest, context: Any
    ) -> None:
        call = current_call()
        rotating = self._admin.rotate_keys(current_caller(), convert.decode_act(request))
        async with aclosing(rotating) as told:  # type: ignore[type-var] # as above
            async for rotation in told:
                await call.write(convert.encode_rotation(rotation))

    async def RetireKey(self, request: pb.RetireKeyRequest, context: Any) -> pb.RetireKeyResponse:
        act = convert.decode_act(request)
        return pb.RetireKeyResponse(removed=await self._admin.retire_key(current_caller(), request.label, act))

    async def CreateToken(self, request: pb.CreateTokenRequest, context: Any) -> pb.CreateTokenResponse:
        wish, act = convert.decode_wish(request), convert.decode_act(request)
        made = await self._admin.create_token(current_caller(), wish, act)
        text = made.text.reveal() if made.text is not None else ""
        return pb.CreateTokenResponse(token=convert.encode_token(made.token), text=text)

    async def ListTokens(self, request: pb.ListTokensRequest, context: Any) -> pb.ListTokensResponse:
        page = await self._admin.list_tokens(current_caller(), request.page_size, request.page_token)
        tokens = [convert.encode_token(token) for token in page.items]
        return pb.ListTokensResponse(tokens=tokens, next_page_token=page.next_page_token)

    async def RevokeToken(self, request: pb.RevokeTokenRequest, context: Any) -> pb.RevokeTokenResponse:
        act = convert.decode_act(request)
        token = await self._admin.revoke_token(current_caller(), request.token_id, act)
        return pb.RevokeTokenResponse(token=convert.encode_token(token))

    async def ListQuotas(self, request: pb.ListQuotasRequest, context: Any) -> pb.ListQuotasResponse:
        page = await self._admin.list_quotas(current_caller(), request.tenant, request.page_size, request.page_token)
        found = [quotas.encode_quota(report) for report in page.items]
        return pb.ListQuotasResponse(quotas=found, next_page_token=page.next_page_token)

    async def SetQuota(self, request: pb.SetQuotaRequest, context: Any) -> pb.SetQuotaResponse:
        plan, limits = quotas.decode_plan(request), quotas.decode_limits(request.limits)
        act = convert.decode_act(request)
        report = await self._admin.set_quota(current_caller(), request.tenant, plan, limits, act)
        return pb.SetQuotaResponse(quota=quotas.encode_quota(report))

    async def DeleteQuota(self, request: pb.DeleteQuotaRequest, context: Any) -> pb.DeleteQuotaResponse:
        plan, act = quotas.decode_plan(request), convert.decode_act(request)
        report, removed = await self._admin.delete_quota(current_caller(), request.tenant, plan, act)
        return pb.DeleteQuotaResponse(quota=quotas.encode_quota(report), removed=removed)

    async def Drain(self, request: pb.DrainRequest, context: Any) -> pb.DrainResponse:
        await self._admin.drain(current_caller(), convert.decode_act(request))
        return pb.DrainResponse()

    async def ObserveInstance(
        self, request: drift_pb2.ObserveInstanceRequest, context: Any
    ) -> drift_pb2.ObserveInstanceResponse:
        act = convert.decode_act(request)
        found = await self._admin.observe_instance(current_caller(), request.tenant, request.instance_id, act)
        return drift_pb2.ObserveInstanceResponse(report=encode_drifted(found))

    async def ListDrift(self, request: drift_pb2.ListDriftRequest, context: Any) -> drift_pb2.ListDriftResponse:
        page = await self._admin.list_drift(current_caller(), request.page_size, request.page_token)
        reports = [encode_drifted(found) for found in page.items]
        return drift_pb2.ListDriftResponse(reports=reports, next_page_token=page.next_page_token)

    async def PauseReconciliation(
        self, request: drift_pb2.PauseReconciliationRequest, context: Any
    ) -> drift_pb2.PauseReconciliationResponse:
        act = convert.decode_act(request)
        found = await self._admin.pause(current_caller(), request.tenant, request.instance_id, act)
        return drift_pb2.PauseReconciliationResponse(instance=encode_instance(found))

    async def ResumeReconciliation(
        self, request: drift_pb2.ResumeReconciliationRequest, context: Any
    ) -> drift_pb2.ResumeReconciliationResponse:
        act = convert.decode_act(request)
        found = await self._admin.resume(current_caller(), request.tenant, request.instance_id, act)
        return drift_pb2.ResumeReconciliationResponse(instance=encode_instance(found))

    async def AdoptInstance(
        self, request: adopt_pb2.AdoptInstanceRequest, context: Any
    ) -> adopt_pb2.AdoptInstanceResponse:
        outcome = await self._admin.adopt(current_caller(), decode_adopt(request))
        return adopt_pb2.AdoptInstanceResponse(**_outcome(outcome))

    async def RepairInstance(
        self, request: drift_pb2.RepairInstanceRequest, context: Any
    ) -> drift_pb2.RepairInstanceResponse:
        outcome = await self._admin.repair(current_caller(), decode_repair(request))
        return drift_pb2.RepairInstanceResponse(**_outcome(outcome))

    async def ListPlatformOrphans(
        self, request: inventory_pb2.ListPlatformOrphansRequest, context: Any
    ) -> inventory_pb2.ListPlatformOrphansResponse:
        page = await self._admin.list_platform_orphans(current_caller(), request.page_size, request.page_token)
        found = [encode_stranded(one) for one in page.items]
        return inventory_pb2.ListPlatformOrphansResponse(orphans=found, next_page_token=page.next_page_token)


def _outcome(outcome: Outcome) -> dict[str, Any]:
    """The parts of an answer to an order for an instance."""
    operation = outcome.operation
    encoded = None if operation is None else encode_operation(operation, planned=outcome.planned, for_operator=True)
    instance = None if outcome.instance is None else encode_instance(outcome.instance, encoded)
    return {"operation": encoded, "replayed": outcome.replayed, "instance": instance}
