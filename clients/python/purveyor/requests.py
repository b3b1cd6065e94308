"""Parts of requests that are more than one field."""

from __future__ import annotations

from typing import TypeAlias, TypeVar

import grpc.aio
from google.protobuf.field_mask_pb2 import FieldMask

from purveyor.v1.binding_pb2 import BindResource
from purveyor.v1.broker_service_pb2 import (
    BindRequest,
    CancelOperationRequest,
    DeprovisionRequest,
    ProvisionRequest,
    UnbindRequest,
    UpdateInstanceRequest,
)
from purveyor.v1.catalog_pb2 import MaintenanceInfo

# What changes something; each has a request_id.
Q = TypeVar(
    "Q",
    ProvisionRequest,
    UpdateInstanceRequest,
    DeprovisionRequest,
    BindRequest,
    UnbindRequest,
    CancelOperationRequest,
)
A = TypeVar("A")
Method: TypeAlias = "grpc.aio.UnaryUnaryMultiCallable[Q, A]"


def maintenance(version: str | None) -> MaintenanceInfo | None:
    """The maintenance version as a message; None stays absent."""
    return None if version is None else MaintenanceInfo(version=version)


def bind_resource(app_guid: str) -> BindResource | None:
    """What a binding is for; empty stays absent."""
    return BindResource(app_guid=app_guid) if app_guid else None


def mask_with_cleared_labels(request: UpdateInstanceRequest) -> FieldMask:
    """A mask of every field that is present, and of labels, which being absent are then cleared."""
    given = [
        name
        for name in ("plan_id", "parameters", "context", "maintenance_info", "deletion_protected")
        if request.HasField(name)
    ]
    return FieldMask(paths=[*given, "labels"])
