"""Bindings and credentials as messages."""

from __future__ import annotations

from google.protobuf.json_format import ParseDict

from purveyor.v1 import binding_pb2, operation_pb2
from purveyor_server.domain.etags import etag_of
from purveyor_server.domain.model import Binding, Json
from purveyor_server.rpc.convert.enums import BINDING_STATES
from purveyor_server.rpc.convert.instance import encode_endpoint, encode_identity, last_by_id
from purveyor_server.rpc.convert.values import fill_struct, to_struct, to_timestamp


def encode_binding(binding: Binding, last: operation_pb2.Operation | None = None) -> binding_pb2.Binding:
    """A binding, without its credentials. `last` is its newest operation; without it only that operation's id is told."""
    message = binding_pb2.Binding(
        tenant=binding.tenant,
        instance_id=binding.instance_id,
        binding_id=binding.binding_id,
        uid=binding.uid,
        instance_uid=binding.instance_uid,
        service_id=binding.service_id,
        plan_id=binding.plan_id,
        state=BINDING_STATES[binding.state],  # type: ignore[arg-type] # the tables hold plain numbers
        originating_identity=encode_identity(binding.originating_identity),
        expire_time=to_timestamp(binding.expires_at),
        renew_before=to_timestamp(binding.renew_before),
        predecessor_binding_id=binding.predecessor_binding_id,
        successor_binding_id=binding.successor_binding_id,
        rotate_time=to_timestamp(binding.rotate_at),
        revocation_retry_time=to_timestamp(binding.retry_at),
        revocation_attempts=binding.revocation_attempts,
        cleanup_required=binding.cleanup_required,
        endpoints=[encode_endpoint(endpoint) for endpoint in binding.endpoints],
        syslog_drain_url=binding.syslog_drain_url,
        route_service_url=binding.route_service_url,
        labels=binding.labels,
        etag=etag_of(binding),
        last_operation=last or last_by_id(binding.last_operation),
        create_time=to_timestamp(binding.created_at),
        update_time=to_timestamp(binding.updated_at),
        delete_time=to_timestamp(binding.deleted_at),
    )
    if binding.parameters:
        fill_struct(message.parameters, binding.parameters)
    if binding.context:
        fill_struct(message.context, binding.context)
    if binding.attributes:
        fill_struct(message.attributes, binding.attributes)
    # These two are kept as OSBAPI has them; what the contract does not know is left out.
    if binding.bind_resource:
        ParseDict(binding.bind_resource, message.bind_resource, ignore_unknown_fields=True)
    for mount in binding.volume_mounts:
        ParseDict(mount, message.volume_mounts.add(), ignore_unknown_fields=True)
    return message


def encode_credentials(values: dict[str, Json] | None) -> binding_pb2.Credentials | None:
    """Credentials; None stays None."""
    return None if values is None else binding_pb2.Credentials(values=to_struct(values))
