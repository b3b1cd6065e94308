"""The conflict matrix: what a verb meets on an instance, or a binding, in the state it is in.

Guarantee: every pair of situation and request has exactly one ruling here, and here only; `docs/conflict-matrix.md` is
printed from these tables and a test compares both. Pure: records in, rulings out.
Limit: the tables rule on conflicts alone. Schemas, protection from deletion, capacity and etags are judged beside them.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import datetime
from enum import StrEnum

from purveyor_server.domain.leases import over
from purveyor_server.domain.model import Binding, Instance, Operation
from purveyor_server.domain.states import BindingState, InstanceState, Verb


class Ruling(StrEnum):
    """What becomes of a request; the value is how the printed table says it."""

    ACCEPT = "accepted"
    SAME_OPERATION = "same operation"
    CURRENT_STATE = "current state"
    FRESH_ATTEMPT = "accepted, fresh attempt"
    TAKE_OVER = "accepted, takes over"
    WAIT_AND_CANCEL = "accepted, waits, asks the update to cancel"
    IN_PROGRESS = "ABORTED: OPERATION_IN_PROGRESS"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    WRONG_STATE = "FAILED_PRECONDITION: WRONG_STATE"
    BINDINGS_EXIST = "FAILED_PRECONDITION: BINDINGS_EXIST"
    NOT_FOUND = "NOT_FOUND"


class Row(StrEnum):
    """What is there, or in flight, on an instance id."""

    ABSENT = "never was"
    PROVISIONING = "PROVISIONING"
    READY = "READY"
    READY_BINDING_WORK = "READY, binding work in flight"
    READY_CLEANUP = "READY, clean-up of an update in flight"
    UPDATING = "UPDATING"
    DEPROVISIONING = "DEPROVISIONING"
    DELETE_FAILED = "DELETE_FAILED"
    FAILED = "FAILED (create)"
    FAILED_CLEANUP = "FAILED (create), clean-up runs or is due"
    FAILED_KEPT = "FAILED (create), remains kept for an operator"
    DELETED = "DELETED"


class Ask(StrEnum):
    """What is asked of an instance id. "Same" compares digests of creates and targets of updates."""

    PROVISION_SAME = "Provision, same request"
    PROVISION_OTHER = "Provision, another request"
    UPDATE_SAME = "Update, target in flight"
    UPDATE_OTHER = "Update, another target"
    BIND = "Bind, Rotate"
    RENEW = "Renew"
    UNBIND = "Unbind"
    DEPROVISION = "Deprovision, no live binding"
    DEPROVISION_BOUND = "Deprovision, live bindings"
    DEPROVISION_CASCADE = "Deprovision, live bindings, cascade"


class BindingRow(StrEnum):
    """What is there, or in flight, on a binding id of an instance that allows binding work."""

    ABSENT = "never was, or DELETED"
    BINDING = "BINDING"
    ACTIVE = "ACTIVE"
    ACTIVE_WORK = "ACTIVE, work on it in flight"
    EXPIRED = "EXPIRED"
    UNBINDING = "UNBINDING"
    FAILED = "FAILED"
    FAILED_CLEANUP = "FAILED, clean-up runs or is due"
    FAILED_KEPT = "FAILED, remains kept for an operator"
    REVOCATION_BLOCKED = "REVOCATION_BLOCKED"


class BindingAsk(StrEnum):
    """What is asked of a binding id."""

    BIND_SAME = "Bind, same request"
    BIND_OTHER = "Bind, another request"
    UNBIND = "Unbind"
    RENEW_SAME = "Renew, end in flight"
    RENEW_OTHER = "Renew, another end"
    ROTATE = "Rotate"


_R = Ruling
_FINISHED = (_R.CURRENT_STATE, _R.ALREADY_EXISTS)
_REFUSED = _R.WRONG_STATE
_GONE = _R.NOT_FOUND
_BUSY = _R.IN_PROGRESS
_OK = _R.ACCEPT


def _row(*rulings: Ruling) -> dict[Ask, Ruling]:
    return dict(zip(Ask, rulings, strict=True))


# Columns: Provision same, other; Update same, other; Bind; Renew; Unbind; Deprovision plain, bound, cascade.
INSTANCE_MATRIX: Mapping[Row, Mapping[Ask, Ruling]] = {
    Row.ABSENT: _row(_OK, _OK, _GONE, _GONE, _GONE, _GONE, _GONE, _GONE, _GONE, _GONE),
    # Nothing is bound before READY: Renew and Unbind find no binding.
    Row.PROVISIONING: _row(
        _R.SAME_OPERATION, _R.ALREADY_EXISTS, _BUSY, _BUSY, _BUSY, _GONE, _GONE,
        _R.TAKE_OVER, _R.TAKE_OVER, _R.TAKE_OVER,
    ),
    Row.READY: _row(*_FINISHED, _OK, _OK, _OK, _OK, _OK, _OK, _R.BINDINGS_EXIST, _OK),
    Row.READY_BINDING_WORK: _row(*_FINISHED, _BUSY, _BUSY, _OK, _OK, _OK, _OK, _R.BINDINGS_EXIST, _OK),
    Row.READY_CLEANUP: _row(
        *_FINISHED, _BUSY, _BUSY, _BUSY, _OK, _OK, _R.TAKE_OVER, _R.BINDINGS_EXIST, _R.TAKE_OVER
    ),
    Row.UPDATING: _row(
        *_FINISHED, _R.SAME_OPERATION, _BUSY, _BUSY, _OK, _OK,
        _R.WAIT_AND_CANCEL, _R.BINDINGS_EXIST, _R.WAIT_AND_CANCEL,
    ),
    Row.DEPROVISIONING: _row(
        _REFUSED, _REFUSED, _REFUSED, _REFUSED, _REFUSED, _REFUSED, _REFUSED,
        _R.SAME_OPERATION, _R.SAME_OPERATION, _R.SAME_OPERATION,
    ),
    Row.DELETE_FAILED: _row(
        _REFUSED, _REFUSED, _REFUSED, _REFUSED, _REFUSED, _REFUSED, _OK,
        _R.FRESH_ATTEMPT, _R.BINDINGS_EXIST, _R.FRESH_ATTEMPT,
    ),
    Row.FAILED: _row(
        _R.FRESH_ATTEMPT, _R.ALREADY_EXISTS, _REFUSED, _REFUSED, _REFUSED, _GONE, _GONE, _OK, _R.BINDINGS_EXIST, _OK
    ),
    Row.FAILED_CLEANUP: _row(
        _BUSY, _R.ALREADY_EXISTS, _REFUSED, _REFUSED, _REFUSED, _GONE, _GONE,
        _R.TAKE_OVER, _R.BINDINGS_EXIST, _R.TAKE_OVER,
    ),
    Row.FAILED_KEPT: _row(
        _REFUSED, _R.ALREADY_EXISTS, _REFUSED, _REFUSED, _REFUSED, _GONE, _GONE, _OK, _R.BINDINGS_EXIST, _OK
    ),
    Row.DELETED: _row(_OK, _OK, _GONE, _GONE, _GONE, _GONE, _GONE, _GONE, _GONE, _GONE),
}  # fmt: skip

_NOT_LIVE = (_REFUSED, _REFUSED, _REFUSED)  # there is nothing to renew or to replace

BINDING_MATRIX: Mapping[BindingRow, Mapping[BindingAsk, Ruling]] = {
    row: dict(zip(BindingAsk, rulings, strict=True))
    for row, rulings in {
        BindingRow.ABSENT: (_OK, _OK, _GONE, _GONE, _GONE, _GONE),
        BindingRow.BINDING: (_R.SAME_OPERATION, _R.ALREADY_EXISTS, _R.TAKE_OVER, _BUSY, _BUSY, _BUSY),
        BindingRow.ACTIVE: (*_FINISHED, _OK, _OK, _OK, _OK),
        BindingRow.ACTIVE_WORK: (*_FINISHED, _R.TAKE_OVER, _R.SAME_OPERATION, _BUSY, _BUSY),
        BindingRow.EXPIRED: (*_FINISHED, _OK, *_NOT_LIVE),
        BindingRow.UNBINDING: (_REFUSED, _REFUSED, _R.SAME_OPERATION, *_NOT_LIVE),
        BindingRow.FAILED: (_R.FRESH_ATTEMPT, _R.ALREADY_EXISTS, _OK, *_NOT_LIVE),
        BindingRow.FAILED_CLEANUP: (_BUSY, _R.ALREADY_EXISTS, _R.TAKE_OVER, *_NOT_LIVE),
        BindingRow.FAILED_KEPT: (_REFUSED, _R.ALREADY_EXISTS, _OK, *_NOT_LIVE),
        BindingRow.REVOCATION_BLOCKED: (_REFUSED, _REFUSED, _OK, *_NOT_LIVE),
    }.items()
}

_PLAIN_ROWS = {
    InstanceState.PROVISIONING: Row.PROVISIONING,
    InstanceState.UPDATING: Row.UPDATING,
    InstanceState.DEPROVISIONING: Row.DEPROVISIONING,
    InstanceState.DELETE_FAILED: Row.DELETE_FAILED,
    InstanceState.DELETED: Row.DELETED,
}
_PLAIN_BINDING_ROWS = {
    BindingState.BINDING: BindingRow.BINDING,
    BindingState.EXPIRED: BindingRow.EXPIRED,
    BindingState.UNBINDING: BindingRow.UNBINDING,
    BindingState.DELETED: BindingRow.ABSENT,
}
# What a bind that starts no new work is answered wherever binding work would be allowed or only postponed.
_SETTLED = frozenset({_R.SAME_OPERATION, _R.CURRENT_STATE, _R.ALREADY_EXISTS})


def row_of(instance: Instance | None, operations: Iterable[Operation]) -> Row:
    """The row of an instance with its unfinished `operations` (those of its bindings included)."""
    if instance is None:
        return Row.ABSENT
    if instance.state in _PLAIN_ROWS:
        return _PLAIN_ROWS[instance.state]
    unfinished = [operation for operation in operations if not operation.done]
    if instance.state is InstanceState.FAILED:
        if unfinished:
            return Row.FAILED_CLEANUP
        return Row.FAILED_KEPT if instance.cleanup_required else Row.FAILED
    if any(not operation.binding_uid for operation in unfinished):
        return Row.READY_CLEANUP
    return Row.READY_BINDING_WORK if unfinished else Row.READY


def binding_row_of(binding: Binding | None, operations: Iterable[Operation], now: datetime | None = None) -> BindingRow:
    """The row of a binding with the unfinished `operations` of its instance; with `now`, one whose time is over is EXPIRED."""
    if binding is None:
        return BindingRow.ABSENT
    if now is not None and binding.state is BindingState.ACTIVE and over(binding.expires_at, now):
        return BindingRow.EXPIRED
    if binding.state in _PLAIN_BINDING_ROWS:
        return _PLAIN_BINDING_ROWS[binding.state]
    own = [operation for operation in operations if operation.binding_uid == binding.uid and not operation.done]
    if binding.state is BindingState.ACTIVE:
        return BindingRow.ACTIVE_WORK if own else BindingRow.ACTIVE
    if binding.state is BindingState.FAILED:
        if own:
            return BindingRow.FAILED_CLEANUP
        return BindingRow.FAILED_KEPT if binding.cleanup_required else BindingRow.FAILED
    parked = any(operation.verb is Verb.UNBIND for operation in own)
    return BindingRow.UNBINDING if parked else BindingRow.REVOCATION_BLOCKED


def rule(row: Row, ask: Ask) -> Ruling:
    """The ruling on an instance."""
    return INSTANCE_MATRIX[row][ask]


def rule_bind(row: Row, binding: BindingRow, *, same: bool) -> Ruling:
    """The ruling on a bind: of the binding's row when it starts nothing new, else both rows must agree."""
    of_instance = rule(row, Ask.BIND)
    of_binding = BINDING_MATRIX[binding][BindingAsk.BIND_SAME if same else BindingAsk.BIND_OTHER]
    if of_instance is Ruling.ACCEPT:
        return of_binding
    if of_instance is Ruling.IN_PROGRESS and of_binding in _SETTLED:
        return of_binding
    return of_instance


