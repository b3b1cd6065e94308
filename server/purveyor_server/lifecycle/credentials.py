"""Credentials: opened for those who may have them, while the binding is ACTIVE and not a moment longer.

Guarantee: the secret is read first and the state of the binding after it, so what is answered was valid at a moment of the
call; nothing is answered once the removal of the binding has been accepted. The audit record is committed before.
"""

from __future__ import annotations

import msgspec
import structlog

from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource
from purveyor_server.domain.leases import over
from purveyor_server.domain.model import Binding, Json
from purveyor_server.domain.principal import Role
from purveyor_server.domain.states import BindingState
from purveyor_server.lifecycle.contract import Caller, Outcome
from purveyor_server.lifecycle.door import Action, denied
from purveyor_server.lifecycle.reads import live_binding
from purveyor_server.lifecycle.recording import credentials_read
from purveyor_server.lifecycle.running import Parts
from purveyor_server.security.sealing import SealError
from purveyor_server.store.contract import Scope

_log = structlog.get_logger(__name__)
COLUMN = "credentials"


async def get_credentials(
    parts: Parts, caller: Caller, tenant: str, instance_id: str, binding_id: str
) -> dict[str, Json]:
    """Credentials of an ACTIVE binding, for their readers and for its creator. See `Lifecycle.get_credentials`."""
    scope = parts.door.enter(caller, Action.GET_CREDENTIALS, tenant)
    binding = await live_binding(parts, scope, tenant, instance_id, binding_id)
    if not may_read(caller, binding):
        raise denied(Action.GET_CREDENTIALS, Role.CREDENTIALS_READER, tenant=tenant)
    if binding.state is not BindingState.ACTIVE:
        raise not_available(binding, f"it is {binding.state}")
    if over(binding.expires_at, parts.clock.now()):
        raise not_available(binding, "its time is over")
    # Recorded before they are opened: nobody has credentials of which the records do not know.
    await parts.store.note(credentials_read(caller, binding, parts.clock.now()))
    parts.door.note(caller, Action.GET_CREDENTIALS, tenant, instance=instance_id, binding=binding_id)
    values = await opened(parts, scope, binding)
    if values is None:
        raise not_available(binding, "its removal has begun")
    return values


def may_read(caller: Caller, binding: Binding) -> bool:
    """Readers of credentials may, and the creator of the binding."""
    reads = Role.CREDENTIALS_READER in caller.roles_in(binding.tenant)
    return reads or (bool(binding.creator) and binding.creator == caller.subject)


async def with_credentials(parts: Parts, caller: Caller, scope: Scope, outcome: Outcome) -> Outcome:
    """The outcome of a Bind, with credentials when its binding is ACTIVE and the caller may read them."""
    binding = outcome.binding
    if binding is None or binding.state is not BindingState.ACTIVE or not may_read(caller, binding):
        return outcome
    if over(binding.expires_at, parts.clock.now()):  # the sweep has not been there yet
        return outcome
    await parts.store.note(credentials_read(caller, binding, parts.clock.now()))
    parts.door.note(
        caller, Action.GET_CREDENTIALS, binding.tenant, instance=binding.instance_id, binding=binding.binding_id
    )
    return msgspec.structs.replace(outcome, credentials=await opened(parts, scope, binding))


async def opened(parts: Parts, scope: Scope, binding: Binding) -> dict[str, Json] | None:
    """The clear credentials, or None when the binding is no longer ACTIVE. Raises CREDENTIALS_NOT_AVAILABLE."""
    secret = await parts.store.secret(binding.uid, COLUMN)
    now = await parts.store.binding(scope, binding.tenant, binding.instance_id, binding.binding_id)
    if now is None or now.uid != binding.uid or now.state is not BindingState.ACTIVE:
        return None
    if secret is None:
        _log.error("an active binding has no credentials", binding_uid=binding.uid)
        raise not_available(binding, "they are not stored; make a new binding")
    try:
        clear = parts.opener.open(binding.uid, COLUMN, secret.sealed)
    except SealError as error:
        _log.error("credentials cannot be unsealed", binding_uid=binding.uid, error=str(error))
        raise not_available(binding, "they cannot be unsealed with the broker's keys") from None
    return msgspec.json.decode(clear, type=dict[str, Json])


def not_available(binding: Binding, why: str) -> PurveyorError:
    """FAILED_PRECONDITION with the reason why there is nothing to read."""
    text = f"the binding {binding.binding_id!r} has no credentials to read: {why}"
    return PurveyorError(
        Reason.CREDENTIALS_NOT_AVAILABLE,
        text,
        metadata={"binding_id": binding.binding_id, "state": str(binding.state)},
        resource=Resource("binding", binding.binding_id),
        preconditions=(Precondition("CREDENTIALS", f"binding/{binding.binding_id}", text),),
    )
