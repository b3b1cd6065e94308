"""What every act of an operator has in common: who, why, the record that it leaves, and its log line."""

from __future__ import annotations

from purveyor_server.domain.audit import AuditOutcome, AuditRecord
from purveyor_server.domain.errors import PurveyorError, Reason, Resource, operation_not_found
from purveyor_server.domain.freezes import check_reason
from purveyor_server.domain.model import Json, Operation
from purveyor_server.domain.names import check_id, check_request_id
from purveyor_server.lifecycle import recording
from purveyor_server.lifecycle.admin.contract import Act, AdminParts
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.lifecycle.door import Action
from purveyor_server.store.contract import SYSTEM

BUSY_RETRY = 1.0  # seconds


def enter(parts: AdminParts, caller: Caller, action: Action, act: Act | None = None) -> str:
    """Pass the door; returns the act's reason. Raises PERMISSION_DENIED, DRAINING, INVALID_REQUEST."""
    parts.door.enter_operator(caller, action)
    if act is None:
        return ""
    if act.request_id:
        check_request_id(act.request_id)
    return check_reason(act.reason)


async def find_operation(parts: AdminParts, operation_id: str) -> Operation:
    """An operation of any tenant. Raises OPERATION_NOT_FOUND, INVALID_REQUEST."""
    check_id(operation_id, "operation_id")
    operation = await parts.store.operation(SYSTEM, operation_id)
    if operation is None:
        raise operation_not_found(operation_id)
    return operation


def record(
    parts: AdminParts, caller: Caller, action: Action, act: Act, resource: str, tenant: str = "", **details: Json
) -> AuditRecord:
    """The record of an act. Pure: a decision inside the store may make it several times."""
    return recording.record(
        caller,
        action,
        resource,
        parts.clock.now(),
        AuditOutcome.DONE,
        tenant=tenant,
        request_id=act.request_id,
        reason=check_reason(act.reason),
        details=details,
    )


def tell(parts: AdminParts, caller: Caller, action: Action, act: Act, resource: str, tenant: str = "") -> None:
    """One log line, once the act is committed."""
    parts.door.note(caller, action, tenant, resource=resource, reason=act.reason.strip())


def busy(what: str, operation_id: str, **metadata: str) -> PurveyorError:
    """OPERATION_IN_PROGRESS: a worker holds what an operator wants to take apart."""
    return PurveyorError(
        Reason.OPERATION_IN_PROGRESS,
        f"{what} is being worked on: wait, or freeze its provider first",
        metadata={"operation": operation_id, **metadata},
        resource=Resource("operation", operation_id),
        retry_after=BUSY_RETRY,
    )