def rule_unbind(row: Row, binding: BindingRow) -> Ruling:
    """The ruling on an unbind: a binding that is not there is NOT_FOUND whatever its instance does."""
    return _of_both(row, Ask.UNBIND, BINDING_MATRIX[binding][BindingAsk.UNBIND])


def rule_renew(row: Row, binding: BindingRow, *, same: bool) -> Ruling:
    """The ruling on a renewal: a binding that is not there is NOT_FOUND whatever its instance does."""
    return _of_both(row, Ask.RENEW, BINDING_MATRIX[binding][BindingAsk.RENEW_SAME if same else BindingAsk.RENEW_OTHER])


def rule_rotate(row: Row, binding: BindingRow) -> Ruling:
    """The ruling on a rotation of the binding; of its successor's id a bind is judged."""
    return _of_both(row, Ask.BIND, BINDING_MATRIX[binding][BindingAsk.ROTATE])


def _of_both(row: Row, ask: Ask, of_binding: Ruling) -> Ruling:
    if of_binding is Ruling.NOT_FOUND:
        return of_binding
    of_instance = rule(row, ask)
    return of_binding if of_instance is Ruling.ACCEPT else of_instance


def blocks_deprovision(binding: Binding, operations: Iterable[Operation]) -> bool:
    """Whether a live binding stands in the way: all do but a FAILED one of which nothing is left behind."""
    return binding_row_of(binding, operations) not in {BindingRow.FAILED, BindingRow.ABSENT}


