"""How every mutating use-case runs: prepare, one store command, note, wait if asked, answer.

Guarantee: the answer never depends on the caller still being there, and is as new as a read that starts after the wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import timedelta

from msgspec.structs import replace

from purveyor_server.domain.catalog import Catalog
from purveyor_server.domain.digests import keyed_digest
from purveyor_server.domain.errors import PurveyorError, operation_not_found
from purveyor_server.domain.model import Binding, Instance, Json, Operation, RequestKey
from purveyor_server.domain.states import Verb
from purveyor_server.kit import turns
from purveyor_server.kit.clock import Clock
from purveyor_server.kit.ids import new_id
from purveyor_server.lifecycle.contract import Caller, Outcome, Write
from purveyor_server.lifecycle.door import Action, Door
from purveyor_server.lifecycle.kept import Kept
from purveyor_server.lifecycle.making import Order
from purveyor_server.lifecycle.plans import PlanBook, UnpreparedError, unprepared
from purveyor_server.lifecycle.ports import LifecycleSettings, Opener, Plans
from purveyor_server.lifecycle.recording import recorded
from purveyor_server.lifecycle.refusals import check_lag, request_id_reused
from purveyor_server.store.contract import Accept, Decision, Scope, Situation, Store
from purveyor_server.watch.events import EventLog
from purveyor_server.watch.operations import OperationHub


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What the use-cases share."""

    store: Store
    catalog: Callable[[], Catalog]
    plans: Plans
    book: PlanBook
    hub: OperationHub
    log: EventLog
    opener: Opener
    digest_key: bytes
    token_key: bytes
    clock: Clock
    settings: LifecycleSettings
    door: Door
    kept: Kept
    catalog_moved: Callable[[float], Awaitable[None]] = asyncio.sleep


Prepare = Callable[[], Awaitable[Accept]]


async def accept(parts: Parts, caller: Caller, action: Action, request: Write, prepare: Prepare) -> Decision:
    """Run the command that `prepare` makes, anew when its preparation turns out stale; at most `max_rounds` times.

    What is accepted leaves an audit record in the same command.
    """
    last: PurveyorError = unprepared()
    parts.book.refresh_missing()
    for _ in range(parts.settings.max_rounds):
        try:
            command = await prepare()
            if command.creates:
                check_lag(parts.store.lag, parts.settings)
            if not command.dry_run:
                decide = recorded(caller, action, request, parts.digest_key, command.decide)
                command = replace(command, decide=decide)
            return await parts.store.accept(command)
        except UnpreparedError as stale:
            last = stale
            if digest := stale.metadata.get("plan"):
                await parts.book.learn(digest)
    raise PurveyorError(last.reason, last.message, retry_after=last.retry_after)


def order_of(
    parts: Parts,
    caller: Caller,
    action: Action,
    request: Write,
    verb: Verb,
    *,
    binding_id: str = "",
    adopt: dict[str, Json] | None = None,
) -> Order:
    """What a request orders, under an operation id of its own."""
    return Order(
        operation_id=new_id(),
        verb=verb,
        tenant=request.tenant,
        instance_id=request.instance_id,
        binding_id=binding_id,
        principal=caller.subject,
        request=request_key(parts, caller, action, request),
        adopt=adopt,
    )


def request_key(parts: Parts, caller: Caller, action: Action, request: Write) -> RequestKey | None:
    """The idempotency key of a request, if it has one. The fingerprint covers the request as sent."""
    if not request.request_id:
        return None
    fingerprint = keyed_digest(parts.digest_key, "request", str(action), request.tenant, request.body)
    return RequestKey(caller.subject, str(action), request.request_id, fingerprint)


def replay(situation: Situation, key: RequestKey | None) -> Decision | None:
    """The answer to a request that was accepted before, as it is now; raises REQUEST_ID_REUSED. None = a new request."""
    operation = situation.replay
    if operation is None or key is None:
        return None
    if operation.request is None or operation.request.fingerprint != key.fingerprint:
        raise request_id_reused(key.request_id, operation)
    instance, binding = situation.instance, situation.binding
    return Decision(
        operation=operation,
        instance=instance if instance is not None and instance.uid == operation.instance_uid else None,
        binding=binding if binding is not None and binding.uid == operation.binding_uid else None,
        replayed=True,
    )


async def answer(parts: Parts, caller: Caller, scope: Scope, request: Write, decision: Decision) -> Outcome:
    """The decision after at most `wait`, with the resource as it is then."""
    operation = decision.operation
    if operation is None or request.validate_only:
        return _outcome(decision)
    seconds = wait_seconds(parts, caller, request.wait)
    waited = seconds > 0 and not operation.done
    if waited:
        operation = await wait_for(parts, scope, operation.operation_id, seconds)
    if not waited and not _incomplete(decision):
        return _outcome(decision)
    return await _refreshed(parts, scope, operation, decision)


def _outcome(decision: Decision) -> Outcome:
    return Outcome(
        operation=decision.operation,
        instance=decision.instance,
        binding=decision.binding,
        replayed=decision.replayed,
    )


def _incomplete(decision: Decision) -> bool:
    """A replay under a server-chosen id was decided without its resource."""
    operation = decision.operation
    if operation is None:
        return False
    return decision.binding is None if operation.binding_uid else decision.instance is None


async def _refreshed(parts: Parts, scope: Scope, operation: Operation, decision: Decision) -> Outcome:
    """The outcome with committed reads of the incarnation that the operation is about."""
    instance: Instance | None = None
    binding: Binding | None = None
    if operation.binding_uid:
        binding = await parts.store.binding(scope, operation.tenant, operation.instance_id, operation.binding_id)
        binding = binding if binding is not None and binding.uid == operation.binding_uid else decision.binding
    else:
        instance = await parts.store.instance(scope, operation.tenant, operation.instance_id)
        instance = instance if instance is not None and instance.uid == operation.instance_uid else decision.instance
    return replace(_outcome(decision), operation=operation, instance=instance, binding=binding)


def wait_seconds(parts: Parts, caller: Caller, asked: timedelta) -> float:
    """How long to wait, in seconds: what is asked, cut to the server's limit and to the deadline less its margin."""
    bounds = [asked, parts.settings.max_wait]
    if caller.deadline is not None:
        bounds.append(caller.deadline - parts.settings.wait_margin)
    return max(0.0, min(bounds).total_seconds())


async def wait_for(parts: Parts, scope: Scope, operation_id: str, seconds: float) -> Operation:
    """The operation once it is done, or as it is after `seconds`. Raises OPERATION_NOT_FOUND."""
    turns.pause()

    async def read() -> Operation:
        return await committed(parts, scope, operation_id)

    return await parts.hub.until(operation_id, read, lambda operation: operation.done, seconds)


async def committed(parts: Parts, scope: Scope, operation_id: str) -> Operation:
    """A committed read of an operation; raises OPERATION_NOT_FOUND."""
    operation = await parts.store.operation(scope, operation_id)
    if operation is None:
        raise operation_not_found(operation_id)
    return operation
