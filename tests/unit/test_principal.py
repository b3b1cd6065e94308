"""Roles count where they are held, and nowhere else."""

from __future__ import annotations

import pytest

from purveyor_server.domain.principal import LOCAL, NONE, Principal
from purveyor_server.lifecycle.contract import Caller

VIEWER, CONSUMER = frozenset({"VIEWER"}), frozenset({"CONSUMER"})
OPERATOR = frozenset({"OPERATOR"})
WORKER = Principal(subject="w", roles=VIEWER, tenants=frozenset({"a", "b"}), grants={"b": CONSUMER, "c": CONSUMER})


@pytest.mark.parametrize(
    ("tenant", "roles"), [("a", VIEWER), ("b", VIEWER | CONSUMER), ("c", CONSUMER), ("d", NONE), ("", NONE)]
)
def test_roles_in_a_tenant(tenant: str, roles: frozenset[str]) -> None:
    assert WORKER.roles_in(tenant) == roles
    assert Caller(WORKER).roles_in(tenant) == roles
    assert Caller(WORKER, only="a").roles_in(tenant) == (roles if tenant == "a" else NONE)


@pytest.mark.parametrize(
    ("needed", "tenants"),
    [(VIEWER, {"a", "b"}), (CONSUMER, {"b", "c"}), (VIEWER | CONSUMER, {"a", "b", "c"}), (OPERATOR, set())],
)
def test_tenants_with_a_role(needed: frozenset[str], tenants: set[str]) -> None:
    assert WORKER.tenants_with(needed) == frozenset(tenants)
    assert Caller(WORKER).tenants_with(needed) == frozenset(tenants)
    assert Caller(WORKER, only="a").tenants_with(needed) == frozenset(tenants) & {"a"}


def test_every_tenant_is_none_and_nothing_is_empty() -> None:
    assert LOCAL.tenants_with(OPERATOR) is None
    assert Caller(LOCAL, only="a").tenants_with(OPERATOR) == frozenset({"a"})
    assert Principal(subject="nobody").tenants_with(VIEWER) == NONE
    assert Principal(subject="nobody", roles=VIEWER).roles_in("a") == NONE


def test_a_role_of_the_whole_broker_is_one_in_every_tenant() -> None:
    assert LOCAL.holds("OPERATOR")
    assert not Principal(subject="o", roles=OPERATOR, tenants=frozenset({"a"})).holds("OPERATOR")
    assert not Principal(subject="o", grants={"a": OPERATOR}, tenants=None).holds("OPERATOR")
    assert not Principal(subject="o", roles=VIEWER, tenants=None).holds("OPERATOR")