def markdown() -> str:
    """Both tables as the page `docs/conflict-matrix.md`."""
    instance = _table("instance", Ask, INSTANCE_MATRIX)
    binding = _table("binding", BindingAsk, BINDING_MATRIX)
    return _PAGE.format(instance=instance, binding=binding)


def _table(
    what: str,
    asks: Iterable[Ask] | Iterable[BindingAsk],
    matrix: Mapping[Row, Mapping[Ask, Ruling]] | Mapping[BindingRow, Mapping[BindingAsk, Ruling]],
) -> str:
    head = [what, *asks]
    lines = [head, ["---"] * len(head), *([row, *cells.values()] for row, cells in matrix.items())]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


_PAGE = """# Conflict matrix

Printed from `purveyor_server/domain/conflicts.py`; `tests/unit/test_conflicts.py` compares the two.

What a request meets on an instance id. ABORTED carries the operation in the way and RetryInfo. A create has the *same
request* when the HMAC of what was sent is the same; an update has the *same target* when it asks for what is in flight.

{instance}

- A removal of access is never refused while the binding is there, but for the time in which the whole instance goes.
- A deprovision that takes over or waits is stored at once with `blocked_by`; its deadline starts when nothing blocks it.
- An update of labels, context or deletion_protected alone concerns no provider and ends with its accept: it is accepted in
  READY (whatever is in flight on bindings), FAILED and DELETE_FAILED, and ruled by the table elsewhere.
- Clean-up operations in the way of a removal are taken over by it.
- Credentials that are made again after a move (REISSUE) are binding work in flight: an update is ABORTED until they are there,
  an unbind of the binding takes them over, a deprovision with cascade does so with each of its unbinds.
- Remains are kept for an operator when the plan's clean-up policy is MANUAL, or when a clean-up was abandoned: see
  [failures.md](failures.md).
- RepairInstance is ruled on as an update to another target; one that runs already is the same operation. While it runs the
  instance is UPDATING, and since it only goes forward a deprovision waits for its end.

What a request meets on a binding id. A bind that starts nothing new (same operation, current state, ALREADY_EXISTS) is
answered so while the instance is READY or UPDATING; everything else needs the instance's table to accept it first.

{binding}

- A binding whose time is over counts as EXPIRED from that moment on, whether or not the sweep has been there.
- A binding that has a successor, or is getting one, is not renewed any more (WRONG_STATE); rotating it again is answered with
  that successor (or NOT_ROTATABLE, when another id is asked for).

A FAILED binding of which nothing is left behind is not in the way of a deprovision: it gets its tombstone in the same command.
"""
