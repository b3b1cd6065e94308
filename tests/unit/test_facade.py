"""A provider that is bad in every way is survived, with named errors."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from purveyor_server.domain.model import ProviderRef
from purveyor_server.domain.states import Make, Verb
from purveyor_server.kit.clock import ManualClock, SystemClock
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.circuit import Circuit
from purveyor_server.providers.contract import (
    Ability,
    Ambiguous,
    Credentials,
    Done,
    NotYet,
    Permanent,
    PlannedStep,
    ProviderError,
    Retryable,
    Schemas,
    Unreachable,
    Work,
)
from purveyor_server.providers.facade import LONGEST_WAIT, SHORTEST_WAIT, FacadeSettings, ProviderFacade
from tests.fakes.provider import ScriptedProvider, World

WORK = Work(Verb.PROVISION, "0190-uid", None, None, {})
CONTEXT: Any = None  # the pieces here look at nothing


class BadPiece:
    """A piece whose `ensure` is whatever a test says."""

    name = "bad"
    weight = 1.0
    mints: tuple[str, ...] = ()

    def __init__(self, ensure: Callable[[], Awaitable[Any]]) -> None:
        self._ensure = ensure

    async def ensure(self, ctx: Any) -> Any:
        """As told."""
        return await self._ensure()

    async def absent(self, ctx: Any) -> Any:
        """As told."""
        return await self._ensure()

    async def settle(self, ctx: Any) -> Any:
        """As told."""
        return await self._ensure()


def facade(provider: Any = None, **settings: float) -> ProviderFacade:
    """A facade with short times."""
    chosen = provider or ScriptedProvider(World())
    return ProviderFacade(
        ProviderRef("main", "bad"),
        chosen,
        SystemClock(),
        settings=FacadeSettings(**({"call": 0.05, "settle": 0.05, "grace": 0.05} | settings)),
    )


async def run(answer: Callable[[], Awaitable[Any]]) -> Any:
    """Run a bad ensure through the facade."""
    return await facade().make(BadPiece(answer), Make.ENSURE, CONTEXT)


def answers(value: Any) -> Callable[[], Awaitable[Any]]:
    """A call that answers `value`."""

    async def call() -> Any:
        return value

    return call


def raises(error: BaseException) -> Callable[[], Awaitable[Any]]:
    """A call that raises `error`."""

    async def call() -> Any:
        raise error

    return call


async def hangs() -> None:
    """Never answers."""
    await asyncio.Event().wait()


async def clings() -> None:
    """Never answers and ignores the first cancellation."""
    try:
        await asyncio.Event().wait()
    finally:
        await asyncio.wait_for(asyncio.Event().wait(), 0.2)


async def test_a_call_that_hangs_is_ambiguous() -> None:
    """It may have happened."""
    with pytest.raises(Ambiguous, match=r"did not answer within 0\.05 s"):
        await run(hangs)


async def test_a_call_that_ignores_its_cancellation_is_left() -> None:
    """The engine goes on."""
    with pytest.raises(Ambiguous, match="did not answer"):
        await run(clings)


async def test_an_unexpected_error_is_ambiguous_and_says_nothing() -> None:
    """Exception text never reaches the caller."""
    with pytest.raises(Ambiguous) as caught:
        await run(raises(ValueError("postgres://u:p@h")))

    assert "postgres" not in caught.value.message + caught.value.detail


@pytest.mark.parametrize("kind", [Retryable, Permanent, Ambiguous, Unreachable])
async def test_named_errors_pass(kind: type[ProviderError]) -> None:
    """What a provider says in the contract's words stays."""
    with pytest.raises(kind):
        await run(raises(kind("because")))


@pytest.mark.parametrize(
    ("answer", "words"),
    [
        (None, "neither Done nor NotYet"),
        ({"outputs": {}}, "neither Done nor NotYet"),
        (Done({"x": object()}), "no JSON"),
        (Done({"x": "y" * 70_000}), "too large"),
        (Done({}, {"password": "clear"}), "not of the type Secret"),  # type: ignore[dict-item]  # garbage on purpose
    ],
)
async def test_garbage_is_named(answer: Any, words: str) -> None:
    """Each kind of garbage has its own sentence."""
    with pytest.raises(Ambiguous, match=words):
        await run(answers(answer))


