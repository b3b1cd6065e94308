"""Orphans, sweeps and the report of what the store should hold, as messages."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Protocol

from purveyor.v1 import orphan_pb2 as pb
from purveyor_server.domain.errors import invalid
from purveyor_server.domain.orphans import Inventory, Sighting, SightingKey, SightingState, Standing
from purveyor_server.domain.policies import OrphanMode
from purveyor_server.lifecycle.admin.contract import Act
from purveyor_server.lifecycle.admin.rebuilding import Finding, Rebuilt
from purveyor_server.rpc.convert.values import to_timestamp

STATES = {state: pb.Orphan.State.Value(f"STATE_{state}") for state in SightingState}
STANDINGS = {standing: pb.Orphan.Standing.Value(f"STANDING_{standing}") for standing in Standing}
MODES = {mode: pb.InventoryStatus.Mode.Value(f"MODE_{mode}") for mode in OrphanMode}
FINDINGS = {found: pb.RebuildReportResponse.Finding.Value(f"FINDING_{found}") for found in Finding}
_STATES = {int(number): state for state, number in STATES.items()}


class Acting(Protocol):
    """A request with what every act carries."""

    reason: str
    request_id: str
    validate_only: bool


class Naming(Protocol):
    """A request that names a thing."""

    provider: str
    kind: str
    name: str


def decode_act(request: Acting) -> Act:
    """What every act carries."""
    return Act(reason=request.reason, request_id=request.request_id, validate_only=request.validate_only)


def decode_key(request: Naming) -> SightingKey:
    """Which thing is meant."""
    return SightingKey(request.provider, request.kind, request.name)


def decode_states(numbers: Iterable[int]) -> frozenset[SightingState]:
    """The states that are asked for. Raises INVALID_REQUEST."""
    wanted = list(numbers)
    if unknown := [number for number in wanted if number not in _STATES]:
        raise invalid("states", f"{unknown[0]} is no state")
    return frozenset(_STATES[number] for number in wanted)


def encode_sighting(found: Sighting) -> pb.Orphan:
    """An orphan."""
    thing = found.thing
    return pb.Orphan(
        provider=found.provider,
        kind=thing.kind,
        name=thing.name,
        uid=thing.uid,
        revision=thing.revision,
        state=STATES[found.state],
        standing=STANDINGS[found.standing],
        first_seen_time=to_timestamp(found.first_seen),
        last_seen_time=to_timestamp(found.last_seen),
        sweeps=found.sweeps,
        quarantine_time=None if found.quarantined_at is None else to_timestamp(found.quarantined_at),
        try_time=None if found.tried_at is None else to_timestamp(found.tried_at),
        failure=found.failure,
    )


def encode_inventory(found: Inventory) -> pb.InventoryStatus:
    """How the sweeps of a provider go."""
    return pb.InventoryStatus(
        provider=found.provider,
        mode=MODES[found.mode],
        sweep=found.sweep,
        begin_time=to_timestamp(found.began_at),
        end_time=None if found.ended_at is None else to_timestamp(found.ended_at),
        complete=found.complete,
        problem=found.problem,
        owned=found.owned,
        orphans=found.orphans,
        quarantined=found.quarantined,
        reaped=found.reaped,
        failed=found.failed,
        brake_reason=found.brake.reason if found.brake is not None else "",
        brake_time=to_timestamp(found.brake.at) if found.brake is not None else None,
    )


def encode_rebuilt(found: Rebuilt) -> pb.RebuildReportResponse:
    """A line of the report."""
    return pb.RebuildReportResponse(
        provider=found.provider,
        finding=FINDINGS[found.finding],
        kind=found.kind,
        name=found.name,
        uid=found.uid,
        revision=found.revision,
        resource=found.resource,
        first=found.first,
        later=found.later,
        problem=found.problem,
    )
