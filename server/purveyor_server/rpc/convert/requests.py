"""Requests of the contract as use-cases.

Guarantee: what these return is what was sent; the rules about it (which ids are allowed, which parameters) are those of
the lifecycle. Raised here is only what the wire can hold and a use-case cannot: negative times, unknown views and mask paths.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Any

from google.protobuf.message import Message

from purveyor.v1 import broker_service_pb2 as pb
from purveyor.v1 import operation_pb2
from purveyor_server.domain.errors import invalid
from purveyor_server.domain.model import EventKind, Identity, Json, MaintenanceInfo
from purveyor_server.lifecycle import contract
from purveyor_server.rpc.convert.enums import EVENT_KINDS
from purveyor_server.rpc.convert.values import body_of, from_duration, from_timestamp

MASK_PATHS = ("plan_id", "parameters", "context", "maintenance_info", "labels", "deletion_protected")
_STARTS: dict[int, contract.Start] = {
    pb.WatchEventsRequest.Start.Value(f"START_{start}"): start for start in contract.Start
}
_KINDS: dict[int, EventKind] = {number: kind for kind, number in EVENT_KINDS.items()}
_CLEARED: dict[str, Any] = {"labels": {}, "deletion_protected": False}


def decode_provision(request: pb.ProvisionRequest) -> contract.Provision:
    """A provision."""
    body = body_of(request)
    return contract.Provision(
        **_write(request, body),
        service_id=request.service_id,
        plan_id=request.plan_id,
        parameters=body.get("parameters", {}),
        context=body.get("context", {}),
        labels=body.get("labels", {}),
        maintenance_info=_maintenance(body),
    )


def decode_update(request: pb.UpdateInstanceRequest) -> contract.Update:
    """An update: what is present, or, with an update_mask, what it names."""
    body = body_of(request)
    sent = {path: body[path] for path in MASK_PATHS if path in body}
    # Present without a value in the body: an empty message, or an optional scalar at its default.
    sent |= {path: getattr(request, path) for path in ("plan_id", "deletion_protected") if request.HasField(path)}
    sent |= {path: body.get(path, {}) for path in ("parameters", "context") if request.HasField(path)}
    changes = _masked(sent, list(request.update_mask.paths))
    return contract.Update(
        **_write(request, body),
        plan_id=changes.get("plan_id"),
        parameters=changes.get("parameters"),
        context=changes.get("context"),
        labels=changes.get("labels"),
        deletion_protected=changes.get("deletion_protected"),
        maintenance_info=_maintenance(changes),
        etag=request.etag,
    )


def _masked(sent: dict[str, Json], paths: list[str]) -> dict[str, Json]:
    if not paths:
        return sent
    for path in paths:
        if path not in MASK_PATHS:
            raise invalid("update_mask", f"{path[:80]!r} is none of {', '.join(MASK_PATHS)}")
        if path not in sent and path not in _CLEARED:
            raise invalid("update_mask", f"{path} is named but absent, and it cannot be cleared")
    return {path: sent.get(path, _CLEARED.get(path)) for path in paths}


def decode_deprovision(request: pb.DeprovisionRequest) -> contract.Deprovision:
    """A deprovision."""
    return contract.Deprovision(
        **_write(request, body_of(request)),
        cascade=request.cascade,
        allow_missing=request.allow_missing,
        etag=request.etag,
    )


def decode_bind(request: pb.BindRequest) -> contract.Bind:
    """A bind."""
    body = body_of(request)
    return contract.Bind(
        **_write(request, body),
        binding_id=request.binding_id,
        parameters=body.get("parameters", {}),
        bind_resource=body.get("bind_resource", {}),
        context=body.get("context", {}),
        labels=body.get("labels", {}),
        ttl=from_duration(request, "ttl"),
    )


def decode_unbind(request: pb.UnbindRequest) -> contract.Unbind:
    """An unbind."""
    return contract.Unbind(
        **_write(request, body_of(request)),
        binding_id=request.binding_id,
        allow_missing=request.allow_missing,
        etag=request.etag,
    )


def decode_renew(request: pb.RenewBindingRequest) -> contract.Renew:
    """A renewal. Raises INVALID_REQUEST for a time that no calendar holds."""
    return contract.Renew(
        **_write(request, body_of(request)),
        binding_id=request.binding_id,
        expire_time=from_timestamp(request, "expire_time"),
        ttl=from_duration(request, "ttl"),
        allow_shorter=request.allow_shorter,
        etag=request.etag,
    )


def decode_rotate(request: pb.RotateBindingRequest) -> contract.Rotate:
    """A rotation."""
    return contract.Rotate(
        **_write(request, body_of(request)),
        binding_id=request.binding_id,
        successor_id=request.successor_binding_id,
        ttl=from_duration(request, "ttl"),
        overlap=from_duration(request, "overlap"),
        etag=request.etag,
    )


def decode_listing(
    request: pb.ListInstancesRequest | pb.ListBindingsRequest | pb.ListOperationsRequest,
) -> contract.Listing:
    """A list call."""
    return contract.Listing(
        tenant=request.tenant,
        instance_id="" if not isinstance(request, pb.ListBindingsRequest) else request.instance_id,
        page_size=request.page_size,
        page_token=request.page_token,
        filter=request.filter,
        show_deleted=False if isinstance(request, pb.ListOperationsRequest) else request.show_deleted,
        full=isinstance(request, pb.ListOperationsRequest) and wants_full(request.view),
    )


def decode_following(request: pb.WatchEventsRequest, heartbeat: timedelta) -> contract.Following:
    """A watch of events. Raises INVALID_REQUEST for a start or a kind that is not known here."""
    return contract.Following(
        tenant=request.tenant,
        start=_start(request),
        token=request.resume_token,
        kinds=frozenset(_kind(number) for number in request.kinds),
        instance_id=request.instance_id,
        heartbeat=heartbeat,
    )


def _start(request: pb.WatchEventsRequest) -> contract.Start:
    if not request.start:
        return contract.Start.AFTER if request.resume_token else contract.Start.NOW
    if request.start not in _STARTS:
        raise invalid("start", f"there is no start {request.start}")
    return _STARTS[request.start]


def _kind(number: int) -> EventKind:
    if number not in _KINDS:
        raise invalid("kinds", f"there is no kind {number}")
    return _KINDS[number]


def wants_full(view: int) -> bool:
    """Whether the steps are asked for. Raises INVALID_REQUEST for a view that is not known here."""
    if view not in operation_pb2.OperationView.values():
        raise invalid("view", f"there is no view {view}")
    return view == operation_pb2.OPERATION_VIEW_FULL


def span(request: Message, field: str, default: timedelta) -> timedelta:
    """The Duration `field`, or `default` when it is absent."""
    sent = from_duration(request, field)
    return default if sent is None else sent


def _write(request: Any, body: dict[str, Json]) -> dict[str, Any]:
    return {
        "tenant": request.tenant,
        "instance_id": request.instance_id,
        "request_id": request.request_id,
        "validate_only": request.validate_only,
        "wait": span(request, "wait", contract.ZERO),
        "body": body,
        "originating_identity": _identity(body),
    }


def _identity(body: dict[str, Json]) -> Identity | None:
    sent = body.get("originating_identity")
    return None if sent is None else Identity(sent.get("platform", ""), sent.get("value", {}))


def _maintenance(body: dict[str, Json]) -> MaintenanceInfo | None:
    sent = body.get("maintenance_info")
    return None if sent is None else MaintenanceInfo(sent.get("version", ""), sent.get("description", ""))
