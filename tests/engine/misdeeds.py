"""The table of what a bad provider does, one row each, and what is to come of it.

A row's `spoil` turns the well-behaved scripted provider of a bench into a bad one; `mend` (in the suite) turns it back.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator
from itertools import count
from typing import Any, NamedTuple

from purveyor_server.domain.errors import Reason
from purveyor_server.domain.states import OperationState, Verb
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.contract import (
    Credentials,
    Done,
    LeaseEnding,
    NotYet,
    Permanent,
    PlannedStep,
    Retryable,
)
from tests.engine.bench import Bench
from tests.fakes.provider import WorldPiece

Answer = Callable[[Any], Awaitable[Any]]


class Row(NamedTuple):
    """A misdeed, its verb, and the end that it is to have; `words` are looked for in the failure's message."""

    name: str
    spoil: Callable[[Bench], None]
    words: str = ""
    reason: Reason | None = Reason.PROVIDER_FAILED
    verb: Verb = Verb.PROVISION
    state: OperationState = OperationState.FAILED
    call: float = 0.3  # seconds that a call may take


class Spoilt(WorldPiece):
    """Makes its thing, and then does what it should not."""

    def __init__(self, honest: WorldPiece, answer: Answer, **traits: Any) -> None:
        super().__init__(honest._world, honest.name, honest._kind, honest.mints)
        self._answer = answer
        vars(self).update(traits)

    async def ensure(self, ctx: Any) -> Any:
        await super().ensure(ctx)
        return await self._answer(ctx)


def does(answer: Answer) -> Callable[[Bench], None]:
    """The piece in the middle does `answer` when its thing is made."""

    def spoil(bench: Bench) -> None:
        bench.provider.pieces[1] = Spoilt(bench.provider.pieces[1], answer)

    return spoil


def answers(value: Any) -> Callable[[Bench], None]:
    """The piece in the middle answers `value`."""

    async def answer(_ctx: Any) -> Any:
        return value

    return does(answer)


def raises(make: Callable[[], BaseException]) -> Callable[[Bench], None]:
    """The piece in the middle raises."""

    async def answer(_ctx: Any) -> Any:
        raise make()

    return does(answer)


def is_made(**traits: Any) -> Callable[[Bench], None]:
    """The piece in the middle has other traits; Ellipsis stands for none at all."""

    def spoil(bench: Bench) -> None:
        piece = bench.provider.pieces[1]
        vars(piece).update(traits)
        for name in [name for name, value in traits.items() if value is ...]:
            delattr(piece, name)
            bench.provider.pieces[1] = _Without(piece, name)

    return spoil


class _Without:
    """Hides a trait of a piece."""

    def __init__(self, piece: WorldPiece, trait: str) -> None:
        self._piece, self._trait = piece, trait

    def __getattr__(self, name: str) -> Any:
        if name == self._trait:
            raise AttributeError(name)
        return getattr(self._piece, name)


def plans(plan: Callable[[Any, Any, Any], Any]) -> Callable[[Bench], None]:
    """`plan(honest, work, done)` takes the place of a provision's plan; removals are planned well."""

    def spoil(bench: Bench) -> None:
        honest = bench.provider.plan

        def made(work: Any, done: Any) -> Any:
            return plan(honest, work, done) if work.verb is Verb.PROVISION else honest(work, done)

        vars(bench.provider)["plan"] = made

    return spoil


def gives(values: Callable[[], Any], **more: Any) -> Callable[[Bench], None]:
    """Credentials are what `values` makes."""

    def spoil(bench: Bench) -> None:
        def credentials(_work: Any, _done: Any, _secrets: Any) -> Any:
            made = values()
            return Credentials(made, **more) if isinstance(made, dict) else made

        vars(bench.provider)["credentials"] = credentials

    return spoil


async def hang(_ctx: Any) -> None:
    await asyncio.Event().wait()


async def cling(_ctx: Any) -> None:
    """Ignores every cancellation for a second."""
    end = asyncio.get_running_loop().time() + 1.0
    never = asyncio.Event()
    while (left := end - asyncio.get_running_loop().time()) > 0:
        try:
            await asyncio.wait_for(never.wait(), left)
        except (asyncio.CancelledError, TimeoutError):
            continue


async def cancel_itself(_ctx: Any) -> None:
    raise asyncio.CancelledError


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = [value]
    return value


def ring() -> dict[str, Any]:
    value: dict[str, Any] = {}
    value["again"] = value
    return value


def laughs() -> list[Any]:
    """A billion items for the price of ninety."""
    value: list[Any] = ["lol"]
    for _ in range(9):
        value = [value] * 10
    return value