@pytest.mark.parametrize(
    ("asked", "given"), [(-5, SHORTEST_WAIT), (1e12, LONGEST_WAIT), (float("nan"), LONGEST_WAIT), (2.0, 2.0)]
)
async def test_waits_are_bounded(asked: float, given: float) -> None:
    """No spinning, no forgetting."""
    answer = await run(answers(NotYet(asked, "x" * 10_000)))

    assert (answer.after, len(answer.note)) == (given, 500)


async def test_outputs_must_fit_their_schema() -> None:
    """The place is named, the value is not shown."""

    class Strict(ScriptedProvider):
        schemas = Schemas(outputs={"bad": {"type": "object", "properties": {"port": {"type": "integer"}}}})

    with pytest.raises(Ambiguous, match="at port"):
        await facade(Strict(World())).make(BadPiece(answers(Done({"port": "s3cret"}))), Make.ENSURE, CONTEXT)


async def test_what_is_gone_has_no_outputs() -> None:
    """The schema of a piece's outputs is not held against its removal."""

    class Strict(ScriptedProvider):
        schemas = Schemas(outputs={"bad": {"type": "object", "required": ["port"]}})

    answer = await facade(Strict(World())).make(BadPiece(answers(Done())), Make.ABSENT, CONTEXT)

    assert answer == Done()


async def test_a_removal_has_no_outputs_to_check() -> None:
    """The schema of a piece's outputs holds for `ensure` alone."""

    class Strict(ScriptedProvider):
        schemas = Schemas(outputs={"bad": {"type": "object", "required": ["port"]}})

    answer = await facade(Strict(World())).make(BadPiece(answers(Done())), Make.ABSENT, CONTEXT)

    assert answer == Done()


async def test_credentials_that_are_none_are_refused() -> None:
    """A bind does not end with garbage."""

    class Careless(ScriptedProvider):
        def credentials(self, work: Any, done: Any, secrets: Any) -> Credentials:
            return {"password": "p"}  # type: ignore[return-value]  # garbage on purpose

    with pytest.raises(Permanent, match="no object"):
        facade(Careless(World())).credentials(WORK, {}, {"password": Secret("p")})


@pytest.mark.parametrize(
    ("steps", "words"),
    [
        ([PlannedStep(BadPiece(hangs)), PlannedStep(BadPiece(hangs))], "two steps of one name"),
        (None, "could not plan"),
    ],
)
def test_bad_plans_are_named(steps: Any, words: str) -> None:
    """A plan is checked before a step of it runs."""

    class Planner(ScriptedProvider):
        def plan(self, work: Any, done: Any) -> Any:
            return steps

    with pytest.raises(Permanent, match=words):
        facade(Planner(World())).plan(WORK, {})


async def test_settle_is_true_only_when_it_says_true() -> None:
    """Truthy garbage does not settle anything."""
    assert await facade().settle(BadPiece(answers("yes")), CONTEXT) is False
    assert await facade().settle(BadPiece(answers(True)), CONTEXT) is True


def test_abilities_are_the_providers_own() -> None:
    """The facade hides nothing."""
    assert Ability.BIND in facade().provider.abilities


class TestCircuit:
    """Opens after two unreachable answers, lets one probe through, closes with an answer."""

    def test_opens_probes_and_closes(self) -> None:
        """The whole round."""
        clock, closed = ManualClock(), []
        circuit = Circuit(clock, lambda: closed.append(True))
        circuit.unreachable()

        assert circuit.postponed() == 0.0

        circuit.unreachable()

        assert circuit.postponed() > 0

        clock.advance(2.0)

        assert circuit.postponed() == 0.0  # the probe
        assert circuit.postponed() > 0  # everybody else

        circuit.answered()

        assert (circuit.is_open, closed) == (False, [True])

    def test_a_failed_probe_opens_for_longer(self) -> None:
        """And a probe without a verdict lets the next one through."""
        clock = ManualClock()
        circuit = Circuit(clock, lambda: None)
        for _ in range(3):
            circuit.unreachable()
        clock.advance(3.0)

        assert circuit.postponed() == 0.0

        circuit.abandoned()

        assert circuit.postponed() == 0.0
