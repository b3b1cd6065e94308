"""The one door of every use-case.

Guarantee: whoever calls (a face, a loop) meets the same checks in the same order: drain, permission, tenant, the request
itself, then in one store command request id, etag, conflict matrix, digest, catalog and schema, capacity, and the writes.
What is accepted is stored whole before it is answered; a caller that goes away changes nothing.
Limit: knows no wire format and no provider; work is the engine's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from datetime import timedelta

from purveyor_server.domain.catalog import Catalog
from purveyor_server.domain.model import Binding, Instance, Json, Operation
from purveyor_server.kit.clock import Clock
from purveyor_server.lifecycle import events, inventories, operations, reads
from purveyor_server.lifecycle.adopt import adopt
from purveyor_server.lifecycle.bind import bind
from purveyor_server.lifecycle.contract import (
    ZERO,
    Adopt,
    Bind,
    Caller,
    Deprovision,
    Following,
    Listing,
    OperationDetails,
    Outcome,
    PageOf,
    Provision,
    Renew,
    Repair,
    Rotate,
    Told,
    Unbind,
    Update,
)
from purveyor_server.lifecycle.credentials import get_credentials
from purveyor_server.lifecycle.deprovision import deprovision
from purveyor_server.lifecycle.door import Door
from purveyor_server.lifecycle.expire import Lapse, expire
from purveyor_server.lifecycle.inventories import Part, Taken
from purveyor_server.lifecycle.kept import Kept
from purveyor_server.lifecycle.plans import PlanBook
from purveyor_server.lifecycle.ports import LifecycleSettings, Opener, Plans
from purveyor_server.lifecycle.provision import provision
from purveyor_server.lifecycle.renew import renew
from purveyor_server.lifecycle.repair import repair
from purveyor_server.lifecycle.rotate import rotate
from purveyor_server.lifecycle.running import Parts
from purveyor_server.lifecycle.unbind import unbind
from purveyor_server.lifecycle.update import update
from purveyor_server.store.contract import Store
from purveyor_server.watch.events import EventLog
from purveyor_server.watch.operations import OperationHub


class Lifecycle:
    """Every use-case as a method. Each raises `PurveyorError`; the reasons of each are listed in the contract.

    `digest_key` keys digests and fingerprints and is never changed; `token_key` authenticates page tokens.
    """

    def __init__(
        self,
        store: Store,
        catalog: Callable[[], Catalog],
        plans: Plans,
        hub: OperationHub,
        opener: Opener,
        *,
        log: EventLog,
        digest_key: bytes,
        token_key: bytes,
        clock: Clock,
        settings: LifecycleSettings | None = None,
        door: Door | None = None,
        catalog_moved: Callable[[float], Awaitable[None]] = asyncio.sleep,
    ) -> None:
        """`catalog_moved` returns after so many seconds, or when another catalog is served."""
        settings = settings or LifecycleSettings()
        self._door = door or Door()
        self._parts = Parts(
            store=store,
            catalog=catalog,
            plans=plans,
            book=PlanBook(store, catalog, plans, settings),
            hub=hub,
            log=log,
            opener=opener,
            digest_key=digest_key,
            token_key=token_key,
            clock=clock,
            settings=settings,
            door=self._door,
            kept=Kept(settings.max_kept),
            catalog_moved=catalog_moved,
        )
        store.subscribe(self._parts.kept.on_commit)

    @property
    def book(self) -> PlanBook:
        """The plans that its use-cases know."""
        return self._parts.book

    def drain(self) -> None:
        """From now on mutating calls are refused with DRAINING, and streams of events end after a last message; reads,
        waits and watches of operations go on."""
        self._door.drain()
        self._parts.log.close()

    async def get_catalog(self, caller: Caller, tenant: str) -> Catalog:
        """What the caller may order."""
        return reads.get_catalog(self._parts, caller, tenant)

    def watch_catalog(self, caller: Caller, tenant: str, heartbeat: timedelta) -> AsyncIterator[Catalog | None]:
        """What the caller may order, then None or what it has become; ends by a failure only."""
        return reads.watch_catalog(self._parts, caller, tenant, heartbeat)

    async def provision(self, caller: Caller, request: Provision) -> Outcome:
        """Make an instance, or answer again what an identical request made; never a second one."""
        return await provision(self._parts, caller, request)

    async def update(self, caller: Caller, request: Update) -> Outcome:
        """Change an instance. What concerns no provider is answered with an operation that has ended."""
        return await update(self._parts, caller, request)

    async def deprovision(self, caller: Caller, request: Deprovision) -> Outcome:
        """Give an instance back. With `allow_missing` and no instance, the outcome is empty."""
        return await deprovision(self._parts, caller, request)

    async def adopt(self, caller: Caller, request: Adopt) -> Outcome:
        """Bring an existing thing under management as an instance; for operators."""
        return await adopt(self._parts, caller, request)

    async def repair(self, caller: Caller, request: Repair) -> Outcome:
        """Make every piece of an instance again as it was applied; for operators."""
        return await repair(self._parts, caller, request)

    async def bind(self, caller: Caller, request: Bind) -> Outcome:
        """Make a binding; credentials come with the outcome when it is ACTIVE and the caller may read them."""
        return await bind(self._parts, caller, request)

    async def unbind(self, caller: Caller, request: Unbind) -> Outcome:
        """Revoke a binding. With `allow_missing` and no binding, the outcome is empty."""
        return await unbind(self._parts, caller, request)

    async def renew(self, caller: Caller, request: Renew) -> Outcome:
        """Move the end of a binding to a time; the same target again is the same answer."""
        return await renew(self._parts, caller, request)

    async def rotate(self, caller: Caller, request: Rotate) -> Outcome:
        """Make the successor of a binding, or answer the one that is there; credentials as in `bind`."""
        return await rotate(self._parts, caller, request)

    async def expire(self, lapse: Lapse) -> Outcome:
        """End a binding whose time is over; for the broker's own loop. Empty when there is nothing to do."""
        return await expire(self._parts, lapse)

    async def sync_inventory(self, caller: Caller, stream: AsyncIterator[Part]) -> Taken:
        """Take in what a platform still has; what it ordered and does not name becomes a platform-orphan."""
        return await inventories.sync_inventory(self._parts, caller, stream)

    async def claim_instance(
        self, caller: Caller, tenant: str, instance_id: str, request_id: str = "", *, validate_only: bool = False
    ) -> tuple[Instance, int]:
        """A platform says of one instance that it is its own; the instance, and how often it may say so again."""
        return await inventories.claim_instance(
            self._parts, caller, tenant, instance_id, request_id, validate_only=validate_only
        )

    async def get_instance(
        self, caller: Caller, tenant: str, instance_id: str, *, show_deleted: bool = False
    ) -> Instance:
        """One instance as it is stored."""
        return await reads.get_instance(self._parts, caller, tenant, instance_id, deleted=show_deleted)

    async def view_instance(
        self,
        caller: Caller,
        tenant: str,
        instance_id: str,
        encode: Callable[[Instance, Operation | None], bytes],
        *,
        show_deleted: bool = False,
    ) -> bytes:
        """One instance with its last operation, as `encode` makes it; the same bytes again until it changes."""
        return await reads.view_instance(self._parts, caller, tenant, instance_id, encode, deleted=show_deleted)

    async def list_instances(self, caller: Caller, listing: Listing) -> PageOf:
        """A page of `Instance`."""
        return await reads.list_instances(self._parts, caller, listing)

    async def get_binding(
        self, caller: Caller, tenant: str, instance_id: str, binding_id: str, *, show_deleted: bool = False
    ) -> Binding:
        """One binding as it is stored."""
        return await reads.get_binding(self._parts, caller, tenant, instance_id, binding_id, deleted=show_deleted)

    async def list_bindings(self, caller: Caller, listing: Listing) -> PageOf:
        """A page of `Binding`."""
        return await reads.list_bindings(self._parts, caller, listing)

    async def newest_operations(self, caller: Caller, records: Sequence[Instance | Binding]) -> dict[str, Operation]:
        """The last operations of records that were answered to this caller, by id."""
        return await reads.newest_operations(self._parts, caller, records)

    async def get_credentials(self, caller: Caller, tenant: str, instance_id: str, binding_id: str) -> dict[str, Json]:
        """Credentials of an ACTIVE binding, for readers of credentials and for its creator."""
        return await get_credentials(self._parts, caller, tenant, instance_id, binding_id)

    async def get_operation(self, caller: Caller, operation_id: str, full: bool = False) -> OperationDetails:  # noqa: FBT001, FBT002 - the face's shape
        """One operation, with its steps when `full`."""
        return await operations.get_operation(self._parts, caller, operation_id, full=full)

    async def list_operations(self, caller: Caller, listing: Listing) -> PageOf:
        """A page of `OperationDetails`."""
        return await operations.list_operations(self._parts, caller, listing)

    async def wait_operation(
        self,
        caller: Caller,
        operation_id: str,
        timeout: timedelta,  # noqa: ASYNC109 - how long the caller wants to wait, not a bound of this call
        full: bool = False,  # noqa: FBT001, FBT002 - the face's shape
    ) -> OperationDetails:
        """The operation when it is done, or as it is after `timeout`."""
        return await operations.wait_operation(self._parts, caller, operation_id, timeout, full=full)

    async def cancel_operation(
        self,
        caller: Caller,
        operation_id: str,
        *,
        etag: str = "",
        wait: timedelta = ZERO,
        validate_only: bool = False,
        request_id: str = "",
    ) -> OperationDetails:
        """Ask an operation to stop and undo what it did. The request id is only logged: cancelling again is harmless."""
        return await operations.cancel_operation(
            self._parts,
            caller,
            operation_id,
            etag=etag,
            wait=wait,
            validate_only=validate_only,
            request_id=request_id,
        )

    def watch_operation(
        self,
        caller: Caller,
        operation_id: str,
        full: bool = False,  # noqa: FBT001, FBT002 - the face's shape
        heartbeat: timedelta = timedelta(seconds=15),
    ) -> AsyncIterator[tuple[OperationDetails, bool]]:
        """The present state, then the newest on change or heartbeat (True); ends after the terminal state."""
        return operations.watch_operation(self._parts, caller, operation_id, heartbeat, full=full)

    def watch_events(self, caller: Caller, request: Following) -> AsyncIterator[Told]:
        """The changes of a tenant as they are stored; ends by a failure only."""
        return events.watch_events(self._parts, caller, request)
