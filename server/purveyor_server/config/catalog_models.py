"""The shape of a catalog file: one model per kind of entry, each checked by itself so that one bad entry hides no other.

Guarantee: every field of OSBAPI v2.17's ServiceOffering and ServicePlan has its place under its own name; an unknown key
is refused. What lies across entries (uniqueness, references, schemas) is in `catalog_rules`.
"""

from __future__ import annotations

import re
from datetime import timedelta
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BaseModel, ConfigDict, Field

from purveyor_server.config.values import Duration, TenantName, absent, is_reference
from purveyor_server.domain.errors import PurveyorError
from purveyor_server.domain.names import ID_RULE, check_id

# Semantic Versioning 2.0.0, its own suggested expression with named groups taken out.
_SEMVER = re.compile(
    r"(0|[1-9]\d*)\.(0|[1-9]\d*)\.(0|[1-9]\d*)"
    r"(?:-(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*)(?:\.(?:0|[1-9]\d*|\d*[a-zA-Z-][0-9a-zA-Z-]*))*)?"
    r"(?:\+[0-9a-zA-Z-]+(?:\.[0-9a-zA-Z-]+)*)?",
    re.ASCII,
)
REQUIRES = ("syslog_drain", "route_forwarding", "volume_mount")
MAX_TEXT = 10_000


def _identifier(value: str) -> str:
    try:
        return check_id(value, "")
    except PurveyorError:
        raise ValueError(f"must be {ID_RULE}") from None


def _semver(value: str) -> str:
    if not _SEMVER.fullmatch(value):
        raise ValueError("must be a semantic version such as 1.4.0 or 2.0.0-rc.1")
    return value


def _permission(value: str) -> str:
    if value not in REQUIRES:
        raise ValueError(f"must be one of {', '.join(REQUIRES)}")
    return value


def _reference(value: dict[str, Any]) -> dict[str, Any]:
    if not is_reference(value):
        raise ValueError("must be a reference to a secret: {file: PATH} or {env: NAME}")
    return value


def _distinct(values: list[str]) -> list[str]:
    if len(set(values)) != len(values):
        raise ValueError("names something twice")
    return values


Identifier = Annotated[str, AfterValidator(_identifier)]
Sentence = Annotated[str, Field(min_length=1, max_length=MAX_TEXT)]
Tag = Annotated[str, Field(min_length=1, max_length=255)]
JsonObject = dict[str, Any]


class Entry(BaseModel):
    """Base of all entries: values as written (`"yes"` is no boolean), no unknown key, never changed. Validators are built at first use."""

    model_config = ConfigDict(strict=True, extra="forbid", frozen=True, hide_input_in_errors=True, defer_build=True)


class InventoryEntry(Entry):
    """What a sweep may do with orphans of a provider, how often it looks, and when it stops by itself."""

    policy: Literal["report", "quarantine", "reap"] = "report"
    every: Duration = timedelta(hours=1)
    grace: Duration = timedelta(days=1)
    cap: Annotated[int, Field(ge=1, le=1000)] = 10
    brake_percent: Annotated[float, Field(gt=0, le=100, strict=False)] = 10.0
    brake_count: Annotated[int, Field(ge=1, le=100_000)] = 20


class ProviderEntry(Entry):
    """A configured provider: its kind (entry point of `purveyor.providers`), what that kind wants to know, and how what it has is
    compared with the records."""

    kind: Annotated[str, Field(min_length=1)]
    config: JsonObject = {}
    inventory: InventoryEntry = absent()


class DefaultsEntry(Entry):
    """Parameters merged below those of a request: service < plan < request."""

    instance: JsonObject = {}
    binding: JsonObject = {}


class LimitsEntry(Entry):
    """How long an operation may take: forward, and for its rollback (default: `engine.rollback_budget`)."""

    operation: Duration = timedelta(minutes=10)
    rollback: Duration | None = None


