"""What the end of a successor's BIND, or of a RENEW, means for the times of bindings: pure functions over `Job`.

Guarantee: a predecessor is retired in the command that makes its successor ACTIVE, never before; a successor that fails leaves
it as it was. An earlier end is promised at once and the backend follows; a later one only once the backend keeps it.
"""

from __future__ import annotations

from datetime import timedelta

from purveyor_server.domain.leases import earlier
from purveyor_server.domain.model import Binding, ExpiryChange, Json, Operation
from purveyor_server.domain.records import touch
from purveyor_server.domain.states import BindingState, Verb
from purveyor_server.engine.following import following
from purveyor_server.store.contract import Job

AGAIN = timedelta(minutes=10)  # how soon a rotation of the broker's own that failed is tried again, at the earliest


def new_terms(operation: Operation) -> dict[str, Json]:
    """What a finished RENEW changes of its binding."""
    expiry = operation.expiry
    if expiry is None:
        message = "a renewal without an end"
        raise LookupError(message)
    return {"expires_at": expiry.to, "renew_before": expiry.renew_before, "rotate_at": expiry.rotate_at}


def retired(job: Job, operation: Operation) -> tuple[tuple[Binding, ...], tuple[Operation, ...]]:
    """The predecessor with the end of the overlap, and the RENEW that tells the backend."""
    old, succession = _predecessor(job, operation), operation.succession
    if old is None or succession is None or old.state is not BindingState.ACTIVE:
        return (), ()
    end = earlier(old.expires_at, job.now + succession.overlap)
    changes: dict[str, Json] = {"expires_at": end, "renew_before": None, "rotate_at": None}
    changes["successor_binding_id"] = operation.binding_id
    if end == old.expires_at or not succession.enforced:
        return (touch(old, job.now, **changes),), ()
    # The broker's own: its undo keeps the earlier end.
    follow = following(job, operation, old, Verb.RENEW, expiry=ExpiryChange(end, end))
    return (touch(old, job.now, last_operation=follow.operation_id, **changes),), (follow,)


def released(job: Job, operation: Operation) -> tuple[Binding, ...]:
    """The predecessor of a successor that came to nothing, free for another one."""
    old, succession = _predecessor(job, operation), operation.succession
    if old is None or succession is None or old.successor_binding_id != operation.binding_id:
        return ()
    again = None if succession.rotate_at is None else max(succession.rotate_at, job.now + AGAIN)
    return (touch(old, job.now, successor_binding_id="", rotate_at=again),)


def _predecessor(job: Job, operation: Operation) -> Binding | None:
    if operation.succession is None:
        return None
    uid = operation.succession.predecessor_uid
    return next((binding for binding in job.bindings if binding.uid == uid), None)
