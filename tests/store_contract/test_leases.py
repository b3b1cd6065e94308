"""Bindings by the times that they are due at, for every store."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from msgspec.structs import replace

from purveyor_server.domain.model import Binding
from purveyor_server.domain.states import BindingState
from purveyor_server.store.contract import Page, Store, Writes
from purveyor_server.store.leases import Due, due_time, place_of
from tests.store_contract import records
from tests.store_contract.records import START

HOUR = timedelta(hours=1)
ACTIVE, BLOCKED = BindingState.ACTIVE, BindingState.REVOCATION_BLOCKED


async def kept(store: Store, *bindings: Binding) -> None:
    await records.write(store, Writes(bindings=bindings), bindings[0].tenant)


async def names(store: Store, due: Due, hours: float, limit: int = 100, after: str = "", tenant: str = "") -> list[str]:
    found = await store.due_bindings(due, START + hours * HOUR, Page(limit, after), tenant)
    return [binding.binding_id for binding in found]


@pytest.mark.parametrize("due", Due)
async def test_what_is_due_for_longest_comes_first_page_by_page(store: Store, due: Due) -> None:
    of = records.instance()
    field = {Due.EXPIRY: "expires_at", Due.ROTATION: "rotate_at", Due.REVOCATION: "retry_at"}[due]
    state = BLOCKED if due is Due.REVOCATION else ACTIVE
    for number in (3, 1, 2, 5):
        await kept(store, records.binding(of, f"b{number}", state=state, **{field: START + number * HOUR}))
    await kept(store, records.binding(of, "never", state=state))
    assert await names(store, due, 4) == ["b1", "b2", "b3"]
    assert await names(store, due, 3) == ["b1", "b2", "b3"]
    assert await names(store, due, 0.9) == []
    found: list[str] = []
    after = ""
    while page := await store.due_bindings(due, START + 9 * HOUR, Page(2, after)):
        found += [binding.binding_id for binding in page]
        after = place_of(page[-1], due)
    assert found == ["b1", "b2", "b3", "b5"]
    assert due_time(page[-1] if page else records.binding(of), due) is None


async def test_bindings_of_the_same_moment_are_each_seen_once(store: Store) -> None:
    of = records.instance()
    for number in range(5):
        await kept(store, records.binding(of, f"b{number}", state=ACTIVE, expires_at=START))
    first = await store.due_bindings(Due.EXPIRY, START, Page(3))
    rest = await store.due_bindings(Due.EXPIRY, START, Page(3, place_of(first[-1], Due.EXPIRY)))
    assert len({binding.uid for binding in (*first, *rest)}) == 5


async def test_a_time_counts_only_in_its_state(store: Store) -> None:
    of = records.instance()
    times: dict[str, Any] = {"expires_at": START, "rotate_at": START, "retry_at": START}
    made = records.binding(of, state=ACTIVE, **times)
    for state, expected in {
        ACTIVE: [["app"], ["app"], []],
        BindingState.EXPIRED: [["app"], [], []],
        BindingState.UNBINDING: [[], [], []],
        BLOCKED: [[], [], ["app"]],
        BindingState.DELETED: [[], [], []],
    }.items():
        made = replace(made, state=state, version=made.version + 1)
        await kept(store, made)
        assert [await names(store, due, 1) for due in Due] == expected, state


async def test_one_tenant_or_all(store: Store) -> None:
    for tenant in ("acme", "others"):
        of = records.instance(tenant)
        await kept(store, records.binding(of, tenant, state=ACTIVE, expires_at=START))
    assert sorted(await names(store, Due.EXPIRY, 1)) == ["acme", "others"]
    assert await names(store, Due.EXPIRY, 1, tenant="others") == ["others"]


async def test_the_broker_s_own_successors_are_counted(store: Store) -> None:
    of = records.instance()
    await kept(store, records.binding(of, "a", rotated_at=START), records.binding(of, "b"))
    await kept(store, records.binding(of, "c", rotated_at=START + HOUR, state=BindingState.FAILED))
    assert await store.rotations_since(START - HOUR) == 2
    assert await store.rotations_since(START) == 1
