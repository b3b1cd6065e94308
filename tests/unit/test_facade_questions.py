"""What no operation asks goes through the guard too: check, observe, list_owned, close, and what a provider says of itself."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from purveyor_server.domain.model import ProviderRef
from purveyor_server.domain.states import Drift, Make
from purveyor_server.kit.clock import ManualClock, SystemClock
from purveyor_server.providers import facade as guard
from purveyor_server.providers.contract import (
    Ambiguous,
    Known,
    Observed,
    Owned,
    Permanent,
    ProviderError,
    Retryable,
    Unreachable,
    WorkSettings,
)
from purveyor_server.providers.facade import FacadeSettings, ProviderFacade
from purveyor_server.providers.registry import ProviderMissingError, ProviderRegistry
from tests.fakes.provider import ScriptedProvider, World
from tests.unit.test_facade import BadPiece

REF = ProviderRef("main", "bad")
QUICK = FacadeSettings(call=0.05, settle=0.05, grace=0.05, question=0.05)
KNOWN = Known("uid", WorkSettings("svc", "plan", {}, {}), {})
NOW = datetime.now(UTC)
OWNED = Owned("role", "pv_role_x", "uid", 1)


def bad(**methods: Any) -> ProviderFacade:
    """A facade of a provider with some methods replaced."""
    provider = ScriptedProvider(World())
    vars(provider).update(methods)
    return ProviderFacade(REF, provider, SystemClock(), settings=QUICK)


async def hangs(*_asked: Any) -> None:
    await asyncio.Event().wait()


async def exits(*_asked: Any) -> None:
    raise SystemExit


def answers(value: Any) -> Callable[..., Any]:
    async def answer(*_asked: Any) -> Any:
        return value

    return answer


def lists(*items: Any) -> Callable[..., Any]:
    async def listed(*_asked: Any) -> AsyncIterator[Any]:
        for item in items:
            yield item

    return listed


async def all_owned(facade: ProviderFacade) -> list[Owned]:
    return [item async for item in facade.owned("store")]


async def test_a_check_that_hangs_is_a_backend_that_does_not_answer() -> None:
    with pytest.raises(Unreachable, match="did not answer"):
        await bad(check=hangs).check()


async def test_a_check_that_exits_is_named() -> None:
    with pytest.raises(Ambiguous, match="unexpected way"):
        await bad(check=exits).check()


@pytest.mark.parametrize(
    ("observe", "words"),
    [
        (hangs, "did not answer"),
        (exits, "unexpected way"),
        (answers(None), "an observation that is none"),
        (answers(Observed("IN_SYNC?", True, NOW)), "an observation that is none"),  # type: ignore[arg-type] # garbage
        (answers(Observed(Drift.IN_SYNC, True, datetime(2026, 1, 1))), "an observation that is none"),  # noqa: DTZ001
        (answers(Observed(Drift.IN_SYNC, True, NOW, 7)), "an observation that is none"),  # type: ignore[arg-type] # garbage
    ],
    ids=["hangs", "exits", "none", "no drift", "no time zone", "no differences"],
)
async def test_a_bad_observation_is_named(observe: Any, words: str) -> None:
    with pytest.raises(Ambiguous, match=words):
        await bad(observe=observe).observe(KNOWN)


async def test_an_observation_is_bounded() -> None:
    told = Observed(Drift.DRIFTED, True, NOW, tuple("x" * 10_000 for _ in range(1000)))

    seen = await bad(observe=answers(told)).observe(KNOWN)

    assert (len(seen.differences), {len(text) for text in seen.differences}) == (100, {500})


async def hangs_after_one(*_asked: Any) -> AsyncIterator[Any]:
    yield OWNED
    await asyncio.Event().wait()


async def fails_after_one(*_asked: Any) -> AsyncIterator[Any]:
    yield OWNED
    raise SystemExit


@pytest.mark.parametrize(
    ("listing", "words"),
    [
        (lists(OWNED, "x"), "no owned thing"),
        (lists(Owned("role", "x" * 1000, "uid", 1)), "no owned thing"),
        (lists(Owned("role", "x", "uid", -1)), "no owned thing"),
        (hangs_after_one, "did not answer"),
        (fails_after_one, "unexpected way"),
        (answers(None), "has a method list_owned that is a coroutine"),
        (None, "unexpected way"),
    ],
    ids=["text", "giant", "negative", "hangs", "exits", "no list", "no function of a list"],
)
async def test_a_bad_list_is_named(listing: Any, words: str) -> None:
    with pytest.raises(Ambiguous, match=words):
        await all_owned(bad(list_owned=listing if listing is not None else (lambda _store: 7)))


async def test_a_list_without_end_is_cut_and_stopped(monkeypatch: pytest.MonkeyPatch) -> None:
    """An inventory that was cut never passes for a whole one."""
    monkeypatch.setattr(guard, "MAX_OWNED", 1000)
    stopped = asyncio.Event()

    async def endless(_store: str) -> AsyncIterator[Owned]:
        try:
            while True:
                yield OWNED
        finally:
            stopped.set()

    with pytest.raises(Ambiguous, match="listed too many things"):
        await all_owned(bad(list_owned=endless))
    await asyncio.wait_for(stopped.wait(), 5)


async def test_a_good_list_is_whole_and_runs_in_one_task() -> None:
    """A time-out within the provider's own list spans its items."""

    async def listing(_store: str) -> AsyncIterator[Owned]:
        async with asyncio.timeout(5):
            for _ in range(500):
                yield OWNED

    assert len(await all_owned(bad(list_owned=listing))) == 500


