"""States and other words of the domain as enum values of the contract.

Guarantee: the tables are built when the module is imported, so a word without a value stops the start.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Any, TypeVar

from purveyor.v1 import binding_pb2, error_reason_pb2, event_pb2, instance_pb2, operation_pb2, options_pb2
from purveyor_server.domain import states
from purveyor_server.domain.errors import Reason
from purveyor_server.domain.model import EventKind
from purveyor_server.domain.principal import Role

Word = TypeVar("Word", bound=StrEnum)


def _table(words: Iterable[Word], enum: Any, prefix: str) -> dict[Word, int]:
    return {word: enum.Value(f"{prefix}_{word.value.upper()}") for word in words}


INSTANCE_STATES = _table(states.InstanceState, instance_pb2.Instance.State, "STATE")
DRIFTS = _table(states.Drift, instance_pb2.Instance.Drift, "DRIFT")
BINDING_STATES = _table(states.BindingState, binding_pb2.Binding.State, "STATE")
VERBS = _table(states.Verb, operation_pb2.Operation.Verb, "VERB")
OPERATION_STATES = _table(states.OperationState, operation_pb2.Operation.State, "STATE")
WAITINGS: dict[states.Waiting, int] = _table(
    [waiting for waiting in states.Waiting if waiting is not states.Waiting.NONE],
    operation_pb2.Waiting.Reason,
    "REASON",
)
MAKES = _table(states.Make, operation_pb2.Step.Make, "MAKE")
STEP_STATES = _table(states.StepState, operation_pb2.Step.State, "STATE")
EVENT_KINDS = _table(EventKind, event_pb2.Event.Kind, "KIND")
REASONS = _table(Reason, error_reason_pb2.ErrorReason, "ERROR_REASON")
ROLES = _table(Role, options_pb2.Role, "ROLE")
