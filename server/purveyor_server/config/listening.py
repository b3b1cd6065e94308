"""The settings of listeners: plain ones, and those with TLS.

Guarantee: a plain listener is a unix socket or a loopback port; what another machine could reach needs certificate and key.
Limit: whether the files are good is judged at the start and by `config check`, not here.
"""

from __future__ import annotations

import json
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import (
    AfterValidator,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    PlainValidator,
    ValidationInfo,
    field_validator,
)

from purveyor_server.config.values import Address, Duration, parse_address, parse_addresses, parse_tls_address
from purveyor_server.security.tls import TlsFiles


def _absolute(value: Path) -> Path:
    return value.expanduser().absolute()


def _from_json(value: Any) -> Any:
    """A list of tables; as text (an environment variable) in JSON."""
    if not isinstance(value, str):
        return value
    try:
        return json.loads(value)
    except ValueError:
        raise ValueError("must be a list of tables, in JSON where it is a text") from None


FilePath = Annotated[Path, AfterValidator(_absolute)]
Addresses = Annotated[
    tuple[Annotated[Address, PlainValidator(parse_address)], ...],
    BeforeValidator(parse_addresses),
]


class Section(BaseModel):
    """Base of all sections. Only the whole is ever read, so only for the whole a validator is built: that is a tenth of a start."""

    model_config = ConfigDict(
        extra="forbid", frozen=True, hide_input_in_errors=True, validate_default=False, defer_build=True
    )


class TlsListener(Section):
    """A listener with TLS. `client_ca`: every client must show a certificate of one of these authorities. `crl`: which of
    their certificates are taken back; `crl_expired`: what an overdue list means, a warning or refusal."""

    address: Annotated[Address, PlainValidator(parse_tls_address)]
    certificate: FilePath
    key: FilePath
    client_ca: FilePath | None = None
    crl: FilePath | None = None
    crl_expired: Literal["warn", "refuse"] = "warn"

    @field_validator("crl")
    @classmethod
    def _of_an_authority(cls, value: Path | None, info: ValidationInfo) -> Path | None:
        if value is not None and info.data.get("client_ca") is None:
            raise ValueError("needs client_ca: without it no client shows a certificate that could be revoked")
        return value

    @property
    def files(self) -> TlsFiles:
        """As the server takes them."""
        return TlsFiles(self.certificate, self.key, self.client_ca, self.crl)


class Listeners(Section):
    """Where a server listens, without and with TLS; at least one of both."""

    tls: Annotated[tuple[TlsListener, ...], BeforeValidator(_from_json)] = ()
    addresses: Addresses = ()

    @field_validator("addresses")
    @classmethod
    def _somewhere(cls, value: Any, info: ValidationInfo) -> Any:
        if not value and not info.data.get("tls"):
            raise ValueError("must name at least one address")
        return value


class ListenSettings(Listeners):
    """Where the broker listens, and for how long it lets calls finish when it stops."""

    drain: Duration = timedelta(seconds=5.0)
    reflection: bool = True


class AdminSettings(Listeners):
    """Where operators come in: AdminService over gRPC, and metrics over HTTP."""

    http: Annotated[Address, PlainValidator(parse_address)] | None = None
