"""A failed operation, once more: from the failed step where its remains were kept, else as a new attempt.

Guarantee: a retry is an operation of its own under the same rules as a caller's request; the failed one stays as it ended and
names its successor. One whose remains are kept hands its journal on, so a finished step never runs again; so does an update that
failed past its pivot, which nothing but its end makes usable again. One whose remains
are gone is begun anew, under a new uid, with the settings that were asked for.
Limit: secret parameters went with the remains; such a request its caller has to send again. Pure: a rule inside the store.
"""

from __future__ import annotations

import msgspec
from msgspec.structs import replace

from purveyor_server.domain.conflicts import Ask, BindingRow, Row, Ruling, binding_row_of, row_of, rule, rule_bind
from purveyor_server.domain.errors import Precondition, PurveyorError, Reason, Resource
from purveyor_server.domain.model import Binding, Instance, Operation, Settings, Step
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import BindingState, InstanceState, OperationState, StepState, Verb, Waiting
from purveyor_server.lifecycle.contract import Deprovision, Unbind
from purveyor_server.lifecycle.deprovision import DeprovisionAsk, decide_deprovision
from purveyor_server.lifecycle.making import Order, begin
from purveyor_server.lifecycle.plans import KnownPlan, PlanBook
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.lifecycle.running import replay
from purveyor_server.lifecycle.unbind import UnbindAsk, decide_unbind
from purveyor_server.store.contract import Decision, Situation, Writes


class RetryAsk(msgspec.Struct, frozen=True, kw_only=True):
    """A retry of `failed`, whose journal is `steps`. `uid` is for what is made anew."""

    failed: Operation
    steps: tuple[Step, ...]
    order: Order
    uid: str
    book: PlanBook
    settings: LifecycleSettings


def decide_retry(situation: Situation, ask: RetryAsk) -> Decision:
    """The rule. Raises WRONG_STATE with what stands in the way, and what decisions of the verb raise."""
    if (again := replay(situation, ask.order.request)) is not None:
        return again
    failed = ask.failed
    check_ended_badly(failed)
    instance, binding = situation.instance, situation.binding
    if instance is None or instance.uid != failed.instance_uid or instance.state is InstanceState.DELETED:
        raise not_retried(failed, "its instance is gone, or was made anew since")
    if failed.binding_uid and (binding is None or binding.uid != failed.binding_uid or binding.deleted_at is not None):
        raise not_retried(failed, "its binding is gone, or was made anew since")
    subject = binding if binding is not None and failed.binding_uid else instance
    if subject.last_operation != failed.operation_id:
        raise not_retried(failed, f"something newer was asked for since: operation {subject.last_operation}")
    decided = _VERBS[failed.verb](situation, ask, instance, binding)
    retried = touch(failed, situation.now, waiting=Waiting.NONE, waiting_detail="", cleanup_required=())
    retried = replace(retried, taken_over_by=ask.order.operation_id)
    writes = replace(decided.writes, operations=(*decided.writes.operations, retried))
    return replace(decided, writes=writes)


def check_ended_badly(operation: Operation) -> None:
    """Raise WRONG_STATE for what can never be retried, whatever became of its instance since."""
    if operation.verb not in _VERBS:
        raise not_retried(operation, f"a {operation.verb} goes on by itself, or is asked for anew")
    if not operation.done:
        raise not_retried(operation, f"it has not ended: {operation.state}")
    if operation.state is OperationState.SUCCEEDED:
        raise not_retried(operation, "it has succeeded")
    if operation.failure is not None and operation.failure.reason == Reason.PURGED:
        raise not_retried(operation, "its resource was purged")


def not_retried(operation: Operation, why: str) -> PurveyorError:
    """WRONG_STATE with the reason."""
    text = f"the operation {operation.operation_id} cannot be retried: {why}"
    return PurveyorError(
        Reason.WRONG_STATE,
        text,
        metadata={"operation": operation.operation_id, "state": str(operation.state)},
        resource=Resource("operation", operation.operation_id),
        preconditions=(Precondition("RETRYABLE", f"operation/{operation.operation_id}", text),),
    )


def _busy(failed: Operation, situation: Situation) -> PurveyorError:
    names = ", ".join(operation.operation_id for operation in situation.operations) or "none that runs"
    return not_retried(failed, f"other operations are in the way: {names}")


