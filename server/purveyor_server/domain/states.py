"""State machines of instance, binding and operation, as values.

Guarantee: the sets here are the only place that says which states are final, live or cancellable; `docs/state-machines.md`
draws them and a test compares both.
"""

from __future__ import annotations

from enum import StrEnum


class InstanceState(StrEnum):
    """Life of an instance; DELETED is a tombstone."""

    PROVISIONING = "PROVISIONING"
    READY = "READY"
    UPDATING = "UPDATING"
    DEPROVISIONING = "DEPROVISIONING"
    DELETED = "DELETED"
    FAILED = "FAILED"
    DELETE_FAILED = "DELETE_FAILED"


class BindingState(StrEnum):
    """Life of a binding; live is everything but DELETED."""

    BINDING = "BINDING"
    ACTIVE = "ACTIVE"
    UNBINDING = "UNBINDING"
    DELETED = "DELETED"
    EXPIRED = "EXPIRED"
    FAILED = "FAILED"
    REVOCATION_BLOCKED = "REVOCATION_BLOCKED"


class OperationState(StrEnum):
    """Life of an operation; every operation reaches one of FINAL_OPERATION."""

    PENDING = "PENDING"
    RUNNING = "RUNNING"
    CANCELLING = "CANCELLING"
    ROLLING_BACK = "ROLLING_BACK"
    SUCCEEDED = "SUCCEEDED"
    FAILED = "FAILED"
    CANCELLED = "CANCELLED"


class Verb(StrEnum):
    """What an operation does."""

    PROVISION = "PROVISION"
    UPDATE = "UPDATE"
    DEPROVISION = "DEPROVISION"
    BIND = "BIND"
    UNBIND = "UNBIND"
    CLEANUP = "CLEANUP"
    REPAIR = "REPAIR"
    RENEW = "RENEW"
    REISSUE = "REISSUE"


class Drift(StrEnum):
    """How the backend differs from the record, as `observe` last saw it."""

    UNKNOWN = "UNKNOWN"
    IN_SYNC = "IN_SYNC"
    DRIFTED = "DRIFTED"
    MISSING = "MISSING"


class Waiting(StrEnum):
    """Why an unfinished operation does not move. NONE means that it runs or is due."""

    NONE = "NONE"
    SLOT = "SLOT"
    PARKED = "PARKED"
    BACKOFF = "BACKOFF"
    BLOCKED = "BLOCKED"
    CIRCUIT = "CIRCUIT"
    LEASE = "LEASE"
    SETTLING = "SETTLING"
    HELD = "HELD"
    FROZEN = "FROZEN"


SLOT_WAITS = frozenset({Waiting.NONE, Waiting.SLOT})  # running or due; whatever waits for anything else is parked


class StepState(StrEnum):
    """The journal's word about one step."""

    STARTED = "STARTED"  # the outside call may have happened, or may still happen
    DONE = "DONE"  # never runs again
    UNDOING = "UNDOING"  # the undo may have happened
    UNDONE = "UNDONE"


class Make(StrEnum):
    """What a step does with its piece."""

    ENSURE = "ensure"
    ABSENT = "absent"


FINAL_OPERATION = frozenset({OperationState.SUCCEEDED, OperationState.FAILED, OperationState.CANCELLED})

OPERATION_TRANSITIONS: dict[OperationState, frozenset[OperationState]] = {
    OperationState.PENDING: frozenset(
        {OperationState.RUNNING, OperationState.CANCELLING, OperationState.FAILED, OperationState.CANCELLED}
    ),
    OperationState.RUNNING: frozenset(
        {
            OperationState.CANCELLING,
            OperationState.ROLLING_BACK,
            OperationState.SUCCEEDED,
            OperationState.FAILED,
            OperationState.CANCELLED,
        }
    ),
    OperationState.CANCELLING: frozenset(
        {OperationState.ROLLING_BACK, OperationState.CANCELLED, OperationState.FAILED}
    ),
    OperationState.ROLLING_BACK: frozenset({OperationState.CANCELLED, OperationState.FAILED}),
    OperationState.SUCCEEDED: frozenset(),
    OperationState.FAILED: frozenset(),
    OperationState.CANCELLED: frozenset(),
}

INSTANCE_TRANSITIONS: dict[InstanceState, frozenset[InstanceState]] = {
    InstanceState.PROVISIONING: frozenset({InstanceState.READY, InstanceState.FAILED, InstanceState.DEPROVISIONING}),
    InstanceState.READY: frozenset({InstanceState.UPDATING, InstanceState.DEPROVISIONING}),
    InstanceState.UPDATING: frozenset({InstanceState.READY, InstanceState.DELETE_FAILED, InstanceState.DEPROVISIONING}),
    InstanceState.DEPROVISIONING: frozenset({InstanceState.DELETED, InstanceState.DELETE_FAILED}),
    InstanceState.FAILED: frozenset({InstanceState.DEPROVISIONING, InstanceState.PROVISIONING, InstanceState.DELETED}),
    InstanceState.DELETE_FAILED: frozenset({InstanceState.DEPROVISIONING, InstanceState.UPDATING}),
    InstanceState.DELETED: frozenset(),
}

BINDING_TRANSITIONS: dict[BindingState, frozenset[BindingState]] = {
    BindingState.BINDING: frozenset({BindingState.ACTIVE, BindingState.FAILED, BindingState.UNBINDING}),
    BindingState.ACTIVE: frozenset({BindingState.UNBINDING, BindingState.EXPIRED}),
    BindingState.EXPIRED: frozenset({BindingState.UNBINDING}),
    BindingState.UNBINDING: frozenset({BindingState.DELETED, BindingState.REVOCATION_BLOCKED}),
    BindingState.FAILED: frozenset({BindingState.BINDING, BindingState.UNBINDING, BindingState.DELETED}),
    BindingState.REVOCATION_BLOCKED: frozenset({BindingState.UNBINDING}),
    BindingState.DELETED: frozenset(),
}

# What is another verb's work once more needs no word of its own from a provider: a repair is the provision with what is
# applied, a renewal is the bind with another end, credentials that are made again are the bind after a move.
WORK_VERBS: dict[Verb, Verb] = {verb: verb for verb in Verb} | {
    Verb.REPAIR: Verb.PROVISION,
    Verb.RENEW: Verb.BIND,
    Verb.REISSUE: Verb.BIND,
}
FORWARD_ONLY = frozenset({Verb.DEPROVISION, Verb.UNBIND, Verb.CLEANUP, Verb.REPAIR, Verb.REISSUE})
YIELDING = frozenset({Verb.CLEANUP, Verb.REISSUE})  # go forward only, and make room for the removal that takes over
REMOVALS = frozenset({Verb.DEPROVISION, Verb.UNBIND, Verb.CLEANUP})
KEEPING = frozenset({Verb.PROVISION, Verb.BIND})  # whose remains a clean-up policy may keep; never those of an update
