"""The asyncio client of operators.

Guarantee: as `purveyor.client`; every change needs a reason in words and may be sent again. A backup is written beside its
file, checked against the broker's checksum, and put in place whole.
Limit: the admin listener is a unix socket of its own by default.
"""

from __future__ import annotations

import errno
import hashlib
import os
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar
from uuid import uuid4

import grpc.aio

from purveyor import addresses, admin_decode, auditing, decode, encode, token_words
from purveyor.admin_values import (
    AuditAnchor,
    AuditRecord,
    AuditVerification,
    BackupInfo,
    BrokerStatus,
    Cause,
    Difference,
    Explanation,
    Freeze,
    Key,
    KeyRotation,
    NewToken,
    Purged,
    Quota,
    Recovery,
    Token,
)
from purveyor.adopting import AdoptCalls
from purveyor.campaigning import CampaignCalls
from purveyor.catalog_admin import CatalogAdmin
from purveyor.connection import Limits
from purveyor.drifting import DriftCalls
from purveyor.errors import PurveyorError
from purveyor.failures import from_rpc
from purveyor.inventories import PlatformOrphanCalls
from purveyor.leasing import LeaseOversight
from purveyor.opened import OpenedClient
from purveyor.orphans import OrphanCalls
from purveyor.pages import walk
from purveyor.remains import RemainsCalls
from purveyor.rooting import RootCalls
from purveyor.v1 import admin_service_pb2 as messages
from purveyor.v1.admin_service_pb2_grpc import AdminServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator, AsyncIterator, Sequence
    from os import PathLike

    from purveyor.tls import Tls
    from purveyor.values import OperationStatus, Seconds

Part = TypeVar("Part")
REVIEW_SECONDS = 3600.0  # the longest review or backup


