"""Overlapping commands: one fails alone, events stay dense, a follower misses none; and planted faults are found."""

from __future__ import annotations

import asyncio
import random

import pytest

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.kit import failpoints
from purveyor_server.store.contract import SYSTEM, Accept, Advance, Decision, Situation, Store, Writes
from tests.store_contract import records
from tests.store_contract.checks import faults
from tests.store_contract.records import claim, finishing, provision

TENANTS = [f"t{n}" for n in range(4)]


async def refused(store: Store, number: int) -> None:
    """A command that fails after its rows were put down: an operation that is already there under another key."""

    def decide(_: Situation) -> Decision:
        made = records.instance("t0", f"bad{number}")
        accepted = records.operation(made, request=records.request("taken"))
        return Decision(Writes(instances=(made,), operations=(accepted,)))

    with pytest.raises(Exception, match=r"UNIQUE|unique|no"):
        await store.accept(Accept(SYSTEM, "t0", f"bad{number}", decide))


async def crowd(store: Store, size: int = 60) -> list[str]:
    """Good and bad commands at once; returns the operation_ids that were answered."""
    await provision(store, "t0", "holder", request=records.request("taken"))
    good = [provision(store, TENANTS[n % 4], f"i{n}") for n in range(size)]
    bad = [refused(store, n) for n in range(size // 3)]
    work = [*good, *bad]
    random.Random(size).shuffle(work)
    answers = await asyncio.gather(*work)
    return [answer.operation_id for answer in answers if answer is not None]


async def test_a_command_that_fails_undoes_itself_alone(store: Store) -> None:
    answered = await crowd(store)
    assert len(answered) == 60
    assert await faults(store, TENANTS, answered) == []


async def test_commands_of_one_batch_see_one_another(store: Store) -> None:
    """All ask for the same instance: exactly one may make it."""

    def decide(seen: Situation) -> Decision:
        if seen.instance is not None:
            raise PurveyorError(Reason.INSTANCE_ALREADY_EXISTS, "no")
        made = records.instance()
        return Decision(Writes(instances=(made,), operations=(records.operation(made),)))

    command = Accept(SYSTEM, "acme", "db", decide)
    answers = await asyncio.gather(*(store.accept(command) for _ in range(40)), return_exceptions=True)
    assert sum(isinstance(answer, Decision) for answer in answers) == 1
    assert await faults(store, ["acme"]) == []


async def test_a_follower_of_the_log_misses_nothing(store: Store) -> None:
    seen: list[int] = []

    async def follow(until: int) -> None:
        while len(seen) < until:
            events = await store.events(seen[-1] if seen else 0, 7)
            seen.extend(event.revision for event in events)

    follower = asyncio.create_task(follow(400))
    await asyncio.gather(*(provision(store, TENANTS[n % 4], f"i{n}") for n in range(200)))
    async with asyncio.timeout(20):
        await follower
    assert seen == list(range(1, 401))


async def test_accepts_claims_and_finishes_overlap(store: Store) -> None:
    finished: list[str] = []

    async def work(owner: str) -> None:
        while len(finished) < 80:
            for claimed in await claim(store, limit=3, owner=owner):
                done = await store.advance(Advance(claimed.fence, finishing))
                finished.append(done.operation_id)

    accepts = [provision(store, TENANTS[n % 4], f"i{n}") for n in range(80)]
    async with asyncio.timeout(30):
        await asyncio.gather(*accepts, *(work(f"w{n}") for n in range(4)))
    assert len(set(finished)) == len(finished) == 80
    assert await faults(store, TENANTS, finished) == []
    assert (await store.backlog()).pending == 0


async def test_an_error_inside_the_transaction_is_the_answer_of_its_command(store: Store) -> None:
    failpoints.arm("store.accept.during=error:3")
    work = (provision(store, "t0", f"i{n}") for n in range(10))
    answers = await asyncio.gather(*work, return_exceptions=True)
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    assert [type(error) for error in failed] == [failpoints.FailpointError]
    assert await faults(store, TENANTS) == []


@pytest.mark.parametrize("planted", ["store.event", "store.savepoint"])
async def test_a_planted_fault_is_found(store: Store, planted: str) -> None:
    """Negative control: a dropped event, a savepoint that is not rolled back."""
    failpoints.arm(f"{planted}=off")
    answered = await crowd(store)
    assert await faults(store, TENANTS, answered) != []
