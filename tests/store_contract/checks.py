"""What must hold of a store whatever was done to it; each finding is a sentence."""

from __future__ import annotations

from collections.abc import Sequence

from purveyor_server.domain.model import Event, EventKind, Instance, Operation
from purveyor_server.store.contract import SYSTEM, Page, Store
from tests.store_contract.records import log_of

ALL = Page(1_000_000)


def density(events: Sequence[Event], first: int = 1) -> list[str]:
    """Revisions are `first`, `first` + 1, and so on."""
    wanted = range(first, first + len(events))
    return [f"revision {e.revision} at place {w}" for e, w in zip(events, wanted, strict=True) if e.revision != w]


def coverage(events: Sequence[Event], instances: Sequence[Instance], operations: Sequence[Operation]) -> list[str]:
    """Every row has an event, and every event has its row."""
    found = []
    told = {event.uid for event in events if event.kind is EventKind.INSTANCE}
    told |= {event.operation_id for event in events if event.kind is EventKind.OPERATION}
    kept = {row.uid for row in instances} | {row.operation_id for row in operations}
    found += [f"no event of {key}" for key in sorted(kept - told)]
    found += [f"an event of {key}, which is not there" for key in sorted(told - kept)]
    return found


def whole(instances: Sequence[Instance], operations: Sequence[Operation]) -> list[str]:
    """A command is there with all of its rows or with none."""
    uids = {row.uid for row in instances}
    worked_on = {row.instance_uid for row in operations}
    halves = [f"operations without their instance {uid}" for uid in sorted(worked_on - uids)]
    return halves + [f"an instance without operation: {uid}" for uid in sorted(uids - worked_on)]


async def faults(store: Store, tenants: Sequence[str], acknowledged: Sequence[str] = ()) -> list[str]:
    """Everything wrong with `store`; `acknowledged` are operation_ids that were answered."""
    events = await log_of(store)
    instances = [row for t in tenants for row in await store.instances(SYSTEM, t, (), ALL, deleted=True)]
    operations = [row for t in tenants for row in await store.operations(SYSTEM, t, (), ALL)]
    found = density(events) + coverage(events, instances, operations) + whole(instances, operations)
    kept = {row.operation_id for row in operations}
    found += [f"answered and lost: {key}" for key in acknowledged if key not in kept]
    backlog = await store.backlog()
    unfinished = sum(not row.done for row in operations)
    if backlog.pending + backlog.parked != unfinished:
        found.append(f"the backlog says {backlog}, the rows {unfinished}")
    return found
