"""Sealed values: read in the order of their keys, replaced only while they are what was read."""

from __future__ import annotations

from purveyor_server.domain.audit import AuditRecord
from purveyor_server.domain.model import SealedSecret
from purveyor_server.store.contract import SYSTEM, Accept, Decision, Situation, Store, Writes
from purveyor_server.store.operating import AuditLook, MetaSwap, Resealed
from tests.store_contract.conftest import OpenStore
from tests.store_contract.records import START

RECORD = AuditRecord(at=START, principal="op", action="RotateKeys", resource="key/k2", reason="test")
ROWS = [SealedSecret(owner, name, f"{owner}:{name}:".encode() * 20) for owner in ("a", "b", "c") for name in ("x", "y")]


async def put(store: Store, *rows: SealedSecret, erase: tuple[str, ...] = ()) -> None:
    def decide(_situation: Situation) -> Decision:
        return Decision(Writes(secrets=rows, erase=erase))

    await store.accept(Accept(SYSTEM, "acme", "any", decide))


async def test_values_come_in_the_order_of_their_keys_and_whole_or_in_part(store: Store) -> None:
    await put(store, *reversed(ROWS))
    seen: list[SealedSecret] = []
    after = ("", "")
    while page := await store.sealed(after, 4):
        seen += page
        after = (page[-1].owner, page[-1].name)

    assert seen == ROWS
    assert [row.sealed for row in await store.sealed(("b", "x"), 2, 3)] == [b"b:y", b"c:x"]


async def test_a_value_is_replaced_only_as_it_was_read(store: Store, open_store: OpenStore) -> None:
    await put(store, *ROWS)
    changes = [Resealed(row.owner, row.name, row.sealed, b"new") for row in ROWS]
    await put(store, SealedSecret("a", "x", b"changed meanwhile"), erase=("c",))

    assert await store.reseal(changes) == 3
    assert await store.reseal(changes) == 0

    await store.close()
    again = await open_store()
    assert [(row.owner, row.name, row.sealed) for row in await again.sealed(("", ""), 10)] == [
        ("a", "x", b"changed meanwhile"),
        ("a", "y", b"new"),
        ("b", "x", b"new"),
        ("b", "y", b"new"),
    ]


async def test_values_of_the_store_itself_are_swapped_with_their_record(store: Store) -> None:
    for name in ("key.a", "key.b", "key.c", "ke%", "other"):
        await store.put_meta(name, name.encode())

    swaps = [
        MetaSwap("key.a", b"key.a", b"new"),
        MetaSwap("key.b", b"stale", b"new"),
        MetaSwap("key.c", b"key.c", None),
    ]
    assert await store.swap_metas(swaps, RECORD) == 2
    assert await store.swap_metas([MetaSwap("key.b", b"stale", None)]) == 0

    assert await store.metas("key.") == {"key.a": b"new", "key.b": b"key.b"}
    assert await store.metas("ke%") == {"ke%": b"ke%"}
    assert [found.record.action for found in (await store.audit((), AuditLook(10))).records] == ["RotateKeys"]
