"""Static tokens as the store keeps them.

Guarantee: what the holder shows is not here and cannot be worked out from what is: of its secret part only the SHA-256 is
kept. The secret is 256 random bits, so a slow hash or a salt would add nothing: there is no dictionary to try.
Limit: `used_at` is coarse: a use within ten minutes of the noted one is not noted.
"""

from __future__ import annotations

import re
from datetime import datetime

import msgspec

from purveyor_server.domain.errors import PurveyorError, Reason, Resource, invalid
from purveyor_server.domain.names import check_tenant
from purveyor_server.domain.principal import EVERY_ROLE

_NAME = re.compile(r"[a-z0-9](?:[a-z0-9._-]{0,61}[a-z0-9])?")
NAME_RULE = "1 to 63 of a-z, 0-9, '.', '_' and '-', starting and ending with a letter or digit"
MAX_TENANTS = 100


class Token(msgspec.Struct, frozen=True, kw_only=True):
    """One static token. `tenants` None: its roles are held in every tenant. `expires_at` None: never."""

    token_id: str
    name: str
    hash: bytes
    roles: frozenset[str]
    tenants: frozenset[str] | None
    created_at: datetime
    created_by: str
    expires_at: datetime | None = None
    used_at: datetime | None = None
    revoked_at: datetime | None = None

    def __repr__(self) -> str:
        return f"Token({self.token_id!r}, name={self.name!r})"

    @property
    def subject(self) -> str:
        """What its holder is called."""
        return f"token:{self.name}"


class Use(msgspec.Struct, frozen=True):
    """That a token was used."""

    token_id: str
    at: datetime


def check_name(value: str) -> str:
    """Return `value`, or raise INVALID_REQUEST."""
    if not _NAME.fullmatch(value):
        raise invalid("name", f"{value[:80]!r} is not allowed: {NAME_RULE}" if value else f"is required: {NAME_RULE}")
    return value


def check_roles(values: list[str]) -> frozenset[str]:
    """Roles by their names. Raises INVALID_REQUEST."""
    if not values:
        raise invalid("roles", f"at least one is required, of {', '.join(sorted(EVERY_ROLE))}")
    for value in values:
        if value not in EVERY_ROLE:
            raise invalid("roles", f"{value[:80]!r} is none of {', '.join(sorted(EVERY_ROLE))}")
    return frozenset(values)


def check_tenants(values: list[str]) -> frozenset[str]:
    """Tenants of a token. Raises INVALID_REQUEST."""
    if len(values) > MAX_TENANTS:
        raise invalid("tenants", f"at most {MAX_TENANTS}")
    return frozenset(check_tenant(value, "tenants") for value in values)


def token_not_found(token_id: str) -> PurveyorError:
    """NOT_FOUND for a token."""
    return PurveyorError(
        Reason.TOKEN_NOT_FOUND,
        f"there is no token {token_id[:80]!r}",
        metadata={"token_id": token_id},
        resource=Resource("token", token_id),
    )
