"""Audit records of calls: who, by which means, for whom, from where.

Guarantee: an accepted change and its record are one store command; what is answered again, or only validated, leaves none.
Credentials are given away only once the record of it is committed. No secret gets into a record: of an end user it has
the id that the platform gives, or a keyed digest where there is none.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime

from msgspec.structs import replace

from purveyor_server.domain.audit import AuditOutcome, AuditRecord
from purveyor_server.domain.digests import keyed_digest
from purveyor_server.domain.model import Binding, Identity, Json, Operation
from purveyor_server.lifecycle.contract import Caller, Ordered, Write
from purveyor_server.lifecycle.door import Action
from purveyor_server.store.contract import Decision, Situation

USER_FIELDS = (
    "user_id",
    "uid",
    "username",
)  # Cloud Foundry; Kubernetes: OSBAPI profile.md "Originating Identity Header"
MAX_USER = 200  # characters
DIGEST_CHARACTERS = 16


def record(
    caller: Caller,
    action: Action,
    resource: str,
    at: datetime,
    outcome: AuditOutcome,
    *,
    tenant: str = "",
    request_id: str = "",
    reason: str = "",
    on_behalf: str = "",
    details: dict[str, Json] | None = None,
) -> AuditRecord:
    """What a call leaves. Pure: a decision inside the store may make it several times."""
    principal = caller.principal
    return AuditRecord(
        at=at,
        principal=principal.subject,
        action=str(action),
        resource=resource,
        reason=reason,
        tenant=tenant,
        request_id=request_id,
        details=details or {},
        outcome=outcome,
        means=str(principal.means),
        credential=principal.credential,
        on_behalf=on_behalf,
        origin=caller.origin,
        call_id=caller.call_id,
    )


def recorded(
    caller: Caller, action: Action, request: Write, key: bytes, decide: Callable[[Situation], Decision]
) -> Callable[[Situation], Decision]:
    """`decide`, whose writes carry the record of what it accepts; `key` keys digests of end users."""
    behalf = on_behalf(request.originating_identity, key)

    def decided(situation: Situation) -> Decision:
        decision = decide(situation)
        operation = decision.operation
        if decision.replayed or operation is None:
            return decision
        made = record(
            caller,
            action,
            resource_of(operation),
            situation.now,
            AuditOutcome.ACCEPTED,
            tenant=request.tenant,
            request_id=request.request_id,
            reason=request.reason if isinstance(request, Ordered) else "",
            on_behalf=behalf,
            details={"operation": operation.operation_id},
        )
        return replace(decision, writes=replace(decision.writes, audit=(*decision.writes.audit, made)))

    return decided


def resource_of(about: Operation | Binding) -> str:
    """The instance, or the binding, that an operation is about."""
    name = f"instance/{about.instance_id}"
    return f"{name}/binding/{about.binding_id}" if about.binding_id else name


def credentials_read(caller: Caller, binding: Binding, at: datetime) -> AuditRecord:
    """The record of credentials that are about to be given away."""
    resource = resource_of(binding)
    return record(caller, Action.GET_CREDENTIALS, resource, at, AuditOutcome.READ, tenant=binding.tenant)


def on_behalf(identity: Identity | None, key: bytes) -> str:
    """The platform, and its user: by id, else by a digest of what the platform says of it."""
    if identity is None:
        return ""
    for field in USER_FIELDS:
        user = identity.value.get(field)
        if isinstance(user, str) and 0 < len(user) <= MAX_USER:
            return f"{identity.platform}/{user}"
    if not identity.value:
        return identity.platform
    return f"{identity.platform}/#{keyed_digest(key, 'identity', identity.value)[:DIGEST_CHARACTERS]}"
