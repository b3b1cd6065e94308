"""Operations, their steps and their failures as messages.

Guarantee: `error` holds the same bytes as google.rpc.Status with exactly one ErrorInfo; `operator_message` is filled only
when the caller is an operator.
"""

from __future__ import annotations

from google.rpc import status_pb2 as google_status_pb2

from purveyor.v1 import operation_pb2, status_pb2
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.etags import etag_of
from purveyor_server.domain.model import Failure, Operation, Step
from purveyor_server.domain.states import FORWARD_ONLY, OperationState, Waiting
from purveyor_server.lifecycle.contract import Planned
from purveyor_server.rpc.convert.enums import MAKES, OPERATION_STATES, REASONS, STEP_STATES, VERBS, WAITINGS
from purveyor_server.rpc.convert.values import to_timestamp
from purveyor_server.rpc.errors import cut, to_status

_REASONS = frozenset(Reason)
_MAX_ERROR_TEXT = 512
# Waits that end at a time; the others end when somebody else does something.
_TIMED = frozenset({Waiting.PARKED, Waiting.BACKOFF, Waiting.SETTLING, Waiting.LEASE, Waiting.CIRCUIT})


def encode_operation(
    operation: Operation, steps: tuple[Step, ...] = (), *, planned: tuple[Planned, ...] = (), for_operator: bool = False
) -> operation_pb2.Operation:
    """An operation; `steps` and `planned` only where the view or validate_only asks for them."""
    message = operation_pb2.Operation(
        operation_id=operation.operation_id,
        tenant=operation.tenant,
        verb=VERBS[operation.verb],  # type: ignore[arg-type] # the tables hold plain numbers
        instance_id=operation.instance_id,
        instance_uid=operation.instance_uid,
        binding_id=operation.binding_id,
        binding_uid=operation.binding_uid,
        state=OPERATION_STATES[operation.state],  # type: ignore[arg-type] # as above
        done=operation.done,
        percent=100.0 if operation.state is OperationState.SUCCEEDED else min(operation.percent, 99.9),
        sentence=operation.sentence,
        cancel_requested=operation.cancel_requested,
        past_pivot=operation.past_pivot or operation.verb in FORWARD_ONLY,
        taken_over_by=operation.taken_over_by,
        parent_operation_id=operation.parent or operation.origin,
        attempts=operation.attempts,
        cleanup_required=operation.cleanup_required,
        create_time=to_timestamp(operation.created_at),
        start_time=to_timestamp(operation.started_at),
        end_time=to_timestamp(operation.ended_at),
        deadline=to_timestamp(operation.deadline),
        expire_time=to_timestamp(operation.expiry.to) if operation.expiry is not None else None,
        request_id=operation.request.request_id if operation.request is not None else "",
        principal=operation.request.principal if operation.request is not None else "",
        resumed_operation_id=operation.resumes,
        etag=etag_of(operation) if operation.operation_id else "",
        steps=[_step(step) for step in steps] or [_planned(step) for step in planned],
    )
    if operation.failure is not None:
        message.error.CopyFrom(_error(operation, operation.failure))
        message.failure.CopyFrom(_failure(operation.failure, for_operator=for_operator))
    if operation.first_failure is not None:
        message.first_failure.CopyFrom(_failure(operation.first_failure, for_operator=for_operator))
    if operation.waiting is not Waiting.NONE and (operation.held or not operation.done):
        message.waiting.CopyFrom(_waiting(operation))
    return message


def _waiting(operation: Operation) -> operation_pb2.Waiting:
    return operation_pb2.Waiting(
        reason=WAITINGS[operation.waiting],  # type: ignore[arg-type] # as above
        until=to_timestamp(operation.due_at) if operation.waiting in _TIMED else None,
        blocked_by=operation.blocked_by,
        detail=operation.waiting_detail,
    )


def reason_of(failure: Failure) -> Reason:
    """The reason of a recorded failure; PROVIDER_FAILED when a later version wrote one that is not known here."""
    return Reason(failure.reason) if failure.reason in _REASONS else Reason.PROVIDER_FAILED


def _failure(failure: Failure, *, for_operator: bool) -> operation_pb2.Failure:
    return operation_pb2.Failure(
        reason=REASONS[reason_of(failure)],  # type: ignore[arg-type] # as above
        user_message=failure.message,
        operator_message=failure.operator_message if for_operator else "",
        retryable=failure.retryable,
        step=failure.step,
    )


def _error(operation: Operation, failure: Failure) -> status_pb2.Status:
    named = {"provider": operation.provider, "step": failure.step, "operation": operation.taken_over_by}
    metadata = {key: value for key, value in named.items() if value}
    error = PurveyorError(reason_of(failure), cut(failure.message, _MAX_ERROR_TEXT), metadata=metadata)
    status: google_status_pb2.Status = to_status(error)
    return status_pb2.Status.FromString(status.SerializeToString())


def _step(step: Step) -> operation_pb2.Step:
    return operation_pb2.Step(
        name=step.name,
        make=MAKES[step.make],  # type: ignore[arg-type] # as above
        state=STEP_STATES[step.state],  # type: ignore[arg-type] # as above
        attempts=step.attempts,
        start_time=to_timestamp(step.started_at),
        end_time=to_timestamp(step.ended_at),
        pivot=step.pivot,
    )


def _planned(step: Planned) -> operation_pb2.Step:
    make, state = MAKES[step.make], operation_pb2.Step.STATE_PLANNED
    return operation_pb2.Step(name=step.name, make=make, state=state, pivot=step.pivot)  # type: ignore[arg-type] # as above
