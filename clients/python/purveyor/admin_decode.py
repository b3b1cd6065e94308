"""Operators' messages as values."""

from __future__ import annotations

from purveyor import decode
from purveyor.admin_values import BrokerStatus, Freeze, ProviderStatus, Purged, Quota, Recovery
from purveyor.catalog_admin import refusal
from purveyor.orphans import inventory_of
from purveyor.v1 import admin_service_pb2 as messages
from purveyor.v1.operation_pb2 import Waiting


def freeze(found: messages.Freeze) -> Freeze:
    """A stop that an operator set."""
    return Freeze(
        name=found.name, reason=found.reason, principal=found.principal, set_time=decode.time_of(found.set_time)
    )


def recovery(found: messages.Recovery) -> Recovery:
    """A recovery that is going on."""
    return Recovery(
        backup_time=decode.time_of(found.backup_time),
        restore_time=decode.time_of(found.restore_time),
        backup_revision=found.backup_revision,
    )


def quota(found: messages.Quota) -> Quota:
    """What a tenant, or a plan in it, has and may have."""
    holds = {field.name: limit for field, limit in found.limits.ListFields()} if found.HasField("limits") else {}
    return Quota(
        tenant=found.tenant,
        service_id=found.service_id,
        plan_id=found.plan_id,
        instances=found.instances,
        max_instances=holds.get("instances"),
        bindings=found.bindings,
        max_bindings=holds.get("bindings"),
        max_bindings_per_instance=holds.get("bindings_per_instance"),
        set_limits={field.name: limit for field, limit in found.set_limits.ListFields()},
        reason=found.reason,
        principal=found.principal,
        set_time=decode.time_of(found.set_time),
    )


def purged(resource: str, found: messages.PurgeInstanceResponse | messages.PurgeBindingResponse) -> Purged:
    """What a purge forgot, and may have left behind."""
    return Purged(
        resource=resource,
        left_behind=tuple(found.left_behind),
        ended_operation_ids=tuple(found.ended_operation_ids),
    )


def status(found: messages.GetStatusResponse) -> BrokerStatus:
    """How the broker does."""
    states = messages.ProviderStatus.State
    return BrokerStatus(
        version=found.version,
        store_id=found.store_id,
        epoch=found.epoch,
        head_revision=found.head_revision,
        earliest_revision=found.earliest_revision,
        start_time=decode.time_of(found.start_time),
        pending=found.pending,
        parked=found.parked,
        waiting={
            decode.enum_name(Waiting.Reason, count.reason, "REASON_"): count.operations for count in found.waiting
        },
        oldest_unfinished_age=(
            found.oldest_unfinished_age.ToTimedelta() if found.HasField("oldest_unfinished_age") else None
        ),
        oldest_unfinished_operation_id=found.oldest_unfinished_operation_id,
        cleanup_required=found.cleanup_required,
        providers=tuple(
            ProviderStatus(
                name=provider.name,
                kind=provider.kind,
                state=decode.enum_name(states, provider.state, "STATE_"),
                problem=provider.problem,
                running=provider.running,
            )
            for provider in found.providers
        ),
        freezes=tuple(freeze(one) for one in found.freezes),
        store_bytes=found.store_bytes,
        disk_free_bytes=found.disk_free_bytes,
        disk_low_water_bytes=found.disk_low_water_bytes,
        disk_low=found.disk_low,
        recovery=recovery(found.recovery) if found.HasField("recovery") else None,
        catalog_version=found.catalog_version,
        log_level=found.log_level,
        stuck=found.stuck,
        remains_kept=found.remains_kept,
        inventories=tuple(inventory_of(one) for one in found.inventories),
        catalog_refusal=refusal(found.catalog_refusal) if found.HasField("catalog_refusal") else None,
    )
