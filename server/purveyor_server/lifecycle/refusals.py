"""Rulings of the conflict matrix as errors that a caller can act on."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from purveyor_server.domain.automation import AUTOMATION
from purveyor_server.domain.conflicts import Ruling
from purveyor_server.domain.errors import (
    Precondition,
    PurveyorError,
    Reason,
    Resource,
    binding_not_found,
    instance_not_found,
)
from purveyor_server.domain.model import Binding, Instance, Operation
from purveyor_server.lifecycle.ports import LifecycleSettings
from purveyor_server.store.contract import Backlog, Situation

_DOING = {
    "PROVISION": "provisioned",
    "UPDATE": "updated",
    "DEPROVISION": "deprovisioned",
    "BIND": "bound",
    "UNBIND": "unbound",
    "CLEANUP": "cleaned up",
    "REPAIR": "repaired",
    "RENEW": "renewed",
    "REISSUE": "given new credentials",
}


def refusal(
    ruling: Ruling,
    situation: Situation,
    tenant: str,
    instance_id: str,
    settings: LifecycleSettings,
    binding_id: str = "",
) -> PurveyorError:
    """The error of a ruling that refuses."""
    instance, binding = situation.instance, situation.binding if binding_id else None
    match ruling:
        case Ruling.NOT_FOUND if binding_id and instance is not None and instance.deleted_at is None:
            return binding_not_found(tenant, instance_id, binding_id)
        case Ruling.ALREADY_EXISTS if binding_id:
            return binding_exists(instance_id, binding_id)
        case Ruling.ALREADY_EXISTS:
            return _instance_exists(instance_id)
        case Ruling.IN_PROGRESS:
            return in_progress(_in_the_way(situation, binding), instance_id, settings)
        case Ruling.WRONG_STATE:
            return wrong_state(instance, binding, situation.operations)
        case Ruling.BINDINGS_EXIST:
            return bindings_exist(instance_id, situation.bindings, settings.max_named)
    return instance_not_found(tenant, instance_id)


def _instance_exists(instance_id: str) -> PurveyorError:
    return PurveyorError(
        Reason.INSTANCE_ALREADY_EXISTS,
        f"the instance {instance_id!r} exists and was asked for with another request",
        metadata={"instance_id": instance_id},
        resource=Resource("instance", instance_id),
    )


def binding_exists(instance_id: str, binding_id: str) -> PurveyorError:
    """ALREADY_EXISTS for a binding."""
    return PurveyorError(
        Reason.BINDING_ALREADY_EXISTS,
        f"the binding {binding_id!r} of instance {instance_id!r} exists and was asked for with another request",
        metadata={"instance_id": instance_id, "binding_id": binding_id},
        resource=Resource("binding", binding_id),
    )


def _in_the_way(situation: Situation, binding: Binding | None) -> Operation | None:
    """The unfinished operation to wait for: the binding's own, else the instance's own, else any, else the last one."""
    own = [op for op in situation.operations if binding is not None and op.binding_uid == binding.uid]
    whole = [op for op in situation.operations if not op.binding_uid]
    return next(iter([*own, *whole, *situation.operations]), situation.last_operation)


def in_progress(operation: Operation | None, instance_id: str, settings: LifecycleSettings) -> PurveyorError:
    """ABORTED: what is in the way, and when to come back."""
    metadata = {"instance_id": instance_id}
    what = "changed"
    if operation is not None:
        metadata |= {"operation": operation.operation_id, "verb": str(operation.verb)}
        what = _DOING[operation.verb]
    by = f" by operation {operation.operation_id}" if operation is not None else ""
    subject = f"the instance {instance_id!r}"
    if operation is not None and operation.binding_id:
        subject = f"the binding {operation.binding_id!r} of instance {instance_id!r}"
    return PurveyorError(
        Reason.OPERATION_IN_PROGRESS,
        f"{subject} is being {what}{by}",
        metadata=metadata,
        retry_after=settings.busy_retry,
    )


def wrong_state(
    instance: Instance | None, binding: Binding | None = None, operations: Iterable[Operation] = ()
) -> PurveyorError:
    """FAILED_PRECONDITION: the state that does not allow it, and the operation behind it if one runs."""
    about_binding = binding is not None and (instance is None or instance.state in {"READY", "UPDATING"})
    record: Instance | Binding | None = binding if about_binding else instance
    state = str(record.state) if record is not None else ""
    kind = "binding" if about_binding else "instance"
    name = binding.binding_id if about_binding and binding is not None else instance.instance_id if instance else ""
    metadata = {f"{kind}_id": name, "state": state}
    uid = record.uid if record is not None else ""
    running = next((op for op in operations if uid and uid == (op.binding_uid or op.instance_uid)), None)
    if running is not None:
        metadata["operation"] = running.operation_id
    kept = "; what it left behind is kept for an operator: retry, clean up, or remove it"
    left = record is not None and state == "FAILED" and bool(record.cleanup_required) and running is None
    text = f"the {kind} {name!r} is in state {state}, which does not allow this{kept if left else ''}"
    return PurveyorError(
        Reason.WRONG_STATE,
        text,
        metadata=metadata,
        resource=Resource(kind, name),
        preconditions=(Precondition("STATE", f"{kind}/{name}", text),),
    )


def bindings_exist(instance_id: str, bindings: Sequence[Binding], most: int) -> PurveyorError:
    """FAILED_PRECONDITION naming the bindings, at most `most` of them."""
    named = [binding.binding_id for binding in bindings[:most]]
    text = f"the instance {instance_id!r} has {len(bindings)} live bindings: unbind them first, or set cascade"
    return PurveyorError(
        Reason.BINDINGS_EXIST,
        text,
        metadata={"instance_id": instance_id, "count": str(len(bindings)), "bindings": ",".join(named)},
        resource=Resource("instance", instance_id),
        preconditions=tuple(Precondition("BINDING", f"binding/{name}", "is a live binding") for name in named),
    )


def deletion_protected(instance_id: str) -> PurveyorError:
    """FAILED_PRECONDITION: somebody wants it kept."""
    text = f"the instance {instance_id!r} is protected from deletion: clear deletion_protected first"
    return PurveyorError(
        Reason.DELETION_PROTECTED,
        text,
        metadata={"instance_id": instance_id},
        resource=Resource("instance", instance_id),
        preconditions=(Precondition("DELETION_PROTECTED", f"instance/{instance_id}", text),),
    )


def left_alone(instance_id: str, why: str) -> PurveyorError:
    """FAILED_PRECONDITION for what the broker does by itself to an instance that is to be left alone."""
    text = f"the broker does not touch the instance {instance_id!r} by itself: {why}"
    return PurveyorError(
        Reason.WRONG_STATE,
        text,
        metadata={"instance_id": instance_id},
        resource=Resource("instance", instance_id),
        preconditions=(Precondition(AUTOMATION, f"instance/{instance_id}", text),),
    )


def check_capacity(backlog: Backlog, settings: LifecycleSettings) -> None:
    """Raise TOO_MANY_OPERATIONS when there is no room for one more; removals are never asked."""
    for scope, count, limit in (
        ("pending", backlog.pending, settings.max_pending),
        ("parked", backlog.parked, settings.max_parked),
    ):
        if count >= limit:
            raise PurveyorError(
                Reason.TOO_MANY_OPERATIONS,
                f"{count} operations are {scope}, at most {limit}: come back later",
                metadata={"scope": scope, "limit": str(limit)},
                quota_subject=f"operations/{scope}",
                retry_after=settings.full_retry,
            )


def check_lag(lag: float, settings: LifecycleSettings) -> None:
    """Raise TOO_MANY_OPERATIONS when what is asked for now would wait for long; before it is queued, or it would wait too."""
    if lag > settings.max_lag:
        raise behind("store", "store", lag, settings.max_lag, settings.full_retry)


def behind(noun: str, scope: str, seconds: float, limit: float, retry_after: float) -> PurveyorError:
    """TOO_MANY_OPERATIONS, since what is asked for would wait behind what came before it."""
    return PurveyorError(
        Reason.TOO_MANY_OPERATIONS,
        f"the {noun} is {seconds:.1f} s behind, at most {limit:g} s: come back later",
        metadata={"scope": scope, "limit_seconds": f"{limit:g}"},
        quota_subject=f"operations/{scope}",
        retry_after=retry_after,
    )


def request_id_reused(request_id: str, operation: Operation) -> PurveyorError:
    """INVALID_ARGUMENT: the id named another request."""
    return PurveyorError(
        Reason.REQUEST_ID_REUSED,
        f"request_id {request_id!r} was already used for another request",
        metadata={"request_id": request_id, "operation": operation.operation_id},
    )
