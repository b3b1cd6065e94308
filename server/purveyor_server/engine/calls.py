"""Every call to a provider's piece: its context, its secrets, its failpoints.

Guarantee: a piece gets the settings of the direction it runs in: an update that is undone sees the previous settings as
`want`; a deletion sees none, and no secrets (names only).
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from typing import NamedTuple

from msgspec.structs import replace

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.model import Json, Step
from purveyor_server.domain.states import Make, Verb
from purveyor_server.engine import transitions
from purveyor_server.engine.context import Lease, StepContext
from purveyor_server.engine.journal import Journal
from purveyor_server.engine.vault import Vault
from purveyor_server.engine.work import Assignment
from purveyor_server.kit import failpoints, hiding
from purveyor_server.providers.answers import MAX_SAVED_BYTES, checked_range, clamped, plain, words
from purveyor_server.providers.contract import (
    Done,
    LeaseEnding,
    NotYet,
    Permanent,
    PlannedStep,
    PoolExhausted,
    Retryable,
    WorkSettings,
)
from purveyor_server.providers.facade import ProviderFacade


class Origin(NamedTuple):
    """Where markers come from."""

    store_id: str
    epoch: int


class Calls:
    """The outside side of one claimed operation."""

    def __init__(
        self,
        journal: Journal,
        assigned: Assignment,
        facade: ProviderFacade,
        lease: Lease,
        vault: Vault,
        origin: Origin,
        report: Callable[[str, float, str], None],
    ) -> None:
        self._journal = journal
        self._assigned = assigned
        self._facade = facade
        self._lease = lease
        self._vault = vault
        self._origin = origin
        self._report = report

    async def make(self, target: PlannedStep, make: Make, step: Step, *, undo: bool = False) -> Done | NotYet:
        """Run ensure or absent; raises a ProviderError."""
        context = self._context(target, make, step, undo=undo)
        point = f"piece.{target.piece.name}.{make}"
        try:
            failpoints.hit(f"{point}.before")
            return _without_hidden(await self._facade.make(target.piece, make, context))
        except failpoints.FailpointError as error:
            message = "a failure was planted here"
            raise Permanent(message, str(error)) from error
        except LeaseEnding as error:
            if context.lease_ended:
                raise
            # A piece that makes this up would be run again at once, for ever.
            raise Retryable(error.message, error.detail) from error
        finally:
            context.returned()
            context.close()
            failpoints.hit(f"{point}.after")

    async def settle(self, target: PlannedStep, step: Step) -> bool:
        """True once no earlier run of the step can take effect; raises a ProviderError."""
        if failpoints.is_off("settle"):
            return True
        context = self._context(target, Make.ABSENT, step, undo=True)
        failpoints.hit(f"piece.{target.piece.name}.settle.before")
        try:
            settled = await self._facade.settle(target.piece, context)
        finally:
            context.close()
        failpoints.hit(f"piece.{target.piece.name}.settle.after")
        return settled

    def _context(self, target: PlannedStep, make: Make, step: Step, *, undo: bool) -> StepContext:
        operation = self._journal.operation
        back = undo or operation.verb is Verb.CLEANUP
        work = self._assigned.undone if back else self._assigned.work
        want, was = self._settings(undo=undo)
        return StepContext(
            work=work,
            want=want,
            was=was,
            uid=self._assigned.uid,
            marker=f"purveyor:{self._origin.store_id}:{self._assigned.uid}:{operation.marked_revision}",
            epoch=self._origin.epoch,
            deadline=operation.rollback_deadline or operation.deadline or operation.created_at,
            saved=step.saved,
            secrets=self._vault.of_piece(target.piece.name) if make is Make.ENSURE else {},
            lease=self._lease,
            save=lambda value: self._save(step, value),
            allocate=self._allocate,
            report=lambda percent, sentence: self._progress(step, percent, sentence),
        )

    def _settings(self, *, undo: bool) -> tuple[WorkSettings | None, WorkSettings | None]:
        work = self._assigned.work
        back = undo or self._journal.operation.verb is Verb.CLEANUP
        if back and work.verb is Verb.UPDATE:
            return work.was, work.want
        return work.want, work.was

    async def _save(self, step: Step, value: Json) -> Json:
        kept = self._facade.believed(lambda: plain(value, "values to save", MAX_SAVED_BYTES))
        if hiding.holds_hidden(kept):
            message = "the provider saved a secret parameter"
            raise Permanent(message)
        saved = replace(self._journal.steps[step.index], saved=kept)
        await self._journal.advance(lambda job: transitions.write_step(job, saved), "save")
        self._journal.remember(saved)
        return kept

    async def _allocate(self, pool: str, low: int, high: int, avoid: Collection[int]) -> int:
        asked = self._facade.believed(lambda: checked_range(pool, low, high, avoid))
        try:
            return await self._journal.allocate(*asked)
        except PurveyorError as error:
            if error.reason is Reason.POOL_EXHAUSTED:
                raise PoolExhausted(error.message) from error
            raise

    def _progress(self, step: Step, percent: float, sentence: str) -> None:
        weight = self._journal.total_weight or 1.0
        of_step = self._journal.percent_of(clamped(percent) / 100.0 * step.weight / weight)
        total = self._journal.percent_before(step.index) + of_step
        self._report(self._journal.operation.operation_id, min(total, 100.0), hiding.masked(words(sentence)))


def _without_hidden(answer: Done | NotYet) -> Done | NotYet:
    """The answer; raises Permanent when outputs, which anybody may see, hold a secret parameter."""
    if isinstance(answer, Done) and hiding.holds_hidden(answer.outputs):
        message = "the provider gave a secret parameter among its outputs"
        raise Permanent(message)
    return answer
