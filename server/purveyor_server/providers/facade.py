"""The guarded way to a provider: time-outs, checked answers, a circuit, and named failures.

Guarantee: whatever a provider does (hangs, returns garbage, raises anything, floods), the engine gets `Done`, `NotYet` or
a `ProviderError`, within the time-out. Secrets appear only in `Done.secrets` and `Credentials.values`.
Limit: a provider that blocks the event loop blocks the broker; one that ignores cancellation is abandoned after `grace`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, TypeVar

import jsonschema_rs
import msgspec
import structlog

from purveyor_server.domain.model import ProviderRef
from purveyor_server.domain.states import Make
from purveyor_server.kit.clock import Clock
from purveyor_server.kit.secret import Secret
from purveyor_server.providers.circuit import Circuit
from purveyor_server.providers.contract import (
    Ambiguous,
    Context,
    Credentials,
    Done,
    NotYet,
    Outputs,
    Permanent,
    Piece,
    PlannedStep,
    Provider,
    ProviderError,
    Unreachable,
    Work,
)

_log = structlog.get_logger(__name__)
_Answer = TypeVar("_Answer")

MAX_OUTPUT_BYTES = 64 * 1024
MAX_NOTE_CHARACTERS = 500
MAX_PLAN_STEPS = 1000
SHORTEST_WAIT = 0.05  # seconds: a provider that says "ask again at once" does not spin
LONGEST_WAIT = 3600.0  # seconds: and none is forgotten


class FacadeSettings(msgspec.Struct, frozen=True):
    """Seconds: `call` bounds ensure and absent, `settle` bounds settle, `grace` what a cancelled call may still take."""

    call: float = 120.0
    settle: float = 15.0
    grace: float = 5.0


class ProviderFacade:
    """One provider behind its guard."""

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
        self._validators: dict[str, Any] = {}

    @property
    def contract(self) -> str:
        """The provider's contract version."""
        return self.provider.contract

    def plan(self, work: Work, done: Mapping[str, Outputs]) -> tuple[PlannedStep, ...]:
        """The checked plan. Raises Permanent when the provider cannot plan: the message names the provider."""
        try:
            steps = tuple(PlannedStep(*step) for step in self.provider.plan(work, done))
        except ProviderError:
            raise
        except Exception as error:
            _log.exception("provider failed to plan", provider=self.ref.name, verb=str(work.verb))
            raise self._broken("could not plan the work", repr(type(error))) from error
        self._check_plan(steps)
        return steps

    def _check_plan(self, steps: Sequence[PlannedStep]) -> None:
        names = [step.piece.name for step in steps]
        if len(set(names)) != len(names):
            raise self._broken("planned two steps of one name", str(names[:20]))
        if len(names) > MAX_PLAN_STEPS:
            raise self._broken("planned too many steps", str(len(names)))
        if any(not name or not step.piece.weight > 0 for name, step in zip(names, steps, strict=True)):
            raise self._broken("planned a step without name or weight", str(names[:20]))

    async def make(self, piece: Piece, make: Make, ctx: Context) -> Done | NotYet:
        """Run `ensure` or `absent` of `piece`; raises a ProviderError."""
        call = piece.ensure if make is Make.ENSURE else piece.absent
        answer = await self._guarded(lambda: call(ctx), self._settings.call)
        if isinstance(answer, NotYet):
            after = (
                min(max(answer.after, SHORTEST_WAIT), LONGEST_WAIT) if answer.after == answer.after else LONGEST_WAIT
            )
            return NotYet(after, str(answer.note)[:MAX_NOTE_CHARACTERS])
        if isinstance(answer, Done):
            self._check_outputs(piece.name, make, answer)
            return answer
        raise self._unsure("gave an answer that is neither Done nor NotYet", type(answer).__name__)

    async def settle(self, piece: Piece, ctx: Context) -> bool:
        """True once no earlier run of `piece` can take effect; raises a ProviderError."""
        return (await self._guarded(lambda: piece.settle(ctx), self._settings.settle)) is True

    def credentials(self, work: Work, done: Mapping[str, Outputs], secrets: Mapping[str, Secret]) -> Credentials:
        """The checked credentials of a finished BIND; raises Permanent."""
        try:
            answer = self.provider.credentials(work, done, secrets)
        except Exception as error:
            _log.error("provider failed to give credentials", provider=self.ref.name, error=type(error).__name__)
            raise self._broken("could not give credentials", type(error).__name__) from error
        if not isinstance(answer, Credentials):
            raise self._broken("gave credentials that are no object", type(answer).__name__)
        self._check_schema("credentials", self.provider.schemas.credentials, answer.values, Permanent)
        return answer

    async def _guarded(self, call: Callable[[], Awaitable[_Answer]], seconds: float) -> _Answer:
        """Run a call with a time-out that holds even when the call ignores its cancellation; feed the circuit."""
        task = asyncio.ensure_future(call())
        try:
            done, _ = await asyncio.wait({task}, timeout=seconds)
        except asyncio.CancelledError:
            self.circuit.abandoned()
            task.cancel()
            await asyncio.wait({task}, timeout=self._settings.grace)
            raise
        if not done:
            return await self._timed_out(task, seconds)
        return self._answer(task)

    async def _timed_out(self, task: asyncio.Future[_Answer], seconds: float) -> _Answer:
        self.circuit.abandoned()
        task.cancel()
        late, _ = await asyncio.wait({task}, timeout=self._settings.grace)
        if not late:
            _log.error("provider call ignored its cancellation", provider=self.ref.name)
        elif not task.cancelled():
            task.exception()  # retrieved, so that it is not reported as lost
        raise self._unsure(f"did not answer within {seconds:g} s", "time-out")

    def _answer(self, task: asyncio.Future[_Answer]) -> _Answer:
        if task.cancelled():  # by the provider itself: nobody cancelled us
            self.circuit.abandoned()
            raise self._unsure("cancelled its own call", "cancelled")
        try:
            answer = task.result()
        except Unreachable:
            self.circuit.unreachable()
            raise
        except ProviderError:
            self.circuit.answered()
            raise
        except Exception as error:
            self.circuit.answered()
            _log.error("provider raised an unexpected error", provider=self.ref.name, exc_info=error)
            raise self._unsure("failed in an unexpected way", type(error).__name__) from error
        self.circuit.answered()
        return answer

    def _check_outputs(self, name: str, make: Make, answer: Done) -> None:
        try:
            size = len(msgspec.json.encode(answer.outputs))
        except (TypeError, msgspec.MsgspecError) as error:
            raise self._unsure("gave outputs that are no JSON", type(error).__name__) from error
        if size > MAX_OUTPUT_BYTES:
            raise self._unsure("gave too large outputs", f"{size} bytes")
        if not all(isinstance(secret, Secret) for secret in answer.secrets.values()):
            raise self._unsure("gave a secret that is not of the type Secret", name)
        if make is Make.ENSURE:  # the schema is of a thing that is there
            self._check_schema(name, self.provider.schemas.outputs.get(name, {}), answer.outputs, Ambiguous)

    def _check_schema(self, name: str, schema: dict[str, Any], value: Any, kind: type[ProviderError]) -> None:
        if not schema:
            return
        if name not in self._validators:
            self._validators[name] = jsonschema_rs.validator_for(schema)
        for error in self._validators[name].iter_errors(value):
            where = "/".join(str(part) for part in error.instance_path) or "(whole)"
            message = f"the provider {self.ref.name!r} gave {name} that do not fit their schema at {where}"
            raise kind(message, "schema violation")

    def _broken(self, what: str, detail: str) -> Permanent:
        return Permanent(f"the provider {self.ref.name!r} {what}", detail)

    def _unsure(self, what: str, detail: str) -> Ambiguous:
        return Ambiguous(f"the provider {self.ref.name!r} {what}", detail)
