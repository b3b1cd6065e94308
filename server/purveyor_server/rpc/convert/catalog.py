"""The catalog as a message."""

from __future__ import annotations

from purveyor.v1 import catalog_pb2
from purveyor_server.domain.catalog import Catalog, JsonSchema, Plan, PlanSchemas, Service
from purveyor_server.domain.policies import PlanState
from purveyor_server.rpc.convert.instance import encode_maintenance
from purveyor_server.rpc.convert.values import fill_struct, to_duration

# A plan that is retired is shown to nobody.
STATES = {PlanState.ACTIVE: catalog_pb2.Plan.STATE_ACTIVE, PlanState.DEPRECATED: catalog_pb2.Plan.STATE_DEPRECATED}


def encode_catalog(catalog: Catalog) -> catalog_pb2.Catalog:
    """What the caller may order."""
    services = [_service(service) for service in catalog.services]
    return catalog_pb2.Catalog(services=services, version=catalog.version, etag=catalog.etag)


def _service(service: Service) -> catalog_pb2.Service:
    message = catalog_pb2.Service(
        id=service.id,
        name=service.name,
        description=service.description,
        tags=service.tags,
        requires=service.requires,
        bindable=service.bindable,
        instances_retrievable=service.instances_retrievable,
        bindings_retrievable=service.bindings_retrievable,
        allow_context_updates=service.allow_context_updates,
        plan_updateable=service.plan_updateable,
        plans=[_plan(plan) for plan in service.plans],
    )
    fill_struct(message.metadata, service.metadata)
    if (client := service.dashboard_client) is not None:
        message.dashboard_client.CopyFrom(catalog_pb2.DashboardClient(id=client.id, redirect_uri=client.redirect_uri))
    return message


def _plan(plan: Plan) -> catalog_pb2.Plan:
    message = catalog_pb2.Plan(
        id=plan.id,
        name=plan.name,
        description=plan.description,
        free=plan.free,
        bindable=plan.bindable,
        binding_rotatable=plan.binding_rotatable,
        plan_updateable=plan.plan_updateable,
        schemas=_schemas(plan.schemas),
        maximum_polling_duration=to_duration(plan.maximum_polling_duration),
        maintenance_info=encode_maintenance(plan.maintenance_info),
    )
    message.state = STATES[plan.state]
    if plan.transitions_from is not None:
        message.transitions.CopyFrom(catalog_pb2.Transitions(from_plan_ids=plan.transitions_from))
    fill_struct(message.metadata, plan.metadata)
    return message


def _schemas(schemas: PlanSchemas) -> catalog_pb2.Schemas:
    message = catalog_pb2.Schemas()
    _fill(message, "instance_create", schemas.instance_create)
    _fill(message, "instance_update", schemas.instance_update)
    _fill(message, "binding_create", schemas.binding_create)
    return message


def _fill(message: catalog_pb2.Schemas, field: str, schema: JsonSchema | None) -> None:
    if schema is not None:
        fill_struct(getattr(message, field), schema)
