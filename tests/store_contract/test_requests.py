"""Request keys: recorded with the operation they made, looked up first."""

from __future__ import annotations

import asyncio

import pytest

from purveyor_server.domain.model import RequestKey
from purveyor_server.store.contract import SYSTEM, Accept, Decision, Situation, Store, Writes
from tests.store_contract import records
from tests.store_contract.records import look, provision, request


async def test_a_key_finds_the_operation_it_made(store: Store) -> None:
    accepted = await provision(store, request=request("r1"))
    assert (await look(store, request=request("r1"))).replay == accepted
    assert (await look(store, instance_id="another", request=request("r1"))).replay == accepted
    assert (await look(store)).replay is None


@pytest.mark.parametrize("key", [request("r2"), request("r1", method="Bind"), request("r1", principal="other")])
async def test_a_key_is_of_its_principal_and_method(store: Store, key: RequestKey) -> None:
    await provision(store, request=request("r1"))
    assert (await look(store, request=key)).replay is None
    assert (await look(store, tenant="other", request=request("r1"))).replay is None


async def test_a_key_is_recorded_only_with_an_effect(store: Store) -> None:
    await look(store, request=request("r1"))
    accepted = await provision(store, request=request("r1"))
    assert (await look(store, request=request("r1"))).replay == accepted


async def test_of_many_at_once_one_makes_it_and_the_others_see_it(store: Store) -> None:
    key = request("r1")

    def decide(seen: Situation) -> Decision:
        if seen.replay is not None:
            return Decision(operation=seen.replay, replayed=True)
        made = records.instance()
        accepted = records.operation(made, request=key)
        return Decision(Writes(instances=(made,), operations=(accepted,)), operation=accepted)

    command = Accept(SYSTEM, "acme", "db", decide, request=key)
    answers = await asyncio.gather(*(store.accept(command) for _ in range(50)))
    assert len({answer.operation.operation_id for answer in answers if answer.operation}) == 1
    assert sum(not answer.replayed for answer in answers) == 1
