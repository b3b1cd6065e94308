"""Reads: committed, within the caller's scope, tombstones only when asked for."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Callable, Sequence
from datetime import timedelta

from purveyor_server.domain import filters
from purveyor_server.domain.catalog import Catalog
from purveyor_server.domain.errors import binding_not_found, instance_not_found
from purveyor_server.domain.model import Binding, Instance, Operation
from purveyor_server.domain.names import check_id
from purveyor_server.domain.states import BindingState, InstanceState
from purveyor_server.lifecycle.contract import Caller, Listing, PageOf
from purveyor_server.lifecycle.door import Action
from purveyor_server.lifecycle.paging import Question, open_page, page_of
from purveyor_server.lifecycle.running import Parts
from purveyor_server.store.contract import Scope


def get_catalog(parts: Parts, caller: Caller, tenant: str) -> Catalog:
    """What the caller may order."""
    parts.door.enter(caller, Action.GET_CATALOG, tenant)
    return parts.catalog().seen_by(tenant)


async def watch_catalog(
    parts: Parts, caller: Caller, tenant: str, heartbeat: timedelta
) -> AsyncGenerator[Catalog | None, None]:
    """What the caller may order, then what it has become, at once, or None, every `heartbeat`."""
    parts.door.enter(caller, Action.WATCH_CATALOG, tenant)
    interval = max(heartbeat.total_seconds(), parts.settings.shortest_heartbeat)
    shown: Catalog | None = None
    while True:
        whole = parts.catalog()
        catalog = whole.seen_by(tenant)
        same = shown is not None and (catalog is shown or catalog.etag == shown.etag != "")
        yield None if same else catalog
        shown = catalog
        if parts.catalog() is whole:  # else it moved while the reader took this one
            await parts.catalog_moved(interval)


async def get_instance(parts: Parts, caller: Caller, tenant: str, instance_id: str, *, deleted: bool) -> Instance:
    """One instance; raises INSTANCE_NOT_FOUND, for tombstones too unless `deleted`."""
    scope = parts.door.enter(caller, Action.GET_INSTANCE, tenant)
    return await known_instance(parts, scope, tenant, instance_id, deleted=deleted)


async def view_instance(
    parts: Parts,
    caller: Caller,
    tenant: str,
    instance_id: str,
    encode: Callable[[Instance, Operation | None], bytes],
    *,
    deleted: bool,
) -> bytes:
    """What `encode` makes of an instance and its last operation, kept until they change; raises INSTANCE_NOT_FOUND."""
    scope = parts.door.enter(caller, Action.GET_INSTANCE, tenant)

    async def read() -> tuple[bytes, bool]:
        instance = await known_instance(parts, scope, tenant, instance_id, deleted=deleted)
        newest = await newest_operations(parts, caller, (instance,))
        # A tombstone is an answer for some callers only.
        return encode(instance, newest.get(instance.last_operation)), instance.state is not InstanceState.DELETED

    return await parts.kept.answer((tenant, instance_id), encode, read)


async def get_binding(
    parts: Parts, caller: Caller, tenant: str, instance_id: str, binding_id: str, *, deleted: bool
) -> Binding:
    """One binding; raises INSTANCE_NOT_FOUND or BINDING_NOT_FOUND, for tombstones too unless `deleted`."""
    scope = parts.door.enter(caller, Action.GET_BINDING, tenant)
    return await live_binding(parts, scope, tenant, instance_id, binding_id, deleted=deleted)


async def known_instance(
    parts: Parts, scope: Scope, tenant: str, instance_id: str, *, deleted: bool = False
) -> Instance:
    """The newest incarnation; raises INSTANCE_NOT_FOUND."""
    check_id(instance_id, "instance_id")
    instance = await parts.store.instance(scope, tenant, instance_id)
    if instance is None or (instance.state is InstanceState.DELETED and not deleted):
        raise instance_not_found(tenant, instance_id)
    return instance


async def live_binding(
    parts: Parts, scope: Scope, tenant: str, instance_id: str, binding_id: str, *, deleted: bool = False
) -> Binding:
    """The newest incarnation; raises INSTANCE_NOT_FOUND or BINDING_NOT_FOUND."""
    check_id(binding_id, "binding_id")
    await known_instance(parts, scope, tenant, instance_id, deleted=deleted)
    binding = await parts.store.binding(scope, tenant, instance_id, binding_id)
    if binding is None or (binding.state is BindingState.DELETED and not deleted):
        raise binding_not_found(tenant, instance_id, binding_id)
    return binding


async def list_instances(parts: Parts, caller: Caller, listing: Listing) -> PageOf:
    """A page of instances, oldest first."""
    scope = parts.door.enter(caller, Action.LIST_INSTANCES, listing.tenant)
    where = filters.parse(listing.filter, filters.INSTANCES)
    question, page = open_page(parts, Question.of("instances", listing), listing)
    found = await parts.store.instances(scope, listing.tenant, where, page, deleted=listing.show_deleted)
    return page_of(parts, question, found, page.limit, lambda instance: instance.uid)


async def list_bindings(parts: Parts, caller: Caller, listing: Listing) -> PageOf:
    """A page of bindings, oldest first; of one instance (INSTANCE_NOT_FOUND) or of the whole tenant."""
    scope = parts.door.enter(caller, Action.LIST_BINDINGS, listing.tenant)
    where = filters.parse(listing.filter, filters.BINDINGS)
    question, page = open_page(parts, Question.of("bindings", listing), listing)
    if listing.instance_id:
        await known_instance(parts, scope, listing.tenant, listing.instance_id, deleted=listing.show_deleted)
    found = await parts.store.bindings(
        scope, listing.tenant, listing.instance_id, where, page, deleted=listing.show_deleted
    )
    return page_of(parts, question, found, page.limit, lambda binding: binding.uid)


async def newest_operations(
    parts: Parts, caller: Caller, records: Sequence[Instance | Binding]
) -> dict[str, Operation]:
    """The last operations of records that the caller has read, by id; one that is past its retention is not there."""
    named = {record.last_operation for record in records if record.last_operation}
    if not named:
        return {}
    scope = parts.door.enter(caller, Action.GET_OPERATION, records[0].tenant)
    found = await parts.store.operations_named(scope, sorted(named))
    return {operation.operation_id: operation for operation in found}
