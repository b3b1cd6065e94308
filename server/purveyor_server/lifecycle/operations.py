"""Operations: get, list, wait, cancel, watch."""

from __future__ import annotations

from collections.abc import AsyncIterator
from datetime import timedelta

import msgspec

from purveyor_server.domain import filters
from purveyor_server.domain.audit import AuditOutcome
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource, invalid
from purveyor_server.domain.model import Operation
from purveyor_server.domain.names import check_id, check_request_id
from purveyor_server.domain.states import FORWARD_ONLY, OperationState
from purveyor_server.lifecycle.checks import check_etag
from purveyor_server.lifecycle.contract import ZERO, Caller, Listing, OperationDetails, PageOf
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.making import stop
from purveyor_server.lifecycle.paging import Question, open_page, page_of
from purveyor_server.lifecycle.recording import record, resource_of
from purveyor_server.lifecycle.running import Parts, committed, wait_for, wait_seconds
from purveyor_server.store.contract import Amend, Job, Scope, Writes
from purveyor_server.watch.operations import Watcher

_STOPPING = frozenset({OperationState.CANCELLING, OperationState.ROLLING_BACK})


async def get_operation(parts: Parts, caller: Caller, operation_id: str, *, full: bool) -> OperationDetails:
    """One operation; raises OPERATION_NOT_FOUND."""
    scope = _enter(parts, caller, Action.GET_OPERATION, operation_id)
    return await _details(parts, scope, await committed(parts, scope, operation_id), full=full)


async def list_operations(parts: Parts, caller: Caller, listing: Listing) -> PageOf:
    """A page of `OperationDetails`, oldest first."""
    scope = parts.door.enter(caller, Action.LIST_OPERATIONS, listing.tenant)
    where = filters.parse(listing.filter, filters.OPERATIONS)
    question, page = open_page(parts, Question.of("operations", listing), listing)
    found = await parts.store.operations(scope, listing.tenant, where, page)
    listed = page_of(parts, question, found, page.limit, lambda operation: operation.operation_id)
    details = [await _details(parts, scope, operation, full=listing.full) for operation in listed.items]
    return PageOf(tuple(details), listed.next_page_token)


async def wait_operation(
    parts: Parts,
    caller: Caller,
    operation_id: str,
    timeout: timedelta,  # noqa: ASYNC109 - the contract's word: how long the caller wants to wait
    *,
    full: bool,
) -> OperationDetails:
    """The operation when it is done, or as it is after `timeout`; raises OPERATION_NOT_FOUND."""
    scope = _enter(parts, caller, Action.WAIT_OPERATION, operation_id)
    if timeout < ZERO:
        raise invalid("timeout", "must not be negative")
    operation = await wait_for(parts, scope, operation_id, wait_seconds(parts, caller, timeout))
    return await _details(parts, scope, operation, full=full)


async def cancel_operation(
    parts: Parts,
    caller: Caller,
    operation_id: str,
    *,
    etag: str,
    wait: timedelta,
    validate_only: bool,
    request_id: str = "",
) -> OperationDetails:
    """Ask an operation to stop. Raises OPERATION_NOT_FOUND, NOT_CANCELLABLE, ETAG_MISMATCH, INVALID_REQUEST."""
    scope = _enter(parts, caller, Action.CANCEL_OPERATION, operation_id)
    if request_id:
        check_request_id(request_id)
    if wait < ZERO:
        raise invalid("wait", "must not be negative")
    if validate_only:
        operation = await committed(parts, scope, operation_id)
        check_cancel(operation, etag)
        return OperationDetails(operation)

    def decide(job: Job) -> Writes:
        writes = decide_cancel(job, etag)
        if not writes.operations:
            return writes
        noted = record(
            caller,
            Action.CANCEL_OPERATION,
            f"operation/{operation_id}",
            job.now,
            AuditOutcome.ACCEPTED,
            tenant=job.operation.tenant,
            request_id=request_id,
            details={"of": resource_of(job.operation)},
        )
        return msgspec.structs.replace(writes, audit=(noted,))

    operation = await parts.store.amend(Amend(scope, operation_id, decide))
    named = {"operation": operation_id, "sent_request_id": request_id}
    parts.door.note(caller, Action.CANCEL_OPERATION, operation.tenant, **named)
    if (seconds := wait_seconds(parts, caller, wait)) > 0:
        operation = await wait_for(parts, scope, operation_id, seconds)
    return OperationDetails(operation)


def decide_cancel(job: Job, etag: str = "") -> Writes:
    """The rule: a live operation before its pivot; one that is stopping already stays as it is."""
    operation = job.operation
    check_cancel(operation, etag)
    if operation.state in _STOPPING:
        return Writes()
    return Writes(operations=(stop(operation, job.now),))


def check_cancel(operation: Operation, etag: str) -> None:
    """Raise ETAG_MISMATCH or NOT_CANCELLABLE."""
    check_etag(etag, operation)
    if operation.done:
        raise _not_cancellable(operation, f"it has ended: {operation.state}")
    if operation.verb in FORWARD_ONLY:
        raise _not_cancellable(operation, f"{operation.verb} only goes forward")
    if operation.past_pivot:
        raise _not_cancellable(operation, "it is past the step from which it only goes forward")


def _not_cancellable(operation: Operation, why: str) -> PurveyorError:
    text = f"the operation {operation.operation_id} cannot be cancelled: {why}"
    return PurveyorError(
        Reason.NOT_CANCELLABLE,
        text,
        metadata={"operation": operation.operation_id, "state": str(operation.state)},
        resource=Resource("operation", operation.operation_id),
        preconditions=(Precondition("CANCELLABLE", f"operation/{operation.operation_id}", text),),
    )


async def watch_operation(
    parts: Parts, caller: Caller, operation_id: str, heartbeat: timedelta, *, full: bool
) -> AsyncIterator[tuple[OperationDetails, bool]]:
    """The present state, then the newest on every change, or a heartbeat (True); ends after the terminal state.

    A heartbeat reads the store again, so a change that this process was not told of is found within the interval.
    """
    scope = _enter(parts, caller, Action.WATCH_OPERATION, operation_id)
    interval = max(heartbeat.total_seconds(), parts.settings.shortest_heartbeat)
    async with parts.hub.watching(operation_id) as watcher:
        shown = _newest(watcher, await committed(parts, scope, operation_id))
        yield await _details(parts, scope, shown, full=full), False
        while not shown.done:
            changed = await watcher.changed(interval)
            found = watcher.newest or shown if changed else await committed(parts, scope, operation_id)
            newest = _newest(watcher, found)
            silent = not changed and newest.version == shown.version
            shown = newest
            yield await _details(parts, scope, shown, full=full), silent


def _newest(watcher: Watcher, read: Operation) -> Operation:
    """The newer of what was read and what was published; the hub shows progress on top of it."""
    if watcher.newest is None or watcher.newest.version < read.version:
        watcher.newest = read
    return watcher.newest


def _enter(parts: Parts, caller: Caller, action: Action, operation_id: str) -> Scope:
    scope = parts.door.enter(caller, action)
    check_id(operation_id, "operation_id")
    return scope


async def _details(parts: Parts, scope: Scope, operation: Operation, *, full: bool) -> OperationDetails:
    return OperationDetails(operation, await parts.store.steps(scope, operation.operation_id) if full else ())
