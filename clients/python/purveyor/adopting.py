"""Bringing existing things under management, as a part of `AdminClient`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from purveyor import decode, encode
from purveyor.opened import OpenedClient
from purveyor.v1 import adopt_pb2
from purveyor.v1.admin_service_pb2_grpc import AdminServiceStub

if TYPE_CHECKING:
    from collections.abc import Mapping

    from purveyor.values import JsonInput, OperationStatus, Seconds


class AdoptCalls(OpenedClient):
    """For operators."""

    async def adopt(
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

        Whatever fails, its data is never removed. Raises FailedPreconditionError (ADOPTION_REFUSED), ConflictError.
        """
        request = encode.request(
            adopt_pb2.AdoptInstanceRequest,
            tenant=tenant,
            instance_id=instance_id,
            service_id=service_id,
            plan_id=plan_id,
            source=encode.struct("source", source),
            parameters=None if parameters is None else encode.struct("parameters", parameters),
            labels=labels,
            reason=reason,
            request_id=str(uuid4()),
            validate_only=validate_only,
            wait=encode.duration("wait", wait),
        )
        stub = AdminServiceStub(self.connection.channel)
        seconds = encode.seconds("wait", wait) or 0.0
        return decode.operation((await self.connection.call(stub.AdoptInstance, request, wait=seconds)).operation)
