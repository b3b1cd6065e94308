"""What sweeps have seen, inside of a command and in committed reads.

Guarantee: a decision and what it saw are one transaction; a list is a page.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Sequence
from datetime import datetime
from typing import TypeVar

import msgspec
from msgspec.structs import replace

from purveyor_server.domain.errors import PurveyorError, Reason, Resource
from purveyor_server.domain.model import PlanSnapshot
from purveyor_server.domain.orphans import Inventory, Knowledge, Sighting, SightingKey, SightingState, Thing
from purveyor_server.store.contract import Page
from purveyor_server.store.sightings import Due, Glimpse, InventoryChange, SightingChange
from purveyor_server.store.sqlite import rows
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.readers import Readers
from purveyor_server.store.sqlite.rows import Row
from purveyor_server.store.sqlite.transaction import Transaction

_SQL = load("sightings")
_PUT = _SQL["put"]
_ONE = _SQL["one"]
_SIGHTED = _SQL["sighted"]
_LIST = _SQL["list"]
_DUE = _SQL["due"]
_LOST = _SQL["lost"]
_FORGET = _SQL["forget"]
_COUNTS = _SQL["counts"]
_PUT_INVENTORY = _SQL["put_inventory"]
_INVENTORY = _SQL["inventory"]
_INVENTORIES = _SQL["inventories"]
_EVERY_PLAN = _SQL["every_plan"]
_RECORDS = _SQL["records"]
_AT_WORK = _SQL["at_work"]
_RECOVERY = load("upkeep")["setting"]
_decode = msgspec.json.Decoder(Sighting).decode
_decode_inventory = msgspec.json.Decoder(Inventory).decode

Found = TypeVar("Found")
Decide = Callable[[Thing, Sighting | None, Knowledge, datetime], Sighting | None]


# Commands.


def see(transaction: Transaction, provider: str, things: Sequence[Thing], decide: Decide) -> None:
    """Remember what `decide` says of each."""
    known = _known(transaction, [thing.uid for thing in things])
    for thing in things:
        before = _one(transaction, SightingKey(provider, thing.kind, thing.name))
        found = decide(thing, before, known.get(thing.uid, Knowledge()), transaction.now)
        if found is not None:
            _put(transaction, found)


def change(transaction: Transaction, key: SightingKey, decide: Callable[[Glimpse], SightingChange]) -> Sighting:
    """Change one. Raises ORPHAN_NOT_FOUND."""
    before = _one(transaction, key)
    if before is None:
        raise _not_found(key)
    uid = before.thing.uid
    glimpse = Glimpse(
        now=transaction.now,
        head=transaction.head,
        sighting=before,
        knowledge=_known(transaction, [uid]).get(uid, Knowledge()),
        inventory=_inventory(transaction, key.provider),
        freezes=transaction.freezes,
        recovering=transaction.connection.execute(_RECOVERY, ("recovery",)).fetchone() is not None,
    )
    change = decide(glimpse)
    _put(transaction, change.sighting)
    transaction.put_audit(*change.audit)
    return change.sighting


def change_inventory(
    transaction: Transaction, provider: str, decide: Callable[[Inventory | None, datetime], InventoryChange]
) -> Inventory:
    """Change what is remembered of a provider's sweeps."""
    change = decide(_inventory(transaction, provider), transaction.now)
    transaction.execute(_PUT_INVENTORY, (provider, rows.encode(change.inventory)))
    transaction.put_audit(*change.audit)
    return change.inventory


def lose(transaction: Transaction, provider: str, sweep: int, limit: int) -> int:
    """Call GONE what `sweep` has not seen."""
    found = transaction.connection.execute(_LOST, (provider, sweep, limit)).fetchall()
    for (body,) in found:
        _put(transaction, replace(_decode(body), state=SightingState.GONE))
    return len(found)


def forget(transaction: Transaction, before: datetime, limit: int) -> int:
    """Forget old ones that have ended."""
    return transaction.execute(_FORGET, (rows.micros(before), limit)).rowcount


def _one(transaction: Transaction, key: SightingKey) -> Sighting | None:
    row = transaction.connection.execute(_ONE, (key.provider, key.kind, key.name)).fetchone()
    return None if row is None else _decode(row[0])


def _inventory(transaction: Transaction, provider: str) -> Inventory | None:
    row = transaction.connection.execute(_INVENTORY, (provider,)).fetchone()
    return None if row is None else _decode_inventory(row[0])


