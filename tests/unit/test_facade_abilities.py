"""What sweeps and operators ask of a provider, through its guard: asked only where it is offered, bounded, checked."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from purveyor_server.domain.states import Verb
from purveyor_server.kit.clock import SystemClock
from purveyor_server.providers.abilities import RootRotated
from purveyor_server.providers.contract import (
    Ability,
    Ambiguous,
    Done,
    MarkerChanged,
    NotYet,
    Owned,
    Permanent,
    Work,
    WorkSettings,
)
from purveyor_server.providers.facade import ProviderFacade
from tests.fakes.provider import ScriptedProvider, World
from tests.unit.test_facade_questions import OWNED, REF, answers, bad, exits, hangs

SETTINGS = WorkSettings("svc", "plan", {}, {})
UPDATE = Work(Verb.UPDATE, "uid", SETTINGS, SETTINGS, {})
ASKED: dict[str, Callable[[ProviderFacade], Awaitable[Any]]] = {
    "quarantine": lambda facade: facade.quarantine(OWNED),
    "release": lambda facade: facade.release(OWNED),
    "reclaim": lambda facade: facade.reclaim(OWNED),
    "adoptable": lambda facade: facade.adoptable({}),
    "rotate_root": lambda facade: facade.rotate_root(),
}


@pytest.mark.parametrize("method", ASKED)
async def test_what_is_not_offered_is_never_asked(method: str) -> None:
    asked: list[str] = []

    async def ask(*_given: Any) -> None:
        asked.append(method)

    facade = bad(**{method: ask, "abilities": frozenset({Ability.BIND})})

    with pytest.raises(Permanent, match="does not offer"):
        await ASKED[method](facade)

    assert asked == []


@pytest.mark.parametrize("method", ASKED)
async def test_an_ability_without_its_method_is_none(method: str) -> None:
    poor = type("Poor", (ScriptedProvider,), {method: None, "abilities": frozenset(Ability)})

    with pytest.raises(Permanent, match="does not offer"):
        await ASKED[method](ProviderFacade(REF, poor(World()), SystemClock()))


@pytest.mark.parametrize("method", ASKED)
async def test_one_that_hangs_or_exits_is_ended(method: str) -> None:
    with pytest.raises(Ambiguous, match="did not answer"):
        await ASKED[method](bad(**{method: hangs, "abilities": frozenset(Ability)}))
    with pytest.raises(Ambiguous, match="unexpected way"):
        await ASKED[method](bad(**{method: exits, "abilities": frozenset(Ability)}))


async def test_a_marker_that_changed_is_told_apart_from_other_refusals() -> None:
    async def keeps(_owned: Owned) -> Done:
        raise MarkerChanged("it carries another marker")

    with pytest.raises(MarkerChanged, match="another marker"):
        await bad(reclaim=keeps).reclaim(OWNED)


@pytest.mark.parametrize(
    ("method", "answer", "words"),
    [
        ("reclaim", None, "neither Done nor NotYet"),
        ("reclaim", True, "neither Done nor NotYet"),
        ("adoptable", "mine", "no owned thing"),
        ("adoptable", Owned("role", "x", "uid", -1), "no owned thing"),
        ("rotate_root", None, "a rotation that is none"),
        ("rotate_root", RootRotated(7), "no account"),  # type: ignore[arg-type] # garbage
    ],
)
async def test_an_answer_that_is_none_is_named(method: str, answer: Any, words: str) -> None:
    with pytest.raises(Ambiguous, match=words):
        await ASKED[method](bad(**{method: answers(answer), "abilities": frozenset(Ability)}))


async def test_answers_are_bounded() -> None:
    waits = await bad(reclaim=answers(NotYet(-3.0))).reclaim(OWNED)
    rotated = await bad(rotate_root=answers(RootRotated(("x" * 10_000,))), abilities=frozenset(Ability)).rotate_root()

    assert isinstance(waits, NotYet)
    assert (waits.after, len(rotated.accounts[0])) == (0.05, 500)


def test_who_needs_new_credentials() -> None:
    def broken(_work: Work) -> bool:
        raise RuntimeError

    assert not bad(reissues=lambda _work: False).reissues(UPDATE)
    assert bad(reissues=lambda _work: True).reissues(UPDATE)
    assert bad(reissues=broken).reissues(UPDATE), "when it cannot tell, making them again does no harm"
    assert not bad(reissues=lambda _work: True, abilities=frozenset({Ability.BIND})).reissues(UPDATE)
