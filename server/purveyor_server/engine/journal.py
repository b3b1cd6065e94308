"""The journal of one claimed operation: what is known of it, and every way to write it down.

Guarantee: `operation` and `steps` are as last committed by this lease; every write goes under the fence, so a worker that
lost its lease writes nothing more (LeaseLostError).
Limit: a cancel request that commits meanwhile is seen with the next write, not before.
"""

from __future__ import annotations

from collections.abc import Callable, Collection
from datetime import timedelta
from typing import NoReturn

from msgspec.structs import replace

from purveyor_server.domain.freezes import holding
from purveyor_server.domain.model import Operation, SealedSecret, Step
from purveyor_server.domain.states import Make, OperationState, StepState, Waiting
from purveyor_server.engine import transitions
from purveyor_server.engine.settings import EngineSettings
from purveyor_server.kit import failpoints, hiding
from purveyor_server.kit.clock import Clock
from purveyor_server.providers.contract import Outputs, PlannedStep
from purveyor_server.store.contract import Advance, Claimed, Commands, Job, Writes


class Parked(Exception):  # noqa: N818 - control flow: the operation was let go
    """The operation waits; nothing is held for it."""


class Journal:
    """One operation under one lease."""

    def __init__(self, store: Commands, clock: Clock, settings: EngineSettings, claimed: Claimed) -> None:
        self._store = store
        self._clock = clock
        self._settings = settings
        self._fence = claimed.fence
        self.operation: Operation = claimed.operation
        self.steps: list[Step] = list(claimed.steps)
        self.total_weight = 0.0
        self._fresh = -1

    async def advance(self, decide: Callable[[Job], Writes], label: str, *, with_resources: bool = False) -> Operation:
        """One command under the fence; raises LeaseLostError and whatever `decide` raises."""
        command = Advance(self._fence, decide, with_resources=with_resources, label=label)
        self.operation = await self._store.advance(command)
        return self.operation

    async def allocate(self, pool: str, low: int, high: int, avoid: Collection[int]) -> int:
        """A number for the operation's subject, under the fence; raises LeaseLostError and POOL_EXHAUSTED."""
        return await self._store.allocate(self._fence, pool, low, high, avoid)

    async def enter_call(
        self,
        decide: Callable[[Job], Writes],
        label: str,
        make: Make,
        *,
        known: tuple[Step, ...] = (),
        secrets: tuple[SealedSecret, ...] = (),
    ) -> Operation:
        """The command that must stand before an outside call. While a freeze holds the operation, only what is `known`
        is written, the operation is let go and Parked is raised: no call starts after a freeze was answered."""

        def unless_frozen(job: Job) -> Writes:
            stop = holding(job.freezes, job.operation, make)
            return decide(job) if stop is None else transitions.freeze(job, stop, known, secrets)

        operation = await self.advance(unless_frozen, label)
        if operation.waiting is Waiting.FROZEN:
            raise Parked
        return operation

    def remember(self, step: Step) -> None:
        """Take a committed line into memory."""
        if step.index < len(self.steps):
            self.steps[step.index] = step
        else:
            self.steps.append(step)

    # Steps going forward

    def new_line(self, target: PlannedStep, index: int) -> Step:
        """The STARTED line of a step that never ran."""
        return Step(
            operation_id=self.operation.operation_id,
            index=index,
            name=target.piece.name,
            make=target.make,
            pivot=target.pivot,
            weight=target.piece.weight,
            state=StepState.STARTED,
            unsettled=True,
            attempts=1,
            started_at=self._clock.now(),
        )

    async def start(self, target: PlannedStep, result: Step | None, secrets: tuple[SealedSecret, ...]) -> bool:
        """Commit STARTED of `target`, with RESULT of the step before; False when a cancel was there first."""
        step = self.new_line(target, result.index + 1 if result is not None else len(self.steps))
        percent = self.percent_before(step.index)
        written = transitions.begin_step if not failpoints.is_off("started") else transitions.forget_to_begin
        operation = await self.enter_call(
            lambda job: written(job, step, result, secrets, percent),
            f"started-{target.make}",
            target.make,
            known=(result,) if result is not None else (),
            secrets=secrets,
        )
        if result is not None:
            self.remember(result)
        if transitions.stops_for_cancel(operation):
            return False
        self.remember(step)
        self._fresh = step.index
        return True

    async def restart(self, step: Step) -> None:
        """From here on the known-quiet step may have happened again."""
        again = replace(step, unsettled=True, attempts=step.attempts + 1)
        await self.enter_call(lambda job: transitions.write_step(job, again), "restarted", step.make)
        self.remember(again)

    def take_fresh(self, step: Step) -> bool:
        """True once for a step that this lease has just started: nothing of it can have happened yet."""
        fresh, self._fresh = self._fresh == step.index, -1
        return fresh

    def result(self, step: Step, outputs: dict[str, object]) -> Step:
        """The RESULT line of a step."""
        return replace(step, state=StepState.DONE, unsettled=False, outputs=outputs, ended_at=self._clock.now())

    def undone(self, step: Step) -> Step:
        """The UNDONE line of a step, taken into memory; it commits with the next command."""
        line = replace(step, state=StepState.UNDONE, unsettled=False, ended_at=self._clock.now())
        self.remember(line)
        return line

    # Waiting

    async def park(
        self,
        waiting: Waiting,
        after: float,
        detail: str,
        *,
        steps: tuple[Step, ...] = (),
        attempts: int | None = None,
    ) -> NoReturn:
        """Let go of the operation for `after` seconds; always raises Parked."""
        due = timedelta(seconds=after)
        count = self.operation.attempts if attempts is None else attempts
        told = hiding.masked(detail)[:500]
        await self.advance(lambda job: transitions.park(job, steps, waiting, job.now + due, told, count), "park")
        raise Parked

    async def hold(self, detail: str) -> NoReturn:
        """Keep the operation until the code knows it again; always raises Parked."""
        await self.park(Waiting.HELD, self._settings.hold_poll, detail)

    # What is known

    @property
    def next_index(self) -> int:
        """Place of the first step that is not finished."""
        return sum(step.state is StepState.DONE for step in self.steps)

    @property
    def outputs(self) -> dict[str, Outputs]:
        """Outputs of every step that was finished once, by name."""
        return {step.name: step.outputs for step in self.steps if step.state is not StepState.STARTED}

    @property
    def past_deadline(self) -> bool:
        """True when the time of the forward direction is over."""
        deadline = self.operation.deadline
        return deadline is not None and self._clock.now() > deadline

    @property
    def past_rollback_budget(self) -> bool:
        """True when the time of the rollback is over."""
        deadline = self.operation.rollback_deadline
        return deadline is not None and self._clock.now() > deadline

    @property
    def out_of_time(self) -> bool:
        """True when the time of the present direction is over."""
        back = self.operation.state is OperationState.ROLLING_BACK
        return self.past_rollback_budget if back else self.past_deadline

    def percent_before(self, index: int) -> float:
        """Weighted percent when the steps before `index` are finished."""
        finished = sum(step.weight for step in self.steps[:index])
        share = finished / self.total_weight if self.total_weight else 0.0
        begin = transitions.CHILDREN_PERCENT if self.operation.children else 0.0
        return begin + self.percent_of(min(share, 1.0))  # weights of a plan may change

    def percent_of(self, share: float) -> float:
        """What a share of the own steps (0 to 1) is of the whole, in percent."""
        return share * (100.0 - (transitions.CHILDREN_PERCENT if self.operation.children else 0.0))
