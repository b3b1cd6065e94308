"""The committed reads of the contract.

Guarantee: every query carries the caller's scope; a row outside it is as if it did not exist. Lists are keyset pages.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import TypeVar

import msgspec

from purveyor_server.domain.auditchain import Link, Marks
from purveyor_server.domain.drift import Observation
from purveyor_server.domain.filters import Comparator, Filter
from purveyor_server.domain.freezes import Freeze
from purveyor_server.domain.model import Binding, Event, Instance, Operation, PlanSnapshot, SealedSecret, Step
from purveyor_server.domain.platforms import InventoryReport, Placed
from purveyor_server.domain.quotas import PlanKey, Used
from purveyor_server.domain.recovery import Recovery
from purveyor_server.domain.tokens import Token
from purveyor_server.store.contract import Page, Scope
from purveyor_server.store.leases import Due
from purveyor_server.store.log import CompactedError
from purveyor_server.store.observing import Drifted
from purveyor_server.store.operating import WHOLE, AuditLook, AuditPage, Queue, TenantUsage
from purveyor_server.store.platforms import PlatformOrphan
from purveyor_server.store.sqlite import auditing, leases, observing, platforms, rows
from purveyor_server.store.sqlite.campaigns import CampaignReading
from purveyor_server.store.sqlite.catalogs import CatalogReads
from purveyor_server.store.sqlite.filters import BINDING_COLUMNS, INSTANCE_COLUMNS, OPERATION_COLUMNS, conditions
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.readers import Readers
from purveyor_server.store.sqlite.sightings import SightingTables

_SQL = load("reads")
_INSTANCE = _SQL["instance"]
_INSTANCES = _SQL["instances"]
_BINDING = _SQL["binding"]
_BINDINGS = _SQL["bindings"]
_OPERATION = _SQL["operation"]
_OPERATIONS_NAMED = _SQL["operations_named"]
_OPERATIONS = _SQL["operations"]
_OF_INSTANCE_ID = _SQL["of_instance_id"]
_STEPS = _SQL["steps"]
_SECRET = _SQL["secret"]
_PLAN = _SQL["plan"]
_EVENTS = _SQL["events"]
_META = _SQL["meta"]
_METAS = _SQL["metas"]
_SEALED = _SQL["sealed"]
_FREEZES = _SQL["freezes"]
_TOKEN = _SQL["token"]
_TOKENS = _SQL["tokens"]
_UNFINISHED = _SQL["unfinished"]
_HELD = _SQL["held"]
_EVERY_UNFINISHED = _SQL["every_unfinished"]
_EVERY_INSTANCE = _SQL["every_instance"]
_SETTING = _SQL["setting"]
_EARLIEST = _SQL["earliest"]
_ALIVE = _SQL["alive"]
_QUOTAS = load("quotas")
_TENANTS = _QUOTAS["tenants"]
_USED_BY = _QUOTAS["used_by"]
_SET_BY = _QUOTAS["set_by"]
_NEXT_TENANT = _QUOTAS["next_tenant"]
_MISCOUNTED = _QUOTAS["miscounted"]
_NOT_DELETED = " AND state <> 'DELETED'"

T = TypeVar("T")


def _tenants(scope: Scope) -> str | None:
    """The scope as a JSON array of tenants, None for every tenant."""
    return None if scope.tenants is None else msgspec.json.encode(sorted(scope.tenants)).decode()


class SqliteReads(CatalogReads, CampaignReading, SightingTables):
    """Reads over a pool of connections."""

    def __init__(self, readers: Readers) -> None:
        self._readers = readers

    async def _decoded(self, decode: Callable[[bytes], T], sql: str, keys: Sequence[object]) -> tuple[T, ...]:
        found = await self._readers.rows(sql, keys)
        try:
            return tuple([decode(row[0]) for row in found])
        except msgspec.DecodeError as error:
            raise self._readers.damaged(error) from error

    async def _one(self, decode: Callable[[bytes], T], sql: str, keys: Sequence[object]) -> T | None:
        found = await self._decoded(decode, sql, keys)
        return found[0] if found else None

    async def instance(self, scope: Scope, tenant: str, instance_id: str) -> Instance | None:
        if not scope.allows(tenant):
            return None
        return await self._one(rows.decode_instance, _INSTANCE, (tenant, instance_id))

    async def instances(
        self, scope: Scope, tenant: str, where: Filter, page: Page, *, deleted: bool = False
    ) -> tuple[Instance, ...]:
        extra, values = conditions(where, INSTANCE_COLUMNS)
        if not scope.allows(tenant):
            return ()
        sql = f"{_INSTANCES}{'' if deleted else _NOT_DELETED}{extra} ORDER BY uid LIMIT ?"
        return await self._decoded(rows.decode_instance, sql, (tenant, page.after, *values, page.limit))

    async def binding(self, scope: Scope, tenant: str, instance_id: str, binding_id: str) -> Binding | None:
        if not scope.allows(tenant):
            return None
        return await self._one(rows.decode_binding, _BINDING, (tenant, instance_id, binding_id))

    async def bindings(
        self, scope: Scope, tenant: str, instance_id: str, where: Filter, page: Page, *, deleted: bool = False
    ) -> tuple[Binding, ...]:
        extra, values = conditions(where, BINDING_COLUMNS)
        if not scope.allows(tenant):
            return ()
        if instance_id:
            extra, values = f" AND instance_id = ?{extra}", [instance_id, *values]
        sql = f"{_BINDINGS}{'' if deleted else _NOT_DELETED}{extra} ORDER BY uid LIMIT ?"
        return await self._decoded(rows.decode_binding, sql, (tenant, page.after, *values, page.limit))

    async def operation(self, scope: Scope, operation_id: str) -> Operation | None:
        return await self._one(rows.decode_operation, _OPERATION, (operation_id, _tenants(scope)))

    async def operations_named(self, scope: Scope, operation_ids: Sequence[str]) -> tuple[Operation, ...]:
        names = msgspec.json.encode(list(operation_ids)).decode()
        return await self._decoded(rows.decode_operation, _OPERATIONS_NAMED, (names, _tenants(scope)))

    async def operations(self, scope: Scope, tenant: str, where: Filter, page: Page) -> tuple[Operation, ...]:
        extra, values = conditions(where, OPERATION_COLUMNS)
        if not scope.allows(tenant):
            return ()
        for condition in where:
            if condition.field == "instance_id" and condition.comparator is Comparator.EQUAL:
                # An index path: the row's own instance_id is compared as well.
                extra += f" AND {_OF_INSTANCE_ID}"
                values += [tenant, condition.value] * 2
        sql = f"{_OPERATIONS}{extra} ORDER BY operation_id LIMIT ?"
        return await self._decoded(rows.decode_operation, sql, (tenant, page.after, *values, page.limit))

    async def steps(self, scope: Scope, operation_id: str) -> tuple[Step, ...]:
        return await self._decoded(rows.decode_step, _STEPS, (operation_id, _tenants(scope)))

    async def secret(self, owner: str, name: str) -> SealedSecret | None:
        found = await self._readers.rows(_SECRET, (owner, name))
        return rows.secret(found[0]) if found else None

    async def plan(self, digest: str) -> PlanSnapshot | None:
        return await self._one(rows.decode_plan, _PLAN, (digest,))

    async def events(self, after: int, limit: int) -> tuple[Event, ...]:
        found = await self._readers.rows(_EVENTS, (after, limit))
        earliest = found[0][0]
        if after < earliest - 1:
            raise CompactedError(earliest)
        return tuple([rows.event(row[1:]) for row in found if row[1] is not None])

    async def freezes(self) -> tuple[Freeze, ...]:
        return await self._decoded(rows.decode_freeze, _FREEZES, ())

    async def audit(self, where: Filter, look: AuditLook) -> AuditPage:
        return await auditing.find(self._readers, where, look)

    async def audit_marks(self) -> Marks:
        return await auditing.marks(self._readers)

    async def audit_links(self, after: int, last: int, limit: int) -> tuple[Link, ...]:
        return await auditing.links(self._readers, after, last, limit)

    async def quotas(self, page: Page, tenant: str = "") -> tuple[TenantUsage, ...]:
        found = [tenant] if tenant else [row[0] for row in await self._readers.rows(_TENANTS, (page.after, page.limit))]
        names = msgspec.json.encode(found).decode()
        kept = await self._decoded(rows.decode_quota, _SET_BY, (names,))
        used: dict[str, dict[PlanKey, Used]] = {name: {} for name in found}
        for name, service_id, plan_id, *counts in await self._readers.rows(_USED_BY, (names,)):
            used[name][PlanKey(service_id, plan_id)] = Used(*counts)
        return tuple(
            [TenantUsage(name, used[name], tuple([quota for quota in kept if quota.tenant == name])) for name in found]
        )

    async def next_tenant(self, after: str) -> str | None:
        found: str | None = (await self._readers.rows(_NEXT_TENANT, (after,)))[0][0]
        return found

    async def miscounted(self, tenant: str) -> int:
        return len(await self._readers.rows(_MISCOUNTED, (tenant,)))

    async def due_bindings(self, due: Due, until: datetime, page: Page, tenant: str = "") -> tuple[Binding, ...]:
        return await self._decoded(rows.decode_binding, *leases.due_question(due, until, page, tenant))

    async def rotations_since(self, at: datetime) -> int:
        return await leases.rotations_since(self._readers, at)

    async def token(self, token_id: str) -> Token | None:
        found = await self._readers.rows(_TOKEN, (token_id,))
        return rows.token(found[0]) if found else None

    async def tokens(self, page: Page) -> tuple[Token, ...]:
        return tuple([rows.token(row) for row in await self._readers.rows(_TOKENS, (page.after, page.limit))])

    async def recovery(self) -> Recovery | None:
        return await self._one(rows.decode_recovery, _SETTING, ("recovery",))

    async def queues(self) -> tuple[Queue, ...]:
        """Unfinished operations by provider and by what they wait for."""
        return tuple([rows.waiting_queue(row) for row in await self._readers.rows(_UNFINISHED)])

    async def held(self) -> int:
        """How many failed operations have remains that are kept for an operator."""
        count: int = (await self._readers.rows(_HELD))[0][0]
        return count

    async def earliest(self) -> int:
        """The earliest revision that is kept."""
        return int((await self._readers.rows(_EARLIEST))[0][0])

    async def every_unfinished(self, page: Page) -> tuple[Operation, ...]:
        after = page.after.partition("/")
        return await self._decoded(rows.decode_operation, _EVERY_UNFINISHED, (after[0], after[2], page.limit))

    async def every_instance(self, page: Page) -> tuple[Instance, ...]:
        return await self._decoded(rows.decode_instance, _EVERY_INSTANCE, (page.after, page.limit))

    async def due_looks(self, now: datetime, limit: int) -> tuple[Instance, ...]:
        return await self._decoded(rows.decode_instance, observing.SQL["due_looks"], (rows.micros(now), limit))

    async def observation(self, uid: str) -> Observation | None:
        return await self._one(observing.decode, observing.SQL["observation"], (uid,))

    async def drifted(self, page: Page) -> tuple[Drifted, ...]:
        return observing.drifted(await self._readers.rows(observing.SQL["drifted"], (page.after, page.limit)))

    async def drift_counts(self) -> dict[str, int]:
        return dict(await self._readers.rows(observing.SQL["drift_counts"]))

    async def placed(self, tenant: str, owner: str, page: Page) -> tuple[Placed, ...]:
        return platforms.placed(
            await self._readers.rows(platforms.SQL["placed"], (tenant, owner, page.after, page.limit))
        )

    async def last_inventory(self, tenant: str, owner: str) -> InventoryReport | None:
        return await self._one(platforms.decode, platforms.SQL["last_inventory"], (tenant, owner))

    async def platform_orphans(self, page: Page, grace: timedelta | None = None) -> tuple[PlatformOrphan, ...]:
        least = None if grace is None else grace // timedelta(microseconds=1)
        keys = (page.after, least, page.limit)
        return platforms.orphans(await self._readers.rows(platforms.SQL["platform_orphans"], keys))

    async def platform_orphan_count(self) -> int:
        return int((await self._readers.rows(platforms.SQL["platform_orphan_count"]))[0][0])

    async def meta(self, name: str) -> bytes | None:
        found = await self._readers.rows(_META, (name,))
        return found[0][0] if found else None

    async def metas(self, prefix: str) -> dict[str, bytes]:
        return dict(await self._readers.rows(_METAS, (prefix,)))

    async def sealed(self, after: tuple[str, str], limit: int, first: int = WHOLE) -> tuple[SealedSecret, ...]:
        return tuple([rows.secret(row) for row in await self._readers.rows(_SEALED, (first, *after, limit))])

    async def ping(self) -> None:
        """Raise STORE_UNAVAILABLE unless a read works."""
        await self._readers.rows(_ALIVE)
