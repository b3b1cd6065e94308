"""Records as rows: a JSON body and the columns that keys, filters and indexes need.

Guarantee: `body` is the whole record; a column is never read back into a record, so the two cannot disagree in what a
caller sees. A record is encoded once per write, and its event carries the same bytes.
"""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import msgspec

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.model import (
    Binding,
    Event,
    EventKind,
    Instance,
    Operation,
    PlanSnapshot,
    SealedSecret,
    Step,
)
from purveyor_server.domain.quotas import Quota
from purveyor_server.domain.recovery import Recovery
from purveyor_server.domain.states import SLOT_WAITS, BindingState, Waiting
from purveyor_server.domain.tokens import Token
from purveyor_server.store.operating import Queue

Row = tuple[Any, ...]
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)

ENDED, PENDING, PARKED = 0, 1, 2
_ENDING = frozenset({BindingState.ACTIVE, BindingState.EXPIRED})

encode = msgspec.json.Encoder().encode
decode_instance = msgspec.json.Decoder(Instance).decode
decode_binding = msgspec.json.Decoder(Binding).decode
decode_operation = msgspec.json.Decoder(Operation).decode
decode_step = msgspec.json.Decoder(Step).decode
decode_freeze = msgspec.json.Decoder(Freeze).decode
decode_audit = msgspec.json.Decoder(AuditRecord).decode
decode_quota = msgspec.json.Decoder(Quota).decode
decode_recovery = msgspec.json.Decoder(Recovery).decode
decode_token = msgspec.json.Decoder(Token).decode
decode_plan = msgspec.json.Decoder(PlanSnapshot).decode


def micros(moment: datetime) -> int:
    """Microseconds since the epoch, exactly."""
    return (moment - _EPOCH) // _MICROSECOND


def moment(value: int) -> datetime:
    """The time `value` microseconds after the epoch."""
    return _EPOCH + timedelta(microseconds=value)


def _maybe(value: datetime | None) -> int | None:
    return None if value is None else (value - _EPOCH) // _MICROSECOND


def backlog_of(operation: Operation | None) -> int:
    """ENDED, PENDING or PARKED; an operation that is not there counts as ended."""
    if operation is None or operation.done:
        return ENDED
    return PENDING if operation.waiting in SLOT_WAITS else PARKED


def subject_of(operation: Operation) -> str:
    """The uid whose secrets the operation touches."""
    return operation.binding_uid or operation.instance_uid


def instance_row(record: Instance, body: bytes) -> Row:
    """In the order of `put_instance`."""
    shown = record.present
    counted = record.in_flight or shown
    return (
        record.uid,
        record.tenant,
        record.instance_id,
        record.state,
        shown.service_id,
        shown.plan_id,
        record.last_operation,
        micros(record.created_at),
        micros(record.updated_at),
        _maybe(record.deleted_at),
        body,
        counted.service_id,
        counted.plan_id,
        record.owner,
        since := _maybe(record.platform_orphan_since),
        since,
    )


def binding_row(record: Binding, body: bytes) -> Row:
    """In the order of `put_binding`."""
    return (
        record.uid,
        record.tenant,
        record.instance_id,
        record.instance_uid,
        record.binding_id,
        record.state,
        record.last_operation,
        micros(record.created_at),
        micros(record.updated_at),
        _maybe(record.deleted_at),
        body,
        record.service_id,
        record.plan_id,
        _maybe(record.expires_at) if record.state in _ENDING else None,
        _maybe(record.rotate_at) if record.state is BindingState.ACTIVE else None,
        _maybe(record.retry_at) if record.state is BindingState.REVOCATION_BLOCKED else None,
        _maybe(record.rotated_at),
    )


def indexed(record: Operation) -> Row:
    """What of an operation may change and is in an index: while it stays, a write concerns the body alone."""
    waiting, owner = record.waiting, record.lease_owner
    return record.state, backlog_of(record), waiting, record.due_at, owner, record.ended_at


def operation_change(record: Operation, body: bytes, now: int) -> Row:
    """In the order of `change_operation`; `now` as in `operation_row`."""
    due = _maybe(record.due_at)
    return (
        record.operation_id,
        record.state,
        backlog_of(record),
        record.waiting,
        due,
        int(due is not None and due <= now),
        record.lease_owner,
        _maybe(record.ended_at),
        body,
    )


def operation_row(record: Operation, body: bytes, now: int) -> Row:
    """In the order of `add_operation`; `now` in microseconds decides whether it is ready."""
    due = _maybe(record.due_at)
    request = record.request
    return (
        record.operation_id,
        record.tenant,
        record.instance_id,
        record.instance_uid,
        record.binding_id,
        record.binding_uid or record.instance_uid,
        record.verb,
        record.state,
        backlog_of(record),
        record.provider,
        record.waiting,
        due,
        int(due is not None and due <= now),
        record.lease_owner,
        request.principal if request else None,
        request.method if request else None,
        request.request_id if request else None,
        record.origin,
        record.parent or record.origin,
        micros(record.created_at),
        _maybe(record.ended_at),
        body,
    )


def instance_event(record: Instance, body: bytes, at: int) -> Row:
    """An event's columns from `kind` on; the revision is stamped last."""
    operation = record.last_operation
    return ("INSTANCE", record.tenant, record.instance_id, "", operation, record.uid, record.state, at, body)


def binding_event(record: Binding, body: bytes, at: int) -> Row:
    """As `instance_event`."""
    operation = record.last_operation
    ids = (record.tenant, record.instance_id, record.binding_id, operation, record.uid)
    return ("BINDING", *ids, record.state, at, body)


def operation_event(record: Operation, body: bytes, at: int) -> Row:
    """As `instance_event`."""
    ids = (record.tenant, record.instance_id, record.binding_id, record.operation_id, subject_of(record))
    return ("OPERATION", *ids, record.state, at, body)


def event(row: Row) -> Event:
    """The event of a full row, revision first."""
    revision, kind, tenant, instance_id, binding_id, operation_id, uid, state, at, body = row
    return Event(
        revision=revision,
        kind=EventKind(kind),
        tenant=tenant,
        instance_id=instance_id,
        binding_id=binding_id,
        operation_id=operation_id,
        uid=uid,
        state=state,
        at=moment(at),
        body=body,
    )


def secret(row: Row) -> SealedSecret:
    """The secret of (owner, name, sealed)."""
    return SealedSecret(*row)


def waiting_queue(row: Row) -> Queue:
    """The queue of (provider, waiting, operations, cleanups, oldest_at, oldest_id)."""
    provider, waiting, operations, cleanups, oldest_at, oldest_id = row
    return Queue(provider, Waiting(waiting), operations, cleanups, moment(oldest_at), oldest_id)


def token(row: Row) -> Token:
    """A token from its body, last use and revocation."""
    used, revoked = (moment(value) if value is not None else None for value in row[1:])
    return msgspec.structs.replace(decode_token(row[0]), used_at=used, revoked_at=revoked)