def _known(ask: RetryAsk, settings: Settings | None) -> KnownPlan:
    if settings is None:
        raise not_retried(ask.failed, "its settings are not recorded")
    return ask.book.get(settings.plan)


# From the failed step


def _resumed(
    situation: Situation, ask: RetryAsk, plan: KnownPlan, instance: Instance, binding_uid: str
) -> tuple[Operation, tuple[Step, ...]]:
    """The operation that goes on with the journal, and that journal: what is finished stays so."""
    failed = ask.failed
    want, was = failed.want, failed.was
    made = begin(ask.order, situation, plan, instance_uid=instance.uid, binding_uid=binding_uid, want=want, was=was)
    if made.contract != failed.contract:
        why = f"its provider's contract was {failed.contract!r} and is {made.contract!r}: clean up, then begin anew"
        raise not_retried(failed, why)
    lines = tuple(
        replace(line, operation_id=made.operation_id) for line in ask.steps if line.state is not StepState.UNDONE
    )
    first = failed.first_failure or failed.failure
    return replace(made, resumes=failed.operation_id, first_failure=first), lines


def _provision(situation: Situation, ask: RetryAsk, instance: Instance, _binding: Binding | None) -> Decision:
    failed, row = ask.failed, row_of(instance, situation.operations)
    plan = _known(ask, failed.want)
    assert failed.want is not None, "known, so there"
    if row is Row.FAILED_KEPT and failed.held:
        operation, lines = _resumed(situation, ask, plan, instance, "")
        state = InstanceState.PROVISIONING
        going = {"state": state, "in_flight": failed.want, "cleanup_required": ()}
        again = touch(instance, situation.now, last_operation=operation.operation_id, **going)
        return Decision(Writes(instances=(again,), operations=(operation,), steps=lines), operation, again)
    if rule(row, Ask.PROVISION_SAME) is not Ruling.FRESH_ATTEMPT:
        raise _in_the_way(ask, situation, kept=row is Row.FAILED_KEPT)
    _check_no_secrets(ask, failed.want.sealed)
    operation = begin(ask.order, situation, plan, instance_uid=ask.uid, want=failed.want)
    buried = touch(instance, situation.now, state=InstanceState.DELETED, deleted_at=situation.now)
    anew = replace(
        instance,
        uid=ask.uid,
        state=InstanceState.PROVISIONING,
        desired=failed.want,
        in_flight=failed.want,
        usable=False,
        last_operation=operation.operation_id,
        version=1,
        created_at=situation.now,
        updated_at=situation.now,
    )
    writes = Writes(instances=(buried, anew), operations=(operation,), erase=(instance.uid,))
    return Decision(writes, operation, anew)


def _bind(situation: Situation, ask: RetryAsk, instance: Instance, binding: Binding | None) -> Decision:
    assert binding is not None, "checked by the rule"
    failed = ask.failed
    if binding.predecessor_binding_id:
        why = f"it was to follow {binding.predecessor_binding_id!r}, which is free of it: rotate that one again"
        raise not_retried(failed, why)
    plan = ask.book.get(binding.plan)
    row, of_instance = binding_row_of(binding, situation.operations), row_of(instance, situation.operations)
    if row is BindingRow.FAILED_KEPT and failed.held:
        if rule(of_instance, Ask.BIND) is not Ruling.ACCEPT:
            raise _busy(failed, situation)
        operation, lines = _resumed(situation, ask, plan, instance, binding.uid)
        going = {"state": BindingState.BINDING, "cleanup_required": ()}
        again = touch(binding, situation.now, last_operation=operation.operation_id, **going)
        return Decision(Writes(bindings=(again,), operations=(operation,), steps=lines), operation, instance, again)
    if rule_bind(of_instance, row, same=True) is not Ruling.FRESH_ATTEMPT:
        raise _in_the_way(ask, situation, kept=row is BindingRow.FAILED_KEPT)
    _check_no_secrets(ask, binding.sealed)
    operation = begin(ask.order, situation, plan, instance_uid=instance.uid, binding_uid=ask.uid, want=instance.present)
    buried = touch(binding, situation.now, state=BindingState.DELETED, deleted_at=situation.now)
    shift = situation.now - binding.created_at  # a lease is counted from the attempt that makes it
    anew = replace(
        binding,
        uid=ask.uid,
        state=BindingState.BINDING,
        expires_at=binding.expires_at + shift if binding.expires_at is not None else None,
        renew_before=binding.renew_before + shift if binding.renew_before is not None else None,
        rotate_at=binding.rotate_at + shift if binding.rotate_at is not None else None,
        last_operation=operation.operation_id,
        version=1,
        created_at=situation.now,
        updated_at=situation.now,
    )
    writes = Writes(bindings=(buried, anew), operations=(operation,), erase=(binding.uid,))
    return Decision(writes, operation, instance, anew)


