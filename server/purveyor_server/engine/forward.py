"""An operation going forward, step by step, until it succeeds, waits, or turns round.

Guarantee: STARTED commits before the outside call and RESULT after it (with STARTED of the next in one command); a step
whose earlier run may still take effect is settled before it runs again; success requires that no cancel came first.
"""

from __future__ import annotations

from datetime import timedelta

import msgspec
import structlog
from msgspec.structs import replace

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import Failure, SealedSecret, Step
from purveyor_server.domain.states import FORWARD_ONLY, REMOVALS, Make, OperationState, StepState, Verb, Waiting
from purveyor_server.engine import failures, transitions
from purveyor_server.engine.calls import Calls
from purveyor_server.engine.journal import Journal
from purveyor_server.engine.outcomes import CancelWonError, Ending, finish
from purveyor_server.engine.settings import EngineSettings
from purveyor_server.engine.vault import CREDENTIALS, Vault
from purveyor_server.engine.work import Assignment, done_outputs
from purveyor_server.providers.contract import (
    Ambiguous,
    Done,
    LeaseEnding,
    NotYet,
    Outputs,
    Permanent,
    PlannedStep,
    ProviderError,
    RightsMissing,
    Unreachable,
)
from purveyor_server.providers.facade import ProviderFacade

_log = structlog.get_logger(__name__)


class TurnBack(Exception):  # noqa: N818 - control flow: the direction changes
    """The operation is to be undone, because of `failure`; `step` is its settled running step, if there was one."""

    def __init__(self, failure: Failure, step: Step | None = None) -> None:
        super().__init__(failure.reason)
        self.failure = failure
        self.step = step


