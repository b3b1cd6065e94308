"""Accept: what a decision sees, and that its writes are atomic."""

from __future__ import annotations

import pytest
from msgspec.structs import replace

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.states import BindingState, InstanceState, Verb
from purveyor_server.store.contract import SYSTEM, Accept, Amend, Decision, Job, Page, Situation, Store, Writes
from tests.store_contract import records
from tests.store_contract.records import look, provision, write


async def test_an_empty_store_shows_nothing(store: Store) -> None:
    seen = await look(store, binding_id="app", with_bindings=True)
    assert (seen.instance, seen.binding, seen.bindings, seen.operations) == (None, None, (), ())
    assert (seen.replay, seen.last_operation, seen.head) == (None, None, 0)


async def test_what_was_accepted_is_seen_by_the_next_accept_and_by_reads(store: Store) -> None:
    accepted = await provision(store)
    seen = await look(store)
    assert seen.operations == (accepted,)
    assert seen.last_operation == accepted
    assert seen.instance is not None
    assert await store.instance(SYSTEM, "acme", "db") == seen.instance
    assert await store.operation(SYSTEM, accepted.operation_id) == accepted
    assert store.head == 2


async def test_the_newest_incarnation_counts_whatever_its_uid(store: Store) -> None:
    first = records.instance(state=InstanceState.DELETED, deleted_at=records.START, uid="ffff")
    second = records.instance(uid="0000")
    await write(store, Writes(instances=(first,)))
    seen = await look(store)
    assert seen.instance == first
    await write(store, Writes(instances=(second,)))
    assert (await look(store)).instance == second
    assert await store.instance(SYSTEM, "acme", "db") == second
    assert await store.instances(SYSTEM, "acme", (), Page(100)) == (second,)
    assert len(await store.instances(SYSTEM, "acme", (), Page(100), deleted=True)) == 2
    await write(store, Writes(instances=(replace(second, state=InstanceState.DELETED, deleted_at=records.START),)))
    newest = await store.instance(SYSTEM, "acme", "db")
    assert newest is not None
    assert newest.uid == second.uid


async def test_a_second_living_incarnation_is_refused_whole(store: Store) -> None:
    await provision(store)
    other = records.instance()
    with pytest.raises(Exception, match=r"UNIQUE|unique"):
        await write(store, Writes(instances=(other,), operations=(records.operation(other),)))
    assert len((await look(store)).operations) == 1
    assert store.head == 2


async def test_bindings_and_their_operations_are_seen_with_the_instance(store: Store) -> None:
    accepted = await provision(store)
    made = (await look(store)).instance
    assert made is not None
    live = records.binding(made, "app")
    gone = records.binding(made, "old", state=BindingState.DELETED, deleted_at=records.START)
    bind = records.operation(made, Verb.BIND, live)
    live = replace(live, last_operation=bind.operation_id)
    await write(store, Writes(bindings=(live, gone), operations=(bind,)))
    seen = await look(store, binding_id="app", with_bindings=True)
    assert seen.binding == live
    assert seen.bindings == (live,)
    assert seen.operations == (accepted, bind)
    assert seen.last_operation == bind
    assert (await look(store, binding_id="old")).binding == gone
    assert (await look(store)).bindings == ()


async def test_a_dry_run_writes_nothing(store: Store) -> None:
    made = records.instance()
    decision = await write(store, Writes(instances=(made,), operations=(records.operation(made),)), dry_run=True)
    assert decision.writes.instances == (made,)
    assert store.head == 0
    assert await store.instance(SYSTEM, "acme", "db") is None


async def test_what_decide_raises_is_the_answer_and_undoes_its_command(store: Store) -> None:
    def refuse(_: Situation) -> Decision:
        raise PurveyorError(Reason.WRONG_STATE, "no")

    with pytest.raises(PurveyorError, match="no") as caught:
        await store.accept(Accept(SYSTEM, "acme", "db", refuse))
    assert caught.value.reason is Reason.WRONG_STATE
    assert store.head == 0


async def test_an_amend_sees_the_operation_and_its_surroundings(store: Store) -> None:
    blocker = await provision(store)
    made = (await look(store)).instance
    assert made is not None
    waiting = records.operation(made, Verb.DEPROVISION, due_at=None, blocked_by=(blocker.operation_id,))
    await write(store, Writes(operations=(waiting,)))
    seen: list[Job] = []

    def cancel(job: Job) -> Writes:
        seen.append(job)
        return Writes(operations=(replace(job.operation, cancel_requested=True, version=job.operation.version + 1),))

    after = await store.amend(Amend(SYSTEM, blocker.operation_id, cancel, with_resources=True))
    assert after.cancel_requested
    assert (seen[0].instance, seen[0].dependents, seen[0].siblings) == (made, (waiting,), (waiting,))
    assert await store.operation(SYSTEM, blocker.operation_id) == after


async def test_a_dependent_is_forgotten_once_it_is_unblocked(store: Store) -> None:
    blocker = await provision(store)
    made = (await look(store)).instance
    assert made is not None
    waiting = records.operation(made, Verb.DEPROVISION, due_at=None, blocked_by=(blocker.operation_id,))
    await write(store, Writes(operations=(waiting,)))
    await write(store, Writes(operations=(replace(waiting, blocked_by=(), due_at=records.START),)))
    seen: list[Job] = []

    def peek(job: Job) -> Writes:
        seen.append(job)
        return Writes()

    await store.amend(Amend(SYSTEM, blocker.operation_id, peek, with_resources=True))
    assert seen[0].dependents == ()


async def test_an_amend_of_nothing_is_not_found(store: Store) -> None:
    with pytest.raises(PurveyorError) as caught:
        await store.amend(Amend(SYSTEM, "nobody", lambda _: Writes()))
    assert caught.value.reason is Reason.OPERATION_NOT_FOUND


async def test_the_backlog_counts_what_is_unfinished(store: Store) -> None:
    first = await provision(store, instance_id="one")
    await provision(store, instance_id="two")
    assert (await store.backlog()).pending == 2
    await write(store, Writes(operations=(records.parked(first, None),)), instance_id="one")
    seen = await look(store)
    assert (seen.backlog.pending, seen.backlog.parked) == (1, 1)
    await write(store, Writes(operations=(records.ended(first),)), instance_id="one")
    backlog = await store.backlog()
    assert (backlog.pending, backlog.parked) == (1, 0)
