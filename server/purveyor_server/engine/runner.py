"""Works on one claimed operation until it ends, waits, or is lost: which direction, and what a turn means.

Guarantee: the direction changes once, from forward to back, and the change is committed before the first undo.
"""

from __future__ import annotations

from datetime import timedelta
from typing import NamedTuple

from purveyor_server.domain.errors import Reason
from purveyor_server.domain.model import Operation
from purveyor_server.domain.policies import CleanupMode
from purveyor_server.domain.states import KEEPING, Make, OperationState, Verb, Waiting
from purveyor_server.engine import failures, transitions
from purveyor_server.engine.calls import Calls
from purveyor_server.engine.forward import EndedError, Forward, TurnBack
from purveyor_server.engine.journal import Journal, Parked
from purveyor_server.engine.outcomes import CancelWonError, Ending, finish, standing
from purveyor_server.engine.rollback import Rollback
from purveyor_server.engine.settings import EngineSettings


def keeps(operation: Operation, turn: TurnBack) -> bool:
    """True when a failed create or bind is not to be undone at once. A caller's cancel is: it asks to have it gone."""
    if operation.remains is None or operation.remains.mode is CleanupMode.IMMEDIATE:
        return False
    return operation.verb in KEEPING and turn.failure.reason != Reason.CANCELLED_BY_CALLER


class Runner(NamedTuple):
    """The parts of one run."""

    journal: Journal
    calls: Calls
    forward: Forward
    rollback: Rollback
    settings: EngineSettings

    async def run(self) -> None:
        """Work until the operation ends or waits. Raises LeaseLostError when it is no longer ours."""
        try:
            await self._run()
        except (Parked, EndedError):
            return

    async def _run(self) -> None:
        if self.journal.operation.state is OperationState.ROLLING_BACK:
            return await self.rollback.run()
        try:
            await self.forward.run()
        except TurnBack as turn:
            await self._turn(turn)

    async def _turn(self, turn: TurnBack) -> None:
        operation = self.journal.operation
        if operation.taken_over_by and operation.verb in {
            Verb.PROVISION,
            Verb.BIND,
            Verb.RENEW,
            Verb.REISSUE,
            Verb.CLEANUP,
        }:
            return await self._end_taken_over(turn)
        if keeps(operation, turn) and await self._keep(turn):
            return None
        budget = timedelta(seconds=operation.rollback_budget or self.settings.rollback_budget)
        await self.journal.advance(lambda job: transitions.turn_back(job, turn.step, turn.failure, budget), "turn_back")
        if turn.step is not None:
            self.journal.remember(turn.step)
        await self.rollback.run()

    async def _keep(self, turn: TurnBack) -> bool:
        """End without the way back, by the clean-up policy; False when there is nothing to keep, or a cancel came first."""
        lines = [turn.step if turn.step and line.index == turn.step.index else line for line in self.journal.steps]
        left = standing(lines, Make.ABSENT)
        if not left:
            return False
        policy = self.journal.operation.remains
        ending = Ending(
            state=OperationState.FAILED,
            failure=turn.failure,
            steps=(turn.step,) if turn.step is not None else (),
            left=left,
            keeps=policy,
            cleanup_delay=policy.delay if policy is not None else timedelta(0),
            cleanup_budget=timedelta(seconds=self.settings.cleanup_budget),
        )
        try:
            await self.journal.advance(lambda job: finish(job, ending), "finish", with_resources=True)
        except CancelWonError:
            return False  # who cancels, or removes, wants it gone now
        return True

    async def _end_taken_over(self, turn: TurnBack) -> None:
        """The deletion that took over is the undo; it begins once the running step has settled, or time is up.

        Past the deadline it begins all the same: the first run of each of its steps settles for itself.
        """
        if turn.step is not None and turn.step.unsettled and not self.journal.past_deadline:
            again = self.settings.settle_poll
            await self.journal.park(Waiting.SETTLING, again, failures.UNSETTLED, steps=(turn.step,))
        failure = failures.taken_over(self.journal.operation.taken_over_by)
        steps = (turn.step,) if turn.step is not None else ()
        ending = Ending(state=OperationState.CANCELLED, failure=failure, steps=steps)
        await self.journal.advance(lambda job: finish(job, ending), "finish", with_resources=True)
