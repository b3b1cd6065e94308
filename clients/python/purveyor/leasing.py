"""Bindings as leases: renewing and rotating them (part of `Client`), looking after those that end (part of `AdminClient`).

Guarantee: as `purveyor.client`: every change carries a request id, and one call is at most one effect.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from google.protobuf.timestamp_pb2 import Timestamp

from purveyor import decode, encode
from purveyor.admin_values import ForceRevoked
from purveyor.live import LiveCalls
from purveyor.opened import OpenedClient
from purveyor.pages import walk
from purveyor.v1 import broker_service_pb2 as messages
from purveyor.v1 import lease_pb2
from purveyor.v1.admin_service_pb2_grpc import AdminServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncGenerator
    from datetime import datetime

    from purveyor.operations import OperationHandle
    from purveyor.outcomes import Outcomes
    from purveyor.values import ActiveBinding, Binding, Seconds


class LeaseCalls(LiveCalls):
    """What a consumer does about the end of a binding."""

    tenant: str
    _outcomes: Outcomes

    async def renew(
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
    ) -> OperationHandle[Binding]:
        """Move the end of a binding to `expire_time` (aware), or to `ttl` seconds from now; without both as the plan says.

        A binding that lasts as long already is left as it is, unless `allow_shorter`. Raises InvalidRequestError beyond
        the plan's max_ttl, FailedPreconditionError when it is not ACTIVE or has a successor, AbortedError.
        """
        request = encode.request(
            messages.RenewBindingRequest,
            tenant=self.tenant,
            instance_id=instance_id,
            binding_id=binding_id,
            expire_time=_timestamp(expire_time),
            ttl=encode.duration("ttl", ttl),
            allow_shorter=allow_shorter,
            etag=etag,
            request_id=request_id or str(uuid4()),
            validate_only=validate_only,
            wait=encode.duration("wait", wait),
        )
        seconds = encode.seconds("wait", wait) or 0.0
        method = self.connection.stub.RenewBinding
        answer = await self.connection.call(method, request, wait=seconds, request_id=request.request_id)
        return self._outcomes.renewed(answer)

    async def rotate(
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
    ) -> OperationHandle[ActiveBinding]:
        """Make the successor of a binding; the result carries its credentials, the predecessor's work for `overlap` seconds.

        `successor_id`: empty = the server makes one. A binding that has a successor is answered with it. Raises
        FailedPreconditionError when it is not ACTIVE, its plan does not offer it or its own predecessor is still there.
        """
        request = encode.request(
            messages.RotateBindingRequest,
            tenant=self.tenant,
            instance_id=instance_id,
            binding_id=binding_id,
            successor_binding_id=successor_id,
            ttl=encode.duration("ttl", ttl),
            overlap=encode.duration("overlap", overlap),
            etag=etag,
            request_id=request_id or str(uuid4()),
            validate_only=validate_only,
            wait=encode.duration("wait", wait),
        )
        seconds = encode.seconds("wait", wait) or 0.0
        method = self.connection.stub.RotateBinding
        answer = await self.connection.call(method, request, wait=seconds, request_id=request.request_id)
        return self._outcomes.active_binding(answer)


class LeaseOversight(OpenedClient):
    """What an operator does about bindings that end, or that cannot be ended."""

    async def expiring_bindings(
        self, within: Seconds | None = None, *, tenant: str = "", blocked: bool = False, page_size: int = 0
    ) -> AsyncGenerator[Binding, None]:
        """Bindings of every tenant, or of one, that end within so many seconds (None: a day), those that end first before
        others. `blocked`: instead those whose access could not be taken away, by their next attempt."""
        request = encode.request(
            lease_pb2.ListExpiringBindingsRequest,
            tenant=tenant,
            within=encode.duration("within", within),
            revocation_blocked=blocked,
            page_size=page_size,
        )
        stub = AdminServiceStub(self.connection.channel)
        async for page in walk(self.connection, stub.ListExpiringBindings, request):
            for found in page.bindings:
                yield decode.binding(found)

    async def force_revoke(
        self, tenant: str, instance_id: str, binding_id: str, reason: str, *, validate_only: bool = False
    ) -> ForceRevoked:
        """Give up a binding whose access cannot be taken away: it is DELETED, its login may still be there. Raises
        FailedPreconditionError unless it is REVOCATION_BLOCKED, AbortedError while somebody works on it."""
        request = lease_pb2.ForceRevokeBindingRequest(
            tenant=tenant,
            instance_id=instance_id,
            binding_id=binding_id,
            reason=reason,
            request_id=str(uuid4()),
            validate_only=validate_only,
        )
        stub = AdminServiceStub(self.connection.channel)
        answer = await self.connection.call(stub.ForceRevokeBinding, request)
        return ForceRevoked(
            binding=decode.binding(answer.binding),
            left_behind=tuple(answer.left_behind),
            ended_operation_ids=tuple(answer.ended_operation_ids),
            access_until=decode.time_of(answer.access_until),
        )


def _timestamp(at: datetime | None) -> Timestamp | None:
    """Raises ValueError for a time without a zone: nobody knows when that is."""
    if at is None:
        return None
    if at.tzinfo is None:
        raise ValueError("expire_time has no time zone")
    made = Timestamp()
    made.FromDatetime(at)
    return made
