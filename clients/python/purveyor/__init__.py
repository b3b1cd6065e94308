"""The Purveyor client library: order a database, bind to it, watch the work, give it back.

Names are loaded on first use: `import purveyor.v1` (the generated stubs) and `purveyor --help` do not pay for gRPC.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from purveyor.admin import AdminClient
    from purveyor.client import Client
    from purveyor.credential_source import CredentialSource
    from purveyor.credentials import Credentials
    from purveyor.errors import (
        AbortedError,
        AlreadyExistsError,
        ConflictError,
        DeadlineExceededError,
        EventsLostError,
        FailedPreconditionError,
        InternalError,
        InvalidRequestError,
        NotFoundError,
        OperationCancelledError,
        OperationFailedError,
        OutcomeUnknownError,
        PermissionDeniedError,
        PurveyorError,
        ResourceExhaustedError,
        TransportReason,
        UnavailableError,
        UnimplementedError,
        Violation,
    )
    from purveyor.operations import OperationHandle
    from purveyor.places import EventPlace, FilePlace
    from purveyor.sync import SyncAdminClient, SyncClient, SyncOperationHandle
    from purveyor.tls import Tls
    from purveyor.values import (
        ActiveBinding,
        Binding,
        BindingState,
        Catalog,
        Event,
        EventKind,
        EventType,
        Failure,
        Instance,
        InstanceState,
        OperationState,
        OperationStatus,
        Plan,
        Service,
        Settings,
        Step,
        Verb,
        Waiting,
    )

_HOMES = {
    "AdminClient": "admin",
    "Client": "client",
    "CredentialSource": "credential_source",
    "Credentials": "credentials",
    "EventPlace": "places",
    "FilePlace": "places",
    "OperationHandle": "operations",
    "SyncAdminClient": "sync",
    "SyncClient": "sync",
    "SyncOperationHandle": "sync",
    "Tls": "tls",
    **dict.fromkeys(
        (
            "AbortedError",
            "AlreadyExistsError",
            "ConflictError",
            "DeadlineExceededError",
            "EventsLostError",
            "FailedPreconditionError",
            "InternalError",
            "InvalidRequestError",
            "NotFoundError",
            "OperationCancelledError",
            "OperationFailedError",
            "OutcomeUnknownError",
            "PermissionDeniedError",
            "PurveyorError",
            "ResourceExhaustedError",
            "TransportReason",
            "UnavailableError",
            "UnimplementedError",
            "Violation",
        ),
        "errors",
    ),
    **dict.fromkeys(
        (
            "ActiveBinding",
            "Binding",
            "BindingState",
            "Catalog",
            "Event",
            "EventKind",
            "EventType",
            "Failure",
            "Instance",
            "InstanceState",
            "OperationState",
            "OperationStatus",
            "Plan",
            "Service",
            "Settings",
            "Step",
            "Verb",
            "Waiting",
        ),
        "values",
    ),
}


def __getattr__(name: str) -> object:
    """Load the module that holds `name`. Raises AttributeError for a name that is not public."""
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'purveyor' has no attribute {name!r}")
    return getattr(import_module(f"purveyor.{home}"), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *_HOMES])


__all__ = [
    "AbortedError",
    "ActiveBinding",
    "AdminClient",
    "AlreadyExistsError",
    "Binding",
    "BindingState",
    "Catalog",
    "Client",
    "ConflictError",
    "CredentialSource",
    "Credentials",
    "DeadlineExceededError",
    "Event",
    "EventKind",
    "EventPlace",
    "EventType",
    "EventsLostError",
    "FailedPreconditionError",
    "Failure",
    "FilePlace",
    "Instance",
    "InstanceState",
    "InternalError",
    "InvalidRequestError",
    "NotFoundError",
    "OperationCancelledError",
    "OperationFailedError",
    "OperationHandle",
    "OperationState",
    "OperationStatus",
    "OutcomeUnknownError",
    "PermissionDeniedError",
    "Plan",
    "PurveyorError",
    "ResourceExhaustedError",
    "Service",
    "Settings",
    "Step",
    "SyncAdminClient",
    "SyncClient",
    "SyncOperationHandle",
    "Tls",
    "TransportReason",
    "UnavailableError",
    "UnimplementedError",
    "Verb",
    "Violation",
    "Waiting",
]