class Forward:
    """The forward direction of one claimed operation. `overdue` allows one attempt past the deadline."""

    def __init__(
        self,
        journal: Journal,
        calls: Calls,
        vault: Vault,
        facade: ProviderFacade,
        assigned: Assignment,
        settings: EngineSettings,
        *,
        overdue: bool,
    ) -> None:
        self._journal = journal
        self._calls = calls
        self._vault = vault
        self._facade = facade
        self._assigned = assigned
        self._settings = settings
        self._overdue = overdue
        self._last_plan: tuple[dict[str, Outputs], tuple[PlannedStep, ...]] | None = None

    async def run(self) -> None:
        """Go on until the end; raises Parked, TurnBack or LeaseLostError."""
        operation = self._journal.operation
        if operation.failure is not None and operation.verb is Verb.DEPROVISION and not self._journal.steps:
            return await self._fail(operation.failure)  # a child failed while this one was blocked
        while True:
            planned = await self.planned()
            index = self._journal.next_index
            if transitions.stops_for_cancel(self._journal.operation):
                raise TurnBack(failures.cancelled(), await self._quiet_step(planned))
            if index == len(planned):
                return await self._succeed(None, ())
            if self._journal.past_deadline and not self._overdue:
                return await self._fail(failures.deadline(self._journal.operation))
            if await self._take(planned, index):
                return None

    async def planned(self) -> tuple[PlannedStep, ...]:
        """The plan as it is now; holds the operation when the code no longer knows the journal's steps."""
        journal = self._journal
        try:
            steps = self.cleanup_plan() if journal.operation.verb is Verb.CLEANUP else self.full_plan()
        except ProviderError as error:
            await self._fail(failures.provider(error, ""))
            raise
        for line, step in zip(journal.steps, steps, strict=False):
            if (line.name, line.make) != (step.piece.name, step.make):
                await journal.hold(f"the provider no longer plans the step {line.name!r}")
        if len(steps) < len(journal.steps):
            await journal.hold("the provider no longer plans the steps that were begun")
        journal.total_weight = sum(step.piece.weight for step in steps)
        return steps

    def full_plan(self) -> tuple[PlannedStep, ...]:
        """The provider's plan given what is finished."""
        return self._plan_after(tuple(self._journal.steps))

    def _plan_after(self, steps: tuple[Step, ...]) -> tuple[PlannedStep, ...]:
        """The plan given what `steps` finished; a plan is a function of that, so the same question is asked once."""
        outputs = done_outputs(steps)
        if self._last_plan is None or self._last_plan[0] != outputs:
            self._last_plan = outputs, self._facade.plan(self._assigned.work, outputs)
        return self._last_plan[1]

    def cleanup_plan(self) -> tuple[PlannedStep, ...]:
        """What the origin left behind, as steps; raises Permanent when a piece is no longer known."""
        origin = {step.name: step.outputs for step in self._assigned.claimed.origin_steps if step.ended_at}
        pieces = {step.piece.name: step.piece for step in self._facade.plan(self._assigned.work, origin)}
        missing = [step.name for step in self._journal.operation.cleanup if step.name not in pieces]
        if missing:
            message = f"the provider no longer knows the pieces {', '.join(missing)}"
            raise Permanent(message)
        return tuple(PlannedStep(pieces[step.name], step.make) for step in self._journal.operation.cleanup)

    async def _take(self, planned: tuple[PlannedStep, ...], index: int) -> bool:
        """Take one step; True when the operation has ended."""
        target = planned[index]
        await self._wait_for_circuit()
        with self._facade.circuit.before_call():
            new = index == len(self._journal.steps)
            if new and not await self._journal.start(target, None, self._vault.mint(target)):
                self._facade.circuit.abandoned()
                return False
            await self._make_quiet(target, self._journal.steps[index])
        try:
            answer = await self._calls.make(target, target.make, self._journal.steps[index])
        except ProviderError as error:
            return await self._failed(self._journal.steps[index], error)
        step = self._journal.steps[index]  # `save` may have changed it
        if isinstance(answer, NotYet):
            await self._journal.park(
                Waiting.PARKED, answer.after, answer.note, steps=(replace(step, unsettled=False),), attempts=0
            )
        else:
            return await self._finish(step, answer)

    async def _wait_for_circuit(self) -> None:
        if postponed := self._facade.circuit.postponed():
            await self._journal.park(Waiting.CIRCUIT, postponed, "the backend does not answer")

    async def _make_quiet(self, target: PlannedStep, step: Step) -> None:
        """Return when the step may run: nothing of an earlier run of it can still happen.

        The first run of a removal settles too: what it removes may be the work of an operation that it took over.
        """
        fresh = self._journal.take_fresh(step)
        if fresh and self._journal.operation.verb not in REMOVALS:
            return
        if step.unsettled:
            await self._settle(target, step)
        if not fresh:
            await self._journal.restart(step)

    async def _settle(self, target: PlannedStep, step: Step) -> None:
        try:
            settled = await self._calls.settle(target, step)
        except ProviderError as error:
            if self._journal.past_deadline and not self._overdue:
                await self._fail(failures.deadline(self._journal.operation))
            waiting = Waiting.CIRCUIT if isinstance(error, Unreachable) else Waiting.SETTLING
            await self._journal.park(waiting, self._settings.retry.delay(1), error.message)
        if not settled:
            await self._journal.park(Waiting.SETTLING, self._settings.settle_poll, failures.UNSETTLED)

    async def _quiet_step(self, planned: tuple[PlannedStep, ...]) -> Step | None:
        """The step that an interrupted run left behind, settled: whoever deletes next finds a quiet backend."""
        for step in self._journal.steps:
            if step.state is StepState.STARTED and step.unsettled:
                if self._journal.past_deadline:
                    return step  # the way back, and a removal that takes over, settle for themselves
                if not self._journal.take_fresh(step):
                    await self._settle(planned[step.index], step)
                return replace(step, unsettled=False)
        return None

    async def _finish(self, step: Step, answer: Done) -> bool:
        """RESULT, in one command with STARTED of the next step or with the end."""
        secrets = self._vault.seal_all(step.name, answer.secrets)
        result = self._journal.result(step, answer.outputs)
        known = tuple(result if line.index == result.index else line for line in self._journal.steps)
        operation = self._journal.operation
        cleaning = operation.verb is Verb.CLEANUP
        try:
            following = self.cleanup_plan() if cleaning else self._plan_after(known)
        except ProviderError:
            following = ()  # the result is kept first; the next turn meets the same failure, and names it
        if result.index + 1 == len(following):
            await self._succeed(result, secrets)
            return True
        shrunk = result.index + 1 > len(following)
        if shrunk or self._facade.circuit.is_open or self._journal.past_deadline:
            await self._journal.advance(lambda job: transitions.write_step(job, result, secrets=secrets), "result")
            self._journal.remember(result)
        else:
            target = following[result.index + 1]
            await self._journal.start(target, result, (*secrets, *self._vault.mint(target)))
        return False

    async def _failed(self, step: Step, error: ProviderError) -> bool:
        """A step raised: wait and try again, or fail; True when the operation has ended."""
        _log.info("step failed", step=step.name, kind=type(error).__name__, detail=error.detail[:500])
        operation = self._journal.operation
        attempts = operation.attempts + 1
        line = replace(step, unsettled=isinstance(error, Ambiguous))
        if isinstance(error, LeaseEnding):
            await self._journal.park(Waiting.LEASE, 0.0, error.message, steps=(line,))
        over = self._journal.past_deadline
        if isinstance(error, Permanent) or over or attempts >= self._settings.max_attempts:
            await self._fail(failures.provider(error, step.name), line)
            return True
        if isinstance(error, Unreachable):
            await self._journal.park(Waiting.CIRCUIT, self._settings.retry.delay(1), error.message, steps=(line,))
        if isinstance(error, RightsMissing):
            await self._journal.park(Waiting.PARKED, self._settings.rights_poll, error.message, steps=(line,))
        delay = self._settings.retry.delay(attempts - 1)
        await self._journal.park(Waiting.BACKOFF, delay, error.message, steps=(line,), attempts=attempts)

    async def _fail(self, failure: Failure, step: Step | None = None) -> None:
        """A failure for good: turn round before the pivot, end after it."""
        operation = self._journal.operation
        if operation.verb not in FORWARD_ONLY and not operation.past_pivot:
            raise TurnBack(failure, step)
        finished = {line.name for line in self._journal.steps if line.state is StepState.DONE}
        cleaning = operation.verb is Verb.CLEANUP
        left = tuple(item for item in operation.cleanup if item.name not in finished) if cleaning else ()
        ending = Ending(
            state=OperationState.FAILED,
            failure=failure,
            steps=(step,) if step is not None else (),
            left=left,
            unfinished=() if cleaning or operation.verb is Verb.REPAIR else self._unfinished(finished),
            cleanup_delay=timedelta(seconds=self._settings.cleanup_retry.delay(operation.generation)),
            cleanup_budget=timedelta(seconds=self._settings.cleanup_budget),
            revocation_delay=timedelta(seconds=self._revocation_delay()),
            again=timedelta(seconds=self._settings.cleanup_retry.delay(operation.generation)),
        )
        await self._journal.advance(lambda job: finish(job, ending), "finish", with_resources=True)
        raise EndedError

    def _revocation_delay(self) -> float:
        """How soon an UNBIND that failed is followed by the next: later each time."""
        binding = self._assigned.claimed.binding
        return self._settings.revocation_retry.delay(0 if binding is None else binding.revocation_attempts)

    def _unfinished(self, finished: set[str]) -> tuple[str, ...]:
        try:
            planned = self.full_plan()
        except ProviderError:
            return ("unknown",)
        return tuple(step.piece.name for step in planned if step.piece.name not in finished)

    async def _succeed(self, result: Step | None, secrets: tuple[SealedSecret, ...]) -> None:
        """The last RESULT and SUCCEEDED are one command that requires no cancel request."""
        try:
            ending = self._success(result, secrets)
        except ProviderError as error:
            return await self._fail(failures.provider(error, result.name if result else ""), result)
        try:
            await self._journal.advance(lambda job: finish(job, ending), "finish", with_resources=True)
        except PurveyorError as error:
            if error.reason is not Reason.CREDENTIALS_NOT_UNIQUE:
                raise
            await self._fail(
                Failure(reason=error.reason, message=error.message, step=result.name if result else ""), result
            )
        except CancelWonError:
            if result is not None:
                self._journal.remember(result)
            raise TurnBack(failures.cancelled(), result) from None

    def _success(self, result: Step | None, secrets: tuple[SealedSecret, ...]) -> Ending:
        lines = [result if result and line.index == result.index else line for line in self._journal.steps]
        ending = Ending(
            state=OperationState.SUCCEEDED,
            steps=(result,) if result is not None else (),
            secrets=secrets,
            outputs={line.name: line.outputs for line in lines if line.make is Make.ENSURE},
            plan_name=self._assigned.plan_name,
            reissues=self._journal.operation.verb is Verb.UPDATE and self._facade.reissues(self._assigned.work),
        )
        if self._assigned.work.verb is not Verb.BIND or self._journal.operation.verb is Verb.CLEANUP:
            return ending
        given = self._facade.credentials(self._assigned.work, done_outputs(tuple(lines)), self._vault.by_label())
        sealed = self._vault.seal(CREDENTIALS, msgspec.json.encode(given.values))
        unique = self._vault.marks(self._facade.ref.name, self._facade.schemas.unique_fields, given.values)
        return replace(ending, secrets=(*secrets, sealed), unique=unique, endpoints=given.endpoints)


class EndedError(Exception):
    """The operation has ended in failure: nothing more is to be done."""