class Strange(Permanent):
    """A failure whose words are none."""

    def __init__(self) -> None:
        Exception.__init__(self)

    @property
    def message(self) -> str:  # type: ignore[override] # on purpose
        raise ValueError

    @property
    def detail(self) -> str:  # type: ignore[override] # on purpose
        raise ValueError


class Evil(BaseException):
    """No Exception."""


def forever(item: Any) -> Iterator[Any]:
    while True:
        yield item


def endless_steps(honest: Any, work: Any, done: Any) -> Iterator[PlannedStep]:
    yield from honest(work, done)
    piece = honest(work, done)[0].piece
    for number in count():
        yield PlannedStep(WorldPiece(piece._world, f"more{number}", f"more{number}"))


def exits(_honest: Any, _work: Any, _done: Any) -> Any:
    raise SystemExit


def cancels(_honest: Any, _work: Any, _done: Any) -> Any:
    raise asyncio.CancelledError


def shrinks(honest: Any, work: Any, done: Any) -> Any:
    return honest(work, done)[: 1 if len(done) >= 2 else 3]


def fails_later(honest: Any, work: Any, done: Any) -> Any:
    if done:
        raise ValueError
    return honest(work, done)


async def async_plan(honest: Any, work: Any, done: Any) -> Any:
    return honest(work, done)


async def save_no_json(ctx: Any) -> Done:
    await ctx.save({"x": object()})
    return Done()


async def save_much(ctx: Any) -> Done:
    await ctx.save("x" * 10_000_000)
    return Done()


async def save_often(ctx: Any) -> Done:
    for number in count():
        await ctx.save(number)
    return Done()


async def save_at_once(ctx: Any) -> Done:
    await asyncio.gather(*(ctx.save(number) for number in range(5000)))
    return Done()


async def allocate_garbage(ctx: Any) -> Done:
    await ctx.allocate(object(), "1", None, avoid=forever(1))
    return Done()


def reports(*percents: Any) -> Callable[[Bench], None]:
    """Progress that is none, then a good end."""

    async def answer(ctx: Any) -> Done:
        for percent in percents:
            ctx.report(percent, percent)
            await asyncio.sleep(0)
        return Done({"name": "x"})

    return does(answer)


def sibling_credentials() -> dict[str, Any]:
    return {"username": "one-for-all", "password": "the-same"}


def twice_one_name(bench: Bench) -> None:
    bench.provider.pieces[1] = bench.provider.pieces[0]


FAILED_SOMEHOW = "failed in an unexpected way"
NO_NAME = "a step without name or weight"
DONE, BIND = OperationState.SUCCEEDED, Verb.BIND

