"""Credentials that are alive: over rotations, revocations, cut streams and a broker that is away."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import UTC, datetime

import pytest

from purveyor import CredentialSource, errors, live
from purveyor.live import follow_credentials
from purveyor.values import BindingState
from tests.clients.chain import ChainedBindings

WAIT_SECONDS = 10
AWAY = errors.UnavailableError("away")
SOON = datetime(2031, 1, 1, tzinfo=UTC)


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(live, "FIRST_REST_SECONDS", 0.001)


async def test_a_successor_takes_the_place_of_what_it_follows() -> None:
    chain = ChainedBindings("web")
    async with asyncio.timeout(WAIT_SECONDS), aclosing(follow_credentials(chain, "db", "web")) as found:
        first = await anext(found)
        chain.turn("web", "web-2")
        second = await anext(found)
        chain.put("web", BindingState.DELETED)
        chain.turn("web-2", "web-3")
        third = await anext(found)

    assert [one.binding_id for one in (first, second, third)] == ["web", "web-2", "web-3"]
    assert third.credentials["password"] == "secret of web-3"


async def test_the_newest_of_a_chain_is_the_first_that_is_told() -> None:
    chain = ChainedBindings("web")
    chain.turn("web", "web-2")
    chain.turn("web-2", "web-3")
    chain.put("web", BindingState.DELETED)
    async with asyncio.timeout(WAIT_SECONDS), aclosing(follow_credentials(chain, "db", "web")) as found:
        assert (await anext(found)).binding_id == "web-3"


async def test_a_successor_that_does_not_work_is_not_told() -> None:
    chain = ChainedBindings("web")
    async with asyncio.timeout(WAIT_SECONDS), aclosing(follow_credentials(chain, "db", "web")) as found:
        await anext(found)
        chain.put("web-2", BindingState.BINDING, predecessor="web")
        chain.put("web", BindingState.ACTIVE, successor="web-2")
        chain.put("web-2", BindingState.FAILED)
        chain.put("web", BindingState.ACTIVE, successor="")
        chain.turn("web", "web-3")
        assert (await anext(found)).binding_id == "web-3"


async def test_credentials_that_were_issued_anew_and_a_moved_end_are_told_and_nothing_else() -> None:
    chain = ChainedBindings("web", "other")
    async with asyncio.timeout(WAIT_SECONDS), aclosing(follow_credentials(chain, "db", "web")) as found:
        await anext(found)
        chain.put("other", BindingState.UNBINDING)
        chain.put("web", BindingState.ACTIVE)
        chain.put("web", BindingState.ACTIVE, password="another")
        assert (await anext(found)).credentials["password"] == "another"
        chain.put("web", BindingState.ACTIVE, expire_time=SOON)
        assert (await anext(found)).expire_time == SOON

    assert chain.reads["other"] == 0


async def test_one_that_is_still_being_made_is_waited_for() -> None:
    chain = ChainedBindings()
    chain.put("web", BindingState.BINDING)
    async with asyncio.timeout(WAIT_SECONDS), aclosing(follow_credentials(chain, "db", "web")) as found:
        waiting = asyncio.ensure_future(anext(found))
        await chain.watched.wait()
        assert not waiting.done()
        chain.put("web", BindingState.ACTIVE)
        assert (await waiting).binding_id == "web"


async def test_what_happened_while_the_stream_was_cut_is_told_after_it() -> None:
    chain, missed = ChainedBindings("web"), list[errors.PurveyorError]()
    async with (
        asyncio.timeout(WAIT_SECONDS),
        aclosing(follow_credentials(chain, "db", "web", missed.append)) as found,
    ):
        await anext(found)
        chain.cut(AWAY)
        chain.cut(errors.EventsLostError("compacted"))
        chain.turn("web", "web-2")
        assert (await anext(found)).binding_id == "web-2"

    assert missed[0] is AWAY


@pytest.mark.parametrize("end", [BindingState.UNBINDING, BindingState.EXPIRED, BindingState.DELETED])
async def test_a_chain_that_has_ended_is_an_error_that_names_its_state(end: BindingState) -> None:
    chain = ChainedBindings("web")
    async with asyncio.timeout(WAIT_SECONDS), aclosing(follow_credentials(chain, "db", "web")) as found:
        await anext(found)
        chain.put("web", end)
        with pytest.raises(errors.FailedPreconditionError) as refused:
            await anext(found)

    assert refused.value.metadata == {"binding_id": "web", "state": str(end)}


async def test_when_the_successor_is_taken_away_its_predecessor_is_used_while_it_works() -> None:
    chain = ChainedBindings("web")
    async with asyncio.timeout(WAIT_SECONDS), aclosing(follow_credentials(chain, "db", "web")) as found:
        await anext(found)
        chain.turn("web", "web-2")
        await anext(found)
        chain.put("web-2", BindingState.UNBINDING)
        assert (await anext(found)).binding_id == "web"


async def test_a_binding_that_is_not_there_is_refused() -> None:
    with pytest.raises(errors.NotFoundError):
        await anext(follow_credentials(ChainedBindings(), "db", "web"))


async def test_a_source_holds_the_newest_and_tells_its_changes() -> None:
    chain = ChainedBindings("web")
    async with asyncio.timeout(WAIT_SECONDS), CredentialSource(chain, "db", "web") as source:
        assert source.current.binding_id == "web"
        changed = asyncio.ensure_future(source.changed())
        chain.turn("web", "web-2")
        assert (await changed).binding_id == source.current.binding_id == "web-2"


async def test_a_source_keeps_what_it_has_while_the_broker_is_away() -> None:
    chain = ChainedBindings("web")
    async with asyncio.timeout(WAIT_SECONDS), CredentialSource(chain, "db", "web") as source:
        chain.away = AWAY
        changed = asyncio.ensure_future(source.changed())
        chain.cut(AWAY)
        await chain.refused_again.wait()
        assert source.current.binding_id == "web"
        chain.away = None
        chain.turn("web", "web-2")
        assert (await changed).binding_id == "web-2"
        assert source.missed is None


async def test_a_source_whose_chain_has_ended_says_so() -> None:
    chain = ChainedBindings("web")
    async with asyncio.timeout(WAIT_SECONDS), CredentialSource(chain, "db", "web") as source:
        chain.put("web", BindingState.EXPIRED)
        with pytest.raises(errors.FailedPreconditionError):
            await source.changed()
        with pytest.raises(errors.FailedPreconditionError):
            _ = source.current


async def test_a_source_that_gets_nothing_in_time_says_why() -> None:
    chain = ChainedBindings("web")
    chain.away = AWAY
    with pytest.raises(errors.UnavailableError, match="away"):
        async with CredentialSource(chain, "db", "web", first_within=0.05):
            pass
    assert [task for task in asyncio.all_tasks() if "credential source" in task.get_name()] == []


async def test_a_source_is_used_within_its_with_alone() -> None:
    source = CredentialSource(ChainedBindings("web"), "db", "web")
    with pytest.raises(RuntimeError, match="not entered"):
        _ = source.current
    async with source:
        with pytest.raises(RuntimeError, match="entered already"):
            await source.__aenter__()