async def test_a_close_that_hangs_is_left() -> None:
    with pytest.raises(ProviderError, match="did not answer"):
        await bad(close=hangs).close()


async def test_calls_that_cling_are_counted_and_then_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """A broker does not fill with calls that will not end; when they do end it goes on."""
    monkeypatch.setattr(guard, "MAX_LEFT_BEHIND", 2)
    end = asyncio.Event()

    async def cling() -> None:
        while not end.is_set():
            try:
                await end.wait()
            except asyncio.CancelledError:
                continue

    facade, piece = bad(), BadPiece(cling)
    for _ in range(2):
        with pytest.raises(Ambiguous, match="did not answer"):
            await facade.make(piece, Make.ENSURE, None)  # type: ignore[arg-type] # looks at nothing
    with pytest.raises(Retryable, match=r"2 calls .* ignore their cancellation"):
        await facade.make(piece, Make.ENSURE, None)  # type: ignore[arg-type] # as above
    end.set()
    for task in list(facade._left_behind):
        await asyncio.wait_for(task, 5)
    await asyncio.sleep(0)
    with pytest.raises(Ambiguous, match="neither Done nor NotYet"):
        await facade.make(piece, Make.ENSURE, None)  # type: ignore[arg-type] # as above


def made_by(make: Callable[[], Any]) -> ProviderRegistry:
    return ProviderRegistry({"bad": lambda _config, _environment: make()}, Path("/nowhere"), "store", SystemClock())


def raises_exit() -> Any:
    raise SystemExit


def with_traits(**traits: Any) -> Callable[[], Any]:
    def make() -> Any:
        provider = ScriptedProvider(World())
        vars(provider).update(traits)
        return provider

    return make


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (raises_exit, "could not be made"),
        (object, "could not be made"),
        (with_traits(contract=7), "names no contract version"),
        (with_traits(contract=""), "names no contract version"),
        (with_traits(schemas={}), "has no schemas"),
        (with_traits(abilities={"FLY"}), "could not be made"),
    ],
    ids=["exits", "nothing", "contract of a number", "no contract", "no schemas", "unknown ability"],
)
def test_what_is_no_provider_is_missing(make: Callable[[], Any], words: str) -> None:
    """Its operations are held, as those of a provider that is not installed."""
    with pytest.raises(ProviderMissingError, match=f"'main' {words}"):
        made_by(make).facade(REF)


async def test_named_failures_of_questions_pass() -> None:
    async def check() -> None:
        raise Permanent("version 9 is too old", "9.1")

    with pytest.raises(Permanent, match="version 9"):
        await bad(check=check).check()


@pytest.mark.parametrize("question", ["check", "observe"])
async def test_an_answered_question_closes_a_circuit_that_waits_for_a_probe(question: str) -> None:
    """A broker without operations had an open circuit for ever, and never looked at its instances again."""
    observed = Observed(Drift.IN_SYNC, healthy=True, at=NOW)
    guarded = bad(observe=answers(observed))
    clock = ManualClock()
    guarded.circuit._clock = clock
    for _ in range(2):
        guarded.circuit.unreachable()

    async def ask() -> None:
        await (guarded.check() if question == "check" else guarded.observe(KNOWN))

    await ask()
    assert guarded.circuit.is_open  # it is not time yet

    clock.advance(60.0)
    await ask()
    assert not guarded.circuit.is_open
