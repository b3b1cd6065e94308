"""One transaction of the writer: what commands read in it, what they put down, and the events it ends with.

Guarantee: a command that fails takes back its rows, its events and its share of the counters, and nothing of others
(`undo`); events get dense revisions only in `seal`, after every command has run.
Limit: used by the writer's thread alone.
"""

from __future__ import annotations

import sqlite3
from collections import Counter
from collections.abc import Iterable
from datetime import datetime
from typing import Any

import msgspec

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.auditchain import ChainKeys
from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.model import Binding, Instance, Operation, SealedSecret, Step, UniqueMark
from purveyor_server.kit.failpoints import is_off
from purveyor_server.store.contract import Backlog, Commit, Writes
from purveyor_server.store.sqlite import chaining, rows
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.rows import Row

_SQL = load("commands")
_NEWEST_INSTANCE = _SQL["newest_instance"]
_INSTANCE_BY_UID = _SQL["instance_by_uid"]
_NEWEST_BINDING = _SQL["newest_binding"]
_BINDING_BY_UID = _SQL["binding_by_uid"]
_LIVE_BINDINGS = _SQL["live_bindings"]
_OPERATION = _SQL["operation"]
_BY_REQUEST = _SQL["operation_by_request"]
_UNFINISHED = _SQL["unfinished_operations"]
_DEPENDENTS = _SQL["dependents"]
_STEPS = _SQL["steps"]
_SECRETS_OF = _SQL["secrets_of"]
_PUT_INSTANCE = _SQL["put_instance"]
_PUT_BINDING = _SQL["put_binding"]
_ADD_OPERATION = _SQL["add_operation"]
_CHANGE_OPERATION = _SQL["change_operation"]
_PUT_OPERATION_BODY = _SQL["put_operation_body"]
_BLOCK = _SQL["block"]
_UNBLOCK = _SQL["unblock"]
_PUT_STEP = _SQL["put_step"]
_PUT_SECRET = _SQL["put_secret"]
_ERASE_SECRETS = _SQL["erase_secrets"]
_ERASE_MARKS = _SQL["erase_marks"]
_MARK_HOLDER = _SQL["mark_holder"]
_PUT_MARK = _SQL["put_mark"]
_STEPS_OF_SUBJECT = _SQL["steps_of_subject"]
_PUT_EVENT = _SQL["put_event"]
_FREE_ALLOCATIONS = load("allocations")["free_allocations"]
_FREEZES = _SQL["freezes"]
FIRST = 1  # the version of a record that was just made


class Ledger(msgspec.Struct, frozen=True):
    """What the writer knows of the committed state without asking: newest revision, unfinished operations, newest audit
    record."""

    head: int
    pending: int
    parked: int
    tail: chaining.Tail = chaining.Tail()

    @property
    def backlog(self) -> Backlog:
        """The counts as the contract has them."""
        return Backlog(self.pending, self.parked)


class _Mark(msgspec.Struct, frozen=True):
    events: int
    operations: int
    audit: int
    told: int
    due: bool
    counts: tuple[int, int, int]