class AdminClient(
    AdoptCalls,
    CatalogAdmin,
    CampaignCalls,
    LeaseOversight,
    RemainsCalls,
    OrphanCalls,
    DriftCalls,
    PlatformOrphanCalls,
    RootCalls,
    OpenedClient,
):
    """`async with AdminClient("unix:/path/admin.sock") as admin:`

    `address`: as for `Client`; None = PURVEYOR_ADMIN_ADDRESS, else the admin socket of `purveyor serve --dev`. `tls`,
    `token`, `token_file`: as for `Client`.
    """

    address: str
    _opening = "async with AdminClient(...) as admin:"

    def __init__(
        self,
        address: str | None = None,
        *,
        tls: Tls | bool | None = None,
        token: str | None = None,
        token_file: str | PathLike[str] | None = None,
        timeout: Seconds = 30.0,
        retry_for: Seconds = 15.0,
    ) -> None:
        limits = Limits(
            call=encode.seconds("timeout", timeout) or 0.0, retry=encode.seconds("retry_for", retry_for) or 0.0
        )
        super().__init__(addresses.resolve_admin(address), limits, tls, token, token_file)

    @property
    def _stub(self) -> AdminServiceStub:
        return AdminServiceStub(self.connection.channel)

    async def status(self) -> BrokerStatus:
        """How the broker does."""
        return admin_decode.status(await self.connection.call(self._stub.GetStatus, messages.GetStatusRequest()))

    async def explain(self, operation_id: str) -> Explanation:
        """Why an operation does not move. Raises NotFoundError."""
        request = messages.ExplainOperationRequest(operation_id=operation_id)
        answer = await self.connection.call(self._stub.ExplainOperation, request)
        causes = tuple(
            Cause(
                code=cause.code,
                sentence=cause.sentence,
                until=decode.time_of(cause.until),
                operation_id=cause.operation_id,
            )
            for cause in answer.causes
        )
        return Explanation(operation=decode.operation(answer.operation), causes=causes)

    async def freeze(self, name: str, reason: str, *, validate_only: bool = False) -> Freeze:
        """Stop `deletes`, `reaping`, `all` or `provider:NAME`; the freeze that holds now."""
        request = messages.FreezeRequest(name=name, reason=reason, request_id=str(uuid4()), validate_only=validate_only)
        return admin_decode.freeze((await self.connection.call(self._stub.Freeze, request)).freeze)

    async def thaw(self, name: str, reason: str, *, validate_only: bool = False) -> tuple[Freeze | None, int]:
        """Let go again: the freeze that was there, and how many operations go on."""
        request = messages.ThawRequest(name=name, reason=reason, request_id=str(uuid4()), validate_only=validate_only)
        answer = await self.connection.call(self._stub.Thaw, request)
        return admin_decode.freeze(answer.freeze) if answer.HasField("freeze") else None, answer.operations

    async def purge(
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
        if binding_id:
            binding = messages.PurgeBindingRequest(
                tenant=tenant, instance_id=instance_id, binding_id=binding_id, reason=reason,
                even_if_in_use=even_if_in_use, request_id=str(uuid4()), validate_only=validate_only,
            )  # fmt: skip
            unbound = await self.connection.call(self._stub.PurgeBinding, binding)
            return admin_decode.purged(f"binding {instance_id} / {binding_id}", unbound)
        request = messages.PurgeInstanceRequest(
            tenant=tenant, instance_id=instance_id, reason=reason, even_if_in_use=even_if_in_use,
            request_id=str(uuid4()), validate_only=validate_only,
        )  # fmt: skip
        forgotten = await self.connection.call(self._stub.PurgeInstance, request)
        return admin_decode.purged(f"instance {instance_id}", forgotten)

    async def edit_step(
        self, operation_id: str, step: str, mark: str, reason: str, *, validate_only: bool = False
    ) -> OperationStatus:
        """Declare a step `done` or `absent`. Raises FailedPreconditionError, AbortedError while somebody works on it."""
        request = messages.EditStepRequest(
            operation_id=operation_id,
            step=step,
            mark=messages.EditStepRequest.Mark.Value(f"MARK_{mark.upper()}"),
            reason=reason,
            request_id=str(uuid4()),
            validate_only=validate_only,
        )
        return decode.operation((await self.connection.call(self._stub.EditStep, request)).operation)

    async def audit(
        self,
        *,
        filter: str = "",  # noqa: A002 - the contract's word
        page_size: int = 0,
        oldest_first: bool = False,
    ) -> AsyncIterator[AuditRecord]:
        """Who did what, newest first, fetched page by page. Fields of a filter: tenant, principal, action, resource, outcome,
        on_behalf, origin, request_id, call_id, act_time."""
        request = messages.ListAuditRecordsRequest(page_size=page_size, filter=filter, oldest_first=oldest_first)
        async for page in walk(self.connection, self._stub.ListAuditRecords, request):
            for record in page.records:
                yield auditing.record_of(record)

    async def verify_audit(self, anchors: Sequence[AuditAnchor] = ()) -> AsyncIterator[AuditVerification]:
        """Whether the audit records are those that were written; how far it is, `done` at its end. `anchors` were kept
        elsewhere: they find a store that was put back as it was before."""
        kept = [messages.AuditAnchor(number=anchor.number, chain=bytes.fromhex(anchor.chain)) for anchor in anchors]
        request = messages.VerifyAuditRequest(anchors=kept)
        async with aclosing(self._stream(self._stub.VerifyAudit(request, timeout=REVIEW_SECONDS))) as told:
            async for part in told:
                yield auditing.verification_of(part)

    async def set_log_level(self, level: str, reason: str, *, validate_only: bool = False) -> str:
        """Log more or less until the process ends; the level before."""
        request = messages.SetLogLevelRequest(
            level=level, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        return (await self.connection.call(self._stub.SetLogLevel, request)).previous_level

    async def backup(self, file: str | Path) -> BackupInfo:
        """Write a copy of the store to `file` (0600), which must not exist. Raises FileExistsError, OSError."""
        target = Path(file)
        if os.path.lexists(target):  # noqa: ASYNC240 - one system call
            raise FileExistsError(errno.EEXIST, "exists already, and a backup overwrites nothing", str(target))
        draft = target.with_name(f".{target.name}.{uuid4().hex}")
        try:
            info = await self._receive(target, draft)
            os.link(draft, target)  # as a rename, and refuses a file that came meanwhile
        finally:
            draft.unlink(missing_ok=True)
        return info

    async def _receive(self, target: Path, draft: Path) -> BackupInfo:
        digest, first, claimed, size = hashlib.sha256(), None, "", 0
        descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        with os.fdopen(descriptor, "wb") as stream:
            async for part in self._stream(self._stub.Backup(messages.BackupRequest(), timeout=REVIEW_SECONDS)):
                first = first or part
                digest.update(part.chunk)
                stream.write(part.chunk)
                size += len(part.chunk)
                claimed = part.sha256 or claimed
            stream.flush()
            os.fsync(descriptor)
        if first is None or claimed != digest.hexdigest() or size != first.total_bytes:
            raise PurveyorError("the backup arrived damaged or cut off; nothing was written", code="DATA_LOSS")
        return BackupInfo(
            file=str(target),
            bytes=size,
            sha256=claimed,
            backup_time=decode.time_of(first.backup_time),
            revision=first.revision,
        )

    async def review_recovery(self) -> AsyncIterator[Difference]:
        """What differs after a restore, one by one. Raises FailedPreconditionError when there is no recovery."""
        request = messages.ReviewRecoveryRequest()
        kinds = messages.ReviewRecoveryResponse.Kind
        async with aclosing(self._stream(self._stub.ReviewRecovery(request, timeout=REVIEW_SECONDS))) as found:
            async for difference in found:
                yield Difference(
                    kind=decode.enum_name(kinds, difference.kind, "KIND_"),
                    provider=difference.provider,
                    resource=difference.resource,
                    sentence=difference.sentence,
                    tenant=difference.tenant,
                    instance_id=difference.instance_id,
                    operation_id=difference.operation_id,
                )

    async def finish_recovery(self, reason: str, *, validate_only: bool = False) -> tuple[Recovery, int]:
        """End the recovery: what it was, and how many operations go on."""
        request = messages.FinishRecoveryRequest(reason=reason, request_id=str(uuid4()), validate_only=validate_only)
        answer = await self.connection.call(self._stub.FinishRecovery, request)
        return admin_decode.recovery(answer.recovery), answer.operations

    async def keys(self) -> tuple[Key, ...]:
        """The labels of the keys that seal, and how many values each seals."""
        answer = await self.connection.call(self._stub.ListKeys, messages.ListKeysRequest())
        return tuple(
            Key(label=key.label, values=key.values, primary=key.primary, present=key.present) for key in answer.keys
        )

    async def rotate_keys(self, reason: str, *, validate_only: bool = False) -> AsyncIterator[KeyRotation]:
        """Seal everything with the key that is first in its source now; how far it is, `done` at its end.

        Broken off, it goes on where it was when it is called again. Raises FailedPreconditionError, AbortedError.
        """
        request = messages.RotateKeysRequest(reason=reason, request_id=str(uuid4()), validate_only=validate_only)
        async with aclosing(self._stream(self._stub.RotateKeys(request, timeout=REVIEW_SECONDS))) as told:
            async for part in told:
                yield KeyRotation(
                    label=part.label,
                    checked=part.checked,
                    resealed=part.resealed,
                    unreadable=part.unreadable,
                    done=part.done,
                )

    async def retire_key(self, label: str, reason: str, *, validate_only: bool = False) -> bool:
        """Take a key with which nothing is sealed out of the key file; whether the broker did. Raises
        FailedPreconditionError (IN_USE)."""
        request = messages.RetireKeyRequest(
            label=label, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        return (await self.connection.call(self._stub.RetireKey, request)).removed

    async def quotas(self, tenant: str = "", *, page_size: int = 0) -> AsyncIterator[Quota]:
        """What tenants have and may have, or one: of each the whole, then its plans."""
        request = messages.ListQuotasRequest(tenant=tenant, page_size=page_size)
        async for page in walk(self.connection, self._stub.ListQuotas, request):
            for found in page.quotas:
                yield admin_decode.quota(found)

    async def set_quota(
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
        limits = messages.QuotaLimits(
            instances=instances, bindings=bindings, bindings_per_instance=bindings_per_instance
        )
        request = messages.SetQuotaRequest(
            tenant=tenant, service_id=service_id, plan_id=plan_id, limits=limits, reason=reason,
            request_id=str(uuid4()), validate_only=validate_only,
        )  # fmt: skip
        return admin_decode.quota((await self.connection.call(self._stub.SetQuota, request)).quota)

    async def delete_quota(
        self, tenant: str, reason: str, *, service_id: str = "", plan_id: str = "", validate_only: bool = False
    ) -> tuple[Quota, bool]:
        """Take back what was set: what holds now, and whether there was anything."""
        request = messages.DeleteQuotaRequest(
            tenant=tenant, service_id=service_id, plan_id=plan_id, reason=reason,
            request_id=str(uuid4()), validate_only=validate_only,
        )  # fmt: skip
        answer = await self.connection.call(self._stub.DeleteQuota, request)
        return admin_decode.quota(answer.quota), answer.removed

    async def drain(self, reason: str, *, validate_only: bool = False) -> None:
        """Stop the broker as SIGTERM does; it answers before it is gone."""
        request = messages.DrainRequest(reason=reason, request_id=str(uuid4()), validate_only=validate_only)
        await self.connection.call(self._stub.Drain, request)

    async def create_token(
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
        leaves one that nobody can show: see `tokens`. Raises InvalidRequestError.
        """
        request = messages.CreateTokenRequest(
            name=name,
            roles=[token_words.role(role) for role in roles],
            tenants=tenants,
            every_tenant=every_tenant,
            ttl=encode.duration("ttl", ttl),
            reason=reason,
            request_id=str(uuid4()),
            validate_only=validate_only,
        )
        answer = await self.connection.call(self._stub.CreateToken, request)
        return NewToken(token_words.token(answer.token), answer.text)

    async def tokens(self, *, page_size: int = 0) -> AsyncIterator[Token]:
        """Static tokens by id, revoked and expired ones too."""
        request = messages.ListTokensRequest(page_size=page_size)
        async for page in walk(self.connection, self._stub.ListTokens, request):
            for found in page.tokens:
                yield token_words.token(found)

    async def revoke_token(self, token_id: str, reason: str, *, validate_only: bool = False) -> Token:
        """Take a static token back. Raises NotFoundError."""
        request = messages.RevokeTokenRequest(
            token_id=token_id, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        return token_words.token((await self.connection.call(self._stub.RevokeToken, request)).token)

    async def _stream(self, call: grpc.aio.UnaryStreamCall[Any, Part]) -> AsyncGenerator[Part, None]:
        """The messages of a stream, its failure as a PurveyorError."""
        try:
            async for part in call:
                yield part
        except grpc.aio.AioRpcError as error:
            raise from_rpc(error, self.address, "") from error
        finally:
            call.cancel()
