"""Leaving an instance alone: no loop of the broker changes it until somebody says go on.

Guarantee: the record says why, who and since when; what is so already stays as it is. The audit record is in the same command.
Limit: a caller's own requests go on, and credentials end when they end; looks at the backend go on, for they change nothing.
"""

from __future__ import annotations

from purveyor_server.domain.errors import instance_not_found
from purveyor_server.domain.model import Instance, Pause
from purveyor_server.domain.names import check_id, check_tenant
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import InstanceState
from purveyor_server.lifecycle.admin.acts import enter, record, tell
from purveyor_server.lifecycle.admin.contract import Act, AdminParts
from purveyor_server.lifecycle.contract import Caller
from purveyor_server.lifecycle.door import Action
from purveyor_server.store.contract import SYSTEM, Accept, Decision, Situation, Writes


async def pause(parts: AdminParts, caller: Caller, tenant: str, instance_id: str, act: Act) -> Instance:
    """Leave it alone. Raises INSTANCE_NOT_FOUND, INVALID_REQUEST."""
    return await _set(parts, caller, Action.PAUSE_RECONCILIATION, (tenant, instance_id), act)


async def resume(parts: AdminParts, caller: Caller, tenant: str, instance_id: str, act: Act) -> Instance:
    """Look after it again. Raises INSTANCE_NOT_FOUND, INVALID_REQUEST."""
    return await _set(parts, caller, Action.RESUME_RECONCILIATION, (tenant, instance_id), act)


async def _set(parts: AdminParts, caller: Caller, action: Action, named: tuple[str, str], act: Act) -> Instance:
    reason = enter(parts, caller, action, act)
    tenant, instance_id = named
    check_tenant(tenant)
    check_id(instance_id, "instance_id")
    resource = f"instance/{instance_id}"

    def decide(situation: Situation) -> Decision:
        found = situation.instance
        if found is None or found.state is InstanceState.DELETED:
            raise instance_not_found(tenant, instance_id)
        wanted = Pause(reason, caller.subject, situation.now) if action is Action.PAUSE_RECONCILIATION else None
        if (found.reconcile_paused is None) is (wanted is None):
            return Decision(instance=found)
        changed = touch(found, situation.now, reconcile_paused=wanted)
        noted = record(parts, caller, action, act, resource, tenant)
        return Decision(Writes(instances=(changed,), audit=(noted,)), instance=changed)

    decision = await parts.store.accept(Accept(SYSTEM, tenant, instance_id, decide, dry_run=act.validate_only))
    assert decision.instance is not None, "decided on"
    if not act.validate_only and decision.writes != Writes():
        tell(parts, caller, action, act, resource, tenant)
    return decision.instance
