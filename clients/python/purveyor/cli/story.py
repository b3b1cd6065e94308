"""The story of an instance: who asked for what, what ran, what failed, what is left.

Guarantee: told from operations and audit records, which outlive the event log; in the order of their times, every incarnation
of the id included. Without an admin listener operators' acts are left out, and that is said.
Limit: the newest MOST operations and the newest MOST audit records; what is past its retention is not there.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import UTC, datetime
from itertools import chain
from typing import TYPE_CHECKING

from purveyor.cli.documents import text
from purveyor.cli.lists import newest
from purveyor.errors import PurveyorError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator, Sequence

    from purveyor.admin_values import AuditRecord
    from purveyor.cli.session import Session
    from purveyor.client import Client
    from purveyor.values import Instance, OperationStatus, Step

MOST = 1000
OPERATORS = "outcome = DONE"  # what consumers did is in their operations
NOBODY = "the broker"
_EARLY = datetime.min.replace(tzinfo=UTC)


@dataclass(frozen=True)
class Entry:
    """One line: `who` asked for `what`, `state` is how it stands, `told` what there is to know of it."""

    time: datetime | None
    who: str
    what: str
    state: str
    told: tuple[str, ...] = ()
    operation_id: str = ""
    instance_uid: str = ""


@dataclass(frozen=True)
class Story:
    """All of it; `left` names what may still be in backends, `gaps` what this story cannot tell."""

    instance: Instance
    entries: tuple[Entry, ...]
    left: tuple[str, ...] = ()
    gaps: tuple[str, ...] = field(default=())


async def read(session: Session, instance_id: str, admin: str | None) -> Story:
    """Ask the broker for everything. Raises PurveyorError; NotFoundError when no instance ever had that id."""
    gaps: list[str] = []
    async with session.client() as client:
        instance = await client.instance(instance_id, show_deleted=True)
        operations = await _newest(client, instance_id, gaps)
    records = await _records(session, admin, gaps)
    names = {operation.operation_id for operation in operations}
    acts = [record for record in records if _concerns(record, session.tenant, instance_id, names)]
    return tell(instance, operations, acts, tuple(gaps))


async def _newest(client: Client, instance_id: str, gaps: list[str]) -> list[OperationStatus]:
    asked = client.operations(f"instance_id = {text(instance_id, indent=None)}", steps=True)
    found, count = await newest(asked, MOST)
    if count > MOST:
        gaps.append(f"{count - MOST} older operations")
    return found


async def _records(session: Session, admin: str | None, gaps: list[str]) -> list[AuditRecord]:
    if session.address and not admin and not session.place.context:
        gaps.append("operators' acts: --admin names the admin listener of this broker")
        return []
    try:
        async with session.admin_client(admin, retry_for=0.0) as operators:
            return [record async for record in _first(operators.audit(filter=OPERATORS, page_size=MOST))]
    except (PurveyorError, OSError) as error:
        gaps.append(f"operators' acts: {error}")
        return []


async def _first(records: AsyncIterator[AuditRecord]) -> AsyncIterator[AuditRecord]:
    count = 0
    async for record in records:
        yield record
        count += 1
        if count == MOST:
            return


def _concerns(record: AuditRecord, tenant: str, instance_id: str, operations: set[str]) -> bool:
    kind, _, name = record.resource.partition("/")
    if kind == "instance":
        return record.tenant == tenant and name.split("/", 1)[0] == instance_id
    return kind == "operation" and name.split("/", 1)[0] in operations


def tell(
    instance: Instance,
    operations: Sequence[OperationStatus],
    records: Sequence[AuditRecord],
    gaps: tuple[str, ...] = (),
) -> Story:
    """The story of what was read. Pure."""
    entries = [*(_of_operation(operation) for operation in operations), *(_of_record(record) for record in records)]
    entries.sort(key=lambda entry: entry.time or _EARLY)
    unfinished = (name for operation in operations if not operation.done for name in operation.cleanup_required)
    left = tuple(dict.fromkeys(chain(instance.cleanup_required, unfinished)))
    return Story(instance, tuple(entries), left, gaps)


def _of_operation(operation: OperationStatus) -> Entry:
    what = f"{operation.verb} {operation.binding_id}".strip()
    ids = (operation.operation_id, operation.instance_uid)
    return Entry(
        operation.create_time, operation.principal or NOBODY, what, operation.state, tuple(_told(operation)), *ids
    )


def _told(operation: OperationStatus) -> Iterator[str]:
    failure, waiting = operation.failure, operation.waiting
    if failure is not None:
        at = f" at step {failure.step}" if failure.step else ""
        yield f"failed{at}: {failure.reason}: {failure.operator_message or failure.message}"
    if waiting is not None:
        yield f"waits: {waiting.reason}{f': {waiting.detail}' if waiting.detail else ''}"
    if not operation.done and operation.sentence:
        yield f"{operation.percent:.0f} %: {operation.sentence}"
    if operation.taken_over_by:
        yield f"taken over by {operation.taken_over_by}"
    if operation.parent_operation_id:
        yield f"follows from {operation.parent_operation_id}"
    if operation.state != "SUCCEEDED" and operation.steps:
        yield f"steps: {', '.join(_shown(step) for step in operation.steps)}"
    if operation.cleanup_required:
        yield f"left behind: {', '.join(operation.cleanup_required)}"


def _shown(step: Step) -> str:
    times = f" after {step.attempts} tries" if step.attempts > 1 else ""
    return f"{step.name} {step.state}{times}"


def _of_record(record: AuditRecord) -> Entry:
    what = f"{record.action} {record.resource}"
    return Entry(record.act_time, record.principal, what, "", (f"reason: {record.reason}",))