def _in_the_way(ask: RetryAsk, situation: Situation, *, kept: bool) -> PurveyorError:
    if kept:
        return not_retried(ask.failed, "what it left behind was given up: clean up first")
    return _busy(ask.failed, situation)


def _check_no_secrets(ask: RetryAsk, sealed: dict[str, str]) -> None:
    if sealed:
        raise not_retried(ask.failed, "its secret parameters went with its remains: its caller must send them again")


# A new attempt at what is there


def _update(situation: Situation, ask: RetryAsk, instance: Instance, _binding: Binding | None) -> Decision:
    failed = ask.failed
    plan = _known(ask, failed.want)
    if failed.past_pivot:
        return _forward(situation, ask, instance, plan)
    if rule(row_of(instance, situation.operations), Ask.UPDATE_OTHER) is not Ruling.ACCEPT:
        raise _busy(failed, situation)
    base = instance.present
    operation = begin(ask.order, situation, plan, instance_uid=instance.uid, want=failed.want, was=base)
    going = {"state": InstanceState.UPDATING, "desired": failed.want, "in_flight": failed.want}
    again = touch(instance, situation.now, last_operation=operation.operation_id, **going)
    return Decision(Writes(instances=(again,), operations=(operation,)), operation, again)


def _forward(situation: Situation, ask: RetryAsk, instance: Instance, plan: KnownPlan) -> Decision:
    """An update past its pivot goes on from the failed step: what it leads to is there by then, and there is no way back."""
    failed = ask.failed
    if instance.state is not InstanceState.DELETE_FAILED or situation.operations:
        raise _busy(failed, situation)
    operation, lines = _resumed(situation, ask, plan, instance, "")
    operation = replace(operation, past_pivot=True)
    going = {"state": InstanceState.UPDATING, "in_flight": failed.want, "cleanup_required": ()}
    again = touch(instance, situation.now, last_operation=operation.operation_id, **going)
    return Decision(Writes(instances=(again,), operations=(operation,), steps=lines), operation, again)


def _deprovision(situation: Situation, ask: RetryAsk, instance: Instance, _binding: Binding | None) -> Decision:
    """With cascade: after a failed removal every binding that is left was to go as well."""
    if instance.state is not InstanceState.DELETE_FAILED:
        raise _busy(ask.failed, situation)
    request = Deprovision(tenant=instance.tenant, instance_id=instance.instance_id, cascade=True)
    asked = DeprovisionAsk(request=request, order=ask.order, book=ask.book, settings=ask.settings)
    return decide_deprovision(situation, asked)


def _unbind(situation: Situation, ask: RetryAsk, instance: Instance, binding: Binding | None) -> Decision:
    assert binding is not None, "checked by the rule"
    if binding.state is not BindingState.REVOCATION_BLOCKED or _runs(situation, binding):
        raise _busy(ask.failed, situation)
    request = Unbind(tenant=instance.tenant, instance_id=instance.instance_id, binding_id=binding.binding_id)
    asked = UnbindAsk(request=request, order=ask.order, book=ask.book, settings=ask.settings)
    return decide_unbind(situation, asked)


def _runs(situation: Situation, binding: Binding) -> bool:
    return any(operation.binding_uid == binding.uid for operation in situation.operations)


_VERBS = {
    Verb.PROVISION: _provision,
    Verb.BIND: _bind,
    Verb.UPDATE: _update,
    Verb.DEPROVISION: _deprovision,
    Verb.UNBIND: _unbind,
}
