"""Catalogs in the store.

Guarantee: the newest version, its plan snapshots and its audit record are one command, and what the change was judged by is
compared in it; a version is never changed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from purveyor_server.domain.errors import PurveyorError, Reason, Resource
from purveyor_server.domain.model import Instance, PlanSnapshot
from purveyor_server.domain.quotas import PlanKey, Used
from purveyor_server.store.catalogs import CatalogChange, CatalogVersion, Origin
from purveyor_server.store.contract import Page
from purveyor_server.store.sqlite import rows
from purveyor_server.store.sqlite.queries import load
from purveyor_server.store.sqlite.readers import Readers
from purveyor_server.store.sqlite.rows import Row
from purveyor_server.store.sqlite.transaction import Transaction

_SQL = load("catalogs")
_NEWEST, _VERSION, _HISTORY = (_SQL[name] for name in ("newest", "version", "history"))
_OF_FILE, _OF_REQUEST = _SQL["of_file"], _SQL["of_request"]
_PUT, _PUT_PLAN = _SQL["put"], _SQL["put_plan"]
_USAGE, _INSTANCES = _SQL["plan_usage"], _SQL["instances_of_plan"]
RETRY = 1.0  # seconds


def apply(
    transaction: Transaction, digest: str, body: str, plans: tuple[PlanSnapshot, ...], change: CatalogChange
) -> CatalogVersion:
    """Store a catalog as the newest version, unless the newest has the same digest or the request made one before."""
    run = transaction.connection.execute
    if change.request_id and (row := run(_OF_REQUEST, (change.principal, change.request_id)).fetchone()) is not None:
        return _again(_catalog(row), digest, change)
    row = run(_NEWEST).fetchone()
    newest = _catalog(row) if row is not None else None
    _check(transaction, newest, change)
    for plan in plans:
        transaction.execute(_PUT_PLAN, (plan.digest, rows.encode(plan)))
    if newest is not None and newest.digest == digest:
        return newest
    number = newest.version + 1 if newest is not None else 1
    made = CatalogVersion(
        number, digest, body, transaction.now, change.principal, change.reason, change.origin, change.request_id
    )
    told = (made.principal, made.reason, str(made.origin), made.request_id)
    transaction.execute(_PUT, (number, digest, body, transaction.now_micros, *told))
    if change.record is not None:
        transaction.put_audit(change.record(made))
    return made


def _again(found: CatalogVersion, digest: str, change: CatalogChange) -> CatalogVersion:
    if found.digest == digest:
        return found
    raise PurveyorError(
        Reason.REQUEST_ID_REUSED,
        f"the request id {change.request_id!r} has applied another catalog before",
        metadata={"request_id": change.request_id, "version": str(found.version)},
    )


def _check(transaction: Transaction, newest: CatalogVersion | None, change: CatalogChange) -> None:
    number = newest.version if newest is not None else 0
    if change.expected is not None and change.expected != number:
        raise moved_on(change.expected, number)
    if change.used is None:
        return
    used = _usage(transaction.connection.execute(_USAGE).fetchall())
    if _in_use(used) != _in_use(change.used):
        raise PurveyorError(
            Reason.OPERATION_IN_PROGRESS,
            "plans came into use, or out of it, while the catalog was judged: send it again",
            retry_after=RETRY,
        )


def moved_on(expected: int, number: int) -> PurveyorError:
    """ETAG_MISMATCH for a catalog that was made for another one than the newest."""
    return PurveyorError(
        Reason.ETAG_MISMATCH,
        f"the newest catalog is version {number}, not {expected}: look at it first",
        metadata={"expected": str(expected), "current": str(number)},
        resource=Resource("catalog", str(number)),
    )


def _in_use(used: Mapping[PlanKey, Used]) -> tuple[set[PlanKey], set[PlanKey]]:
    """Plans that have any instance, and those that have any binding."""
    return {key for key, of in used.items() if of.instances}, {key for key, of in used.items() if of.bindings}


def _catalog(row: Row) -> CatalogVersion:
    version, digest, body, applied_at, principal, reason, origin, request_id = row
    return CatalogVersion(version, digest, body, rows.moment(applied_at), principal, reason, Origin(origin), request_id)


def _usage(found: Sequence[Row]) -> dict[PlanKey, Used]:
    return {PlanKey(service, plan): Used(instances, bindings) for service, plan, instances, bindings in found}


class CatalogReads:
    """The reads, over a pool of connections."""

    _readers: Readers

    async def _catalogs(self, sql: str, *keys: object) -> tuple[CatalogVersion, ...]:
        return tuple([_catalog(row) for row in await self._readers.rows(sql, keys)])

    async def catalog(self) -> CatalogVersion | None:
        return next(iter(await self._catalogs(_NEWEST)), None)

    async def catalog_version(self, version: int) -> CatalogVersion | None:
        return next(iter(await self._catalogs(_VERSION, version)), None)

    async def catalog_history(self, before: int, limit: int) -> tuple[CatalogVersion, ...]:
        return await self._catalogs(_HISTORY, before, limit)

    async def catalog_of_file(self) -> CatalogVersion | None:
        return next(iter(await self._catalogs(_OF_FILE)), None)

    async def catalog_of_request(self, principal: str, request_id: str) -> CatalogVersion | None:
        return next(iter(await self._catalogs(_OF_REQUEST, principal, request_id)), None)

    async def plan_usage(self) -> dict[PlanKey, Used]:
        return _usage(await self._readers.rows(_USAGE))

    async def instances_of_plan(self, plan: PlanKey, page: Page) -> tuple[Instance, ...]:
        keys = (plan.service_id, plan.plan_id, page.after, page.limit)
        return tuple([rows.decode_instance(row[0]) for row in await self._readers.rows(_INSTANCES, keys)])