def _put(transaction: Transaction, found: Sighting) -> None:
    thing = found.thing
    tried = 0 if found.tried_at is None else rows.micros(found.tried_at)
    keys = (found.provider, thing.kind, thing.name, thing.uid, str(found.state), found.sweep)
    transaction.execute(_PUT, (*keys, tried, rows.micros(found.last_seen), rows.encode(found)))


def _known(transaction: Transaction, uids: Sequence[str]) -> dict[str, Knowledge]:
    names = (_names(uids),)
    run = transaction.connection.execute
    return _told(run(_RECORDS, names).fetchall(), run(_AT_WORK, names).fetchall())


def _told(records: Iterable[Row], at_work: Iterable[Row]) -> dict[str, Knowledge]:
    found = {
        uid: Knowledge(state=state, resource=resource, exempt=bool(exempt)) for uid, state, resource, exempt in records
    }
    for uid, operation_id in at_work:
        before = found.get(uid, Knowledge())
        found[uid] = replace(before, operations=(*before.operations, operation_id))
    return found


def _names(values: Iterable[str]) -> str:
    return msgspec.json.encode(list(values)).decode()


def _not_found(key: SightingKey) -> PurveyorError:
    return PurveyorError(
        Reason.ORPHAN_NOT_FOUND,
        f"no sweep of {key.provider!r} has seen the {key.kind} {key.name!r} without a record",
        metadata={"provider": key.provider, "kind": key.kind, "name": key.name},
        resource=Resource("orphan", f"{key.provider}/{key.kind}/{key.name}"),
    )


class SightingTables:
    """Committed reads; a part of `SqliteReads`."""

    _readers: Readers

    async def knowledge(self, uids: Sequence[str]) -> dict[str, Knowledge]:
        names = (_names(uids),)
        # Operations first: what ends between the two reads has its record by then.
        at_work = await self._readers.rows(_AT_WORK, names)
        return _told(await self._readers.rows(_RECORDS, names), at_work)

    def _believed(self, decode: Callable[[bytes], Found], bodies: Iterable[bytes]) -> list[Found]:
        try:
            return [decode(body) for body in bodies]
        except msgspec.DecodeError as error:
            raise self._readers.damaged(error) from error

    async def sighted(self, provider: str, uids: Sequence[str]) -> tuple[Sighting, ...]:
        found = await self._readers.rows(_SIGHTED, (provider, _names(uids)))
        return tuple(self._believed(_decode, [row[0] for row in found]))

    async def sighting(self, key: SightingKey) -> Sighting | None:
        found = await self._readers.rows(_ONE, (key.provider, key.kind, key.name))
        return next(iter(self._believed(_decode, [row[0] for row in found])), None)

    async def sightings(
        self, page: Page, provider: str = "", states: Collection[SightingState] = ()
    ) -> tuple[tuple[str, Sighting], ...]:
        keys = (int(page.after or 0), provider, _names(sorted(states)), page.limit)
        found = await self._readers.rows(_LIST, keys)
        read = self._believed(_decode, [row[1] for row in found])
        return tuple([(str(row[0]), sighting) for row, sighting in zip(found, read, strict=True)])

    async def due_sightings(
        self, provider: str, sweep: int, state: SightingState, after: tuple[int, int], limit: int
    ) -> tuple[Due, ...]:
        found = await self._readers.rows(_DUE, (provider, str(state), sweep, *after, limit))
        read = self._believed(_decode, [row[0] for row in found])
        return tuple([Due(sighting, row[1], row[2]) for row, sighting in zip(found, read, strict=True)])

    async def count_sightings(self) -> dict[tuple[str, SightingState], int]:
        found = await self._readers.rows(_COUNTS)
        return {(provider, SightingState(state)): count for provider, state, count in found}

    async def inventory(self, provider: str) -> Inventory | None:
        found = await self._readers.rows(_INVENTORY, (provider,))
        return next(iter(self._believed(_decode_inventory, [row[0] for row in found])), None)

    async def inventories(self) -> tuple[Inventory, ...]:
        found = await self._readers.rows(_INVENTORIES)
        return tuple(self._believed(_decode_inventory, [row[0] for row in found]))

    async def every_plan(self, page: Page) -> tuple[PlanSnapshot, ...]:
        found = await self._readers.rows(_EVERY_PLAN, (page.after, page.limit))
        return tuple(self._believed(rows.decode_plan, [row[0] for row in found]))