class Transaction:
    """Reads and writes inside BEGIN IMMEDIATE; `now` is the same for every command of the batch."""

    def __init__(
        self, connection: sqlite3.Connection, now: datetime, ledger: Ledger, epoch: int, keys: ChainKeys | None = None
    ) -> None:
        self.connection = connection
        self.keys = keys
        self.tail = ledger.tail
        self.now = now
        self.now_micros = rows.micros(now)
        self.head = ledger.head
        self.epoch = epoch
        self.due = False
        self._counts = [0, ledger.pending, ledger.parked]
        self._events: list[Row] = []
        self._operations: list[Operation] = []
        self._audit: list[AuditRecord] = []
        self.told: list[str] = []  # campaigns that were written
        self._before: dict[str, Operation | None] = {}
        self._saved: _Mark | None = None
        self._freezes: tuple[Freeze, ...] | None = None

    @property
    def backlog(self) -> Backlog:
        """Unfinished operations as this transaction leaves them so far."""
        return Backlog(self._counts[rows.PENDING], self._counts[rows.PARKED])

    # What a command reads.

    def _body(self, sql: str, *keys: Any) -> bytes | None:
        row = self.connection.execute(sql, keys).fetchone()
        return None if row is None else row[0]

    def instance(self, tenant: str, instance_id: str) -> Instance | None:
        """The newest incarnation."""
        body = self._body(_NEWEST_INSTANCE, tenant, instance_id)
        return None if body is None else rows.decode_instance(body)

    def instance_by_uid(self, uid: str) -> Instance | None:
        """One incarnation."""
        body = self._body(_INSTANCE_BY_UID, uid)
        return None if body is None else rows.decode_instance(body)

    def binding(self, instance_uid: str, binding_id: str) -> Binding | None:
        """The newest incarnation in one incarnation of its instance."""
        body = self._body(_NEWEST_BINDING, instance_uid, binding_id)
        return None if body is None else rows.decode_binding(body)

    def binding_by_uid(self, uid: str) -> Binding | None:
        """One incarnation."""
        body = self._body(_BINDING_BY_UID, uid)
        return None if body is None else rows.decode_binding(body)

    def live_bindings(self, instance_uid: str) -> tuple[Binding, ...]:
        """Every binding of an instance that is not deleted."""
        found = self.connection.execute(_LIVE_BINDINGS, (instance_uid,))
        return tuple(rows.decode_binding(body) for (body,) in found)

    def operation(self, operation_id: str) -> Operation | None:
        """One operation, as this transaction has it."""
        body = self._body(_OPERATION, operation_id)
        return self._known(operation_id, body)

    def operation_by_request(self, tenant: str, principal: str, method: str, request_id: str) -> Operation | None:
        """The operation that a request key made."""
        body = self._body(_BY_REQUEST, tenant, principal, method, request_id)
        return None if body is None else self._remember(body)

    def unfinished(self, instance_uid: str) -> tuple[Operation, ...]:
        """Unfinished operations on an instance, its bindings' included."""
        return self.operations(_UNFINISHED, (instance_uid,))

    def dependents(self, operation_id: str) -> tuple[Operation, ...]:
        """Unfinished operations that wait for this one."""
        return self.operations(_DEPENDENTS, (operation_id,))

    def operations(self, sql: str, keys: Row) -> tuple[Operation, ...]:
        """The operations whose bodies `sql` selects."""
        return tuple([self._remember(body) for (body,) in self.connection.execute(sql, keys).fetchall()])

    def steps(self, operation_id: str) -> tuple[Step, ...]:
        """The journal of an operation."""
        return tuple(rows.decode_step(body) for (body,) in self.connection.execute(_STEPS, (operation_id,)))

    def secrets(self, owner: str) -> tuple[SealedSecret, ...]:
        """Every secret of an owner."""
        return tuple(rows.secret(row) for row in self.connection.execute(_SECRETS_OF, (owner,)))

    @property
    def freezes(self) -> tuple[Freeze, ...]:
        """What is frozen; read once per transaction."""
        if self._freezes is None:
            found = self.connection.execute(_FREEZES).fetchall()
            self._freezes = tuple([rows.decode_freeze(body) for (body,) in found])
        return self._freezes

    def forget_freezes(self) -> None:
        """They have changed: read them again."""
        self._freezes = None

    def _remember(self, body: bytes) -> Operation:
        operation = rows.decode_operation(body)
        self._before[operation.operation_id] = operation
        return operation

    def _known(self, operation_id: str, body: bytes | None) -> Operation | None:
        if body is None:
            self._before[operation_id] = None
            return None
        return self._remember(body)

    # What a command writes.

    def write(self, writes: Writes) -> None:
        """Put everything down that a decision asks for."""
        for instance in writes.instances:
            self.put_instance(instance)
        for binding in writes.bindings:
            self.put_binding(binding)
        for operation in writes.operations:
            self.put_operation(operation)
        for operation in writes.quiet:
            self.put_operation(operation, quiet=True)
        for step in writes.steps:
            self.put_step(step)
        for secret in writes.secrets:
            self.execute(_PUT_SECRET, (secret.owner, secret.name, secret.sealed))
        for mark in writes.unique:
            self._mark(mark)
        for owner in writes.erase:
            self._erase(owner)
        if writes.audit:
            self.put_audit(*writes.audit)

    def execute(self, sql: str, parameters: Row) -> sqlite3.Cursor:
        """A writing statement, under the command's savepoint."""
        if self._saved is None:
            self._open_savepoint()
        return self.connection.execute(sql, parameters)

    def put_instance(self, record: Instance) -> None:
        """Insert or replace an instance, with its event."""
        body = rows.encode(record)
        self.execute(_PUT_INSTANCE, rows.instance_row(record, body))
        self._events.append(rows.instance_event(record, body, self.now_micros))

    def put_binding(self, record: Binding) -> None:
        """Insert or replace a binding, with its event."""
        body = rows.encode(record)
        self.execute(_PUT_BINDING, rows.binding_row(record, body))
        self._events.append(rows.binding_event(record, body, self.now_micros))

    def put_operation(self, record: Operation, *, quiet: bool = False) -> None:
        """Insert or replace an operation; keeps counters, blocks and readiness; an event unless `quiet`."""
        before, body = self._operation_before(record), rows.encode(record)
        if before is None:
            self.execute(_ADD_OPERATION, rows.operation_row(record, body, self.now_micros))
            self._count(before, record)
        elif rows.indexed(before) == rows.indexed(record):  # and counted alike
            self.execute(_PUT_OPERATION_BODY, (record.operation_id, body))
        else:
            self.execute(_CHANGE_OPERATION, rows.operation_change(record, body, self.now_micros))
            self._count(before, record)
        self._put_blocks(before, record)
        self._before[record.operation_id] = record
        self._operations.append(record)
        self.due = self.due or bool(record.due_at is not None and record.due_at <= self.now)
        if not quiet:
            self._events.append(rows.operation_event(record, body, self.now_micros))

    def _operation_before(self, record: Operation) -> Operation | None:
        """What the row holds now; a first version that was not read has none, and its insert fails when that is not so."""
        key = record.operation_id
        if key in self._before:
            return self._before[key]
        return None if record.version == FIRST else self.operation(key)

    def put_step(self, step: Step) -> None:
        """Insert or replace a line of the journal."""
        self.execute(_PUT_STEP, (step.operation_id, step.index, rows.encode(step)))

    def put_audit(self, *records: AuditRecord) -> None:
        """Append audit records; their rows are written last, in `seal`."""
        if self.keys is None and self.tail.begun:
            raise RuntimeError("audit records of this store are chained: `open_chain` comes first")
        if self._saved is None:
            self._open_savepoint()
        self._audit += records

    def forget_audit(self, before: int, limit: int) -> int:
        """Remove at most `limit` audit records of a time before `before`; returns how many."""
        if self._saved is None:
            self._open_savepoint()
        return chaining.forget(self.connection, self.keys, self.tail, self.now_micros, before, limit)

    def _count(self, before: Operation | None, after: Operation) -> None:
        self._counts[rows.backlog_of(before)] -= 1
        self._counts[rows.backlog_of(after)] += 1

    def _put_blocks(self, before: Operation | None, after: Operation) -> None:
        old = before.blocked_by if before is not None and not before.done else ()
        new = () if after.done else after.blocked_by
        if old == new:
            return
        self.execute(_UNBLOCK, (after.operation_id,))
        for blocker in new:
            self.execute(_BLOCK, (blocker, after.operation_id))

    def _mark(self, mark: UniqueMark) -> None:
        holder = self.connection.execute(_MARK_HOLDER, (mark.field, mark.digest)).fetchone()
        if holder is not None and holder[0] != mark.owner:
            raise PurveyorError(
                Reason.CREDENTIALS_NOT_UNIQUE,
                "the provider gave a credential that another binding already has",
                metadata={"field": mark.field},
            )
        self.execute(_PUT_MARK, (mark.field, mark.digest, mark.owner))

    def _erase(self, owner: str) -> None:
        self.execute(_ERASE_SECRETS, (owner,))
        self.execute(_ERASE_MARKS, (owner,))
        self.execute(_FREE_ALLOCATIONS, (owner,))
        for (body,) in self.connection.execute(_STEPS_OF_SUBJECT, (owner,)).fetchall():
            step = rows.decode_step(body)
            if step.outputs or step.saved is not None:
                self.put_step(msgspec.structs.replace(step, outputs={}, saved=None))

    # The fate of a command, and of the batch.

    def begin_command(self) -> None:
        """Forget what the command before has seen; a savepoint is opened by the first write."""
        self._before.clear()
        self._saved = None

    def check(self) -> None:
        """Raise sqlite3.OperationalError when SQLite dropped the transaction: a savepoint would begin another one."""
        if not self.connection.in_transaction:
            raise sqlite3.OperationalError("the transaction is gone")

    def _open_savepoint(self) -> None:
        self.check()
        counts = (self._counts[0], self._counts[1], self._counts[2])
        lengths = len(self._events), len(self._operations), len(self._audit), len(self.told)
        self._saved = _Mark(*lengths, self.due, counts)
        self.connection.execute("SAVEPOINT command")

    def keep(self) -> None:
        """The command's writes stand."""
        if self._saved is not None:
            self.connection.execute("RELEASE command")
            self._saved = None

    def undo(self) -> None:
        """The command failed: as if it had never been."""
        mark, self._saved = self._saved, None
        if mark is None:
            return
        if not is_off("store.savepoint"):
            self.connection.execute("ROLLBACK TO command")
        self.connection.execute("RELEASE command")
        del self._events[mark.events :]
        del self._operations[mark.operations :]
        del self._audit[mark.audit :]
        del self.told[mark.told :]
        self.due = mark.due
        self.forget_freezes()
        self._counts = list(mark.counts)

    def seal(self) -> tuple[Ledger, Commit | None]:
        """Stamp and insert the events and audit records; returns the ledger after COMMIT and the notice, None when nothing
        is to tell."""
        self.check()
        stamped = [(revision, *row) for revision, row in enumerate(self._kept_events(), start=self.head + 1)]
        if stamped:
            self.connection.executemany(_PUT_EVENT, stamped)
        tail = chaining.append(self.connection, self.tail, self.keys, self._audit)
        ledger = Ledger(self.head + len(stamped), self._counts[rows.PENDING], self._counts[rows.PARKED], tail)
        if not (stamped or self._operations or self.due or self._audit or self.told):
            return ledger, None
        events = tuple([rows.event(row) for row in stamped])
        audit = Counter(str(record.outcome) for record in self._audit)
        campaigns = frozenset(self.told)
        return ledger, Commit(ledger.head, events, tuple(self._operations), self.due, audit=audit, campaigns=campaigns)

    def _kept_events(self) -> Iterable[Row]:
        """Every event; a negative control of the suite drops the last one of a batch."""
        return self._events[:-1] if is_off("store.event") else self._events
