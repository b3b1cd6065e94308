"""The guarded way to a provider: time-outs, checked answers, a circuit, and named failures.

Guarantee: whatever a provider does (hangs, returns garbage, raises anything, floods), the broker gets what the contract says
or a `ProviderError` with words of ours, within the time-out; what it gave was checked and copied by `answers`. Nothing that it
raises (SystemExit and KeyboardInterrupt included) reaches the event loop. Secrets appear only in `Done.secrets` and
`Credentials.values`.
Limit: a provider that blocks the event loop blocks the broker (`kit.watchdog` says so); a call that ignores its cancellation
is left behind after `grace`, and of a provider with `MAX_LEFT_BEHIND` of them no call is begun any more.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping
from typing import Any, TypeVar

import msgspec
import structlog

from purveyor_server.domain.model import Json, ProviderRef
from purveyor_server.domain.states import Make
from purveyor_server.kit.clock import Clock
from purveyor_server.kit.secret import Secret
from purveyor_server.kit.tasks import is_cancelled
from purveyor_server.kit.watchdog import busy_with
from purveyor_server.providers import answers
from purveyor_server.providers.abilities import Adopting, Quarantining, Reclaiming, Reissuing, RootRotated, RootRotating
from purveyor_server.providers.answers import (
    LONGEST_WAIT,
    MAX_NAME_CHARACTERS,
    MAX_PLAN_STEPS,
    SHORTEST_WAIT,
    GarbageError,
    SchemaChecks,
    bounded,
)
from purveyor_server.providers.circuit import Circuit
from purveyor_server.providers.contract import (
    Ability,
    Ambiguous,
    Context,
    Credentials,
    Done,
    Known,
    NotYet,
    Observed,
    Outputs,
    Owned,
    Permanent,
    Piece,
    PlannedStep,
    Provider,
    ProviderError,
    Retryable,
    Schemas,
    Unreachable,
    Work,
)

__all__ = ["LONGEST_WAIT", "MAX_PLAN_STEPS", "SHORTEST_WAIT", "FacadeSettings", "ProviderFacade"]

_log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")

MAX_LEFT_BEHIND = 64  # calls of one provider that ignored their cancellation and still run
MAX_OWNED = 1_000_000  # things of one list
TIME_OUT = "time-out"  # the detail by which a failure is known as one
LIST_AHEAD = 64  # things that a list may be ahead of who reads it


class FacadeSettings(msgspec.Struct, frozen=True):
    """Seconds: `call` bounds ensure and absent, `settle` bounds settle, `question` bounds check, observe, close and each
    pause of a list, `grace` what a cancelled call may still take."""

    call: float = 120.0
    settle: float = 15.0
    grace: float = 5.0
    question: float = 30.0


class _EscapeError(Exception):
    """A provider raised what would have ended the event loop."""


class ProviderFacade:
    """One provider behind its guard. Raises GarbageError when what it says of itself is none."""

    def __init__(
        self,
        ref: ProviderRef,
        provider: Provider,
        clock: Clock,
        on_close: Callable[[str], None] = lambda _name: None,
        settings: FacadeSettings | None = None,
    ) -> None:
        self.ref = ref
        self.provider = provider
        self.circuit = Circuit(clock, lambda: on_close(ref.name))
        self._settings = settings or FacadeSettings()
        self._left_behind: set[asyncio.Task[Any]] = set()
        self.contract, self.abilities, self.schemas = _identity(provider)
        self._schemas = SchemaChecks(self.schemas)

    # Pure questions

    def plan(self, work: Work, done: Mapping[str, Outputs]) -> tuple[PlannedStep, ...]:
        """The checked plan. Raises a ProviderError when the provider cannot plan: the message names the provider."""
        try:
            with busy_with(f"provider {self.ref.name}: plan"):
                return self._checked_plan(self.provider.plan(work, done))
        except GarbageError as error:
            raise self._broken(error) from error
        except ProviderError as error:
            raise bounded(error) from error
        except BaseException as error:
            if is_cancelled(error):
                raise
            _log.error("provider failed to plan", provider=self.ref.name, verb=str(work.verb), exc_info=error)
            raise self._broken(GarbageError("could not plan the work", type(error).__name__)) from error

    def credentials(self, work: Work, done: Mapping[str, Outputs], secrets: Mapping[str, Secret]) -> Credentials:
        """The checked credentials of a finished BIND; raises Permanent."""
        try:
            with busy_with(f"provider {self.ref.name}: credentials"):
                return self._checked_credentials(self.provider.credentials(work, done, secrets))
        except GarbageError as error:
            raise self._broken(error) from error
        except BaseException as error:
            if is_cancelled(error):
                raise
            _log.error("provider failed to give credentials", provider=self.ref.name, error=type(error).__name__)
            raise self._broken(GarbageError("could not give credentials", type(error).__name__)) from error

    # Calls of pieces

    async def make(self, piece: Piece, make: Make, ctx: Context) -> Done | NotYet:
        """Run `ensure` or `absent` of `piece`; raises a ProviderError."""
        what = f"{piece.name}.{make.lower()}"
        call = (lambda: piece.ensure(ctx)) if make is Make.ENSURE else (lambda: piece.absent(ctx))
        answer = await self._guarded(call, self._settings.call, what, self.circuit)
        return self.believed(lambda: self._checked_answer(piece.name, make, answer))

    async def settle(self, piece: Piece, ctx: Context) -> bool:
        """True once no earlier run of `piece` can take effect; raises a ProviderError."""
        what = f"{piece.name}.settle"
        return (await self._guarded(lambda: piece.settle(ctx), self._settings.settle, what, self.circuit)) is True

    # What operators and sweeps ask for; the provider itself keeps clear of running operations

    async def quarantine(self, owned: Owned) -> None:
        """Make `owned` unusable and keep it; raises a ProviderError (MarkerChanged, Retryable while it is worked on)."""
        provider = self.provider
        if not isinstance(provider, Quarantining):
            raise self._unable(Ability.QUARANTINE)
        await self._asked(Ability.QUARANTINE, lambda: provider.quarantine(owned), "quarantine")

    async def release(self, owned: Owned) -> None:
        """Take `quarantine` back; raises as that does."""
        provider = self.provider
        if not isinstance(provider, Quarantining):
            raise self._unable(Ability.QUARANTINE)
        await self._asked(Ability.QUARANTINE, lambda: provider.release(owned), "release")

    async def reclaim(self, owned: Owned) -> Done | NotYet:
        """Remove `owned` for good if its marker still says so; raises a ProviderError (MarkerChanged: it was kept)."""
        provider = self.provider
        if not isinstance(provider, Reclaiming):
            raise self._unable(Ability.RECLAIM)
        answer = await self._asked(Ability.RECLAIM, lambda: provider.reclaim(owned), "reclaim")
        return self.believed(lambda: answers.checked_answer(answer))

    async def adoptable(self, source: Mapping[str, Json]) -> Owned | None:
        """What of our store owns the thing `source` already, None when it may be adopted; raises a ProviderError."""
        provider = self.provider
        if not isinstance(provider, Adopting):
            raise self._unable(Ability.ADOPT)
        answer = await self._asked(Ability.ADOPT, lambda: provider.adoptable(source), "adoptable")
        return None if answer is None else self.believed(lambda: answers.checked_owned(answer))

    async def rotate_root(self) -> RootRotated:
        """New credentials for the broker's own accounts in the backend; raises a ProviderError."""
        provider = self.provider
        if not isinstance(provider, RootRotating):
            raise self._unable(Ability.ROTATE_ROOT)
        answer = await self._asked(Ability.ROTATE_ROOT, provider.rotate_root, "rotate_root")
        return self.believed(lambda: answers.checked_rotation(answer))

    def reissues(self, work: Work) -> bool:
        """Whether bindings need new credentials after the UPDATE `work`; when the provider fails to tell they get them."""
        provider = self.provider
        if Ability.REISSUE not in self.abilities or not isinstance(provider, Reissuing):
            return False
        try:
            with busy_with(f"provider {self.ref.name}: reissues"):
                return provider.reissues(work) is not False
        except BaseException as error:
            if is_cancelled(error):
                raise
            _log.error("provider failed to say who needs new credentials", provider=self.ref.name, exc_info=error)
            return True

    async def _asked(self, ability: Ability, call: Callable[[], Awaitable[_Answer]], what: str) -> _Answer:
        if ability not in self.abilities:
            raise self._unable(ability)
        return await self._guarded(call, self._settings.call, what)

    def _unable(self, ability: Ability) -> Permanent:
        return Permanent(f"the provider {self.ref.name!r} does not offer {ability}")

    # Questions that no operation asks: they never open the circuit; an answer closes one that waits for a probe

    async def check(self) -> None:
        """Whether its backend can be worked with; raises a ProviderError."""
        try:
            await self._guarded(self.provider.check, 2 * self._settings.question, "check")
        except Ambiguous as error:
            if error.detail == TIME_OUT:  # nothing was changed: the backend does not answer, and that is all
                raise Unreachable(error.message, error.detail) from error
            raise
        self.circuit.heard()

    async def observe(self, known: Known) -> Observed:
        """How an instance looks; raises a ProviderError."""
        answer = await self._guarded(lambda: self.provider.observe(known), self._settings.question, "observe")
        self.circuit.heard()
        return self.believed(lambda: answers.checked_observed(answer))

    async def owned(self, store_id: str) -> AsyncGenerator[Owned, None]:
        """What carries the marker of `store_id`; raises a ProviderError, also when there is no end of it."""
        items: asyncio.Queue[object] = asyncio.Queue()
        room = asyncio.Semaphore(LIST_AHEAD)
        end = object()

        async def read() -> None:  # all in one task: a time-out or session within the provider's list spans its items
            listed = self.provider.list_owned(store_id)
            self.believed(lambda: answers.refuse_coroutine(listed, "list_owned"))
            async for item in listed:
                await room.acquire()
                items.put_nowait(item)

        task = self._begin(read, "list_owned")
        task.add_done_callback(lambda _done: items.put_nowait(end))
        try:
            for _ in range(MAX_OWNED + 1):
                item = await self._next(items)
                if item is end:
                    self._answer(task, None)
                    return
                room.release()
                yield self.believed(lambda item=item: answers.checked_owned(item))  # type: ignore[misc] # as in answers
            raise self._unsure(GarbageError("listed too many things", f"over {MAX_OWNED}"))
        finally:
            await self._stop(task)

    async def close(self) -> None:
        """Let the provider let go; raises a ProviderError."""
        await self._guarded(self.provider.close, self._settings.question / 3, "close")

    async def _next(self, items: asyncio.Queue[object]) -> object:
        try:
            async with asyncio.timeout(self._settings.question):
                return await items.get()
        except TimeoutError:
            raise self._late(self._settings.question) from None

    def believed(self, check: Callable[[], _Answer]) -> _Answer:
        """What `check` gives; garbage after a call means that it may have happened."""
        try:
            return check()
        except GarbageError as error:
            raise self._unsure(error) from error

    # What came back. Negative controls of the tests take these out.

    def _checked_plan(self, planned: object) -> tuple[PlannedStep, ...]:
        return answers.checked_plan(planned)

    def _checked_answer(self, piece: str, make: Make, answer: object) -> Done | NotYet:
        checked = answers.checked_answer(answer)
        if isinstance(checked, Done) and make is Make.ENSURE:  # the schema is of a thing that is there
            self._schemas.outputs(piece, checked.outputs)
        return checked

    def _checked_credentials(self, answer: object) -> Credentials:
        checked = answers.checked_credentials(answer, self.schemas.unique_fields)
        self._schemas.credentials(checked.values)
        return checked

    # Running a call

    async def _guarded(
        self, call: Callable[[], Awaitable[_Answer]], seconds: float, what: str, circuit: Circuit | None = None
    ) -> _Answer:
        """Run a call with a time-out that holds even when the call ignores its cancellation; feed the circuit."""
        task = self._begin(call, what)
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError:
            if circuit is not None:
                circuit.abandoned()
            await self._stop(task)
            raise
        if done:
            return self._answer(task, circuit)
        if circuit is not None:
            circuit.abandoned()
        await self._stop(task)
        raise self._late(seconds)

    def _begin(self, call: Callable[[], Awaitable[_Answer]], what: str) -> asyncio.Task[_Answer]:
        if len(self._left_behind) >= MAX_LEFT_BEHIND:
            message = f"{len(self._left_behind)} calls of the provider {self.ref.name!r} ignore their cancellation"
            raise Retryable(message, "no further call is begun")
        return asyncio.create_task(_contained(call), name=f"provider {self.ref.name}: {what}")

    async def _stop(self, task: asyncio.Task[_Answer]) -> None:
        """Cancel a call and wait for it, at most the grace time; what still runs then is kept until it ends."""
        task.cancel()
        try:
            await asyncio.wait({task}, timeout=self._settings.grace)
        finally:
            if not task.done():
                _log.error("provider call ignored its cancellation", provider=self.ref.name, call=task.get_name())
                self._left_behind.add(task)
                task.add_done_callback(self._left_behind.discard)
            task.add_done_callback(_retrieve)

    def _answer(self, task: asyncio.Task[_Answer], circuit: Circuit | None) -> _Answer:
        if task.cancelled():  # by the provider itself: nobody cancelled us
            if circuit is not None:
                circuit.abandoned()
            raise self._unsure(GarbageError("cancelled its own call", "cancelled"))
        failure = task.exception()
        if circuit is not None:
            (circuit.unreachable if isinstance(failure, Unreachable) else circuit.answered)()
        if failure is None:
            return task.result()
        if isinstance(failure, ProviderError):
            raise bounded(failure) from failure
        _log.error("provider raised an unexpected error", provider=self.ref.name, exc_info=failure)
        cause = failure.__cause__ if isinstance(failure, _EscapeError) and failure.__cause__ else failure
        raise self._unsure(GarbageError("failed in an unexpected way", type(cause).__name__)) from failure

    # Words

    def _broken(self, error: GarbageError) -> Permanent:
        return Permanent(f"the provider {self.ref.name!r} {error.what}", error.detail)

    def _unsure(self, error: GarbageError) -> Ambiguous:
        return Ambiguous(f"the provider {self.ref.name!r} {error.what}", error.detail)

    def _late(self, seconds: float) -> Ambiguous:
        return self._unsure(GarbageError(f"did not answer within {seconds:g} s", TIME_OUT))


def _identity(provider: Any) -> tuple[str, frozenset[Ability], Schemas]:
    """What a provider says of itself, read once."""
    contract, abilities, schemas = provider.contract, provider.abilities, provider.schemas
    if not isinstance(contract, str) or not 0 < len(contract) <= MAX_NAME_CHARACTERS:
        raise GarbageError("names no contract version")
    if not isinstance(schemas, Schemas) or not isinstance(schemas.outputs, dict):
        raise GarbageError("has no schemas")
    return contract, frozenset(Ability(ability) for ability in abilities), schemas


async def _contained(call: Callable[[], Awaitable[_Answer]]) -> _Answer:
    """Await `call()`; what a task would hand on to the loop becomes an ordinary exception."""
    try:
        return await call()
    except (SystemExit, KeyboardInterrupt) as error:
        raise _EscapeError from error


def _retrieve(task: asyncio.Task[Any]) -> None:
    """Take the exception of a call that nobody waits for any more, so that it is not reported as lost."""
    if not task.cancelled():
        task.exception()
