"""Requests that meet on the real store at once: one of each pair wins, and what is left fits together."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.filters import Comparator, Condition
from purveyor_server.domain.states import BindingState, InstanceState, OperationState, Verb
from purveyor_server.lifecycle.contract import Outcome
from purveyor_server.store.contract import SYSTEM, Page
from tests.fakes import broker
from tests.fakes.broker import Broker, bind, deprovision, open_broker, provision, unbind, update
from tests.fakes.situations import INSTANCE, LOCAL, TENANT

TIMES = 25  # callers at once


@pytest.fixture
async def lab(tmp_path: Path) -> AsyncIterator[Broker]:
    async with open_broker(tmp_path) as opened:
        yield opened


async def together(*calls: Awaitable[Any]) -> list[Outcome | Reason]:
    """Every outcome, or the reason of its refusal."""
    found = await asyncio.gather(*calls, return_exceptions=True)
    return [item.reason if isinstance(item, PurveyorError) else answered(item) for item in found]


def answered(item: Any) -> Outcome:
    if isinstance(item, BaseException):
        raise item
    assert isinstance(item, Outcome)
    return item


async def ready(lab: Broker) -> Outcome:
    made = await lab.door.provision(LOCAL, provision())
    await lab.end(made.operation)
    return made


async def active(lab: Broker, binding_id: str = "app") -> Outcome:
    made = await lab.door.bind(LOCAL, bind(binding_id))
    await lab.end(made.operation)
    return made


async def count(lab: Broker, verb: Verb) -> int:
    where = (Condition("verb", Comparator.EQUAL, str(verb)),)
    return len(await lab.store.operations(SYSTEM, TENANT, where, Page(1000)))


async def test_the_same_provision_at_once_is_one_operation(lab: Broker) -> None:
    found = await together(*(lab.door.provision(LOCAL, provision()) for _ in range(TIMES)))
    outcomes = [item for item in found if isinstance(item, Outcome)]
    assert len(outcomes) == TIMES
    assert len({item.operation.operation_id for item in outcomes if item.operation}) == 1
    assert sum(not item.replayed for item in outcomes) == 1
    assert await count(lab, Verb.PROVISION) == 1


async def test_different_provisions_of_one_id_make_one_instance(lab: Broker) -> None:
    calls = (lab.door.provision(LOCAL, provision(parameters={"size": n + 1})) for n in range(TIMES))
    found = await together(*calls)
    assert sum(isinstance(item, Outcome) for item in found) == 1
    assert found.count(Reason.INSTANCE_ALREADY_EXISTS) == TIMES - 1


async def test_one_request_id_at_once_is_one_effect(lab: Broker) -> None:
    calls = [lab.door.provision(LOCAL, provision(request_id="r-1")) for _ in range(TIMES)]
    other = [lab.door.provision(LOCAL, provision("another", request_id="r-1", parameters={"size": 9}))]
    found = await together(*calls, *other)
    assert sum(isinstance(item, Outcome) for item in found) in {1, TIMES}
    assert await count(lab, Verb.PROVISION) == 1


async def test_provision_and_deprovision(lab: Broker) -> None:
    made, gone = await together(lab.door.provision(LOCAL, provision()), lab.door.deprovision(LOCAL, deprovision()))
    assert isinstance(made, Outcome)
    instance = await lab.store.instance(SYSTEM, TENANT, INSTANCE)
    assert instance is not None
    if gone is Reason.INSTANCE_NOT_FOUND:
        assert instance.state is InstanceState.PROVISIONING
        return
    assert isinstance(gone, Outcome)
    assert gone.operation is not None
    assert made.operation is not None
    assert instance.state is InstanceState.DEPROVISIONING
    assert gone.operation.blocked_by == (made.operation.operation_id,)


async def test_take_over_ends_with_the_tombstone(lab: Broker) -> None:
    made = await lab.door.provision(LOCAL, provision())
    gone = await lab.door.deprovision(LOCAL, deprovision())
    await lab.end(made.operation, OperationState.CANCELLED)
    await lab.end(gone.operation)
    again = await lab.door.provision(LOCAL, provision())
    assert again.instance is not None
    assert made.instance is not None
    assert again.instance.uid != made.instance.uid
    assert not again.replayed


@pytest.mark.parametrize("cascade", [False, True])
async def test_bind_and_deprovision(lab: Broker, *, cascade: bool) -> None:
    await ready(lab)
    calls = [lab.door.bind(LOCAL, bind(f"b{n}")) for n in range(TIMES)]
    *bound, gone = await together(*calls, lab.door.deprovision(LOCAL, deprovision(cascade=cascade)))
    live = [item for item in bound if isinstance(item, Outcome)]
    instance = await lab.store.instance(SYSTEM, TENANT, INSTANCE)
    assert instance is not None
    if isinstance(gone, Outcome):
        assert instance.state is InstanceState.DEPROVISIONING
        assert cascade or not live
        assert bound.count(Reason.WRONG_STATE) == TIMES - len(live)
        bindings = await lab.store.bindings(SYSTEM, TENANT, INSTANCE, (), Page(100))
        assert {binding.state for binding in bindings} <= {BindingState.UNBINDING}
    else:
        assert gone is Reason.BINDINGS_EXIST
        assert instance.state is InstanceState.READY


async def test_bind_and_update(lab: Broker) -> None:
    await ready(lab)
    bound, changed = await together(
        lab.door.bind(LOCAL, bind()), lab.door.update(LOCAL, update(parameters={"size": 2}))
    )
    won = [item for item in (bound, changed) if isinstance(item, Outcome)]
    assert len(won) == 1
    assert Reason.OPERATION_IN_PROGRESS in [bound, changed]


async def test_the_same_update_at_once_is_one_operation(lab: Broker) -> None:
    await ready(lab)
    found = await together(*(lab.door.update(LOCAL, update(parameters={"size": 2})) for _ in range(TIMES)))
    assert all(isinstance(item, Outcome) for item in found)
    assert await count(lab, Verb.UPDATE) == 1


async def test_bind_and_unbind_of_one_id(lab: Broker) -> None:
    await ready(lab)
    bound, gone = await together(lab.door.bind(LOCAL, bind()), lab.door.unbind(LOCAL, unbind()))
    assert isinstance(bound, Outcome)
    if isinstance(gone, Outcome):
        assert gone.operation is not None
        assert bound.operation is not None
        assert gone.operation.blocked_by == (bound.operation.operation_id,)
    else:
        assert gone is Reason.BINDING_NOT_FOUND


async def test_unbinds_at_once_are_one_operation(lab: Broker) -> None:
    await ready(lab)
    await active(lab)
    found = await together(*(lab.door.unbind(LOCAL, unbind()) for _ in range(TIMES)))
    assert all(isinstance(item, Outcome) for item in found)
    assert await count(lab, Verb.UNBIND) == 1


async def test_cancel_and_success(lab: Broker) -> None:
    made = await lab.door.provision(LOCAL, provision())
    assert made.operation is not None
    found = await asyncio.gather(
        lab.door.cancel_operation(LOCAL, made.operation.operation_id), lab.end(made.operation), return_exceptions=True
    )
    newest = await lab.store.operation(SYSTEM, made.operation.operation_id)
    assert newest is not None
    if isinstance(found[0], PurveyorError):
        assert found[0].reason is Reason.NOT_CANCELLABLE
        assert newest.state is OperationState.SUCCEEDED
    else:
        assert newest.cancel_requested
        assert newest.state is OperationState.CANCELLING


async def test_cancels_at_once_agree(lab: Broker) -> None:
    made = await lab.door.provision(LOCAL, provision())
    assert made.operation is not None
    calls = (lab.door.cancel_operation(LOCAL, made.operation.operation_id) for _ in range(TIMES))
    versions = {details.operation.version for details in await asyncio.gather(*calls)}
    assert versions == {made.operation.version + 1}


async def test_cascade_waits_for_its_children(lab: Broker) -> None:
    await ready(lab)
    await active(lab, "a")
    await active(lab, "b")
    gone = await lab.door.deprovision(LOCAL, deprovision(cascade=True))
    assert gone.operation is not None
    for child in gone.operation.blocked_by:
        await lab.end(await lab.store.operation(SYSTEM, child))
    await lab.end(gone.operation)
    instance = await lab.store.instance(SYSTEM, TENANT, INSTANCE)
    assert instance is not None
    assert instance.state is InstanceState.DELETED


async def test_a_caller_that_goes_away_changes_nothing(lab: Broker) -> None:
    waiting = asyncio.create_task(lab.door.provision(LOCAL, provision(wait=timedelta(seconds=30))))
    await lab.accepted()
    waiting.cancel()
    with pytest.raises(asyncio.CancelledError):
        await waiting
    made = await lab.door.provision(LOCAL, provision())
    assert made.replayed
    assert (await lab.end(made.operation)).state is OperationState.SUCCEEDED
    assert len(lab.hub) == 0


async def test_storm_of_everything_leaves_one_of_each(lab: Broker) -> None:
    """No order of a storm makes two operations of one kind run on one instance."""
    await ready(lab)
    calls: list[Awaitable[Any]] = []
    for n in range(10):
        calls += [
            lab.door.update(LOCAL, update(parameters={"size": n + 2})),
            lab.door.bind(LOCAL, bind(f"b{n % 3}")),
            lab.door.unbind(LOCAL, unbind(f"b{n % 3}")),
            lab.door.deprovision(LOCAL, deprovision(cascade=n % 2 == 0)),
            lab.door.provision(LOCAL, broker.provision()),
        ]
    found = await together(*calls)
    assert {item for item in found if isinstance(item, Reason)} <= {
        Reason.OPERATION_IN_PROGRESS,
        Reason.WRONG_STATE,
        Reason.BINDINGS_EXIST,
        Reason.BINDING_NOT_FOUND,
    }
    page = await lab.store.operations(SYSTEM, TENANT, (), Page(1000))
    running = [op for op in page if not op.done]
    removals = [op for op in running if op.verb is Verb.DEPROVISION]
    assert len(removals) == 1
    assert set(removals[0].blocked_by) >= {op.operation_id for op in running if op.verb is Verb.UNBIND}
    per_binding = [op.binding_uid for op in running if op.verb is Verb.UNBIND]
    assert len(per_binding) == len(set(per_binding))
