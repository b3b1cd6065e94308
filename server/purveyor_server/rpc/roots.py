"""The method of AdminService about the broker's own accounts; a part of `AdminService`."""

# ruff: noqa: ARG002 - as in rpc/admin.py

from __future__ import annotations

from typing import Any

from purveyor.v1 import roots_pb2 as pb
from purveyor.v1.admin_service_pb2_grpc import AdminServiceServicer
from purveyor_server.lifecycle.admin.administration import Administration
from purveyor_server.rpc.calls import current_caller
from purveyor_server.rpc.convert.admin import decode_act


class RootMethods(AdminServiceServicer):
    """See `AdminService`."""

    _admin: Administration

    async def RotateRootCredentials(
        self, request: pb.RotateRootCredentialsRequest, context: Any
    ) -> pb.RotateRootCredentialsResponse:
        rotated = await self._admin.rotate_root(current_caller(), request.provider, decode_act(request))
        return pb.RotateRootCredentialsResponse(accounts=rotated.accounts, left=rotated.left)
