"""Credentials that are made again after an update that took the instance elsewhere: one REISSUE per active binding."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import pytest_asyncio
from msgspec.structs import replace

from purveyor_server.domain.model import Binding, CleanupStep, EventKind, Failure, Operation
from purveyor_server.domain.states import BindingState, InstanceState, Make, OperationState, Verb, Waiting
from purveyor_server.engine.outcomes import Ending, cleanup_of, finish
from purveyor_server.engine.transitions import stops_for_cancel
from purveyor_server.lifecycle.making import stop
from purveyor_server.lifecycle.remains import given_up
from purveyor_server.providers.contract import Credentials, NotYet, Permanent, Retryable
from purveyor_server.store.contract import SYSTEM, Accept, Amend, Decision, Job, Situation, Writes
from purveyor_server.store.sqlite.rows import decode_binding
from tests.engine.bench import SETTINGS, Bench
from tests.fakes.provider import ScriptedProvider


class Moving(ScriptedProvider):
    """An instance that lives where its last update took it."""

    moves = True

    def credentials(self, work: Any, done: Any, secrets: Any) -> Credentials:
        given = super().credentials(work, done, secrets)
        host = "new" if "size" in work.want.parameters and work.want.parameters["size"] == 2 else "old"
        return replace(given, values={**given.values, "host": host})


@pytest_asyncio.fixture
async def bench(tmp_path: Path) -> AsyncIterator[Bench]:
    """One instance with two bindings."""
    made = Bench(tmp_path, replace(SETTINGS, max_attempts=2))
    made.provider = Moving(made.world)
    made.provider.moves = True
    await made.open()
    await made.ended(await made.provision())
    for binding_id in ("b1", "b2"):
        await made.ended(await made.bind(binding_id))
    yield made
    await made.close()


def reissues(bench: Bench, binding_id: str = "b1") -> list[Operation]:
    """Every REISSUE of a binding, in order, each as last seen."""
    found = {o.operation_id: o for commit in bench.commits for o in commit.operations if o.verb is Verb.REISSUE}
    return [operation for operation in found.values() if operation.binding_id == binding_id]


async def credentials(bench: Bench, binding_id: str = "b1") -> Any:
    """What a consumer is given."""
    binding = await bench.binding(binding_id)
    sealed = await bench.store.secret(binding.uid, "credentials")
    assert sealed is not None
    return bench.sealer.open(sealed.owner, sealed.name, sealed.sealed)


def bindings_told(bench: Bench) -> list[Binding]:
    """Bindings as events told of them, in order."""
    events = (event for commit in bench.commits for event in commit.events if event.kind is EventKind.BINDING)
    return [decode_binding(event.body) for event in events]


async def begun(bench: Bench, binding_id: str = "b1") -> Operation:
    """The update done, and the REISSUE that its end has made."""
    update = await bench.ended(await bench.update({"size": 2}))
    assert update.state is OperationState.SUCCEEDED
    (operation, *_) = reissues(bench, binding_id)
    assert operation.parent == update.operation_id
    return operation


async def test_every_active_binding_gets_its_credentials_anew(bench: Bench) -> None:
    await bench.ended(await bench.unbind("b2"))
    before, old = await bench.binding(), await credentials(bench)

    operation = await bench.ended(await begun(bench))

    after, new = await bench.binding(), await credentials(bench)
    assert operation.state is OperationState.SUCCEEDED
    assert (after.state, after.uid, after.last_operation) == (BindingState.ACTIVE, before.uid, operation.operation_id)
    assert after.version > before.version
    assert (b'"host":"old"' in old, b'"host":"new"' in new) == (True, True)
    assert new == old.replace(b'"old"', b'"new"'), "username and password are the same"
    assert reissues(bench, "b2") == []
    assert (await bench.instance()).state is InstanceState.READY


async def test_watchers_are_told_when_the_update_ends_and_when_the_credentials_are_there(bench: Bench) -> None:
    before = (await bench.binding()).version

    operation = await bench.ended(await begun(bench))

    told = [binding for binding in bindings_told(bench) if binding.binding_id == "b1" and binding.version > before]
    assert [(binding.version, binding.last_operation) for binding in told] == [
        (before + 1, operation.operation_id),
        (before + 2, operation.operation_id),
    ]
    assert [binding.outputs["login"]["parameters"]["size"] for binding in told] == [1, 2]


async def test_an_update_that_moves_nothing_makes_nothing_again(bench: Bench) -> None:
    bench.provider.moves = False

    await bench.ended(await bench.update({"size": 2}))

    assert reissues(bench) == []


async def test_one_that_fails_is_visible_and_tried_again_until_it_succeeds(bench: Bench) -> None:
    bench.world.plant("login.ensure", Permanent("no room"), Permanent("no room"))

    await bench.ended(await begun(bench))
    while not any(operation.state is OperationState.SUCCEEDED for operation in reissues(bench)):
        await bench.ended(reissues(bench)[-1])

    tries = reissues(bench)
    assert [operation.generation for operation in tries] == list(range(len(tries)))
    assert {operation.state for operation in tries[:-1]} <= {OperationState.FAILED}
    told = bindings_told(bench)
    waits = next(binding for binding in told if binding.cleanup_required)
    assert (waits.state, waits.cleanup_required) == (BindingState.ACTIVE, ("login",))
    failed = {o.operation_id: o for o in reissues(bench, waits.binding_id)}
    assert failed[waits.last_operation].generation == 1, "its last operation is the try that follows"
    assert (await bench.binding()).cleanup_required == ()
    assert b'"host":"new"' in await credentials(bench)


async def test_one_that_is_ended_as_stuck_is_followed_by_the_next(bench: Bench) -> None:
    """A backend that was away until long after the deadline: nobody would ever have made the credentials again."""
    bench.world.plant("login.ensure", *[NotYet(3600.0, "later")] * 2)
    operation = await begun(bench)
    await bench.until(lambda o: o.waiting is Waiting.PARKED, operation.operation_id)
    steps = await bench.store.steps(SYSTEM, operation.operation_id)
    failure = Failure(reason="OPERATION_DEADLINE_EXCEEDED", message="it did not end")

    def end(job: Job) -> Writes:
        return finish(job, given_up(job, steps, failure, timedelta(minutes=10), timedelta(0)))

    await bench.store.amend(Amend(SYSTEM, operation.operation_id, end, with_resources=True))

    (_, following) = reissues(bench, operation.binding_id)
    assert (await bench.ended(following)).state is OperationState.SUCCEEDED
    assert b'"host":"new"' in await credentials(bench, operation.binding_id)


async def test_an_unbind_takes_over_at_any_moment(bench: Bench) -> None:
    bench.world.plant("login.ensure", *[Retryable("not now")] * 2, *[Permanent("never")] * 50)
    operation = await begun(bench)
    waiting = await bench.until(lambda o: o.waiting is not Waiting.NONE or o.done, operation.operation_id)
    latest = reissues(bench)[-1] if waiting.done else waiting

    unbound = await bench.ended(await bench.unbind("b1", over=latest))

    assert unbound.state is OperationState.SUCCEEDED
    assert (await bench.binding()).state is BindingState.DELETED
    ended = await bench.operation(latest.operation_id)
    assert ended.done
    assert [o.state for o in reissues(bench) if o.generation > latest.generation] == [], "no try follows"


async def test_what_would_put_a_renewal_back_ends_with_it(bench: Bench) -> None:
    """It would look for the old place for ever, and no update of the instance would be accepted meanwhile."""
    gate = asyncio.Event()
    bench.world.plant("login.ensure", gate)
    operation = await begun(bench, "b1")
    ending = Ending(
        state=OperationState.FAILED,
        left=(CleanupStep("login", Make.ENSURE),),
        cleanup_delay=timedelta(hours=1),
    )
    cleanup = cleanup_of(replace(operation, verb=Verb.RENEW), bench.clock.now(), ending)

    def decide(_: Situation) -> Decision:
        return Decision(Writes(operations=(cleanup,)))

    await bench.store.accept(Accept(SYSTEM, operation.tenant, operation.instance_id, decide))
    gate.set()

    assert (await bench.ended(operation)).state is OperationState.SUCCEEDED
    over = await bench.operation(cleanup.operation_id)
    assert (over.state, over.taken_over_by) == (OperationState.CANCELLED, operation.operation_id)


async def test_a_broker_that_dies_goes_on(bench: Bench) -> None:
    gate = asyncio.Event()
    await bench.ended(await bench.unbind("b2"))
    bench.world.entered["login.ensure"].clear()
    bench.world.plant("login.ensure", gate)
    operation = await begun(bench)
    await bench.world.entered["login.ensure"].wait()

    await bench.crash()
    await bench.open()

    assert (await bench.ended(operation)).state is OperationState.SUCCEEDED
    assert b'"host":"new"' in await credentials(bench)


async def test_a_removal_makes_it_stop_at_once_though_it_goes_forward_only(bench: Bench) -> None:
    bench.world.plant("login.ensure", *[Retryable("not now")] * 50)
    operation = await begun(bench)
    now = bench.clock.now()

    told = stop(replace(operation, lease_owner="", due_at=None), now, by="the unbind")

    assert (told.taken_over_by, told.due_at, told.cancel_requested) == ("the unbind", now, False)
    assert stops_for_cancel(told)
    assert not stops_for_cancel(replace(operation, cancel_requested=True)), "nobody but a removal stops it"


@pytest.mark.parametrize("moves", [True, False])
async def test_an_update_that_fails_makes_nothing_again(bench: Bench, moves: bool) -> None:  # noqa: FBT001
    bench.provider.moves = moves
    bench.world.plant("space.ensure", Permanent("no"))

    assert (await bench.ended(await bench.update({"size": 2}))).state is OperationState.FAILED
    assert reissues(bench) == []
