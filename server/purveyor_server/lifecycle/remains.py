"""What an operation that ends before its time leaves behind. Pure: records and a journal in, names out.

Guarantee: everything that may be there is named; a piece that the journal calls gone (UNDONE, or DONE of a removal) is not.
Limit: of a provider that is not asked only what was begun, or is recorded as made, can be known.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import timedelta

from purveyor_server.domain.model import Binding, CleanupStep, Failure, Instance, Json, Operation, Step
from purveyor_server.domain.states import KEEPING, REMOVALS, Make, OperationState, StepState, Verb
from purveyor_server.engine.outcomes import Ending, standing
from purveyor_server.engine.rollback import inverse
from purveyor_server.store.contract import Job


def left_by(operation: Operation, subject: Instance | Binding | None, steps: Iterable[Step]) -> tuple[CleanupStep, ...]:
    """What may be left, and what makes it right; of a removal, what is not known to be gone."""
    lines = tuple(steps)
    if operation.verb not in REMOVALS:
        return standing(lines, inverse(operation.verb))
    finished = {line.name for line in lines if line.state is StepState.DONE}
    if operation.verb is Verb.CLEANUP:
        return tuple(step for step in operation.cleanup if step.name not in finished)
    recorded = (*subject.outputs, *subject.cleanup_required) if subject is not None else ()
    names = dict.fromkeys((*recorded, *(line.name for line in lines)))
    return tuple(CleanupStep(name, Make.ABSENT) for name in names if name not in finished)


def piece_text(owner: str, name: str, outputs: Mapping[str, Json]) -> str:
    """A piece that may be left, as operators are told: `instance/NAME key=value`."""
    shown = " ".join(f"{key}={value}" for key, value in outputs.items() if isinstance(value, str | int))
    return f"{owner}/{name} {shown}".rstrip()


def subject_of(job: Job) -> Instance | Binding | None:
    """The record that the operation is about."""
    return job.binding if job.operation.binding_uid else job.instance


def given_up(
    job: Job, steps: Iterable[Step], failure: Failure, budget: timedelta, delay: timedelta | None = None
) -> Ending:
    """The end of an operation that nobody goes on with. With a `delay` clean-ups carry on where they can (and the clean-up
    policy counts), and credentials are made again after it; without one nothing is touched any more."""
    operation = job.operation
    left = left_by(operation, subject_of(job), steps)
    names = tuple(step.name for step in left)
    removal = operation.verb in {Verb.DEPROVISION, Verb.UNBIND}
    if delay is None or removal or (operation.past_pivot and operation.verb is not Verb.CLEANUP):
        return Ending(state=OperationState.FAILED, failure=failure, unfinished=names, again=delay)
    keeps = operation.remains if operation.verb in KEEPING and not operation.cancel_requested else None
    wait = keeps.delay if keeps is not None else delay
    return Ending(
        state=OperationState.FAILED,
        failure=failure,
        left=left,
        keeps=keeps,
        cleanup_delay=max(wait, delay),
        cleanup_budget=budget,
    )
