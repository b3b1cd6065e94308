"""What keeps a binding alive: when it asks, what it asks for, and what it does with a refusal."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from purveyor import CredentialSource, errors, lifeline
from purveyor.lifeline import Lifeline, prolong, seconds_left
from purveyor.values import BindingState
from tests.clients.chain import ChainedBindings

WAIT_SECONDS = 10
NOW = datetime.now(UTC)
HOUR = timedelta(hours=1)
BEYOND = errors.InvalidRequestError("ttl: beyond max_ttl")
NOT_NOW = errors.FailedPreconditionError("has a successor")


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lifeline, "AGAIN_SECONDS", 0.001)


def ending() -> ChainedBindings:
    """A binding of an hour whose time to renew has come."""
    chain = ChainedBindings()
    chain.put("web", BindingState.ACTIVE, create_time=NOW - HOUR, expire_time=NOW + HOUR, renew_before=NOW)
    return chain


def names(chain: ChainedBindings) -> list[str]:
    return [verb for verb, _, _ in chain.asked]


async def test_a_later_end_is_all_that_is_asked_for() -> None:
    chain = ending()
    chain.ends = [NOW + 2 * HOUR]
    await prolong(chain, chain.records["web"])
    assert chain.asked == [("renew", "web", None)]


async def test_a_plan_without_a_time_gives_the_life_that_was_asked_for() -> None:
    chain = ending()
    chain.ends = [BEYOND, NOW + 2 * HOUR]
    await prolong(chain, chain.records["web"])
    assert chain.asked == [("renew", "web", None), ("renew", "web", 2 * HOUR)]


@pytest.mark.parametrize("ends", [[], [BEYOND, BEYOND], [NOT_NOW]])
async def test_an_end_that_does_not_move_asks_for_a_successor(ends: list[datetime | errors.PurveyorError]) -> None:
    chain = ending()
    chain.ends = ends
    await prolong(chain, chain.records["web"])
    assert names(chain)[-1] == "rotate"
    assert chain.records["web"].successor_binding_id == "web-next"


def test_the_time_to_ask_is_the_broker_s_else_a_part_of_what_is_left() -> None:
    chain = ending()
    chain.put("web", BindingState.ACTIVE, renew_before=NOW + HOUR / 2)
    found = chain.records["web"]
    named = seconds_left(found, NOW)
    assert named is not None
    assert 1800 * 0.9 <= named <= 1800
    reckoned = seconds_left(replace(found, renew_before=None), NOW)
    assert reckoned is not None
    assert 2400 * 0.9 <= reckoned <= 2400
    assert seconds_left(found, NOW + 2 * HOUR) == 0
    assert seconds_left(replace(found, expire_time=None), NOW) is None


async def test_a_source_renews_then_rotates_and_goes_on_with_the_successor() -> None:
    chain = ending()
    chain.ends = [NOW + 2 * HOUR]
    async with asyncio.timeout(WAIT_SECONDS), CredentialSource(chain, "db", "web") as source:
        while source.current.expire_time != NOW + 2 * HOUR:
            await source.changed()
        chain.put("web", BindingState.ACTIVE, renew_before=NOW - HOUR, expire_time=NOW + 3 * HOUR)
        while source.current.binding_id != "web-next":
            await source.changed()
        assert source.unprolonged is None
    assert names(chain) == ["renew", "renew", "rotate"]


async def test_a_refusal_is_told_and_asked_again_until_it_helps() -> None:
    chain, told = ending(), list[errors.PurveyorError | None]()
    refused = errors.PermissionDeniedError("no")
    chain.ends = [refused, errors.UnavailableError("away"), NOW + 2 * HOUR]
    helped = asyncio.Event()

    def hear(failure: errors.PurveyorError | None) -> None:
        told.append(failure)
        if failure is None:
            helped.set()

    keeper = Lifeline(chain, hear)
    async with CredentialSource(chain, "db", "web", keep_alive=False) as source:
        keeper.hold(source.current)
        running = asyncio.create_task(keeper.run())
        async with asyncio.timeout(WAIT_SECONDS):
            await helped.wait()
        running.cancel()
        await asyncio.wait({running})
    assert told[0] is refused
    assert [str(failure.message) for failure in told[:2] if failure] == ["no", "away"]
    assert told[2] is None


async def test_who_only_follows_asks_for_nothing() -> None:
    chain = ending()
    async with asyncio.timeout(WAIT_SECONDS), CredentialSource(chain, "db", "web", keep_alive=False) as source:
        chain.turn("web", "web-2")
        await source.changed()
    assert chain.asked == []


async def test_nothing_is_left_running() -> None:
    async with CredentialSource(ending(), "db", "web"):
        pass
    assert [task for task in asyncio.all_tasks() if "credential source" in task.get_name()] == []
