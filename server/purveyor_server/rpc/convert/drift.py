"""Looks at backends as messages."""

from __future__ import annotations

from purveyor.v1 import drift_pb2 as pb
from purveyor_server.lifecycle.contract import ZERO, Repair
from purveyor_server.rpc.convert.enums import DRIFTS
from purveyor_server.rpc.convert.instance import encode_pause
from purveyor_server.rpc.convert.requests import span
from purveyor_server.rpc.convert.values import body_of, to_timestamp
from purveyor_server.store.observing import Drifted


def encode_drifted(found: Drifted) -> pb.DriftReport:
    """What the looks have come to."""
    instance, seen = found.instance, found.observation
    settings = instance.present
    return pb.DriftReport(
        tenant=instance.tenant,
        instance_id=instance.instance_id,
        uid=instance.uid,
        service_id=settings.service_id,
        plan_id=settings.plan_id,
        drift=DRIFTS[seen.drift],  # type: ignore[arg-type] # enums are ints to protobuf
        differences=seen.differences,
        problem=seen.problem,
        since_time=to_timestamp(seen.since),
        observe_time=to_timestamp(seen.observed_at),
        look_time=to_timestamp(seen.looked_at),
        next_look_time=to_timestamp(seen.look_at),
        reconciliation_pause=encode_pause(instance.reconcile_paused),
    )


def decode_repair(request: pb.RepairInstanceRequest) -> Repair:
    """A repair."""
    return Repair(
        tenant=request.tenant,
        instance_id=request.instance_id,
        reason=request.reason,
        request_id=request.request_id,
        validate_only=request.validate_only,
        wait=span(request, "wait", ZERO),
        body=body_of(request),
    )
