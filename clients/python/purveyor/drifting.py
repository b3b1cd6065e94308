"""What operators ask about backends that are not as recorded, as a part of `AdminClient`."""

from __future__ import annotations

from typing import TYPE_CHECKING
from uuid import uuid4

from purveyor import decode, encode
from purveyor.drift_values import DriftReport
from purveyor.opened import OpenedClient
from purveyor.pages import walk
from purveyor.v1 import drift_pb2, instance_pb2
from purveyor.v1.admin_service_pb2_grpc import AdminServiceStub

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from purveyor.values import Instance, OperationStatus, Seconds


class DriftCalls(OpenedClient):
    """Looking at backends, and leaving instances alone."""

    @property
    def _drift_stub(self) -> AdminServiceStub:
        return AdminServiceStub(self.connection.channel)

    async def drift(self, *, page_size: int = 0) -> AsyncIterator[DriftReport]:
        """Instances of every tenant whose backend is not what their record says, or cannot be asked."""
        request = drift_pb2.ListDriftRequest(page_size=page_size)
        async for page in walk(self.connection, self._drift_stub.ListDrift, request):
            for found in page.reports:
                yield report_of(found)

    async def look(self, tenant: str, instance_id: str, reason: str, *, validate_only: bool = False) -> DriftReport:
        """Look at the backend of an instance now. Raises NotFoundError, FailedPreconditionError, ConflictError."""
        request = drift_pb2.ObserveInstanceRequest(
            tenant=tenant, instance_id=instance_id, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        return report_of((await self.connection.call(self._drift_stub.ObserveInstance, request)).report)

    async def pause(self, tenant: str, instance_id: str, reason: str, *, validate_only: bool = False) -> Instance:
        """Leave an instance alone: the broker does nothing to it by itself. Raises NotFoundError."""
        request = drift_pb2.PauseReconciliationRequest(
            tenant=tenant, instance_id=instance_id, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        return decode.instance((await self.connection.call(self._drift_stub.PauseReconciliation, request)).instance)

    async def resume(self, tenant: str, instance_id: str, reason: str, *, validate_only: bool = False) -> Instance:
        """Look after an instance again. Raises NotFoundError."""
        request = drift_pb2.ResumeReconciliationRequest(
            tenant=tenant, instance_id=instance_id, reason=reason, request_id=str(uuid4()), validate_only=validate_only
        )
        return decode.instance((await self.connection.call(self._drift_stub.ResumeReconciliation, request)).instance)

    async def repair(
        self, tenant: str, instance_id: str, reason: str, *, wait: Seconds | None = None, validate_only: bool = False
    ) -> OperationStatus:
        """Make every part of an instance again as it was applied; data that is gone is not brought back.

        Raises NotFoundError, ConflictError, FailedPreconditionError.
        """
        request = drift_pb2.RepairInstanceRequest(
            tenant=tenant, instance_id=instance_id, reason=reason, request_id=str(uuid4()),
            validate_only=validate_only, wait=encode.duration("wait", wait),
        )  # fmt: skip
        return decode.operation((await self.connection.call(self._drift_stub.RepairInstance, request)).operation)


def report_of(found: drift_pb2.DriftReport) -> DriftReport:
    """A report."""
    return DriftReport(
        tenant=found.tenant,
        instance_id=found.instance_id,
        uid=found.uid,
        service_id=found.service_id,
        plan_id=found.plan_id,
        drift=decode.enum_name(instance_pb2.Instance.Drift, found.drift, "DRIFT_"),
        differences=tuple(found.differences),
        problem=found.problem,
        since_time=decode.time_of(found.since_time),
        observe_time=decode.time_of(found.observe_time),
        look_time=decode.time_of(found.look_time),
        next_look_time=decode.time_of(found.next_look_time),
        pause_reason=found.reconciliation_pause.reason,
    )
