"""Every cell of the conflict matrix through the rule that a store runs: what is written, or which reason is given."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, NamedTuple

import pytest
from msgspec.structs import replace

from purveyor_server.domain.conflicts import BINDING_MATRIX, INSTANCE_MATRIX, Ask, BindingAsk, BindingRow, Row, Ruling
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import Binding, ExpiryChange, Instance, Operation
from purveyor_server.domain.states import BindingState, InstanceState, OperationState, Verb, Waiting
from purveyor_server.lifecycle.bind import decide_bind
from purveyor_server.lifecycle.deprovision import decide_deprovision
from purveyor_server.lifecycle.provision import decide_provision
from purveyor_server.lifecycle.renew import decide_renew
from purveyor_server.lifecycle.rotate import decide_rotate
from purveyor_server.lifecycle.unbind import decide_unbind
from purveyor_server.lifecycle.update import decide_update
from purveyor_server.store.contract import Decision, Situation
from tests.fakes import leases, rules
from tests.fakes.situations import NOW, binding, instance, operation, settings, situation

ACCEPTED = {Ruling.ACCEPT, Ruling.FRESH_ATTEMPT, Ruling.TAKE_OVER, Ruling.WAIT_AND_CANCEL}
REASONS = {
    Ruling.IN_PROGRESS: {Reason.OPERATION_IN_PROGRESS},
    Ruling.ALREADY_EXISTS: {Reason.INSTANCE_ALREADY_EXISTS, Reason.BINDING_ALREADY_EXISTS},
    Ruling.WRONG_STATE: {Reason.WRONG_STATE},
    Ruling.BINDINGS_EXIST: {Reason.BINDINGS_EXIST},
    Ruling.NOT_FOUND: {Reason.INSTANCE_NOT_FOUND, Reason.BINDING_NOT_FOUND},
}
IN_FLIGHT = settings(size=7)
IN_FLIGHT_END = NOW + timedelta(hours=1)


NONE_YET = {Row.ABSENT, Row.PROVISIONING, Row.DELETED} | {row for row in Row if row.name.startswith("FAILED")}


class Scene(NamedTuple):
    """An instance in a row of the matrix, with what runs on it."""

    of: Instance | None
    running: tuple[Operation, ...] = ()
    bindings: tuple[Binding, ...] = ()


def scene(row: Row) -> Scene:
    plain = {
        Row.READY: InstanceState.READY,
        Row.DELETE_FAILED: InstanceState.DELETE_FAILED,
        Row.FAILED: InstanceState.FAILED,
        Row.DELETED: InstanceState.DELETED,
    }
    busy = {
        Row.PROVISIONING: (InstanceState.PROVISIONING, Verb.PROVISION),
        Row.UPDATING: (InstanceState.UPDATING, Verb.UPDATE),
        Row.DEPROVISIONING: (InstanceState.DEPROVISIONING, Verb.DEPROVISION),
        Row.READY_CLEANUP: (InstanceState.READY, Verb.CLEANUP),
        Row.FAILED_CLEANUP: (InstanceState.FAILED, Verb.CLEANUP),
    }
    if row is Row.ABSENT:
        return Scene(None)
    if row is Row.FAILED_KEPT:
        return Scene(instance(InstanceState.FAILED, digest="same", cleanup_required=("role",)))
    if row in plain:
        deleted = instance(plain[row]).created_at if row is Row.DELETED else None
        return Scene(instance(plain[row], digest="same", deleted_at=deleted))
    if row is Row.READY_BINDING_WORK:
        of = instance(digest="same")
        on = binding(of, BindingState.UNBINDING, binding_id="other")
        return Scene(of, (operation(of, Verb.UNBIND, on),), ())
    state, verb = busy[row]
    of = instance(state, digest="same", in_flight=IN_FLIGHT if verb is Verb.UPDATE else None)
    return Scene(of, (operation(of, verb),))


def seen(found: Scene, on: Binding | None = None, *bindings: Binding) -> Situation:
    last = found.running[0] if found.running else None
    return situation(found.of, on, operations=found.running, last_operation=last, bindings=bindings)


def asked(row: Row, ask: Ask) -> Decision:
    """The rule of the verb behind a column."""
    found = scene(row)
    live: tuple[Binding, ...] = (binding(found.of),) if found.of is not None else ()
    match ask:
        case Ask.PROVISION_SAME | Ask.PROVISION_OTHER:
            digest = "same" if ask is Ask.PROVISION_SAME else "other"
            return decide_provision(seen(found), rules.provision_ask(digest=digest))
        case Ask.UPDATE_SAME | Ask.UPDATE_OTHER:
            size = 7 if ask is Ask.UPDATE_SAME else 8
            return decide_update(seen(found), rules.update_ask(parameters={"size": size}))
        case Ask.BIND:
            return decide_bind(seen(found), rules.bind_ask())
        case Ask.RENEW:
            on = None if row in NONE_YET else replace(live[0], expires_at=NOW + timedelta(minutes=1))
            return decide_renew(seen(found, on), leases.renew_ask(expire_time=IN_FLIGHT_END))
        case Ask.UNBIND:
            return decide_unbind(seen(found, None if row in NONE_YET else live[0]), rules.unbind_ask())
        case Ask.DEPROVISION:
            return decide_deprovision(seen(found), rules.deprovision_ask())
        case _:
            cascade = ask is Ask.DEPROVISION_CASCADE
            return decide_deprovision(seen(found, None, *live), rules.deprovision_ask(cascade=cascade))


def judge(ruling: Ruling, run: Any) -> Decision | None:
    """Check that `run` does what the ruling says; the decision of an accepted one."""
    if ruling in REASONS:
        with pytest.raises(PurveyorError) as refused:
            run()
        assert refused.value.reason in REASONS[ruling]
        check_refusal(refused.value)
        return None
    decision: Decision = run()
    assert decision.replayed == (ruling in {Ruling.SAME_OPERATION, Ruling.CURRENT_STATE})
    assert bool(decision.writes.operations) == (ruling in ACCEPTED)
    return decision if ruling in ACCEPTED else None


def check_refusal(error: PurveyorError) -> None:
    """What a caller needs to act on it."""
    if error.reason is Reason.OPERATION_IN_PROGRESS:
        assert error.retry_after is not None
        assert error.metadata["operation"]
    if error.reason in {Reason.WRONG_STATE, Reason.BINDINGS_EXIST}:
        assert error.preconditions
    if error.reason is Reason.BINDINGS_EXIST:
        assert error.metadata["bindings"] == "app"


CELLS = [(row, ask) for row in Row for ask in Ask]


@pytest.mark.parametrize(("row", "ask"), CELLS, ids=lambda value: value.name)
def test_instance_cell(row: Row, ask: Ask) -> None:
    ruling = INSTANCE_MATRIX[row][ask]
    decision = judge(ruling, lambda: asked(row, ask))
    if decision is None:
        return
    begun = decision.operation
    assert begun is not None
    assert begun.state is OperationState.PENDING
    assert (begun.due_at is None) == bool(begun.blocked_by)
    stopped = {op.operation_id: op for op in decision.writes.operations if op is not begun}
    if ruling in {Ruling.TAKE_OVER, Ruling.WAIT_AND_CANCEL}:
        assert begun.waiting is Waiting.BLOCKED
        assert set(begun.blocked_by) <= set(stopped)


def binding_scene(row: BindingRow) -> tuple[Situation, Binding | None]:
    of = instance()
    last = operation(of, Verb.PROVISION, state=OperationState.SUCCEEDED)
    if row is BindingRow.ABSENT:
        return situation(of), None
    shared = {BindingRow.ACTIVE_WORK: BindingState.ACTIVE}
    failed = row.name.startswith("FAILED")
    state = BindingState.FAILED if failed else shared[row] if row in shared else BindingState[row.name]
    left = ("login",) if row is BindingRow.FAILED_KEPT else ()
    on = binding(of, state, digest="same", cleanup_required=left, expires_at=NOW + timedelta(minutes=1))
    verbs = {
        BindingRow.BINDING: Verb.BIND,
        BindingRow.UNBINDING: Verb.UNBIND,
        BindingRow.FAILED_CLEANUP: Verb.CLEANUP,
        BindingRow.ACTIVE_WORK: Verb.RENEW,
    }
    expiry = ExpiryChange(IN_FLIGHT_END) if row is BindingRow.ACTIVE_WORK else None
    running = (operation(of, verbs[row], on, expiry=expiry),) if row in verbs else ()
    return situation(of, on, operations=running, last_operation=running[0] if running else last), on


@pytest.mark.parametrize("row", BindingRow, ids=lambda row: row.name)
@pytest.mark.parametrize("ask", BindingAsk, ids=lambda ask: ask.name)
def test_binding_cell(row: BindingRow, ask: BindingAsk) -> None:
    found, on = binding_scene(row)
    ruling = BINDING_MATRIX[row][ask]
    if ask in {BindingAsk.RENEW_SAME, BindingAsk.RENEW_OTHER}:
        target = IN_FLIGHT_END if ask is BindingAsk.RENEW_SAME else IN_FLIGHT_END + timedelta(hours=1)
        judge(ruling, lambda: decide_renew(found, leases.renew_ask(expire_time=target)))
        return
    if ask is BindingAsk.ROTATE:
        judge(ruling, lambda: decide_rotate(found, leases.rotate_ask(old=on.uid if on is not None else "")))
        return
    if ask is BindingAsk.UNBIND:
        decision = judge(ruling, lambda: decide_unbind(found, rules.unbind_ask()))
        if decision is not None:
            assert decision.binding is not None
            assert decision.binding.state is BindingState.UNBINDING
        return
    digest = "same" if ask is BindingAsk.BIND_SAME else "other"
    decision = judge(ruling, lambda: decide_bind(found, rules.bind_ask(digest=digest)))
    if decision is None:
        return
    assert decision.binding is not None
    assert decision.binding.state is BindingState.BINDING
    if on is not None and row is BindingRow.FAILED:
        buried, fresh = decision.writes.bindings
        assert (buried.uid, buried.state) == (on.uid, BindingState.DELETED)
        assert fresh.uid != on.uid
