"""Who calls: one type for whoever was authenticated, by whatever means.

Guarantee: a role counts only where it is held: in every tenant, in the tenants of the principal, or in single tenants by a
grant. No role implies another one. What is not granted is denied.
Limit: a value, as of the moment of authentication; who ends it early (expiry, revocation) is the face that made it.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from enum import StrEnum
from types import MappingProxyType

import msgspec

NO_GRANTS: Mapping[str, frozenset[str]] = MappingProxyType({})
NONE: frozenset[str] = frozenset()


class Role(StrEnum):
    """What a caller may be; no role implies another."""

    VIEWER = "VIEWER"
    CONSUMER = "CONSUMER"
    CREDENTIALS_READER = "CREDENTIALS_READER"
    PLATFORM = "PLATFORM"
    OPERATOR = "OPERATOR"
    ADMIN = "ADMIN"


EVERY_ROLE = frozenset(str(role) for role in Role)


class Means(StrEnum):
    """How a principal was recognised. LOCAL: by where it calls from alone (a plain unix socket or loopback)."""

    LOCAL = "local"
    CERTIFICATE = "certificate"
    JWT = "jwt"
    TOKEN = "token"  # noqa: S105 - a kind of credential, not one
    ITSELF = "itself"  # the broker's own loops


class Principal(msgspec.Struct, frozen=True, kw_only=True):
    """Somebody. `roles` are held in `tenants` (None: in every tenant), `grants` are further roles in single tenants.

    `credential` names what was shown (fingerprint, token id, jti), never its secret; after `expires_at` it is void.
    """

    subject: str
    roles: frozenset[str] = NONE
    tenants: frozenset[str] | None = NONE
    grants: Mapping[str, frozenset[str]] = NO_GRANTS
    means: Means = Means.LOCAL
    credential: str = ""
    expires_at: datetime | None = None

    def roles_in(self, tenant: str) -> frozenset[str]:
        """Every role that is held in one tenant."""
        held = self.roles if self.tenants is None or tenant in self.tenants else NONE
        return held | self.grants[tenant] if tenant in self.grants else held

    def tenants_with(self, needed: frozenset[str]) -> frozenset[str] | None:
        """Where one of `needed` is held; None for every tenant."""
        everywhere = not self.roles.isdisjoint(needed)
        if everywhere and self.tenants is None:
            return None
        granted = frozenset(tenant for tenant, roles in self.grants.items() if not roles.isdisjoint(needed))
        return granted | (self.tenants or NONE) if everywhere else granted

    def holds(self, role: str) -> bool:
        """Whether `role` is held in every tenant: what the broker as a whole takes."""
        return self.tenants is None and role in self.roles


LOCAL = Principal(subject="local", roles=EVERY_ROLE, tenants=None)
"""Who calls where nobody has to say who they are: every role in every tenant."""
BROKER = Principal(subject="purveyor", roles=EVERY_ROLE, tenants=None, means=Means.ITSELF)
"""The broker itself, where its loops come to the door: what they do passes the same rules and leaves the same records."""
