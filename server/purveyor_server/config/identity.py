"""The settings of who calls: issuers of tokens, names in certificates, bindings of roles.

Guarantee: as `settings`; no key and no token is a setting. What is wrong in a pattern or an address is named here, before
anything starts.
Limit: whether a file of keys is good is judged at the start and by `config check`, not here.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator

from purveyor_server.config.listening import FilePath, Section
from purveyor_server.config.values import Duration
from purveyor_server.domain.principal import Role
from purveyor_server.security.identity.certificates import CertificateRule, compiled, fields_in
from purveyor_server.security.identity.grants import Binding
from purveyor_server.security.identity.text import is_tenant
from purveyor_server.security.identity.webtokens import SIGNED_BY_PUBLIC_KEYS, Issuer

EVERY = "*"
MAX_RECHECK, MAX_SKEW = timedelta(seconds=50), timedelta(minutes=5)
# What subjects of other means begin with: an issuer of such a name could name their holders.
RESERVED = frozenset({"anonymous", "certificate", "local", "offline", "spiffe", "token"})
KINDS = ("spiffe", "uri", "dns", "common_name", "subject")
Text = Annotated[str, Field(min_length=1, max_length=1024)]
Roles = Annotated[tuple[Role, ...], Field(min_length=1)]


def _checked_tenants(values: tuple[str, ...]) -> tuple[str, ...]:
    if EVERY in values and len(values) > 1:
        raise ValueError('"*" stands for every tenant, so it stands alone')
    for value in values:
        if value != EVERY and not fields_in(value) and not is_tenant(value):
            raise ValueError(f"{value!r} is no tenant: 1 to 63 of a-z, 0-9 and '-', or \"*\" for every one")
    return values


def _soon(value: timedelta) -> timedelta:
    if value > MAX_RECHECK:
        raise ValueError(
            f"must be at most {MAX_RECHECK.total_seconds():.0f}s: a lost role ends a stream within a minute"
        )
    return value


def _not_taken(value: str) -> str:
    if value in RESERVED:
        raise ValueError(f"{value!r} begins the subjects of other callers: choose another name")
    return value


def _slight(value: timedelta) -> timedelta:
    if value > MAX_SKEW:
        raise ValueError(f"must be at most {MAX_SKEW.total_seconds() / 60:.0f}m: mend the clock")
    return value


Tenants = Annotated[tuple[str, ...], AfterValidator(_checked_tenants), Field(min_length=1)]


class CertificateSettings(Section):
    """Roles for client certificates whose name fits. Exactly one of the kinds of names; `name` is what the caller is called."""

    spiffe: Text | None = None
    uri: Text | None = None
    dns: Text | None = None
    common_name: Text | None = None
    subject: Text | None = None
    name: str = ""
    roles: Roles
    tenants: Tenants

    @model_validator(mode="after")
    def _fits_together(self) -> CertificateSettings:
        given = [kind for kind in KINDS if getattr(self, kind) is not None]
        if len(given) != 1:
            raise ValueError(f"needs exactly one of {', '.join(KINDS)}")
        match = getattr(self, given[0])
        compiled(match, given[0])
        unknown = (fields_in(self.name).union(*map(fields_in, self.tenants))) - fields_in(match)
        if unknown:
            raise ValueError(f"{given[0]}: has no field {', '.join(sorted(unknown))}")
        return self

    def value(self) -> CertificateRule:
        """As the judge takes it."""
        kind = next(kind for kind in KINDS if getattr(self, kind) is not None)
        return CertificateRule(
            kind=kind,
            match=getattr(self, kind),
            roles=frozenset(map(str, self.roles)),
            tenants=None if self.tenants == (EVERY,) else self.tenants,
            subject=self.name,
        )


class IssuerSettings(Section):
    """An issuer of bearer tokens (JWT): which of its tokens are believed, and what their claims mean."""

    name: Annotated[str, AfterValidator(_not_taken), Field(pattern=r"^[a-z0-9][a-z0-9-]{0,30}$")]
    issuer: Text
    audience: Annotated[tuple[Text, ...], Field(min_length=1)]
    algorithms: Annotated[tuple[str, ...], Field(min_length=1)] = ("RS256", "ES256", "EdDSA")
    keys_file: FilePath | None = None
    keys_url: Text | None = None
    keys_hosts: tuple[Text, ...] = ()
    keys_ca: FilePath | None = None
    keys_refresh: Duration = timedelta(minutes=5)
    keys_stale: Duration = timedelta(days=1)
    skew: Annotated[Duration, AfterValidator(_slight)] = timedelta(seconds=30)
    subject_claim: Text = "sub"
    tenants_claim: str = ""
    roles_claim: str = ""
    role_names: dict[str, Roles] = Field(default_factory=dict)
    roles: tuple[Role, ...] = ()
    once: bool = False

    @model_validator(mode="after")
    def _fits_together(self) -> IssuerSettings:
        if (self.keys_file is None) == (self.keys_url is None):
            raise ValueError("needs exactly one of keys_file and keys_url")
        wrong = sorted(set(self.algorithms) - SIGNED_BY_PUBLIC_KEYS)
        if wrong:
            allowed = ", ".join(sorted(SIGNED_BY_PUBLIC_KEYS))
            raise ValueError(f"algorithms: {', '.join(wrong)} cannot be used, only {allowed}")
        if self.keys_url is not None:
            _check_url(self.keys_url, self.keys_hosts)
        return self

    def value(self) -> Issuer:
        """As the judge takes it."""
        return Issuer(
            name=self.name,
            issuer=self.issuer,
            audiences=frozenset(self.audience),
            algorithms=frozenset(self.algorithms),
            skew=self.skew.total_seconds(),
            subject_claim=self.subject_claim,
            tenants_claim=self.tenants_claim,
            roles_claim=self.roles_claim,
            role_names={said: frozenset(map(str, roles)) for said, roles in self.role_names.items()},
            roles=frozenset(map(str, self.roles)),
            once=self.once,
        )


def _check_url(url: str, hosts: tuple[str, ...]) -> None:
    """Raises ValueError unless keys may be fetched from there."""
    try:
        host = (urlsplit(url).hostname or "").lower()
    except ValueError:
        host = ""
    if not host or host not in {known.lower() for known in hosts}:
        raise ValueError("keys_hosts: must name the host of keys_url: nothing is fetched from another one")
    if not url.startswith("https://") and not (url.startswith("http://") and host in {"localhost", "127.0.0.1", "::1"}):
        raise ValueError("keys_url: must begin with https://")


class BindingSettings(Section):
    """Roles in tenants for whoever fits all that is given."""

    subject: Text = "*"
    means: Literal["", "certificate", "jwt", "token"] = ""
    claims: dict[str, str] = Field(default_factory=dict)
    roles: Roles
    tenants: Tenants

    @model_validator(mode="after")
    def _is_for_somebody(self) -> BindingSettings:
        if self.subject.strip("*") == "" and not self.claims:
            raise ValueError("needs a subject, or claims: else it is for everybody")
        if any(fields_in(tenant) for tenant in self.tenants):
            raise ValueError("tenants: a binding has no fields")
        return self

    def value(self) -> Binding:
        """As the judge takes it."""
        return Binding(
            roles=frozenset(map(str, self.roles)),
            tenants=None if self.tenants == (EVERY,) else frozenset(self.tenants),
            subject=self.subject,
            means=self.means,
            claims=self.claims,
        )


class BindingFile(Section):
    """What a file of bindings holds."""

    bindings: tuple[BindingSettings, ...] = ()


class IdentitySettings(Section):
    """Who calls, and how that is known."""

    local: Literal["all", "none"] = "all"
    reflection: Literal["open", "known"] = "open"
    recheck: Annotated[Duration, AfterValidator(_soon)] = timedelta(seconds=20)
    certificates: tuple[CertificateSettings, ...] = ()
    issuers: tuple[IssuerSettings, ...] = ()
    bindings: tuple[BindingSettings, ...] = ()
    bindings_file: FilePath | None = None

    @model_validator(mode="after")
    def _differ(self) -> IdentitySettings:
        for what in ("name", "issuer"):
            named = [getattr(found, what) for found in self.issuers]
            if len(set(named)) != len(named):
                raise ValueError(f"issuers: two have the same {what}")
        return self
