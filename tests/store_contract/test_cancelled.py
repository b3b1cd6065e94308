"""Callers that go away: nothing is withdrawn, nobody else notices."""

from __future__ import annotations

import asyncio

import pytest

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.kit import failpoints
from purveyor_server.store.contract import SYSTEM, Page, Store
from tests.store_contract.checks import faults
from tests.store_contract.conftest import OpenStore
from tests.store_contract.records import provision


async def test_a_cancelled_command_commits_all_the_same(store: Store) -> None:
    told = asyncio.Event()
    store.subscribe(lambda _: told.set())
    caller = asyncio.create_task(provision(store))
    await asyncio.sleep(0)
    caller.cancel()
    with pytest.raises(asyncio.CancelledError):
        await caller
    async with asyncio.timeout(10):
        await told.wait()
    assert len(await store.instances(SYSTEM, "acme", (), Page(10))) == 1


async def test_half_of_a_crowd_leaves_and_the_other_half_is_served(store: Store) -> None:
    callers = [asyncio.create_task(provision(store, instance_id=f"i{n}")) for n in range(200)]
    await asyncio.sleep(0)
    for caller in callers[::2]:
        caller.cancel()
    answers = await asyncio.gather(*callers, return_exceptions=True)
    assert all(not isinstance(answer, BaseException) for answer in answers[1::2])
    await provision(store, instance_id="last")
    assert len(await store.instances(SYSTEM, "acme", (), Page(500))) == 201
    assert await faults(store, ["acme"]) == []


async def test_cancelled_reads_leave_a_store_that_reads(store: Store) -> None:
    await provision(store)
    readers = [asyncio.create_task(store.instance(SYSTEM, "acme", "db")) for _ in range(100)]
    await asyncio.sleep(0)
    for reader in readers:
        reader.cancel()
    await asyncio.gather(*readers, return_exceptions=True)
    for _ in range(10):
        assert await store.instance(SYSTEM, "acme", "db") is not None


async def test_a_full_queue_refuses_and_says_when_to_come_back(open_store: OpenStore) -> None:
    store = await open_store(queue_limit=5)
    answers = await asyncio.gather(*(provision(store, instance_id=f"i{n}") for n in range(9)), return_exceptions=True)
    refused = [answer for answer in answers if isinstance(answer, PurveyorError)]
    assert len(refused) == 4
    assert {error.reason for error in refused} == {Reason.STORE_UNAVAILABLE}
    assert all(error.retry_after for error in refused)
    await provision(store, instance_id="later")


async def test_a_close_finishes_what_was_accepted(open_store: OpenStore) -> None:
    store = await open_store()
    callers = [asyncio.create_task(provision(store, instance_id=f"i{n}")) for n in range(50)]
    await asyncio.sleep(0)
    await asyncio.gather(store.close(), store.close())
    await asyncio.gather(*callers)
    again = await open_store()
    assert len(await again.instances(SYSTEM, "acme", (), Page(100))) == 50


async def test_an_answer_that_is_lost_after_the_commit_is_unknown(store: Store) -> None:
    failpoints.arm("store.accept.after=error")
    with pytest.raises(PurveyorError) as caught:
        await provision(store)
    assert caught.value.reason is Reason.OUTCOME_UNKNOWN
    assert len(await store.instances(SYSTEM, "acme", (), Page(10))) == 1
    assert await faults(store, ["acme"]) == []
