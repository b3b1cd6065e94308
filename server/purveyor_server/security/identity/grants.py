"""Roles by tenant: what a credential brings along, what the bindings of the configuration add, and the principal of both.

Guarantee: a role is only ever held where one grant names both of them; no grant in every tenant spreads a role of another
one. A binding never takes anything away.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from functools import cached_property, lru_cache

import msgspec

from purveyor_server.domain.principal import NONE, Principal

MAX_TENANTS = 1000  # of one principal


class Grant(msgspec.Struct, frozen=True):
    """Roles, and the tenants that they are held in (None: every one)."""

    roles: frozenset[str]
    tenants: frozenset[str] | None = NONE


class Known(msgspec.Struct, frozen=True, kw_only=True):
    """Who was recognised, by a means, before bindings are looked at. `claim` gives the texts under a name, to be bound by."""

    principal: Principal
    grants: tuple[Grant, ...] = ()
    claim: Callable[[str], tuple[str, ...]] = lambda _: ()


class Binding(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """Roles for whoever fits. `subject` is a pattern (`*` any text), `means` a kind of credential, `claims` values that the
    credential must carry; what is left out fits everybody. `tenants` None: every one."""

    roles: frozenset[str]
    tenants: frozenset[str] | None
    subject: str = "*"
    means: str = ""
    claims: Mapping[str, str] = {}

    @cached_property
    def _pattern(self) -> re.Pattern[str]:
        return pattern(self.subject)

    def fits(self, known: Known) -> bool:
        """Whether the binding is for this one."""
        principal = known.principal
        return (
            self.means in {"", str(principal.means)}
            and self._pattern.fullmatch(principal.subject) is not None
            and all(value in known.claim(name) for name, value in self.claims.items())
        )


@lru_cache(maxsize=1024)
def pattern(text: str) -> re.Pattern[str]:
    """`*` stands for any text, everything else for itself."""
    return re.compile(".*".join(re.escape(part) for part in text.split("*")), re.DOTALL)


def bound(known: Known, bindings: Iterable[Binding]) -> Principal:
    """The principal with everything that it is granted."""
    given = [Grant(binding.roles, binding.tenants) for binding in bindings if binding.fits(known)]
    return merged(known.principal, [*known.grants, *given])


def merged(principal: Principal, grants: Iterable[Grant]) -> Principal:
    """`principal` with exactly these grants."""
    everywhere: set[str] = set()
    places: dict[str, set[str]] = defaultdict(set)
    for grant in grants:
        if grant.tenants is None:
            everywhere |= grant.roles
            continue
        for tenant in grant.tenants:
            places[tenant] |= grant.roles
    single = {tenant: frozenset(roles - everywhere) for tenant, roles in places.items() if roles - everywhere}
    return msgspec.structs.replace(
        principal,
        roles=frozenset(everywhere),
        tenants=None if everywhere else NONE,
        grants={tenant: single[tenant] for tenant in sorted(single)[:MAX_TENANTS]},
    )