class MaintenanceEntry(Entry):
    """OSBAPI maintenance_info."""

    version: Annotated[str, AfterValidator(_semver)]
    description: Annotated[str, Field(max_length=MAX_TEXT)] = ""


class ParametersEntry(Entry):
    """OSBAPI's wrapper around one JSON Schema."""

    parameters: JsonObject | None = None


class InstanceSchemasEntry(Entry):
    """OSBAPI schemas.service_instance."""

    create: ParametersEntry = absent()
    update: ParametersEntry = absent()


class BindingSchemasEntry(Entry):
    """OSBAPI schemas.service_binding."""

    create: ParametersEntry = absent()


class SchemasEntry(Entry):
    """OSBAPI schemas."""

    service_instance: InstanceSchemasEntry = absent()
    service_binding: BindingSchemasEntry = absent()


class DashboardEntry(Entry):
    """OSBAPI dashboard_client; its secret by reference."""

    id: Identifier
    secret: Annotated[JsonObject, AfterValidator(_reference)]
    redirect_uri: str = ""


class VisibilityEntry(Entry):
    """Who may see it: tenants by name, and those that carry all of the labels (`[tenants.NAME] labels` of the settings)."""

    tenants: Annotated[list[TenantName], AfterValidator(_distinct)] = []
    labels: Annotated[dict[str, str], Field(max_length=64)] = {}


class TransitionsEntry(Entry):
    """Plans of the same service whose instances may move to this one, by id; an empty list is none."""

    from_: Annotated[list[Identifier], AfterValidator(_distinct), Field(alias="from")]


class LeaseEntry(Entry):
    """How long bindings live, and when the broker rotates them by itself."""

    ttl: Duration | None = None
    max_ttl: Duration | None = None
    renew_before: Duration | None = None
    overlap: Duration = timedelta(hours=1)
    rotate_every: Duration | None = None
    auto_rotate: bool = False


class CleanupEntry(Entry):
    """When the remains of a failed create or bind are removed."""

    mode: Literal["immediate", "delayed", "manual"] = "immediate"
    delay: Duration = timedelta(0)


class PlanEntry(Entry):
    """OSBAPI ServicePlan, with the provider that makes it; None = as the service says."""

    id: Identifier
    name: Identifier
    description: Sentence
    provider: Annotated[str, Field(min_length=1)]
    settings: JsonObject = {}
    metadata: JsonObject = {}
    free: bool = True
    bindable: bool | None = None
    binding_rotatable: bool = False
    plan_updateable: bool | None = None
    schemas: SchemasEntry = absent()
    defaults: DefaultsEntry = absent()
    limits: LimitsEntry = absent()
    maximum_polling_duration: Annotated[int, Field(ge=1)] | None = None
    maintenance_info: MaintenanceEntry | None = None
    visible_to: VisibilityEntry | None = None
    state: Literal["active", "deprecated", "retired"] = "active"
    transitions: TransitionsEntry | None = None
    bindings: LeaseEntry = absent()
    cleanup: CleanupEntry = absent()


class ServiceEntry(Entry):
    """OSBAPI ServiceOffering; its plans are checked one by one."""

    id: Identifier
    name: Identifier
    description: Sentence
    tags: Annotated[list[Tag], AfterValidator(_distinct)] = []
    requires: Annotated[list[Annotated[str, AfterValidator(_permission)]], AfterValidator(_distinct)] = []
    bindable: bool
    instances_retrievable: bool = True
    bindings_retrievable: bool = True
    allow_context_updates: bool = False
    metadata: JsonObject = {}
    dashboard_client: DashboardEntry | None = None
    plan_updateable: bool = False
    defaults: DefaultsEntry = absent()
    visible_to: VisibilityEntry | None = None
    plans: Annotated[list[Any], Field(min_length=1)]


class FileEntry(Entry):
    """The file: providers by name, and the services."""

    providers: dict[Identifier, Any]
    services: Annotated[list[Any], Field(min_length=1)]
