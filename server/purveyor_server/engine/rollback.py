"""An operation going back: started and finished steps undone in reverse, by names alone.

Guarantee: UNDOING commits before the outside call; a step whose earlier run may still take effect is settled first. When
the budget ends, or an undo fails for good, what remains is named and a CLEANUP operation is made in the same command.
Undo is derived: of a create `absent`, of an update `ensure` with the previous settings, of a renewal with the previous end.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NoReturn

import structlog
from msgspec.structs import replace

from purveyor_server.domain.errors import Reason
from purveyor_server.domain.model import Step
from purveyor_server.domain.states import Make, OperationState, StepState, Verb, Waiting
from purveyor_server.engine import failures, transitions
from purveyor_server.engine.calls import Calls
from purveyor_server.engine.journal import Journal
from purveyor_server.engine.outcomes import Ending, finish, standing
from purveyor_server.engine.settings import EngineSettings
from purveyor_server.engine.work import Assignment
from purveyor_server.kit import failpoints
from purveyor_server.providers.contract import (
    Ambiguous,
    LeaseEnding,
    NotYet,
    Permanent,
    PlannedStep,
    ProviderError,
    Unreachable,
)
from purveyor_server.providers.facade import ProviderFacade

_log = structlog.get_logger(__name__)


def inverse(verb: Verb) -> Make:
    """What undoes a step of `verb`."""
    return Make.ENSURE if verb in {Verb.UPDATE, Verb.RENEW} else Make.ABSENT


class Rollback:
    """The way back of one claimed operation."""

    def __init__(
        self, journal: Journal, calls: Calls, facade: ProviderFacade, assigned: Assignment, settings: EngineSettings
    ) -> None:
        self._journal = journal
        self._calls = calls
        self._facade = facade
        self._assigned = assigned
        self._settings = settings
        self._make = inverse(assigned.operation.verb)
        self._pending: tuple[Step, ...] = ()  # UNDONE lines that commit with the next command

    async def run(self) -> None:
        """Undo until nothing stands; raises Parked or LeaseLostError."""
        pieces = await self._pieces() if self._standing() is not None else {}  # nothing stands: no plan is needed
        while (step := self._standing()) is not None:
            target = pieces.get(step.name)
            if target is None:
                await self._journal.hold(f"the provider no longer knows the step {step.name!r}")
            elif self._journal.past_rollback_budget or not await self._undo(target, step):
                break
        await self._end()

    async def _pieces(self) -> dict[str, PlannedStep]:
        try:
            planned = self._facade.plan(self._assigned.work, self._journal.outputs)
        except ProviderError as error:
            await self._journal.hold(error.message)
        self._journal.total_weight = sum(step.piece.weight for step in planned)
        return {step.piece.name: step for step in planned}

    def _standing(self) -> Step | None:
        return next((step for step in reversed(self._journal.steps) if step.state is not StepState.UNDONE), None)

    async def _undo(self, target: PlannedStep, step: Step) -> bool:
        """Undo one step; False when it cannot be undone in this operation."""
        if postponed := self._facade.circuit.postponed():
            await self._park(Waiting.CIRCUIT, postponed, "the backend does not answer")
        doing = replace(step, state=StepState.UNDOING, unsettled=True)
        lines = (*self._pending, doing)
        with self._facade.circuit.before_call():
            if step.unsettled:
                await self._settle(target, step)
            await self._journal.enter_call(
                lambda job: transitions.write_step(job, *lines), "undoing", self._make, known=self._pending
            )
        self._pending = ()
        self._journal.remember(doing)
        try:
            answer = None if failpoints.is_off("undo") else await self._calls.make(target, self._make, doing, undo=True)
        except ProviderError as error:
            return await self._failed(self._journal.steps[step.index], error)
        if isinstance(answer, NotYet):
            quiet = replace(self._journal.steps[step.index], unsettled=False)
            await self._park(Waiting.PARKED, answer.after, answer.note, quiet)
        self._pending = (self._journal.undone(self._journal.steps[step.index]),)
        return True

    async def _settle(self, target: PlannedStep, step: Step) -> None:
        try:
            settled = await self._calls.settle(target, step)
        except ProviderError as error:
            waiting = Waiting.CIRCUIT if isinstance(error, Unreachable) else Waiting.SETTLING
            await self._park(waiting, self._settings.retry.delay(1), error.message)
        if not settled:
            await self._park(Waiting.SETTLING, self._settings.settle_poll, failures.UNSETTLED)

    async def _failed(self, step: Step, error: ProviderError) -> bool:
        _log.info("undo failed", step=step.name, kind=type(error).__name__, detail=error.detail[:500])
        line = replace(step, unsettled=isinstance(error, Ambiguous), attempts=step.attempts + 1)
        attempts = self._journal.operation.attempts + 1
        if isinstance(error, LeaseEnding):
            await self._park(Waiting.LEASE, 0.0, error.message, line)
        if isinstance(error, Permanent) or self._journal.past_rollback_budget:
            self._journal.remember(line)
            self._pending = (*self._pending, line)
            return False
        waiting = Waiting.CIRCUIT if isinstance(error, Unreachable) else Waiting.BACKOFF
        await self._park(waiting, self._settings.retry.delay(attempts - 1), error.message, line, attempts=attempts)

    async def _park(
        self, waiting: Waiting, after: float, detail: str, *lines: Step, attempts: int | None = None
    ) -> NoReturn:
        await self._journal.park(waiting, after, detail, steps=(*self._pending, *lines), attempts=attempts)

    async def _end(self) -> None:
        """Everything undone: CANCELLED or FAILED. Something left: FAILED, and a CLEANUP carries on."""
        left = standing(self._journal.steps, self._make)
        failure = self._journal.operation.failure or failures.cancelled()
        cancelled = failure.reason == Reason.CANCELLED_BY_CALLER and not left
        ending = Ending(
            state=OperationState.CANCELLED if cancelled else OperationState.FAILED,
            failure=failure,
            steps=self._pending,
            left=left,
            cleanup_delay=timedelta(seconds=self._settings.cleanup_retry.delay(0)),
            cleanup_budget=timedelta(seconds=self._settings.cleanup_budget),
        )
        await self._journal.advance(lambda job: finish(job, ending), "finish", with_resources=True)
