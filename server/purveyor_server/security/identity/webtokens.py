"""Bearer tokens of issuers: signature, issuer, audience, dates, and what their claims say.

Guarantee: a token is believed only with an algorithm of the issuer's list (never `none`, never one with a shared secret),
by a key of that issuer and kind, for our audience, with `exp`, between its dates (by the clock of the server, plus or minus
the skew); tenants and roles are those of the claims that the configuration names, texts of the right form alone.
Limit: an issuer cannot take a token back before its end: let tokens live for minutes, or take the key away.
Source: RFC 7519, RFC 8725 (best current practice), RFC 9068.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Protocol

import msgspec

from purveyor_server.domain.errors import Reason
from purveyor_server.domain.principal import EVERY_ROLE, Means, Principal
from purveyor_server.security.identity.grants import Grant, Known
from purveyor_server.security.identity.replays import Replays
from purveyor_server.security.identity.text import is_name, is_tenant, refused
from purveyor_server.security.identity.webtokenparts import Parts, take_apart

if TYPE_CHECKING:
    from purveyor_server.security.identity.keysets import VerifyingKey

MAX_VALUES = 1000  # of a claim that is a list
YEAR_9999 = 253_402_300_799.0
SIGNED_BY_PUBLIC_KEYS = frozenset(
    {"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}
)


class Issuer(msgspec.Struct, frozen=True, kw_only=True):
    """Whose tokens are believed, and what their claims mean. Claims inside of others are named `realm_access.roles`."""

    name: str
    issuer: str
    audiences: frozenset[str]
    algorithms: frozenset[str]
    skew: float = 30.0
    subject_claim: str = "sub"
    tenants_claim: str = ""
    roles_claim: str = ""
    role_names: Mapping[str, frozenset[str]] = {}  # what the claim says -> our roles; empty: the same names
    roles: frozenset[str] = frozenset()  # of everybody with a token, in the tenants of the claim
    once: bool = False


class Keys(Protocol):
    """Where an issuer's keys come from."""

    async def find(self, key_id: str, algorithm: str) -> VerifyingKey | None:
        """A key, after another look when it is new. Raises IDENTITY_UNAVAILABLE when there are no keys to go by."""
        ...


class WebTokens:
    """The judge of one issuer's tokens."""

    def __init__(self, issuer: Issuer, keys: Keys) -> None:
        self.issuer = issuer
        self._keys = keys
        self._replays = Replays()

    async def know(self, parts: Parts, now: datetime, *, again: bool = False) -> Known:
        """Whose token this is; `again`: it was seen before, and a call by it is still open.

        Raises UNAUTHENTICATED, CREDENTIAL_EXPIRED, IDENTITY_UNAVAILABLE.
        """
        issuer = self.issuer
        if parts.algorithm not in issuer.algorithms or parts.algorithm not in SIGNED_BY_PUBLIC_KEYS:
            raise refused("algorithm", "the token is signed in a way that is not allowed here")
        key = await self._keys.find(parts.key_id, parts.algorithm)
        if key is None:
            raise refused("key", "the token is signed by a key that its issuer does not have")
        if not key.verifies(parts.algorithm, parts.signed, parts.signature):
            raise refused("signature", "the token's signature is wrong")
        claims = parts.claims
        if not self._is_for_us(claims.get("aud")):
            raise refused("audience", "the token is for somebody else")
        end = self._end(claims, now.timestamp())
        token_id = claims.get("jti", "")
        if not (token_id == "" or is_name(token_id)) or (issuer.once and not token_id):
            raise refused("claims", "the token's jti is missing or cannot be used")
        known = self._known(claims, token_id, end)
        if issuer.once and not again:
            self._replays.take(token_id, end, now.timestamp())
        return known

    def _is_for_us(self, audience: Any) -> bool:
        named = [audience] if isinstance(audience, str) else audience
        return isinstance(named, list) and any(isinstance(one, str) and one in self.issuer.audiences for one in named)

    def _end(self, claims: Mapping[str, Any], now: float) -> float:
        """When the token is void. Raises UNAUTHENTICATED, CREDENTIAL_EXPIRED."""
        skew = self.issuer.skew
        end, begin, issued = (_moment(claims, name) for name in ("exp", "nbf", "iat"))
        if end is None:
            raise refused("claims", "the token has no end (exp)")
        if now >= end + skew:
            raise refused("expired", "the token has expired", Reason.CREDENTIAL_EXPIRED)
        if (begin is not None and now < begin - skew) or (issued is not None and now < issued - skew):
            raise refused("not_yet_valid", "the token is not valid yet")
        if (begin is not None and begin > end) or (issued is not None and issued > end):
            raise refused("claims", "the token ends before it begins")
        return min(end + skew, YEAR_9999)

    def _known(self, claims: dict[str, Any], token_id: str, end: float) -> Known:
        issuer = self.issuer
        subject = found(claims, issuer.subject_claim)
        name = f"{issuer.name}:{subject}"
        if not is_name(subject) or not is_name(name):
            raise refused("claims", "the token's subject is missing or cannot be used")
        tenants = texts(claims, issuer.tenants_claim)
        if not all(is_tenant(tenant) for tenant in tenants):
            raise refused("claims", "a tenant of the token cannot be used")
        held = issuer.roles | frozenset(
            role for said in texts(claims, issuer.roles_claim) for role in self._roles(said)
        )
        principal = Principal(
            subject=name, means=Means.JWT, credential=token_id, expires_at=datetime.fromtimestamp(end, UTC)
        )
        return Known(
            principal=principal,
            grants=(Grant(held, frozenset(tenants)),),
            claim=lambda claim: _texts(found(claims, claim)) or (),
        )

    def _roles(self, said: str) -> frozenset[str]:
        if self.issuer.role_names:
            return self.issuer.role_names.get(said, frozenset())
        return frozenset({said}) & EVERY_ROLE


def parse_web_token(text: str) -> tuple[str, Parts]:
    """Whose token it claims to be, and its parts. Raises UNAUTHENTICATED."""
    parts = take_apart(text)
    issuer = parts.claims.get("iss")
    return (issuer if isinstance(issuer, str) else ""), parts


def found(claims: dict[str, Any], name: str) -> Any:
    """The claim of that name; one inside of others by a path, unless a claim is called so as a whole."""
    if name in claims or not name:
        return claims.get(name)
    here: Any = claims
    for part in name.split("."):
        if not isinstance(here, dict):
            return None
        here = here.get(part)
    return here


def texts(claims: dict[str, Any], name: str) -> tuple[str, ...]:
    """A claim as texts: one text, or a list of them. Raises UNAUTHENTICATED for another form."""
    listed = _texts(found(claims, name) if name else None)
    if listed is None:
        raise refused("claims", f"the token's {name} cannot be used")
    return listed


def _texts(value: Any) -> tuple[str, ...] | None:
    """One text, or a list of them, or nothing; None for another form."""
    listed = [] if value is None else [value] if isinstance(value, str) else value
    if not isinstance(listed, list) or len(listed) > MAX_VALUES or not all(is_name(one) for one in listed):
        return None
    return tuple(listed)


def _moment(claims: Mapping[str, Any], name: str) -> float | None:
    """A date of the token, in seconds since the epoch. Raises UNAUTHENTICATED."""
    value = claims.get(name)
    if value is None and name not in claims:
        return None
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= YEAR_9999:
        raise refused("claims", f"the token's {name} is no date")
    return float(value)
