"""Adoptions as messages."""

from __future__ import annotations

from purveyor.v1 import adopt_pb2 as pb
from purveyor_server.lifecycle.contract import ZERO, Adopt
from purveyor_server.rpc.convert.requests import span
from purveyor_server.rpc.convert.values import body_of


def decode_adopt(request: pb.AdoptInstanceRequest) -> Adopt:
    """An adoption."""
    body = body_of(request)
    return Adopt(
        tenant=request.tenant,
        instance_id=request.instance_id,
        service_id=request.service_id,
        plan_id=request.plan_id,
        parameters=body.get("parameters", {}),
        source=body.get("source", {}),
        labels=body.get("labels", {}),
        reason=request.reason,
        request_id=request.request_id,
        validate_only=request.validate_only,
        wait=span(request, "wait", ZERO),
        body=body,
    )
