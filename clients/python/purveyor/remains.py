"""Operators' calls about operations that failed, or that do not end: part of `AdminClient`.

Guarantee: as `purveyor.admin`. A retry may be sent again with its `request_id`: the answer is what the first one began.
"""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from purveyor import decode
from purveyor.admin_values import Abandoned
from purveyor.opened import OpenedClient
from purveyor.v1 import remains_pb2
from purveyor.v1.admin_service_pb2_grpc import AdminServiceStub

if TYPE_CHECKING:
    from purveyor.values import OperationStatus


class RemainsCalls(OpenedClient):
    """What is done about a failed operation."""

    async def retry(
        self, operation_id: str, reason: str, *, request_id: str | None = None, validate_only: bool = False
    ) -> OperationStatus:
        """Go on from the failed step where its remains were kept, else begin anew; the operation that does. Raises
        FailedPreconditionError with what stands in the way."""
        request = remains_pb2.RetryOperationRequest(
            operation_id=operation_id, reason=reason, request_id=request_id or str(uuid4()), validate_only=validate_only
        )
        stub = AdminServiceStub(self.connection.channel)
        return decode.operation((await self.connection.call(stub.RetryOperation, request)).operation)

    async def clean_up(self, operation_id: str, reason: str, *, validate_only: bool = False) -> OperationStatus:
        """Remove what a failed operation left behind, now; the CLEANUP operation. Raises FailedPreconditionError."""
        request = remains_pb2.CleanUpOperationRequest(
            operation_id=operation_id, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        stub = AdminServiceStub(self.connection.channel)
        return decode.operation((await self.connection.call(stub.CleanUpOperation, request)).operation)

    async def abandon(self, operation_id: str, reason: str, *, validate_only: bool = False) -> Abandoned:
        """End an operation for good without touching any backend. Raises AbortedError while somebody works on it,
        FailedPreconditionError when it has ended otherwise."""
        request = remains_pb2.AbandonOperationRequest(
            operation_id=operation_id, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        stub = AdminServiceStub(self.connection.channel)
        answer = await self.connection.call(stub.AbandonOperation, request)
        return Abandoned(operation=decode.operation(answer.operation), left_behind=tuple(answer.left_behind))
