"""New credentials for the accounts that a broker itself uses, as a part of `AdminClient`."""

from __future__ import annotations

from uuid import uuid4

from purveyor.opened import OpenedClient
from purveyor.root_values import RotatedRoots
from purveyor.v1 import roots_pb2
from purveyor.v1.admin_service_pb2_grpc import AdminServiceStub


class RootCalls(OpenedClient):
    """The broker's own accounts."""

    async def rotate_root(self, provider: str, reason: str, *, validate_only: bool = False) -> RotatedRoots:
        """Rotate them in a provider's backend. Raises FailedPreconditionError, with what to do, where that is done outside."""
        request = roots_pb2.RotateRootCredentialsRequest(
            provider=provider, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        stub = AdminServiceStub(self.connection.channel)
        answer = await self.connection.call(stub.RotateRootCredentials, request)
        return RotatedRoots(accounts=tuple(answer.accounts), left=tuple(answer.left))
