"""Instances as messages, and the shared parts that bindings have too."""

from __future__ import annotations

import msgspec
from google.protobuf.struct_pb2 import Struct

from purveyor.v1 import catalog_pb2, instance_pb2, operation_pb2
from purveyor_server.domain.etags import etag_of
from purveyor_server.domain.model import Endpoint, Identity, Instance, Json, MaintenanceInfo, Pause, Settings
from purveyor_server.domain.states import Drift
from purveyor_server.rpc.convert.enums import DRIFTS, INSTANCE_STATES
from purveyor_server.rpc.convert.values import fill_struct, to_struct, to_timestamp

_PROTOCOLS = {
    "tcp": instance_pb2.Endpoint.PROTOCOL_TCP,
    "udp": instance_pb2.Endpoint.PROTOCOL_UDP,
    "all": instance_pb2.Endpoint.PROTOCOL_ALL,
}


def encode_instance(instance: Instance, last: operation_pb2.Operation | None = None) -> instance_pb2.Instance:
    """An instance. `last` is its newest operation; without it the field carries only that operation's id."""
    settings = instance.present
    # The same parameters stand in up to four places; a copy of a Struct costs a fraction of building it.
    parameters = to_struct(settings.parameters) if settings.parameters else None
    message = instance_pb2.Instance(
        tenant=instance.tenant,
        instance_id=instance.instance_id,
        uid=instance.uid,
        service_id=settings.service_id,
        service_name=instance.service_name,
        plan_id=settings.plan_id,
        plan_name=instance.plan_name,
        state=INSTANCE_STATES[instance.state],  # type: ignore[arg-type] # the tables hold plain numbers
        usable=instance.usable,
        cleanup_required=instance.cleanup_required,
        drift=_drift(instance),  # type: ignore[arg-type] # as above
        drift_observe_time=to_timestamp(instance.observed_at),
        deletion_protected=instance.deletion_protected,
        adopted=instance.adopted,
        desired=encode_settings(instance.desired, settings, parameters),
        in_flight=encode_settings(instance.in_flight, settings, parameters),
        applied=encode_settings(instance.applied, settings, parameters),
        originating_identity=encode_identity(instance.originating_identity),
        dashboard_url=instance.dashboard_url,
        labels=instance.labels,
        endpoints=[encode_endpoint(endpoint) for endpoint in instance.endpoints],
        parameters=parameters,
        maintenance_info=encode_maintenance(settings.maintenance_info),
        etag=etag_of(instance),
        last_operation=last or last_by_id(instance.last_operation),
        create_time=to_timestamp(instance.created_at),
        update_time=to_timestamp(instance.updated_at),
        delete_time=to_timestamp(instance.deleted_at),
        reconciliation_pause=encode_pause(instance.reconcile_paused),
        platform_orphan_time=to_timestamp(instance.platform_orphan_since),
    )
    if instance.context:
        fill_struct(message.context, instance.context)
    if instance.attributes:
        fill_struct(message.attributes, instance.attributes)
    return message


def _drift(instance: Instance) -> int:
    if instance.observed_at is None and instance.drift is Drift.UNKNOWN:
        return instance_pb2.Instance.DRIFT_UNSPECIFIED
    return DRIFTS[instance.drift]


def last_by_id(operation_id: str) -> operation_pb2.Operation | None:
    """An operation of which only the id is known; None for none."""
    return operation_pb2.Operation(operation_id=operation_id) if operation_id else None


def encode_settings(
    settings: Settings | None, known: Settings, parameters: Struct | None
) -> instance_pb2.InstanceSettings | None:
    """What an instance is set to, given the `parameters` of `known` as they were encoded; None stays None."""
    if settings is None:
        return None
    if settings is not known and not _same(settings.parameters, known.parameters):
        parameters = to_struct(settings.parameters) if settings.parameters else None
    return instance_pb2.InstanceSettings(
        service_id=settings.service_id,
        plan_id=settings.plan_id,
        parameters=parameters,
        maintenance_info=encode_maintenance(settings.maintenance_info),
    )


def _same(one: dict[str, Json], other: dict[str, Json]) -> bool:
    """Whether both are the same JSON: Python takes true for equal to 1, JSON does not."""
    return one == other and msgspec.json.encode(one) == msgspec.json.encode(other)


def encode_maintenance(info: MaintenanceInfo | None) -> catalog_pb2.MaintenanceInfo | None:
    """A maintenance version; None stays None."""
    return None if info is None else catalog_pb2.MaintenanceInfo(version=info.version, description=info.description)


def encode_identity(identity: Identity | None) -> instance_pb2.OriginatingIdentity | None:
    """On whose behalf; None stays None."""
    if identity is None:
        return None
    return instance_pb2.OriginatingIdentity(platform=identity.platform, value=to_struct(identity.value))


def encode_pause(pause: Pause | None) -> instance_pb2.ReconciliationPause | None:
    """Why it is left alone, without who said so; None stays None."""
    if pause is None:
        return None
    return instance_pb2.ReconciliationPause(reason=pause.reason, pause_time=to_timestamp(pause.at))


def encode_endpoint(endpoint: Endpoint) -> instance_pb2.Endpoint:
    """One place where it can be reached."""
    protocol = _PROTOCOLS.get(endpoint.protocol, instance_pb2.Endpoint.PROTOCOL_UNSPECIFIED)
    return instance_pb2.Endpoint(host=endpoint.host, ports=endpoint.ports, protocol=protocol)
