"""The rules between entries of a catalog, and its translation into the domain's values.

Guarantee: each rule reports every breach at the key that breaks it and changes nothing.
Source: OSBAPI v2.17, Catalog Management; the list of checks follows Cloud Foundry's catalog validation.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import timedelta
from typing import Any

from purveyor_server.config import schemas
from purveyor_server.config.catalog_models import (
    CleanupEntry,
    DefaultsEntry,
    InventoryEntry,
    LeaseEntry,
    PlanEntry,
    ServiceEntry,
    VisibilityEntry,
)
from purveyor_server.config.problems import Path
from purveyor_server.config.values import is_reference
from purveyor_server.config.yaml_tree import Tree
from purveyor_server.domain.catalog import (
    DashboardClient,
    JsonSchema,
    Plan,
    PlanDefaults,
    PlanLimits,
    PlanSchemas,
    Service,
    Visibility,
)
from purveyor_server.domain.leases import contradictions
from purveyor_server.domain.model import MaintenanceInfo, ProviderRef
from purveyor_server.domain.policies import (
    CleanupMode,
    CleanupPolicy,
    InventoryPolicy,
    LeasePolicy,
    OrphanMode,
    PlanState,
)
from purveyor_server.domain.veils import secret_places, tokens_of

_SECRET_KEY = re.compile(r"(^|_)(password|passwd|secret|token|credentials?|private_key|api_key)$", re.IGNORECASE)
_URI_WITH_PASSWORD = re.compile(r"://[^/@\s:]*:[^/@\s]+@")


def check_unique(tree: Tree, services: Sequence[Any]) -> None:
    """Service ids, service names and plan ids are unique in the catalog, plan names in their service."""
    entries: list[tuple[Path, Any]] = [(("services", index), service) for index, service in enumerate(services)]
    plans = [(path, plan) for path, service in entries for path, plan in _plans(path, service)]
    _distinct(tree, ((*path, "id") for path, _ in entries), "service id")
    _distinct(tree, ((*path, "name") for path, _ in entries), "service name")
    _distinct(tree, ((*path, "dashboard_client", "id") for path, _ in entries), "dashboard client id")
    _distinct(tree, ((*path, "id") for path, _ in plans), "plan id")
    for path, service in entries:
        _distinct(tree, ((*place, "name") for place, _ in _plans(path, service)), "plan name")


def check_transitions(tree: Tree, service: Any, path: Path) -> None:
    """Plans name plans of their own service, by id, and not themselves. A name that is nobody's may be a plan that was removed:
    whether one was is asked where a catalog is compared with the one before."""
    plans = [(place, plan) for place, plan in _plans(path, service) if isinstance(plan, dict)]
    names = {_text(plan, "name"): _text(plan, "id") for _, plan in plans}
    others = {
        _text(plan, "id"): _text(other, "id")
        for place, other in _services(tree.value)
        for _, plan in _plans(place, other)
        if other is not service and isinstance(plan, dict)
    }
    for place, plan in plans:
        named = _at(plan, ("transitions", "from"))
        for index, name in enumerate(named if isinstance(named, list) else ()):
            if isinstance(name, str) and (why := _wrong_origin(name, _text(plan, "id"), names, others)):
                tree.add((*place, "transitions", "from", index), why)


def _wrong_origin(name: str, plan_id: str, names: Mapping[str, str], others: Mapping[str, str]) -> str:
    if name == plan_id:
        return "is the plan itself"
    if name in names.values():
        return ""
    if name in names:
        return f"is the name of a plan: give its id, {names[name]!r}"
    if name in others:
        return f"is a plan of the service {others[name]!r}: an instance stays in its service"
    return ""


def _text(entry: Any, key: str) -> str:
    value = entry.get(key)
    return value if isinstance(value, str) else ""


def _services(root: Any) -> Iterator[tuple[Path, dict[str, Any]]]:
    services = root.get("services") if isinstance(root, dict) else None
    for index, service in enumerate(services if isinstance(services, list) else ()):
        if isinstance(service, dict):
            yield ("services", index), service


def _plans(path: Path, service: Any) -> Iterator[tuple[Path, Any]]:
    plans = service.get("plans") if isinstance(service, dict) else None
    for index, plan in enumerate(plans if isinstance(plans, list) else ()):
        yield (*path, "plans", index), plan


def _distinct(tree: Tree, paths: Iterable[Path], what: str) -> None:
    first: dict[str, Path] = {}
    for path in paths:
        value = _at(tree.value, path)
        if not isinstance(value, str) or not value:
            continue
        if value in first:
            tree.add(path, f"the {what} {value[:80]!r} is taken already (line {tree.line(first[value])})")
        first.setdefault(value, path)


def _at(value: Any, path: Path) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, list) and isinstance(part, int):
            value = value[part]
        else:
            return None
    return value


def check_secrets(tree: Tree, config: Any, path: Path) -> bool:
    """No secret stands in a provider's configuration in clear; returns whether that holds."""
    literals = list(_literals(config, path))
    for place in literals:
        tree.add(place, "a secret is given by reference, {file: PATH} or {env: NAME}, never written here")
    return not literals


def _literals(value: Any, path: Path) -> Iterator[Path]:
    if isinstance(value, dict) and not is_reference(value):
        for key, item in value.items():
            if _SECRET_KEY.search(key) and item is not None and not is_reference(item):
                yield (*path, key)
            else:
                yield from _literals(item, (*path, key))
    elif isinstance(value, list):
        for index, item in enumerate(value):
            yield from _literals(item, (*path, index))
    elif isinstance(value, str) and _URI_WITH_PASSWORD.search(value):
        yield path


