"""Tenancy: a row outside the caller's scope is as if it did not exist."""

from __future__ import annotations

import pytest

from purveyor_server.domain.errors import PurveyorError, Reason
from purveyor_server.store.contract import SYSTEM, Accept, Amend, Decision, Page, Scope, Store, Writes
from tests.store_contract import records
from tests.store_contract.records import look, provision, write

STRANGER = Scope(frozenset({"other"}))
NOBODY = Scope(frozenset())
OWNER = Scope(frozenset({"acme", "other"}))
ALL = Page(100)


async def filled(store: Store) -> str:
    accepted = await provision(store)
    made = (await look(store)).instance
    assert made is not None
    bound = records.binding(made)
    await write(store, Writes(bindings=(bound,), steps=(records.step(accepted),)))
    return accepted.operation_id


@pytest.mark.parametrize("scope", [STRANGER, NOBODY])
async def test_no_read_shows_a_row_of_another_tenant(store: Store, scope: Scope) -> None:
    operation_id = await filled(store)
    assert await store.instance(scope, "acme", "db") is None
    assert await store.instances(scope, "acme", (), ALL) == ()
    assert await store.binding(scope, "acme", "db", "app") is None
    assert await store.bindings(scope, "acme", "db", (), ALL) == ()
    assert await store.operation(scope, operation_id) is None
    assert await store.operations_named(scope, [operation_id]) == ()
    assert await store.operations(scope, "acme", (), ALL) == ()
    assert await store.steps(scope, operation_id) == ()


@pytest.mark.parametrize("scope", [OWNER, SYSTEM])
async def test_every_read_shows_the_rows_of_the_scope(store: Store, scope: Scope) -> None:
    operation_id = await filled(store)
    assert len(await store.operations_named(scope, [operation_id, "nobody"])) == 1
    assert await store.instance(scope, "acme", "db") is not None
    assert len(await store.instances(scope, "acme", (), ALL)) == 1
    assert await store.binding(scope, "acme", "db", "app") is not None
    assert len(await store.bindings(scope, "acme", "db", (), ALL)) == 1
    assert await store.operation(scope, operation_id) is not None
    assert len(await store.operations(scope, "acme", (), ALL)) == 1
    assert len(await store.steps(scope, operation_id)) == 1


async def test_a_list_of_one_tenant_holds_nothing_of_another(store: Store) -> None:
    await filled(store)
    await provision(store, "other", "db")
    found = await store.instances(OWNER, "other", (), ALL)
    assert [row.tenant for row in found] == ["other"]
    assert [row.tenant for row in await store.operations(OWNER, "other", (), ALL)] == ["other"]


async def test_an_amend_outside_the_scope_finds_nothing(store: Store) -> None:
    operation_id = await filled(store)
    with pytest.raises(PurveyorError) as caught:
        await store.amend(Amend(STRANGER, operation_id, lambda _: Writes()))
    assert caught.value.reason is Reason.OPERATION_NOT_FOUND


async def test_an_accept_outside_the_scope_is_not_even_decided(store: Store) -> None:
    await filled(store)

    def decide(_: object) -> Decision:
        raise AssertionError("it was decided")

    with pytest.raises(PurveyorError) as caught:
        await store.accept(Accept(STRANGER, "acme", "db", decide))
    assert caught.value.reason is Reason.INSTANCE_NOT_FOUND


async def test_a_command_cannot_write_rows_of_another_tenant(store: Store) -> None:
    made = records.instance("other", "db")
    with pytest.raises(ValueError, match="another"):
        await write(store, Writes(instances=(made,)))
    assert store.head == 0


async def test_the_same_ids_in_two_tenants_are_two_instances(store: Store) -> None:
    await provision(store, "acme", "db")
    await provision(store, "other", "db")
    mine = await store.instance(SYSTEM, "acme", "db")
    theirs = await store.instance(SYSTEM, "other", "db")
    assert mine is not None
    assert theirs is not None
    assert mine.uid != theirs.uid
