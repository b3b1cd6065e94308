"""Accept, amend and advance: read what the command names, ask its decision, put it down.

Guarantee: the decision sees one state, that of its own transaction; what it writes stays within the tenant that the
command named. A fence is compared with the row itself, in the same transaction as the write.
"""

from __future__ import annotations

from collections.abc import Callable

from purveyor_server.domain.errors import instance_not_found, operation_not_found
from purveyor_server.domain.model import Instance, Operation
from purveyor_server.domain.quotas import Usage
from purveyor_server.store.contract import (
    Accept,
    Advance,
    Amend,
    Decision,
    Fence,
    Job,
    LeaseLostError,
    Situation,
    Writes,
)
from purveyor_server.store.sqlite import quotas
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.transaction import Transaction

_SQL = load("commands")
_PUT_META = _SQL["put_meta"]
_META = _SQL["meta"]
_NOTHING = Writes()
_NO_USAGE = Usage()


def accept(transaction: Transaction, command: Accept, check_room: Callable[[], None]) -> Decision:
    """Run an accept; `check_room` raises STORE_FULL and is asked only before something new is written."""
    if not command.scope.allows(command.tenant):
        raise instance_not_found(command.tenant, command.instance_id)
    decision = command.decide(situation(transaction, command))
    if decision.writes == _NOTHING:
        return decision
    if command.creates:
        check_room()
    _check_tenant(decision.writes, command.tenant)
    if not command.dry_run:
        transaction.write(decision.writes)
    return decision


def situation(transaction: Transaction, command: Accept) -> Situation:
    """All that an accept sees."""
    instance = transaction.instance(command.tenant, command.instance_id)
    binding = None
    if instance is not None and command.binding_id:
        binding = transaction.binding(instance.uid, command.binding_id)
    operations = transaction.unfinished(instance.uid) if instance is not None else ()
    subject = binding if command.binding_id else instance
    return Situation(
        now=transaction.now,
        head=transaction.head,
        instance=instance,
        binding=binding,
        bindings=transaction.live_bindings(instance.uid) if instance is not None and command.with_bindings else (),
        operations=operations,
        replay=_replay(transaction, command),
        last_operation=_named(transaction, subject.last_operation if subject is not None else "", operations),
        backlog=transaction.backlog,
        usage=_usage(transaction, command, instance) if command.counts else _NO_USAGE,
    )


def _usage(transaction: Transaction, command: Accept, instance: Instance | None) -> Usage:
    of_instance = instance.uid if instance is not None and command.binding_id else ""
    return quotas.usage(transaction, command.tenant, of_instance)


def _replay(transaction: Transaction, command: Accept) -> Operation | None:
    key = command.request
    if key is None or not key.request_id:
        return None
    return transaction.operation_by_request(command.tenant, key.principal, key.method, key.request_id)


def _named(transaction: Transaction, operation_id: str, among: tuple[Operation, ...]) -> Operation | None:
    if not operation_id:
        return None
    for operation in among:
        if operation.operation_id == operation_id:
            return operation
    return transaction.operation(operation_id)


def _check_tenant(writes: Writes, tenant: str) -> None:
    for records in (writes.instances, writes.bindings, writes.operations, writes.quiet):
        for record in records:
            if record.tenant != tenant:
                raise ValueError("a command of one tenant must not write rows of another")


def amend(transaction: Transaction, command: Amend) -> Operation:
    """Run an amend; raises OPERATION_NOT_FOUND."""
    operation = transaction.operation(command.operation_id)
    if operation is None or not command.scope.allows(operation.tenant):
        raise operation_not_found(command.operation_id)
    return _decide(transaction, command, operation)


def advance(transaction: Transaction, command: Advance) -> Operation:
    """Run an engine write; raises LeaseLostError."""
    return _decide(transaction, command, held(transaction, command.fence))


def held(transaction: Transaction, fence: Fence) -> Operation:
    """The operation under `fence`; raises LeaseLostError when the row carries another lease, or none."""
    operation = transaction.operation(fence.operation_id)
    if operation is None or not _holds(operation, fence, transaction.epoch):
        raise LeaseLostError(fence.operation_id)
    return operation


def _holds(operation: Operation, fence: Fence, epoch: int) -> bool:
    lease = (operation.lease_owner, operation.lease_no, operation.lease_epoch)
    return lease == (fence.owner, fence.lease_no, epoch) and not operation.done


def _decide(transaction: Transaction, command: Advance | Amend, operation: Operation) -> Operation:
    writes = command.decide(job(transaction, operation, with_resources=command.with_resources))
    _check_tenant(writes, operation.tenant)
    transaction.write(writes)
    for written in reversed((*writes.operations, *writes.quiet)):
        if written.operation_id == operation.operation_id:
            return written
    return operation


def job(transaction: Transaction, operation: Operation, *, with_resources: bool) -> Job:
    """All that an engine command sees."""
    if not with_resources:
        return Job(transaction.now, transaction.head, operation, freezes=transaction.freezes)
    others = transaction.unfinished(operation.instance_uid)
    return Job(
        now=transaction.now,
        head=transaction.head,
        operation=operation,
        instance=transaction.instance_by_uid(operation.instance_uid),
        binding=transaction.binding_by_uid(operation.binding_uid) if operation.binding_uid else None,
        dependents=transaction.dependents(operation.operation_id),
        siblings=tuple([other for other in others if other.operation_id != operation.operation_id]),
        bindings=transaction.live_bindings(operation.instance_uid),
        freezes=transaction.freezes,
    )


def put_meta(transaction: Transaction, name: str, value: bytes) -> bytes:
    """Keep the first value that a name gets."""
    transaction.execute(_PUT_META, (name, value))
    kept: bytes = transaction.connection.execute(_META, (name,)).fetchone()[0]
    return kept
