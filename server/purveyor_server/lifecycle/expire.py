"""Expire: what the broker does with a binding whose time is over. No caller asks for it: the expiry loop does.

Guarantee: the binding is EXPIRED, so that its credentials are not served any more, and its UNBIND is accepted, in one command
and by the rules of every unbind; whatever else is at work on it is taken over. A binding that was renewed meanwhile is left.
"""

from __future__ import annotations

import msgspec

from purveyor_server.domain.leases import over
from purveyor_server.domain.model import Binding
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import BindingState, InstanceState, Verb
from purveyor_server.kit.ids import new_id
from purveyor_server.lifecycle.contract import ITSELF, Outcome, Unbind
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.making import Order
from purveyor_server.lifecycle.running import Parts, accept
from purveyor_server.lifecycle.unbind import remove_binding
from purveyor_server.store.contract import SYSTEM, Accept, Decision, Situation, Writes

ENDING = frozenset({BindingState.ACTIVE, BindingState.EXPIRED})


class Lapse(msgspec.Struct, frozen=True):
    """A binding whose time seems to be over; without `revoke` it is marked only (a freeze of deletions holds the rest)."""

    seen: Binding
    revoke: bool = True


async def expire(parts: Parts, lapse: Lapse) -> Outcome:
    """Mark the binding and begin to take its access away; see `Lifecycle.expire`."""
    seen = lapse.seen
    parts.door.enter(ITSELF, Action.UNBIND, seen.tenant)
    request = Unbind(tenant=seen.tenant, instance_id=seen.instance_id, binding_id=seen.binding_id)
    order = Order(
        operation_id=new_id(),
        verb=Verb.UNBIND,
        tenant=seen.tenant,
        instance_id=seen.instance_id,
        binding_id=seen.binding_id,
        principal=ITSELF.subject,
    )

    def decide(situation: Situation) -> Decision:
        return _decide(parts, situation, lapse, order)

    command = Accept(SYSTEM, seen.tenant, seen.instance_id, decide, binding_id=seen.binding_id, label="expire")

    async def prepare() -> Accept:
        return command

    decision = await accept(parts, ITSELF, Action.UNBIND, request, prepare)
    if decision.operation is not None:
        parts.door.note_decision(ITSELF, Action.UNBIND, request, decision)
    return Outcome(decision.operation, decision.instance, decision.binding)


def _decide(parts: Parts, situation: Situation, lapse: Lapse, order: Order) -> Decision:
    instance, binding = situation.instance, situation.binding
    if instance is None or binding is None or binding.uid != lapse.seen.uid or binding.state not in ENDING:
        return Decision()
    if not over(binding.expires_at, situation.now):
        return Decision(instance=instance, binding=binding)
    marks: tuple[Binding, ...] = ()
    if binding.state is BindingState.ACTIVE:
        binding = touch(binding, situation.now, state=BindingState.EXPIRED, rotate_at=None)
        marks = (binding,)
    if not lapse.revoke or instance.state is InstanceState.DEPROVISIONING:
        return Decision(Writes(bindings=marks), instance=instance, binding=binding)
    applied = instance.present
    removal = remove_binding(situation, order, parts.book.get(binding.plan), binding, applied)
    writes = Writes(bindings=(*marks, removal.binding), operations=removal.operations)
    return Decision(writes, removal.operations[0], instance, removal.binding)