ROWS = [
    Row("hangs", does(hang), "did not answer within", Reason.PROVIDER_TIMEOUT),
    Row("ignores cancellation", does(cling), "did not answer within", Reason.PROVIDER_TIMEOUT),
    Row("cancels itself", does(cancel_itself), "cancelled its own call"),
    Row("raises SystemExit", raises(SystemExit), FAILED_SOMEHOW),
    Row("raises KeyboardInterrupt", raises(KeyboardInterrupt), FAILED_SOMEHOW),
    Row("raises no Exception", raises(Evil), FAILED_SOMEHOW),
    Row("raises GeneratorExit", raises(GeneratorExit), FAILED_SOMEHOW),
    Row("raises a failure without words", raises(Strange), "without saying why"),
    Row("raises a failure of objects", raises(lambda: Permanent(object(), 7)), "without saying why"),  # type: ignore[arg-type]
    Row("raises a giant failure", raises(lambda: Permanent("x" * 10**7, "y" * 10**7)), "x" * 500),
    Row("raises half a character", raises(lambda: Permanent("\ud800no", "\ud800")), r"\?no"),
    Row("makes up the end of the lease", raises(lambda: LeaseEnding("not true")), "not true"),
    Row("fails for ever", raises(lambda: Retryable("busy")), "busy"),
    Row("answers None", answers(None), "neither Done nor NotYet"),
    Row("answers a NotYet without number", answers(NotYet("soon")), "a NotYet whose time is no number"),  # type: ignore[arg-type]
    Row("outputs are a text", answers(Done("x")), "outputs that are no object"),  # type: ignore[arg-type]
    Row("outputs are no JSON", answers(Done({"x": object()})), "outputs that are no JSON"),
    Row("outputs hold NaN", answers(Done({"x": float("nan")})), "outputs that are no JSON"),
    Row("outputs hold a number of 1000 digits", answers(Done({"x": 10**1000})), "outputs that are no JSON"),
    Row("outputs hold half a character", answers(Done({"x": "\ud800"})), "outputs that are no JSON"),
    Row("outputs have keys of numbers", answers(Done({1: 2})), "outputs that are no JSON"),  # type: ignore[dict-item]
    Row("outputs are deep", answers(Done({"x": nested(100_000)})), "outputs nested deeper than 32"),
    Row("outputs are a ring", answers(Done(ring())), "outputs nested deeper than 32"),
    Row("outputs are a billion laughs", answers(Done({"x": laughs()})), "too large outputs"),
    Row("outputs are large", answers(Done({"x": "y" * 70_000})), "too large outputs"),
    Row("secrets are a text", answers(Done({}, "x")), "secrets that are no object"),  # type: ignore[arg-type]
    Row("a secret is in clear", answers(Done({}, {"p": "clear"})), "not of the type Secret"),  # type: ignore[dict-item]
    Row("a secret is a number", answers(Done({}, {"p": Secret(7)})), "a secret that is no text"),  # type: ignore[arg-type]
    Row("a secret is giant", answers(Done({}, {"p": Secret("x" * 10**6)})), "a too large secret"),
    Row("many secrets", answers(Done({}, {f"p{n}": Secret("x") for n in range(1000)})), "too many secrets"),
    Row("a secret without name", answers(Done({}, {"": Secret("x")})), "a secret without a name"),
    Row("saves no JSON", does(save_no_json), "values to save that are no JSON"),
    Row("saves much", does(save_much), "too large values to save"),
    Row("saves for ever", does(save_often), "more than 100 times", call=20.0),
    Row("saves all at once", does(save_at_once), "more than 100 times", call=20.0),
    Row("allocates garbage", does(allocate_garbage), "avoids too many numbers"),
    Row("reports 140 percent", reports(140, 10**400, float("inf")), reason=None, state=DONE),
    Row("reports no percent", reports(-3, float("nan"), "x", None, object()), reason=None, state=DONE),
    Row("floods reports", reports(*range(20_000)), reason=None, state=DONE, call=20.0),
    Row("plans nothing", plans(lambda *_: None), "could not plan the work"),
    Row("plans by SystemExit", plans(exits), "could not plan the work"),
    Row("plans by cancelling", plans(cancels), "could not plan the work"),
    Row("plans in a coroutine", plans(async_plan), "a method plan that is a coroutine"),
    Row("plans no steps", plans(lambda *_: ["abc"]), "a step that is none"),
    Row("plans steps for ever", plans(endless_steps), "planned too many steps"),
    Row("plans a step for ever", plans(lambda *_: [forever(1)]), "a step that is none"),
    Row("plans fewer steps later", plans(shrinks), "no longer plans", reason=None, state=OperationState.RUNNING),
    Row(
        "plans no more once begun", plans(fails_later), "could not plan", reason=None, state=OperationState.ROLLING_BACK
    ),
    Row("two steps of one name", twice_one_name, "two steps of one name"),
    Row("a piece without name", is_made(name=...), "could not plan the work"),
    Row("a piece without weight", is_made(weight=...), "a step that is none"),
    Row("a piece of a number", is_made(name=7), NO_NAME),
    Row("a piece of a giant name", is_made(name="x" * 10_000), NO_NAME),
    Row("a weight of NaN", is_made(weight=float("nan")), NO_NAME),
    Row("a weight without end", is_made(weight=float("inf")), NO_NAME),
    Row("a weight of text", is_made(weight="heavy"), NO_NAME),
    Row("a piece that mints nothing", is_made(mints=None), "a step that is none"),
    Row("a piece that mints for ever", is_made(mints=forever("x")), "mints too many secrets"),
    Row("credentials are none", gives(lambda: None), "credentials that are no object", verb=BIND),
    Row("credentials by SystemExit", gives(lambda: exits(0, 0, 0)), "could not give credentials", verb=BIND),
    Row("credentials are no JSON", gives(lambda: {"username": object()}), "credentials that are no JSON", verb=BIND),
    Row("credentials are large", gives(lambda: {"username": "x" * 10**6}), "too large credentials", verb=BIND),
    Row("credentials are deep", gives(lambda: {"username": nested(10**5)}), "credentials nested deeper", verb=BIND),
    Row("credentials of nobody", gives(lambda: {"host": "x"}), "without any of its unique fields", verb=BIND),
    Row("endpoints are none", gives(sibling_credentials, endpoints=(7,)), "endpoints that are none", verb=BIND),
    Row("endpoints for ever", gives(sibling_credentials, endpoints=forever(7)), "too many endpoints", verb=BIND),
    Row("a sibling's credentials", gives(sibling_credentials), "", Reason.CREDENTIALS_NOT_UNIQUE, BIND),
]
