"""What a plan fixes and what a consumer may ask for, by the plan's kind.

Guarantee: every bad value is named by its key, before anything is connected to; unknown keys are refused.
Limit: whether a server has an extension or a locale is only known when it is asked.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal, TypeVar

from pydantic import BaseModel, Field

from purveyor_server.domain.model import Json
from purveyor_server.providers.contract import Permanent, Work, WorkSettings
from purveyor_server.providers.strict import Strict, read_values

ConnectionLimit = Annotated[int, Field(ge=1, le=10_000)]
ExtensionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
# A plan can name neither a database of an application nor one of an instance by mistake.
CommonName = Annotated[str, Field(pattern=r"^purveyor_[a-z0-9_]{1,40}$")]


class PlanSettings(Strict):
    """What plans of every kind fix."""

    max_connection_limit: ConnectionLimit = 100  # what an instance or a binding may ask for
    binding_connection_limit: ConnectionLimit = 10  # of one login, when the binding asks for none
    statement_timeout_seconds: float | None = Field(default=None, gt=0, le=86_400)  # a default: consumers may change it
    idle_in_transaction_timeout_seconds: float | None = Field(default=None, gt=0, le=86_400)  # likewise


class DatabaseSettings(PlanSettings):
    """What plans fix whose instances are databases."""

    connection_limit: ConnectionLimit = 20  # of the database, when the instance asks for none
    extensions: tuple[ExtensionName, ...] = ()  # what an instance may ask for; trusted ones only
    locale: str | None = Field(default=None, max_length=63)
    locale_provider: Literal["libc", "icu", "builtin"] | None = None


class SharedSettings(DatabaseSettings):
    """`shared`: a database with roles of its own in the one server.

    Limits that only a superuser may set (temp_file_limit, and the like) are the server's, not a plan's.
    """

    kind: Literal["shared"]


class SchemaSettings(PlanSettings):
    """`schema`: one schema in a database that many instances share. Nothing bounds an instance as a whole, only its logins."""

    kind: Literal["schema"]
    database: CommonName = "purveyor_schemas"  # the broker's own: made at first use, or owned by the broker's role


class FinalBackup(Strict):
    """Where a dump of the database goes before it is removed: `<folder>/<name>.dump`, 0600."""

    folder: str = Field(pattern=r"^/.+")


class DedicatedSettings(DatabaseSettings):
    """`dedicated`: a server of its own. `connection_limit` is the server's, beside what is reserved for the broker."""

    kind: Literal["dedicated"]
    shared_buffers_mb: int = Field(default=32, ge=1, le=1_000_000)
    work_mem_mb: int = Field(default=4, ge=1, le=100_000)  # a default: consumers may change it
    temp_file_limit_mb: int | None = Field(
        default=None, ge=1, le=100_000_000
    )  # of one session; consumers cannot change it
    final_backup: FinalBackup | None = None


AnySettings = SharedSettings | SchemaSettings | DedicatedSettings
KINDS: dict[str, type[AnySettings]] = {
    "shared": SharedSettings,
    "schema": SchemaSettings,
    "dedicated": DedicatedSettings,
}


class SharedParameters(Strict):
    """What a consumer may ask for when provisioning or updating a database."""

    connection_limit: ConnectionLimit | None = Field(
        default=None, description="Most sessions at once in the database. The plan sets default and maximum."
    )
    extensions: tuple[ExtensionName, ...] = Field(
        default=(), description="Extensions to install, of those that the plan allows."
    )


class SchemaParameters(Strict):
    """A schema has nothing to choose."""


class BindingParameters(Strict):
    """What a consumer may ask for when binding."""

    connection_limit: ConnectionLimit | None = Field(
        default=None, description="Most sessions at once of this login. The plan sets the default."
    )
    credentials: Literal["password", "certificate"] = Field(
        default="password",
        description="How the login proves itself. Certificates: dedicated plans with a client CA only.",
    )


def settings_schema() -> dict[str, Any]:
    """One JSON Schema for all kinds; by condition, so that a fault is named by its own key and not by every kind's."""
    choices = []
    definitions: dict[str, Any] = {}
    for kind, model in KINDS.items():
        schema = model.model_json_schema()
        definitions.update(schema.pop("$defs", {}))
        choices.append({"if": {"properties": {"kind": {"const": kind}}, "required": ["kind"]}, "then": schema})
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "type": "object",
        "required": ["kind"],
        "properties": {"kind": {"enum": list(KINDS)}},
        "allOf": choices,
        "$defs": definitions,
    }


_Model = TypeVar("_Model", bound=BaseModel)


def read_settings(values: Mapping[str, Json]) -> AnySettings:
    """The provider settings of a plan. Raises Permanent that names each bad key."""
    model = KINDS.get(str(values.get("kind")))
    if model is None:
        raise Permanent(f"the plan's settings cannot be used: kind: one of {', '.join(KINDS)} is needed")
    return read_values(model, values, "the plan's settings")


def read_as(model: type[_Model], values: Mapping[str, Json]) -> _Model:
    """Parameters, or settings whose kind is known. Raises Permanent that names each bad key."""
    return read_values(model, values, "the parameters")


def settings_of(side: WorkSettings | None, model: type[_Model]) -> _Model:
    """The plan settings of one side of a work, of the kind that a piece is made for. Raises Permanent."""
    if side is None:
        raise Permanent("there are no settings to work towards")
    settings = read_settings(side.plan)
    if not isinstance(settings, model):
        raise Permanent(f"the plan's settings cannot be used: kind: {settings.kind} is not what this instance is")
    return settings


def kinds_of(work: Work) -> tuple[str, ...]:
    """The kinds that an instance can be of: one, or all where nothing tells."""
    sides = [side for side in (work.want, work.was) if side is not None]
    kind = str(sides[0].plan.get("kind")) if sides else ""
    return (kind,) if kind in KINDS else tuple(KINDS)
