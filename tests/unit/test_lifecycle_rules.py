"""What an accept writes, and in which order its checks come: request id, etag, matrix, plan and schema, capacity."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from purveyor_server.domain.catalog import PlanLimits
from purveyor_server.domain.errors import PurveyorError, Reason, invalid
from purveyor_server.domain.etags import etag_of
from purveyor_server.domain.model import RequestKey
from purveyor_server.domain.states import BindingState, InstanceState, OperationState, Verb, Waiting
from purveyor_server.lifecycle.bind import decide_bind
from purveyor_server.lifecycle.contract import Update
from purveyor_server.lifecycle.deprovision import decide_deprovision
from purveyor_server.lifecycle.operations import decide_cancel
from purveyor_server.lifecycle.plans import PlanBook, UnpreparedError
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.lifecycle.provision import decide_provision
from purveyor_server.lifecycle.unbind import decide_unbind
from purveyor_server.lifecycle.update import decide_update
from purveyor_server.providers.contract import Ability
from purveyor_server.store.contract import Backlog, Job
from tests.fakes import rules
from tests.fakes.situations import (
    INSTANCE,
    LARGE,
    NOW,
    TENANT,
    FakePlans,
    binding,
    catalog,
    instance,
    operation,
    plan,
    settings,
    situation,
)

KEY = RequestKey("local", "Provision", "r-1", "print")


def reason_of(call: Any, *arguments: Any) -> Reason:
    with pytest.raises(PurveyorError) as refused:
        call(*arguments)
    return refused.value.reason


def test_provision_writes_instance_and_operation() -> None:
    found = situation()
    decision = decide_provision(found, rules.provision_ask())
    begun, made = decision.operation, decision.instance
    assert begun is not None
    assert made is not None
    assert (made.state, made.version, made.last_operation) == (InstanceState.PROVISIONING, 1, begun.operation_id)
    assert made.desired == made.in_flight == begun.want
    assert made.applied is None
    assert (begun.state, begun.due_at, begun.budget) == (OperationState.PENDING, found.now, 60.0)
    assert begun.deadline == found.now + timedelta(seconds=60)
    assert (begun.marked_revision, begun.provider, begun.contract) == (7, "pg", "scripted/1")


@pytest.mark.parametrize("rollback", [None, timedelta(minutes=3)])
def test_an_operation_brings_its_plan_s_budgets(rollback: timedelta | None) -> None:
    offered = catalog(plan("small", limits=PlanLimits(timedelta(minutes=1), rollback)))
    book = PlanBook(None, lambda: offered, FakePlans(), rules.SETTINGS)  # type: ignore[arg-type] # nothing to learn

    known = book.of(offered.offer("db", "small"))

    assert (known.budget, known.rollback_budget) == (60.0, 180.0 if rollback else 0.0)
    begun = decide_provision(situation(), replace(rules.provision_ask(), plan=known)).operation
    assert begun is not None
    assert begun.rollback_budget == known.rollback_budget


def test_replay_comes_before_everything() -> None:
    of = instance(InstanceState.DEPROVISIONING)
    earlier = operation(of, Verb.PROVISION, request=KEY, state=OperationState.SUCCEEDED)
    found = situation(of, replay=earlier, backlog=Backlog(10**9, 10**9))
    ask = rules.provision_ask(order=rules.order(Verb.PROVISION, request=KEY), refused=invalid("x", "bad"))
    decision = decide_provision(found, ask)
    assert (decision.operation, decision.replayed, decision.instance) == (earlier, True, of)


def test_replay_of_an_older_incarnation_does_not_show_the_newer_one() -> None:
    earlier = operation(instance(InstanceState.DELETED), Verb.PROVISION, request=KEY)
    ask = rules.provision_ask(order=rules.order(Verb.PROVISION, request=KEY))
    assert decide_provision(situation(instance(), replay=earlier), ask).instance is None


def test_request_id_with_another_body() -> None:
    of = instance()
    found = situation(of, replay=operation(of, Verb.PROVISION, request=replace(KEY, fingerprint="other")))
    ask = rules.provision_ask(order=rules.order(Verb.PROVISION, request=KEY))
    assert reason_of(decide_provision, found, ask) is Reason.REQUEST_ID_REUSED


def test_fresh_attempt_buries_the_failed_one() -> None:
    failed = instance(InstanceState.FAILED, digest="d1")
    decision = decide_provision(situation(failed), rules.provision_ask())
    buried, fresh = decision.writes.instances
    assert (buried.uid, buried.state, buried.deleted_at) == (failed.uid, InstanceState.DELETED, situation().now)
    assert buried.version == failed.version + 1
    assert fresh.uid != failed.uid
    assert decision.writes.erase == (failed.uid,)


def test_refusal_of_catalog_or_schema_comes_after_the_matrix() -> None:
    bad = rules.provision_ask(refused=invalid("parameters", "bad", Reason.INVALID_PARAMETERS))
    assert reason_of(decide_provision, situation(), bad) is Reason.INVALID_PARAMETERS
    assert reason_of(decide_provision, situation(instance()), bad) is Reason.INSTANCE_ALREADY_EXISTS
    assert decide_provision(situation(instance(digest="d1")), bad).replayed


@pytest.mark.parametrize("backlog", [Backlog(1, 0), Backlog(0, 1)])
def test_a_full_house_refuses_new_work_and_no_removal(backlog: Backlog) -> None:
    full = LifecycleSettings(max_pending=1, max_parked=1)
    of = instance()
    on = binding(of)
    asks = [
        (decide_provision, situation(backlog=backlog), rules.provision_ask(settings=full)),
        (decide_update, situation(of, backlog=backlog), rules.update_ask(parameters={"size": 2}, settings=full)),
        (decide_bind, situation(of, backlog=backlog), rules.bind_ask(settings=full)),
    ]
    for decide, found, ask in asks:
        with pytest.raises(PurveyorError) as refused:
            decide(found, ask)  # type: ignore[operator] # each rule with its own ask
        assert refused.value.reason is Reason.TOO_MANY_OPERATIONS
        assert refused.value.retry_after
        assert refused.value.quota_subject
    assert decide_unbind(situation(of, on, backlog=backlog), rules.unbind_ask(settings=full)).operation
    assert decide_deprovision(situation(of, backlog=backlog), rules.deprovision_ask(settings=full)).operation


def test_update_keeps_settings_apart() -> None:
    of = instance(applied=settings(size=1, colour="red"))
    decision = decide_update(situation(of), rules.update_ask(parameters={"size": 2}))
    changed, begun = decision.instance, decision.operation
    assert changed is not None
    assert begun is not None
    assert (changed.state, changed.applied) == (InstanceState.UPDATING, of.applied)
    assert changed.desired == changed.in_flight == begun.want == settings(size=2, colour="red")
    assert begun.was == of.applied


def test_update_to_what_is_there_starts_nothing() -> None:
    wish = settings(size=1)
    of = instance(applied=wish, desired=wish)
    last = operation(of, Verb.PROVISION, state=OperationState.SUCCEEDED)
    decision = decide_update(situation(of, last_operation=last), rules.update_ask(parameters={"size": 1}))
    assert decision.replayed
    assert decision.operation == last
    assert not decision.writes.operations


def test_update_back_after_a_failed_one_ends_at_once() -> None:
    wish = settings(size=1)
    of = instance(applied=wish, desired=settings(size=9))
    last = operation(of, Verb.UPDATE, state=OperationState.FAILED)
    decision = decide_update(situation(of, last_operation=last), rules.update_ask(parameters={"size": 1}))
    assert decision.instance is not None
    assert decision.instance.desired == wish
    assert decision.operation is not None
    assert (decision.operation.state, decision.operation.due_at) == (OperationState.SUCCEEDED, None)


@pytest.mark.parametrize("state", [InstanceState.READY, InstanceState.FAILED, InstanceState.DELETE_FAILED])
def test_protection_can_be_cleared_wherever_a_deprovision_is_possible(state: InstanceState) -> None:
    of = instance(state, deletion_protected=True)
    assert reason_of(decide_deprovision, situation(of), rules.deprovision_ask()) is Reason.DELETION_PROTECTED
    request = Update(tenant=TENANT, instance_id=INSTANCE, deletion_protected=False)
    decision = decide_update(situation(of), rules.update_ask(request=request))
    assert decision.instance is not None
    assert (decision.instance.deletion_protected, decision.instance.state) == (False, state)
    assert decision.operation is not None
    assert decision.operation.done


@pytest.mark.parametrize("state", [InstanceState.UPDATING, InstanceState.PROVISIONING, InstanceState.DEPROVISIONING])
def test_labels_wait_for_what_runs(state: InstanceState) -> None:
    of = instance(state)
    request = Update(tenant=TENANT, instance_id=INSTANCE, labels={"a": "b"})
    found = situation(of, operations=(operation(of, Verb.UPDATE),))
    expected = Reason.WRONG_STATE if state is InstanceState.DEPROVISIONING else Reason.OPERATION_IN_PROGRESS
    assert reason_of(decide_update, found, rules.update_ask(request=request)) is expected


def test_stale_preparation_is_not_used() -> None:
    moved = instance(applied=replace(settings(), plan=LARGE.digest, plan_id="large"))
    with pytest.raises(UnpreparedError):
        decide_update(situation(moved), rules.update_ask(parameters={"size": 2}))
    with pytest.raises(UnpreparedError):
        decide_bind(situation(moved), rules.bind_ask())


def test_etag_is_checked_before_the_matrix() -> None:
    of = instance(InstanceState.DEPROVISIONING)
    assert reason_of(decide_deprovision, situation(of), rules.deprovision_ask(etag='"old"')) is Reason.ETAG_MISMATCH
    ready = instance()
    on = binding(ready)
    assert reason_of(decide_unbind, situation(ready, on), rules.unbind_ask(etag="x")) is Reason.ETAG_MISMATCH
    assert decide_unbind(situation(ready, on), rules.unbind_ask(etag=etag_of(on))).operation


def test_deprovision_takes_a_provision_over() -> None:
    of = instance(InstanceState.PROVISIONING)
    parked = operation(of, Verb.PROVISION, waiting=Waiting.PARKED, due_at=NOW + timedelta(days=1))
    decision = decide_deprovision(situation(of, operations=(parked,)), rules.deprovision_ask())
    begun = decision.operation
    assert begun is not None
    assert (begun.blocked_by, begun.due_at, begun.deadline) == ((parked.operation_id,), None, None)
    stopped = decision.writes.operations[1]
    assert (stopped.state, stopped.taken_over_by) == (OperationState.CANCELLING, begun.operation_id)
    assert stopped.cancel_requested
    assert (stopped.due_at, stopped.waiting) == (situation().now, Waiting.NONE)


def test_deprovision_leaves_the_lease_of_a_running_step_alone() -> None:
    of = instance(InstanceState.PROVISIONING)
    end = NOW + timedelta(seconds=30)
    running = operation(of, Verb.PROVISION, lease_owner="worker", due_at=end)
    stopped = decide_deprovision(situation(of, operations=(running,)), rules.deprovision_ask()).writes.operations[1]
    assert (stopped.due_at, stopped.lease_owner) == (end, "worker")


def test_deprovision_waits_for_an_update_and_asks_it_to_cancel() -> None:
    of = instance(InstanceState.UPDATING)
    running = operation(of, Verb.UPDATE)
    decision = decide_deprovision(situation(of, operations=(running,)), rules.deprovision_ask())
    begun, stopped = decision.writes.operations
    assert begun.blocked_by == (running.operation_id,)
    assert (stopped.cancel_requested, stopped.taken_over_by) == (True, "")
    assert decision.instance is not None
    assert decision.instance.state is InstanceState.DEPROVISIONING


def test_deprovision_only_waits_for_an_update_past_its_pivot() -> None:
    of = instance(InstanceState.UPDATING)
    running = operation(of, Verb.UPDATE, past_pivot=True)
    (begun,) = decide_deprovision(situation(of, operations=(running,)), rules.deprovision_ask()).writes.operations
    assert begun.blocked_by == (running.operation_id,)


def test_deprovision_takes_a_clean_up_over_and_makes_it_due() -> None:
    of = instance(InstanceState.FAILED, cleanup_required=("role",))
    cleaning = operation(of, Verb.CLEANUP, due_at=NOW + timedelta(hours=1), past_pivot=True)
    begun, told = decide_deprovision(situation(of, operations=(cleaning,)), rules.deprovision_ask()).writes.operations
    assert begun.blocked_by == (cleaning.operation_id,)
    assert (told.state, told.taken_over_by) == (OperationState.RUNNING, begun.operation_id)
    assert told.due_at == situation().now


def test_cascade_unbinds_what_is_live_and_buries_what_failed_clean() -> None:
    of = instance()
    active, bound = binding(of, binding_id="a"), binding(of, BindingState.BINDING, binding_id="b")
    leaving, failed = (
        binding(of, BindingState.UNBINDING, binding_id="c"),
        binding(of, BindingState.FAILED, binding_id="d"),
    )
    binds, unbinds = operation(of, Verb.BIND, bound), operation(of, Verb.UNBIND, leaving)
    found = situation(of, bindings=(active, bound, leaving, failed), operations=(binds, unbinds))
    decision = decide_deprovision(found, rules.deprovision_ask(cascade=True))
    parent = decision.operation
    assert parent is not None
    children = [op for op in decision.writes.operations if op.verb is Verb.UNBIND]
    assert {child.binding_uid for child in children} == {active.uid, bound.uid}
    assert all(child.parent == parent.operation_id for child in children)
    assert set(parent.blocked_by) == {*(child.operation_id for child in children), unbinds.operation_id}
    of_bound = next(child for child in children if child.binding_uid == bound.uid)
    assert of_bound.blocked_by == (binds.operation_id,)
    states = {record.binding_id: record.state for record in decision.writes.bindings}
    assert states == {"a": BindingState.UNBINDING, "b": BindingState.UNBINDING, "d": BindingState.DELETED}
    assert decision.writes.erase == (failed.uid,)


def test_a_clean_failed_binding_does_not_block_a_plain_deprovision() -> None:
    of = instance()
    failed = binding(of, BindingState.FAILED)
    decision = decide_deprovision(situation(of, bindings=(failed,)), rules.deprovision_ask())
    assert [record.state for record in decision.writes.bindings] == [BindingState.DELETED]


def test_bindings_in_the_way_are_named_up_to_twenty() -> None:
    of = instance()
    many = tuple(binding(of, binding_id=f"b{n:02}") for n in range(30))
    with pytest.raises(PurveyorError) as refused:
        decide_deprovision(situation(of, bindings=many), rules.deprovision_ask())
    assert refused.value.metadata["count"] == "30"
    assert refused.value.metadata["bindings"].split(",") == [f"b{n:02}" for n in range(20)]


def test_removals_of_what_is_not_there() -> None:
    assert decide_deprovision(situation(), rules.deprovision_ask(allow_missing=True)).operation is None
    assert decide_unbind(situation(), rules.unbind_ask(allow_missing=True)).operation is None
    assert reason_of(decide_unbind, situation(), rules.unbind_ask()) is Reason.INSTANCE_NOT_FOUND
    assert reason_of(decide_unbind, situation(instance()), rules.unbind_ask()) is Reason.BINDING_NOT_FOUND


def test_removals_do_not_need_their_provider() -> None:
    of = instance()
    on = binding(of)
    last = operation(of, Verb.BIND, on, contract="scripted/0")
    missing = replace(rules.KNOWN, contract=None, abilities=frozenset())
    book = rules.book()
    book._known[missing.snapshot.digest] = missing
    found = situation(of, on, last_operation=last)
    begun = decide_unbind(found, rules.unbind_ask(book=book)).operation
    assert begun is not None
    assert begun.contract == "scripted/0"
    assert decide_deprovision(found, rules.deprovision_ask(book=book)).operation
    assert reason_of(decide_bind, situation(of), rules.bind_ask(plan=missing)) is Reason.WRONG_STATE


def test_bind_needs_a_plan_and_a_provider_that_bind() -> None:
    of = instance()
    lame = replace(rules.KNOWN, abilities=frozenset({Ability.UPDATE}))
    closed = replace(rules.KNOWN, snapshot=replace(rules.KNOWN.snapshot, bindable=False))
    assert reason_of(decide_bind, situation(of), rules.bind_ask(plan=lame)) is Reason.NOT_BINDABLE
    assert reason_of(decide_bind, situation(of), rules.bind_ask(plan=closed)) is Reason.NOT_BINDABLE
    endless = replace(rules.KNOWN, abilities=frozenset({Ability.BIND}))
    ask = rules.bind_ask(plan=endless, ttl=timedelta(hours=1))
    assert reason_of(decide_bind, situation(of), ask) is Reason.INVALID_REQUEST


def test_ttl_becomes_a_time() -> None:
    made = decide_bind(situation(instance()), rules.bind_ask(ttl=timedelta(hours=1))).binding
    assert made is not None
    assert made.expires_at == situation().now + timedelta(hours=1)
    assert made.creator == "local"


def job(**changes: Any) -> Job:
    return Job(NOW, 1, operation(instance(), changes.pop("verb", Verb.PROVISION), **changes))


def test_cancel_asks_and_wakes() -> None:
    (asked,) = decide_cancel(job(waiting=Waiting.CIRCUIT, due_at=None)).operations
    assert (asked.state, asked.cancel_requested) == (OperationState.CANCELLING, True)
    assert (asked.waiting, asked.due_at) == (Waiting.NONE, NOW)


@pytest.mark.parametrize("state", [OperationState.CANCELLING, OperationState.ROLLING_BACK])
def test_cancel_again_changes_nothing(state: OperationState) -> None:
    assert decide_cancel(job(state=state)).operations == ()


@pytest.mark.parametrize(
    "changes",
    [
        {"state": OperationState.SUCCEEDED},
        {"past_pivot": True},
        {"verb": Verb.DEPROVISION},
        {"verb": Verb.UNBIND},
        {"verb": Verb.CLEANUP},
    ],
)
def test_what_cannot_be_cancelled(changes: dict[str, Any]) -> None:
    assert reason_of(decide_cancel, job(**changes)) is Reason.NOT_CANCELLABLE


def test_cancel_checks_the_etag_first() -> None:
    assert reason_of(decide_cancel, job(state=OperationState.SUCCEEDED), "x") is Reason.ETAG_MISMATCH