def check_plan(tree: Tree, plan: PlanEntry, service: ServiceEntry | None, path: Path) -> None:
    """The plan's schemas may be used, its defaults (the service's below them) fit, and its bindings can live as it says."""
    above = service.defaults if service is not None else DefaultsEntry()
    instance, binding = plan.schemas.service_instance, plan.schemas.service_binding
    at: Path = (*path, "schemas")
    create = _check_schema(tree, instance.create.parameters, (*at, "service_instance", "create", "parameters"))
    _check_schema(tree, instance.update.parameters, (*at, "service_instance", "update", "parameters"))
    bind = _check_schema(tree, binding.create.parameters, (*at, "service_binding", "create", "parameters"))
    _check_defaults(tree, create, above.instance | plan.defaults.instance, (*path, "defaults", "instance"))
    _check_defaults(tree, bind, above.binding | plan.defaults.binding, (*path, "defaults", "binding"))
    for key, why in contradictions(_to_lease(plan.bindings), rotatable=plan.binding_rotatable).items():
        tree.add((*path, "bindings", key), why)


def _check_schema(tree: Tree, schema: JsonSchema | None, path: Path) -> JsonSchema | None:
    if schema is None:
        return None
    faults = schemas.faults(schema)
    for fault in faults:
        tree.add(path, fault)
    return None if faults else schema


def _check_defaults(tree: Tree, schema: JsonSchema | None, defaults: Mapping[str, Any], path: Path) -> None:
    if schema is None or not defaults:
        return
    for place, message in schemas.misfits(schema, dict(defaults)):
        tree.add((*path, *place), f"does not fit the plan's own schema: {message}")
    for pointer in secret_places((schema,), defaults):
        tree.add((*path, *tokens_of(pointer)), "is marked as secret: a default would stand in the catalog in clear")


def to_service(entry: ServiceEntry, plans: Sequence[PlanEntry], refs: Mapping[str, ProviderRef]) -> Service:
    """The domain's value of a service with these plans."""
    client = entry.dashboard_client
    return Service(
        id=entry.id,
        name=entry.name,
        description=entry.description,
        plans=tuple(_to_plan(plan, entry, refs[plan.provider]) for plan in plans),
        tags=tuple(entry.tags),
        requires=tuple(entry.requires),
        bindable=entry.bindable,
        instances_retrievable=entry.instances_retrievable,
        bindings_retrievable=entry.bindings_retrievable,
        allow_context_updates=entry.allow_context_updates,
        metadata=entry.metadata,
        dashboard_client=DashboardClient(client.id, client.redirect_uri) if client else None,
        plan_updateable=entry.plan_updateable,
        defaults=PlanDefaults(entry.defaults.instance, entry.defaults.binding),
        visible_to=_to_visibility(entry.visible_to),
    )


def _to_visibility(entry: VisibilityEntry | None) -> Visibility | None:
    return None if entry is None else Visibility(frozenset(entry.tenants), entry.labels)


def _to_plan(entry: PlanEntry, service: ServiceEntry, provider: ProviderRef) -> Plan:
    polling, maintenance = entry.maximum_polling_duration, entry.maintenance_info
    return Plan(
        id=entry.id,
        name=entry.name,
        description=entry.description,
        provider=provider,
        settings=entry.settings,
        metadata=entry.metadata,
        free=entry.free,
        bindable=service.bindable if entry.bindable is None else entry.bindable,
        binding_rotatable=entry.binding_rotatable,
        plan_updateable=service.plan_updateable if entry.plan_updateable is None else entry.plan_updateable,
        schemas=_to_schemas(entry),
        defaults=PlanDefaults(entry.defaults.instance, entry.defaults.binding),
        limits=PlanLimits(entry.limits.operation, entry.limits.rollback),
        maximum_polling_duration=timedelta(seconds=polling) if polling is not None else None,
        maintenance_info=MaintenanceInfo(maintenance.version, maintenance.description) if maintenance else None,
        visible_to=_to_visibility(entry.visible_to),
        state=PlanState(entry.state.upper()),
        transitions_from=None if entry.transitions is None else tuple(entry.transitions.from_),
        lease=_to_lease(entry.bindings),
        cleanup=_to_cleanup(entry.cleanup),
    )


def _to_lease(entry: LeaseEntry) -> LeasePolicy:
    return LeasePolicy(
        entry.ttl, entry.max_ttl, entry.renew_before, entry.overlap, entry.rotate_every, entry.auto_rotate
    )


def _to_cleanup(entry: CleanupEntry) -> CleanupPolicy:
    return CleanupPolicy(CleanupMode(entry.mode.upper()), entry.delay)


def to_inventory(entry: InventoryEntry) -> InventoryPolicy:
    """The domain's value of a provider's policy."""
    mode = OrphanMode(entry.policy.upper())
    return InventoryPolicy(mode, entry.every, entry.grace, entry.cap, entry.brake_percent, entry.brake_count)


def _to_schemas(entry: PlanEntry) -> PlanSchemas:
    instance, binding = entry.schemas.service_instance, entry.schemas.service_binding
    given = (instance.create.parameters, instance.update.parameters, binding.create.parameters)
    return PlanSchemas(*(None if schema is None else schemas.completed(schema) for schema in given))
